"""What else than pings a UE sends: ``python -m testbed.application {udp,tcp} TARGET OUT.csv``, to an echo (RFC 862).

``udp``: numbered packets at a steady pace. ``tcp``: a stream in pieces; with an ``--interval`` they are requests, each
answered by its own echo, and without as many as the connection takes, which is a bulk transfer both ways. The record
has the form of :mod:`testbed.pinger`, a line for each packet or piece. A connection that breaks is made anew, and what
was under way on it stays without answer.
"""

from __future__ import annotations

import argparse
import select
import socket
import struct
import time
from collections import deque
from pathlib import Path
from typing import Final, TextIO

from testbed.guest.client import ECHO_PORT
from testbed.pinger import BILLION, SO_TIMESTAMPNS, Instant, until_told

NUMBER: Final = struct.Struct("!Q")
GRACE_S: Final = 2.0
BUFFER_OCTETS: Final = 4 << 20
CONNECT_LIMIT_S: Final = 2.0
MOST_PIECES: Final = 64
"""Of a bulk transfer under way at once: enough for the link, and little enough that each one's time says something."""


class Record:
    """What was sent and not yet answered, and the file that takes what became of it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next = 0
        self._waiting: dict[int, Instant] = {}

    @property
    def next_number(self) -> int:
        """Of what is sent next."""
        return self._next

    def sent(self) -> int:
        """Note that something leaves now; gives its number."""
        number, self._next = self._next, self._next + 1
        self._waiting[number] = Instant.now()
        return number

    def answered(self, number: int, control: list[tuple[int, int, bytes]] | None = None) -> None:
        """Note its answer; a second one does not count."""
        sent = self._waiting.pop(number, None)
        if sent is not None:
            self._out.write(f"{number},{sent.wall_ns},{sent.answered(control or ())}\n")

    @property
    def complete(self) -> bool:
        """Whether all is answered."""
        return not self._waiting

    def close(self) -> None:
        """Write down what was never answered."""
        for number, sent in sorted(self._waiting.items()):
            self._out.write(f"{number},{sent.wall_ns},\n")


class UdpStream:
    """Numbered packets."""

    def __init__(self, target: str, source: str | None, octets: int, port: int = ECHO_PORT) -> None:
        self._padding = bytes(max(0, octets - NUMBER.size))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
        self._socket.setblocking(False)
        self._socket.bind((source or "", 0))
        self._target = (target, port)

    def send(self, record: Record) -> None:
        """Send the next packet; without a route it is one without answer."""
        try:
            self._socket.sendto(NUMBER.pack(record.sent()) + self._padding, self._target)
        except OSError:
            pass

    def receive(self, record: Record, within_s: float) -> None:
        """Wait for an answer, and take it."""
        if not select.select([self._socket], [], [], within_s)[0]:
            return
        try:
            packet, control, _, _ = self._socket.recvmsg(65_535, 128)
        except OSError:
            return
        if len(packet) >= NUMBER.size:
            record.answered(NUMBER.unpack_from(packet)[0], control)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class TcpStream:
    """Pieces of equal size on one connection, each answered when its last octet has come back."""

    def __init__(self, target: str, source: str | None, octets: int, port: int = ECHO_PORT) -> None:
        self._target = (target, port)
        self._source = source
        self._octets = octets
        self._socket: socket.socket | None = None
        self._unsent = b""
        self._under_way: deque[int] = deque()
        self._received = 0

    @property
    def under_way(self) -> int:
        """Pieces sent and not yet answered."""
        return len(self._under_way)

    def send(self, record: Record) -> None:
        """Send the next piece, or as much of it as the connection takes now."""
        if self._socket is None and not self._connect():
            record.sent()  # nobody there: a piece without answer
            return
        self._under_way.append(record.sent())
        self._unsent += bytes(self._octets)
        self._push()

    def receive(self, record: Record, within_s: float) -> None:
        """Wait for octets to come back, or for room to send, and do what can be done."""
        if self._socket is None:
            time.sleep(within_s)
            return
        writing = [self._socket] if self._unsent else []
        readable, writable, _ = select.select([self._socket], writing, [], within_s)
        if writable:
            self._push()
        if not readable or self._socket is None:
            return
        try:
            got = len(self._socket.recv(1 << 18))
        except BlockingIOError:
            return
        except OSError:
            got = 0
        if not got:
            self._drop()
        self._received += got
        while self._received >= self._octets and self._under_way:
            self._received -= self._octets
            record.answered(self._under_way.popleft())

    def close(self) -> None:
        """Close the connection; what is under way stays without answer."""
        self._drop()

    def _connect(self) -> bool:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(CONNECT_LIMIT_S)
        try:
            made.bind((self._source or "", 0))
            made.connect(self._target)
        except OSError:
            made.close()
            return False
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        self._socket = made
        return True

    def _push(self) -> None:
        if self._socket is None:
            return
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._unsent, self._received = None, b"", 0
        self._under_way.clear()


def paced(source: UdpStream | TcpStream, record: Record, interval_s: float, stop: list[int]) -> None:
    """Send one every ``interval_s`` until ``stop`` is not empty."""
    due = time.monotonic_ns()
    while not stop:
        if time.monotonic_ns() >= due:
            source.send(record)
            due += round(interval_s * BILLION)
        if (left := due - time.monotonic_ns()) > 0:
            source.receive(record, left / BILLION)


def bulk(source: TcpStream, record: Record, stop: list[int]) -> None:
    """Send as the answers come, until ``stop`` is not empty."""
    while not stop:
        if source.under_way < MOST_PIECES:
            source.send(record)
            source.receive(record, 0.0)
        else:
            source.receive(record, 0.1)


def main() -> None:
    """Send until SIGTERM, then wait a little for the last answers."""
    parser = argparse.ArgumentParser(description="Traffic to an echo; times of each packet or piece to a CSV file.")
    parser.add_argument("kind", choices=("udp", "tcp"))
    parser.add_argument("target")
    parser.add_argument("out", type=Path)
    parser.add_argument("--interval", type=float, default=0.0, metavar="S", help="0: as fast as TCP may")
    parser.add_argument("--octets", type=int, default=64, help="of a packet's payload, or of a piece")
    parser.add_argument("--source", help="the UE's address, where several UEs share the namespace")
    arguments = parser.parse_args()

    def run(out: TextIO, stop: list[int]) -> None:
        record = Record(out)
        make = UdpStream if arguments.kind == "udp" else TcpStream
        source = make(arguments.target, arguments.source, arguments.octets)
        if isinstance(source, TcpStream) and not arguments.interval:
            bulk(source, record, stop)
        else:
            paced(source, record, arguments.interval or 0.001, stop)
        end = time.monotonic() + GRACE_S
        while not record.complete and time.monotonic() < end:
            source.receive(record, 0.05)
        source.close()
        record.close()

    until_told(run, arguments.out)


if __name__ == "__main__":
    main()
