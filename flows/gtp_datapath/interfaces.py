"""What must be known of, and set on, the interfaces of the wire: netdevice(7) requests, in this network namespace."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Final

from mobiscud.core.errors import SetupError

SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFHWADDR, SIOCETHTOOL = 0x8913, 0x8914, 0x8927, 0x8946
IFF_UP, IFF_PROMISC = 0x1, 0x100
REQUEST = struct.Struct("=16sH22x")  # struct ifreq with flags; a link address has its family there
ETHTOOL_REQUEST = struct.Struct("=16sQ16x")  # struct ifreq with a pointer
ETHTOOL_VALUE = struct.Struct("=II")  # struct ethtool_value
GRO: Final = 0x2B, 0x2C  # ETHTOOL_GGRO, ETHTOOL_SGRO: merging of received frames into larger ones
FLAGS: Final = 0x25, 0x26
LRO: Final = 1 << 15  # ETH_FLAG_LRO: the same, done by the card


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as it was found. ``merging``: the kernel (or the card) hands on several received frames as one."""

    name: str
    index: int
    mac: str
    promiscuous: bool
    merging: bool = False
    merging_card: bool = False

    @property
    def merges(self) -> bool:
        """Whether a frame may come in that was several on the wire."""
        return self.merging or self.merging_card


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
    merging = bool(_ethtool(name, GRO[0]))
    return Interface(name, index, mac, bool(flags & IFF_PROMISC), merging, bool(_ethtool(name, FLAGS[0]) & LRO))


def prepare(interface: Interface, *, promiscuous: bool) -> None:
    """Make it take in every frame as it is on the wire. A merged frame could not lose its headers in one piece.

    :raises SetupError: no privilege
    """
    if promiscuous:
        set_promiscuous(interface.name, True)
    if interface.merging:
        _ethtool(interface.name, GRO[1], 0)
    if interface.merging_card:
        _ethtool(interface.name, FLAGS[1], _ethtool(interface.name, FLAGS[0]) & ~LRO)


def restore(interface: Interface) -> None:
    """Leave it as it was found; harmless where it has gone away."""
    set_promiscuous(interface.name, interface.promiscuous)
    if interface.merging:
        _ethtool(interface.name, GRO[1], 1)
    if interface.merging_card:
        _ethtool(interface.name, FLAGS[1], _ethtool(interface.name, FLAGS[0]) | LRO)


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


def _ethtool(name: str, command: int, value: int = 0) -> int:
    """Ask for a setting, or change it; 0 where the interface does not know it."""
    held = ctypes.create_string_buffer(ETHTOOL_VALUE.pack(command, value), ETHTOOL_VALUE.size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe, SIOCETHTOOL, ETHTOOL_REQUEST.pack(name.encode(), ctypes.addressof(held)))
        except OSError:
            return 0
    _, found = ETHTOOL_VALUE.unpack(held.raw)
    return int(found)
