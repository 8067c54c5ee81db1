"""Pings at a steady pace, and when each ping went and came back: ``python -m testbed.pinger TARGET OUT.csv``.

A process of its own, so that nothing else delays it; times are the kernel's on the way in and, on the way out, taken
just before the call. The CSV has a line a ping: ``seq,sent_ns,received_ns`` (ns since the epoch; empty: no answer).
Their difference is measured on the monotonic clock: a wall clock that is set meanwhile does not change it.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

ECHO_REQUEST: Final = 8
ECHO_REPLY: Final = 0
HEADER: Final = struct.Struct("!BBHHH")
IPV4_HEADER: Final = 20
SO_TIMESTAMPNS: Final = 35
TIMESPEC: Final = struct.Struct("qq")
BILLION: Final = 1_000_000_000
OCTETS: Final = 56
GRACE_S: Final = 1.0
PRIORITY: Final = 10


def checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of octets."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    total = (total >> 16) + (total & 0xFFFF)
    folded: int = total + (total >> 16)
    return ~folded & 0xFFFF


def echo_request(identifier: int, sequence: int, octets: int = OCTETS) -> bytes:
    """An ICMP echo request (RFC 792) of so many octets, an even number."""
    payload = bytes(octets - HEADER.size)
    without = HEADER.pack(ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    return HEADER.pack(ECHO_REQUEST, 0, checksum(without), identifier, sequence) + payload


@dataclass(frozen=True, slots=True)
class Instant:
    """Now, on both clocks (ns)."""

    wall_ns: int
    monotonic_ns: int

    @classmethod
    def now(cls) -> Instant:
        """Read the clocks."""
        return cls(time.time_ns(), time.monotonic_ns())

    def answered(self, control: Sequence[tuple[int, int, bytes]]) -> int:
        """When the answer to what was sent at this instant came, on the wall clock of then: by the kernel's time stamp
        in ``control``, where there is one, else now."""
        age_ns = 0
        if control:
            seconds, nanoseconds = TIMESPEC.unpack(control[0][2])
            age_ns = max(0, time.time_ns() - seconds * BILLION - nanoseconds)
        now = time.monotonic_ns()
        if age_ns > now - self.monotonic_ns:
            age_ns = 0  # the wall clock was set between the time stamp and now
        return self.wall_ns + now - age_ns - self.monotonic_ns


class Pinger:
    """Sends every ``interval_s``, and remembers."""

    def __init__(
        self, target: str, interval_s: float, out: TextIO, *, source: str | None = None, octets: int = OCTETS
    ) -> None:
        self._octets = octets
        self._target = (target, 0)
        self._interval_ns = round(interval_s * BILLION)
        self._out = out
        self._identifier = os.getpid() & 0xFFFF
        self._waiting: dict[int, Instant] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)
        if source is not None:
            self._socket.bind((source, 0))

    def run(self, stop: list[int]) -> None:
        """Ping until ``stop`` is not empty, then wait a little for the last answers."""
        due = time.monotonic_ns()
        sequence = 0
        while not stop:
            if time.monotonic_ns() >= due:
                self._send(sequence)
                sequence += 1
                due += self._interval_ns
            self._receive_until(due)
        self._receive_until(time.monotonic_ns() + round(GRACE_S * BILLION))
        for sequence, sent in sorted(self._waiting.items()):
            self._write(sequence, sent.wall_ns, "")

    def _send(self, sequence: int) -> None:
        packet = echo_request(self._identifier, sequence & 0xFFFF, self._octets)
        self._waiting[sequence] = Instant.now()
        try:
            self._socket.sendto(packet, self._target)
        except OSError:
            pass  # no route at this moment of a handover: a ping without answer, like any other

    def _receive_until(self, due: int) -> None:
        while (left := due - time.monotonic_ns()) > 0:
            try:
                if not select.select([self._socket], [], [], left / BILLION)[0]:
                    return
            except InterruptedError:
                return
            self._receive()

    def _receive(self) -> None:
        try:
            packet, control, _, _ = self._socket.recvmsg(65_535, 128)
        except OSError:
            return
        if len(packet) < IPV4_HEADER + HEADER.size:
            return
        kind, _, _, identifier, low = HEADER.unpack_from(packet, IPV4_HEADER)
        if kind != ECHO_REPLY or identifier != self._identifier:
            return
        sequence = next((s for s in reversed(self._waiting) if s & 0xFFFF == low), None)
        if sequence is None:
            return  # a second answer
        sent = self._waiting.pop(sequence)
        self._write(sequence, sent.wall_ns, str(sent.answered(control)))

    def _write(self, sequence: int, sent: int, received: str) -> None:
        self._out.write(f"{sequence},{sent},{received}\n")


def until_told(run: Callable[[TextIO, list[int]], None], out: Path) -> None:
    """Run a source of traffic with real-time priority, its record in ``out``; SIGTERM fills the list, and it ends."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except PermissionError:
        pass  # a little less exact under load
    with out.open("w", buffering=1) as record:
        record.write("seq,sent_ns,received_ns\n")
        run(record, stop)


def main() -> None:
    """Ping until SIGTERM."""
    parser = argparse.ArgumentParser(description="Pings at a steady pace; times of each to a CSV file.")
    parser.add_argument("target")
    parser.add_argument("out", type=Path)
    parser.add_argument("--interval", type=float, default=0.01, metavar="S")
    parser.add_argument("--octets", type=int, default=OCTETS, help="of each echo request, an even number")
    parser.add_argument("--source", help="the UE's address, where several UEs share the namespace")
    arguments = parser.parse_args()

    def run(out: TextIO, stop: list[int]) -> None:
        pinger = Pinger(
            arguments.target, arguments.interval, out, source=arguments.source, octets=arguments.octets & ~1
        )
        pinger.run(stop)

    until_told(run, arguments.out)


if __name__ == "__main__":
    main()
