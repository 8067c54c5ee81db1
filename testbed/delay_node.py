"""Delay links in user space: raw packet sockets, a queue a direction, and one loop.

A frame leaves its set time after the kernel received it. The kernel's own receive time stamp counts, so how late
this process was woken to read the frame adds nothing; how late it is woken to send it does, so it asks for real-time
priority.
"""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from mobiscud.core.errors import SetupError
from testbed.delay_queue import NEVER, DelayQueue, Shape

# Constants of Linux that the socket module does not name.
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_AUXDATA: Final = 8
_PACKET_IGNORE_OUTGOING: Final = 23
_ETH_P_ALL: Final = 3
_TP_STATUS_VLAN_VALID: Final = 1 << 4

_TIMESPEC: Final = struct.Struct("@qq")
_AUXDATA: Final = struct.Struct("@IIIHHHH")
_VLAN_TAG: Final = struct.Struct("!HH")
_MAC_ADDRESSES: Final = 12

LARGEST_FRAME: Final = 16384  # every offload is off: nothing on the wire is larger than its MTU
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_AUXDATA.size)
_RECEIVE_BUFFER: Final = 4 << 20
_PRIORITY: Final = 20
_OLDEST_NS: Final = 100_000_000  # a time stamp further back than this means that the clock was set
_LATE_NS: Final = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionStats:
    """What one direction of a link did. ``lost``: as its shape says; ``dropped``: found the queue or the device full;
    ``late``: left more than 0.5 ms after their time."""

    link: str
    from_device: str
    to_device: str
    forwarded: int
    dropped: int
    late: int
    worst_late_us: float
    lost: int = 0


@dataclass(slots=True)
class Direction:
    """What is received on one device leaves on the other."""

    link: str
    from_device: str
    to_device: str
    receive: socket.socket
    send: socket.socket
    queue: DelayQueue
    forwarded: int = 0
    refused: int = 0
    late: int = 0
    worst_late_ns: int = 0

    def read(self) -> None:
        """Take in all frames that wait in the socket."""
        while True:
            try:
                frame, ancillary, flags, _ = self.receive.recvmsg(LARGEST_FRAME, _ANCILLARY)
            except OSError:  # nothing more there, or the device went down: select tells again
                return
            if flags & socket.MSG_TRUNC:
                self.refused += 1
            else:
                self.queue.push(*_unpack(frame, ancillary))

    def release(self) -> None:
        """Send all frames whose time has come."""
        while (popped := self.queue.pop(now := time.monotonic_ns())) is not None:
            due, frame = popped
            late_ns = now - due
            try:
                self.send.send(frame)
                self.forwarded += 1
            except OSError:  # the device is down or its queue full: a wire would lose the frame as well
                self.refused += 1
            self.late += late_ns > _LATE_NS
            self.worst_late_ns = max(self.worst_late_ns, late_ns)

    def stats(self) -> DirectionStats:
        """What was counted so far, with what the kernel dropped before we read it."""
        _, missed = struct.unpack("@II", self.receive.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return DirectionStats(
            link=self.link,
            from_device=self.from_device,
            to_device=self.to_device,
            forwarded=self.forwarded,
            dropped=self.queue.dropped + self.refused + missed,
            late=self.late,
            worst_late_us=self.worst_late_ns / 1000,
            lost=self.queue.lost,
        )


def _unpack(frame: bytes, ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[bytes, int]:
    """The frame as it was on the wire and when it came (monotonic).

    The kernel hands a VLAN tag beside the frame: it is put back.
    """
    age_ns = 0
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(content)
            age_ns = time.time_ns() - seconds * 1_000_000_000 - nanoseconds
        elif level == _SOL_PACKET and kind == _PACKET_AUXDATA:
            status, _, _, _, _, tci, protocol = _AUXDATA.unpack(content)
            if status & _TP_STATUS_VLAN_VALID:
                frame = frame[:_MAC_ADDRESSES] + _VLAN_TAG.pack(protocol, tci) + frame[_MAC_ADDRESSES:]
    return frame, time.monotonic_ns() - (age_ns if 0 <= age_ns < _OLDEST_NS else 0)


def open_device(device: str) -> socket.socket:
    """A raw socket that receives what comes in at a device, but not what we send there."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        opened.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        opened.bind((device, _ETH_P_ALL))
    except OSError as error:
        opened.close()
        raise SetupError(f"the delay node cannot open {device}: {error.strerror}") from error
    return opened


def open_link(link: str, a: str, b: str, shape: Shape, capacity: int) -> tuple[Direction, Direction]:
    """Both directions between two devices of this namespace. Raises ``SetupError``.

    What is lost and how much each frame jitters follows from the link's name and the direction, so that it is the same
    in each run.
    """
    socket_a, socket_b = open_device(a), open_device(b)
    chances = (random.Random(f"{link}/{end}").random for end in (a, b))
    queue_a, queue_b = (DelayQueue(shape, capacity, chance) for chance in chances)
    return Direction(link, a, b, socket_a, socket_b, queue_a), Direction(link, b, a, socket_b, socket_a, queue_b)


def ask_for_precision() -> bool:
    """A late wake-up is a delay nobody asked for: run before ordinary processes, never stop to collect garbage.

    False when the system does not grant real-time priority.
    """
    gc.freeze()
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except PermissionError:
        return False
    return True


def forward(directions: list[Direction], on_ready: Callable[[], None]) -> None:
    """Forward until SIGTERM or SIGINT."""
    wake_read, wake_write = socket.socketpair()
    wake_write.setblocking(False)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.set_wakeup_fd(wake_write.fileno())
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    by_descriptor = {direction.receive.fileno(): direction for direction in directions}
    descriptors = [wake_read.fileno(), *by_descriptor]
    queues = [direction.queue for direction in directions]
    on_ready()
    while not stopping:
        due = min(queue.next_due for queue in queues)
        limit = None if due == NEVER else max(0, due - time.monotonic_ns()) / 1e9
        # select, unlike poll, waits to the microsecond.
        readable, _, _ = select.select(descriptors, (), (), limit)
        for descriptor in readable:
            if descriptor in by_descriptor:
                by_descriptor[descriptor].read()
        now = time.monotonic_ns()
        for direction in directions:
            if direction.queue.next_due <= now:
                direction.release()
