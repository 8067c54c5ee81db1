"""What must be known of, and set on, the interfaces of the wire: netdevice(7) requests, in this network namespace."""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass

from mobiscud.core.errors import SetupError

SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFHWADDR = 0x8913, 0x8914, 0x8927
IFF_UP, IFF_PROMISC = 0x1, 0x100
REQUEST = struct.Struct("=16sH22x")  # struct ifreq with flags; a link address has its family there


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as it was found."""

    name: str
    index: int
    mac: str
    promiscuous: bool


def inspect(name: str) -> Interface:
    """Look at an interface.

    :raises SetupError: there is none of that name, or it is down
    """
    try:
        index = socket.if_nametoindex(name)
        flags = _flags(name)
        mac = _request(SIOCGIFHWADDR, name)[18:24].hex(":")
    except OSError as error:
        raise SetupError(f"there is no interface {name!r} in this network namespace") from error
    if not flags & IFF_UP:
        raise SetupError(f"interface {name!r} is down: ip link set {name} up")
    return Interface(name, index, mac, bool(flags & IFF_PROMISC))


def set_promiscuous(name: str, on: bool) -> None:
    """Take in all frames, whomever they are addressed to, or only one's own; harmless where it has gone away.

    :raises SetupError: no privilege
    """
    try:
        flags = _flags(name)
        _request(SIOCSIFFLAGS, name, flags | IFF_PROMISC if on else flags & ~IFF_PROMISC)
    except PermissionError as error:
        raise SetupError(f"cannot make {name!r} take in all frames: this needs root (CAP_NET_ADMIN)") from error
    except OSError:
        pass


def _flags(name: str) -> int:
    (_, flags) = REQUEST.unpack_from(_request(SIOCGIFFLAGS, name))
    return int(flags)


def _request(number: int, name: str, flags: int = 0) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return fcntl.ioctl(probe, number, REQUEST.pack(name.encode(), flags))
