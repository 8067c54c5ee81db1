"""Sockets that live in another network namespace than the process that uses them.

A socket belongs for ever to the namespace its thread was in when it was made, so one process can hold sockets in
many: step in with setns(2), open, step back. The step covers the whole thread, hence it must hold no ``await``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobiscud.core.errors import SetupError

NETNS_DIRECTORY = Path("/run/netns")
"""Where ip-netns(8) keeps the named namespaces."""

_CLONE_NEWNET = 0x4000_0000
_SIOCGIFHWADDR = 0x8927
_TUNSETIFF = 0x4004_54CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Stay in the named network namespace for the length of a ``with`` block that does not await.

    :raises SetupError: when there is no such namespace, or the right to enter it is missing
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            there = os.open(NETNS_DIRECTORY / namespace, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"network namespace {namespace}: {error.strerror}") from error
        try:
            _enter(there, namespace)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home, "at home")
    finally:
        os.close(home)


def _enter(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise SetupError(f"network namespace {name}: {os.strerror(ctypes.get_errno())}")


def socket_in(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Make a non-blocking socket in the named namespace.

    :raises SetupError: as :func:`inside`
    :raises OSError: as socket(2)
    """
    with inside(namespace):
        made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made


def udp_socket(namespace: str, address: str, port: int, *, buffer_bytes: int = 1 << 20) -> socket.socket:
    """Make a bound, non-blocking UDP socket with a receive buffer that outlasts a pause of the event loop."""
    made = socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise SetupError(f"UDP {address}:{port} in {namespace}: {error.strerror}") from error
    return made


def tun_device(namespace: str, name: str) -> int:
    """Make a TUN device (plain IP packets, one a read or write) and give its non-blocking descriptor.

    The device vanishes when the descriptor is closed.
    """
    with inside(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        except OSError as error:
            os.close(descriptor)
            raise SetupError(f"TUN device {name} in {namespace}: {error.strerror}") from error
    return descriptor


def mac_address(namespace: str, device: str) -> bytes:
    """Read the six octets of a device's link address."""
    with socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFHWADDR, struct.pack("16s24x", device.encode()))
        except OSError as error:
            raise SetupError(f"device {device} in {namespace}: {error.strerror}") from error
    return answer[18:24]


def device_index(namespace: str, device: str) -> int:
    """Look up the number by which netlink and packet sockets know a device."""
    with inside(namespace):
        try:
            return socket.if_nametoindex(device)
        except OSError as error:
            raise SetupError(f"device {device} in {namespace}: {error.strerror}") from error


def write_sysctl(namespace: str, key: str, value: str) -> None:
    """Set ``net.KEY`` of the namespace, the key written with slashes: ``ipv4/ip_forward``."""
    with inside(namespace):
        Path("/proc/sys/net", key).write_text(value)


def ip(namespace: str, *words: str) -> None:
    """Run ip(8) in the namespace; for set-up, not for the path of packets.

    :raises SetupError: with what ip(8) said
    """
    _run("ip", "-n", namespace, *words)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SetupError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)}: {done.stderr.strip()}")
