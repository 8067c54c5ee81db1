"""Live capture: AF_PACKET sockets with a kernel filter, a large buffer and kernel time stamps.

All interfaces of a kind share one socket. So what is read comes in the order in which the kernel has received it, over
all of them, and no clock is asked: clocks are set back now and then, and a question must not come after its answer.

Nothing is read far ahead of who consumes the frames: what waits, waits in the kernel's buffer, and what does not fit
there is counted. A VLAN tag that the network card has taken off is not missed, since nothing here depends on it.

An interface that goes down, or is no more, is said and looked for until it is back. That needs no privilege: a packet
socket, once open, may be given another filter, and be bound again, by anybody.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import structlog

from epc_monitor.bpf import ethernet_filter, ip_filter
from epc_monitor.frames import LINKTYPE_ETHERNET, LINKTYPE_RAW, Frame
from mobiscud.core.errors import SetupError

BUFFER_BYTES: Final = 64 << 20
LOOK_EVERY_S: Final = 1.0
"""How long ``batches`` keeps silent when nothing comes, and how often it looks for interfaces that are away."""

MOST_INTERFACES: Final = 64

_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS = 1, 6
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 3
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8913, 0x8927, 0x8933
_IFNAMSIZ, _IFF_UP = 16, 1
_LARGEST_FRAME = 0x11000
_FRAMES_AT_ONCE = 512

_timespec = struct.Struct("qq")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_timespec.size)

_libc: Final = ctypes.CDLL(None, use_errno=True)

log = structlog.get_logger(__name__)


class LiveCapture:
    """Captures on several interfaces at once; an asynchronous context manager.

    ``notes`` says in words what is less than it could be, and the mend.
    """

    def __init__(self, interfaces: Sequence[str], buffer_bytes: int = BUFFER_BYTES) -> None:
        """``buffer_bytes``: of the kernel, for all interfaces of a kind together."""
        self.interfaces = tuple(dict.fromkeys(interfaces))
        self.notes: list[str] = []
        self.buffer_bytes = buffer_bytes
        self._taps: list[_Tap] = []

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the sockets; from here on the privileges are no longer needed.

        :raises SetupError: an interface is not there, or the privilege is missing
        """
        wanted = self.buffer_bytes
        if len(self.interfaces) > MOST_INTERFACES:
            raise SetupError(
                f"{len(self.interfaces)} interfaces are too many for one monitor: {MOST_INTERFACES} at most"
            )
        try:
            for linktype, names in self._by_linktype().items():
                tap = _Tap(linktype, names, wanted)
                self._taps.append(tap)
                self.buffer_bytes = min(self.buffer_bytes, tap.buffer_bytes)
        except BaseException:
            self.close()
            raise
        if self.buffer_bytes < wanted:
            self.notes.append(
                f"receive buffer is {self.buffer_bytes >> 10} KiB instead of {wanted >> 10} KiB: "
                "give CAP_NET_ADMIN, or raise net.core.rmem_max"
            )

    def close(self) -> None:
        for tap in self._taps:
            tap.socket.close()
        self._taps.clear()

    async def batches(self) -> AsyncIterator[list[Frame]]:
        """Frames as they come, in the kernel's order, at most a few hundred at once.

        That order holds over all interfaces of a kind, with Ethernet or without; those with Ethernet are read first. A
        batch may be empty, and is when nothing has come for ``LOOK_EVERY_S``.
        """
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            frames = self._read()
            if not frames:
                await self._readable(LOOK_EVERY_S)
                frames = self._read()
            if loop.time() - looked >= LOOK_EVERY_S:
                looked = loop.time()
                for tap in self._taps:
                    tap.follow()
            yield frames
            await asyncio.sleep(0)

    @property
    def away(self) -> list[str]:
        """The interfaces that are down or gone."""
        return [name for tap in self._taps for name in tap.away]

    def drops(self) -> list[tuple[str | None, int]]:
        """Frames the kernel had no room for, since this was last asked, and where: None when it was one of several."""
        return [(tap.alone, count) for tap in self._taps if (count := tap.dropped())]

    def _by_linktype(self) -> dict[int, list[str]]:
        """The interfaces of each kind, Ethernet first."""
        found: dict[int, list[str]] = {LINKTYPE_ETHERNET: [], LINKTYPE_RAW: []}
        with _packet_socket(socket.SOCK_RAW) as asking:
            for name in self.interfaces:
                link = _look(asking, name)
                if link is None:
                    there = ", ".join(name for _, name in socket.if_nameindex())
                    raise SetupError(f"there is no interface {name}; there are: {there}")
                found[link.linktype].append(name)
        return {linktype: names for linktype, names in found.items() if names}

    def _read(self) -> list[Frame]:
        return [frame for tap in self._taps for frame in tap.read()]

    async def _readable(self, within_s: float) -> None:
        """Wait until one of the sockets has something to say."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        descriptors = [tap.socket.fileno() for tap in self._taps]
        for descriptor in descriptors:
            loop.add_reader(descriptor, wake)
        timer = loop.call_later(within_s, wake)
        try:
            await waiter
        finally:
            timer.cancel()
            for descriptor in descriptors:
                loop.remove_reader(descriptor)


@dataclass(frozen=True, slots=True)
class _Link:
    """An interface as it is now. ``loops``: what goes out there comes in again."""

    index: int
    linktype: int
    loops: bool
    up: bool


class _Tap:
    """One packet socket for all interfaces of a kind: with Ethernet, or those whose IP packets are taken.

    An interface that is alone is bound to, which spares the others' frames the way through the filter.
    """

    def __init__(self, linktype: int, names: Sequence[str], buffer_bytes: int) -> None:
        self.linktype = linktype
        self.away: list[str] = []
        self.alone = names[0] if len(names) == 1 else None
        self._names = names
        self._listening: Mapping[str, int] = {}  # to which index of each
        self.socket = _packet_socket(socket.SOCK_RAW if linktype == LINKTYPE_ETHERNET else socket.SOCK_DGRAM)
        try:
            self.buffer_bytes = self._enlarge(buffer_bytes)
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self.follow()
        except BaseException:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self._buffer = bytearray(_LARGEST_FRAME)
        self._view = memoryview(self._buffer)

    def read(self) -> list[Frame]:
        """What has come, up to a bound."""
        frames: list[Frame] = []
        receive, buffer, view, linktype = self.socket.recvmsg_into, [self._buffer], self._view, self.linktype
        for _ in range(_FRAMES_AT_ONCE):
            try:
                size, ancillary, _, address = receive(buffer, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in (errno.ENETDOWN, errno.ENXIO):
                    raise
                break  # the interface bound to is away; ``follow`` sees to it
            seconds, nanoseconds = _timespec.unpack(ancillary[0][2])
            at = seconds * 1_000_000_000 + nanoseconds
            frames.append(Frame(at, linktype, bytes(view[:size]), address[0] or None))
        return frames

    def follow(self) -> None:
        """See what has become of the interfaces. One that was deleted and made anew is another one to the kernel."""
        found = {name: link for name in self._names if (link := _look(self.socket, name)) is not None}
        there = {name: link for name, link in found.items() if link.linktype == self.linktype}
        indices = {name: link.index for name, link in there.items()}
        let_go = self.alone is not None and self.socket.getsockname()[0] != self.alone
        if indices != self._listening or (there and let_go):
            try:
                self._listen(there)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                return  # one is gone again already; the next look will see
            self._listening = indices
        away = [name for name in self._names if name not in there or not there[name].up]
        for name in away:
            if name not in self.away:
                log.warning("interface is down or gone; what passes there meanwhile is not seen", interface=name)
        for name in self.away:
            if name not in away:
                log.info("interface is back", interface=name)
        self.away = away

    def dropped(self) -> int:
        """Frames dropped since the last call; asking sets the kernel's counter back."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("II", statistics)[1])

    def _listen(self, links: Mapping[str, _Link]) -> None:
        """Take the frames of these interfaces, also those for others, as mirrored ports bring them."""
        indices = [link.index for link in links.values()]
        if self.linktype == LINKTYPE_ETHERNET:
            self._attach(ethernet_filter(indices, [link.index for link in links.values() if link.loops]))
        else:
            self._attach(ip_filter(indices))
        for index in indices:
            request = struct.pack("iHH8s", index, _PACKET_MR_PROMISC, 0, b"")
            self.socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        if links:
            self._bind(0 if self.alone is None else indices[0])

    def _bind(self, index: int) -> None:
        """Receive from the interface, or with 0 from all of them, for which ``socket.bind`` has no word."""
        address = struct.pack("HHiHBB8x", socket.AF_PACKET, socket.htons(_ETH_P_ALL), index, 0, 0, 0)
        if _libc.bind(self.socket.fileno(), address, len(address)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _attach(self, program: bytes) -> None:
        steps = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HP", len(program) // 8, ctypes.addressof(steps))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def _enlarge(self, wanted: int) -> int:
        """Set the receive buffer; its size as it is then. Without CAP_NET_ADMIN ``net.core.rmem_max`` is the bound."""
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        except PermissionError:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel doubles what it is told


def _packet_socket(kind: socket.SocketKind) -> socket.socket:
    """A packet socket that receives nothing yet (protocol 0), so that no frame slips by the filter."""
    try:
        return socket.socket(socket.AF_PACKET, kind, 0)
    except PermissionError as error:
        raise SetupError(
            "capturing needs the privilege CAP_NET_RAW: run as root, or under systemd with "
            "AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN"
        ) from error


def _look(asking: socket.socket, name: str) -> _Link | None:
    """The interface of that name; None when there is none."""
    if len(name.encode()) >= _IFNAMSIZ:
        return None  # the kernel would cut it off, and find another

    def ask(request: int, answer: str) -> int:
        form = struct.Struct(f"{_IFNAMSIZ}s{answer}22x")
        value = form.unpack(fcntl.ioctl(asking, request, form.pack(name.encode(), 0)))[1]
        return int(value)

    try:
        index, hardware, flags = ask(_SIOCGIFINDEX, "i"), ask(_SIOCGIFHWADDR, "H"), ask(_SIOCGIFFLAGS, "H")
    except OSError:
        return None
    linktype = LINKTYPE_ETHERNET if hardware in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else LINKTYPE_RAW
    return _Link(index, linktype, loops=hardware == _ARPHRD_LOOPBACK, up=bool(flags & _IFF_UP))
