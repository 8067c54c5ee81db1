"""Live capture: AF_PACKET sockets with a kernel filter, a large buffer and kernel time stamps.

Nothing is read far ahead of who consumes the frames: what waits, waits in the kernel's buffer, and what does not fit
there is counted. A VLAN tag that the network card has taken off is not missed, since nothing here depends on it.

An interface that goes down, or is no more, is said and looked for until it is back. That needs no privilege: a packet
socket, once open, may be bound again by anybody.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from epc_monitor.bpf import ethernet_filter, ip_filter
from epc_monitor.frames import LINKTYPE_ETHERNET, LINKTYPE_RAW, Frame
from mobiscud.core.errors import SetupError

BUFFER_BYTES: Final = 64 << 20
LOOK_EVERY_S: Final = 1.0
"""How long ``batches`` keeps silent when nothing comes, and how often it looks for interfaces that are away."""

_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 1, 6, 23
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 3
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1
_LARGEST_FRAME = 0x11000
_FRAMES_AT_ONCE = 512

_timespec = struct.Struct("qq")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_timespec.size)

log = structlog.get_logger(__name__)


class LiveCapture:
    """Captures on several interfaces at once; an asynchronous context manager.

    ``notes`` says in words what is less than it could be, and the mend.
    """

    def __init__(self, interfaces: Sequence[str], buffer_bytes: int = BUFFER_BYTES) -> None:
        self.interfaces = tuple(interfaces)
        self.notes: list[str] = []
        self.buffer_bytes = buffer_bytes
        self._sockets: list[_InterfaceSocket] = []

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
        try:
            for name in self.interfaces:
                opened = _InterfaceSocket(name, wanted)
                self._sockets.append(opened)
                self.buffer_bytes = min(self.buffer_bytes, opened.buffer_bytes)
        except BaseException:
            self.close()
            raise
        if self.buffer_bytes < wanted:
            self.notes.append(
                f"receive buffer is {self.buffer_bytes >> 10} KiB instead of {wanted >> 10} KiB: "
                "give CAP_NET_ADMIN, or raise net.core.rmem_max"
            )

    def close(self) -> None:
        for opened in self._sockets:
            opened.socket.close()
        self._sockets.clear()

    async def batches(self) -> AsyncIterator[list[Frame]]:
        """Frames as they come, in the order of their times over all interfaces, at most a few hundred of each at once.

        A batch may be empty, and is when nothing has come for ``LOOK_EVERY_S``.
        """
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            frames = self._read()
            if not frames and not any(opened.waiting for opened in self._sockets):
                await self._readable(LOOK_EVERY_S)
                frames = self._read()
            if loop.time() - looked >= LOOK_EVERY_S:
                looked = loop.time()
                for opened in self._sockets:
                    opened.recover()
            yield frames
            await asyncio.sleep(0)

    @property
    def away(self) -> list[str]:
        """The interfaces that are down or gone."""
        return [opened.name for opened in self._sockets if opened.away]

    def drops(self) -> list[tuple[str, int]]:
        """Frames the kernel had no room for, by interface, since this was last asked."""
        return [(opened.name, count) for opened in self._sockets if (count := opened.dropped())]

    def _read(self) -> list[Frame]:
        """What has come, and can have nothing before it that is still to be read.

        A question and its answer often come by two interfaces, one for each direction of a tap, and the one read first
        may get a frame while the other is read. So no frame is let through but those that are no later than what the
        reading before had brought: whatever the kernel handed over before those has been read by now. Frames that
        different processors receive at the same moment may still be stamped in one order and handed over in the other.
        """
        if len(self._sockets) == 1:
            return self._sockets[0].read()
        until = max((opened.waiting[-1].at for opened in self._sockets if opened.waiting), default=0)
        for opened in self._sockets:
            if len(opened.waiting) < _FRAMES_AT_ONCE:
                opened.waiting += opened.read()
            if len(opened.waiting) >= _FRAMES_AT_ONCE:  # more may wait in the kernel
                until = min(until, opened.waiting[-1].at)
        frames = [frame for opened in self._sockets for frame in opened.waiting if frame.at <= until]
        frames.sort(key=lambda frame: frame.at)
        for opened in self._sockets:
            opened.waiting = [frame for frame in opened.waiting if frame.at > until]
        return frames

    async def _readable(self, within_s: float) -> None:
        """Wait until one of the sockets has something to say."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        descriptors = [opened.socket.fileno() for opened in self._sockets]
        for descriptor in descriptors:
            loop.add_reader(descriptor, wake)
        timer = loop.call_later(within_s, wake)
        try:
            await waiter
        finally:
            timer.cancel()
            for descriptor in descriptors:
                loop.remove_reader(descriptor)


class _InterfaceSocket:
    """One interface. Frames of interfaces without Ethernet are taken as the IP packets they carry."""

    def __init__(self, name: str, buffer_bytes: int) -> None:
        self.name = name
        self.linktype = LINKTYPE_ETHERNET
        self.waiting: list[Frame] = []
        self.away = False
        self.socket = self._open(socket.SOCK_RAW)
        try:
            self._hardware_type = hardware = self._hardware()
            if hardware not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
                self.socket.close()
                self.linktype = LINKTYPE_RAW
                self.socket = self._open(socket.SOCK_DGRAM)
            self._attach(ethernet_filter() if self.linktype == LINKTYPE_ETHERNET else ip_filter())
            self.buffer_bytes = self._enlarge(buffer_bytes)
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if hardware == _ARPHRD_LOOPBACK:  # where every frame comes out and in again
                self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self._listen_to_all()
            self.socket.bind((name, _ETH_P_ALL))
        except BaseException:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self._buffer = bytearray(_LARGEST_FRAME)
        self._view = memoryview(self._buffer)

    def read(self) -> list[Frame]:
        """What has come, up to a bound, so that every interface gets its turn."""
        frames: list[Frame] = []
        receive, buffer, view = self.socket.recvmsg_into, [self._buffer], self._view
        for _ in range(_FRAMES_AT_ONCE):
            try:
                size, ancillary, _, _ = receive(buffer, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in (errno.ENETDOWN, errno.ENXIO):
                    raise
                if not self.away:
                    self.away = True
                    log.warning(
                        "interface is down or gone; what passes there meanwhile is not seen", interface=self.name
                    )
                break
            seconds, nanoseconds = _timespec.unpack(ancillary[0][2])
            at = seconds * 1_000_000_000 + nanoseconds
            frames.append(Frame(at, self.linktype, bytes(view[:size]), self.name))
        return frames

    def recover(self) -> None:
        """When the interface is away: see whether it is back. The kernel lets go of one that is deleted for good."""
        if not self.away:
            return
        try:
            if self.socket.getsockname()[0] != self.name:
                if self._hardware() != self._hardware_type:
                    return
                self._listen_to_all()
                self.socket.bind((self.name, _ETH_P_ALL))
            request = fcntl.ioctl(self.socket, _SIOCGIFFLAGS, struct.pack("16sH14x", self.name.encode(), 0))
        except (OSError, SetupError):
            return  # not yet
        if struct.unpack("16sH14x", request)[1] & _IFF_UP:
            self.away = False
            log.info("interface is back", interface=self.name)

    def dropped(self) -> int:
        """Frames dropped since the last call; asking sets the kernel's counter back."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("II", statistics)[1])

    @staticmethod
    def _open(kind: socket.SocketKind) -> socket.socket:
        """A packet socket that receives nothing yet (protocol 0), so that no frame slips by the filter."""
        try:
            return socket.socket(socket.AF_PACKET, kind, 0)
        except PermissionError as error:
            raise SetupError(
                "capturing needs the privilege CAP_NET_RAW: run as root, or under systemd with "
                "AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN"
            ) from error

    def _hardware(self) -> int:
        """ARPHRD type of the interface."""
        try:
            self.socket.bind((self.name, 0))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise SetupError(f"cannot capture on {self.name}: {error.strerror}") from error
            there = ", ".join(name for _, name in socket.if_nameindex())
            raise SetupError(f"there is no interface {self.name}; there are: {there}") from error
        hardware = self.socket.getsockname()[3]
        return int(hardware)

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

    def _listen_to_all(self) -> None:
        """Also frames that are for others, as mirrored ports bring them."""
        request = struct.pack("iHH8s", socket.if_nametoindex(self.name), _PACKET_MR_PROMISC, 0, b"")
        self.socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
