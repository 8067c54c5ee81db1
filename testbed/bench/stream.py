"""A steady stream of numbered UDP packets to an echo (RFC 862): ``python -m testbed.bench.stream TARGET OUT.csv``.

A process of its own with real-time priority, so that little delays it. It keeps its record in memory and writes it at
the end, when SIGTERM has come and the last answers have had their time: a line ``seq,sent_ns,received_ns`` a packet
(ns since the epoch; empty: no answer), in the form of ``testbed.pinger``. They are counted on the monotonic clock from
what the wall clock said at the start: one that is set meanwhile makes no gap longer or shorter.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Final

from testbed.guest.client import ECHO_PORT
from testbed.pinger import BILLION, PRIORITY

NUMBER: Final = struct.Struct("!Q")
PADDING: Final = bytes(56)
GRACE_S: Final = 2.0
BUFFER_BYTES: Final = 4 << 20


class Stream:
    """Sends every ``interval_s``, and remembers."""

    def __init__(self, target: str, interval_s: float) -> None:
        self._target = (target, ECHO_PORT)
        self._interval_ns = round(interval_s * BILLION)
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._sent: list[int] = []
        self._received: dict[int, int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._socket.setblocking(False)

    def run(self, stop: list[int]) -> None:
        """Send until ``stop`` is not empty, then wait a little for the last answers; once."""
        due = time.monotonic_ns()
        while not stop:
            if time.monotonic_ns() >= due:
                self._send()
                due += self._interval_ns
            self._receive_until(due)
        end = time.monotonic_ns() + round(GRACE_S * BILLION)
        while len(self._received) < len(self._sent) and time.monotonic_ns() < end:
            self._receive_until(time.monotonic_ns() + self._interval_ns)

        self._socket.close()

    def write(self, file: Path) -> None:
        """Write down all that was sent."""
        lines = [self._line(number, sent) for number, sent in enumerate(self._sent)]
        file.write_text("seq,sent_ns,received_ns\n" + "".join(lines))

    def _line(self, number: int, sent: int) -> str:
        received = self._received.get(number)
        return f"{number},{sent + self._epoch_ns},{'' if received is None else received + self._epoch_ns}\n"

    def _send(self) -> None:
        packet = NUMBER.pack(len(self._sent)) + PADDING
        self._sent.append(time.monotonic_ns())
        try:
            self._socket.sendto(packet, self._target)
        except OSError:
            pass  # no route: a packet without answer, like any other

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
            packet = self._socket.recv(2048)
        except OSError:
            return
        now = time.monotonic_ns()
        if len(packet) >= NUMBER.size:
            self._received.setdefault(NUMBER.unpack_from(packet)[0], now)


def main() -> None:
    """Send until SIGTERM."""
    parser = argparse.ArgumentParser(
        description="Numbered packets to a UDP echo at a steady pace; times to a CSV file."
    )
    parser.add_argument("target")
    parser.add_argument("out", type=Path)
    parser.add_argument("--interval", type=float, default=0.001, metavar="S")
    arguments = parser.parse_args()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except PermissionError:
        pass  # a little less exact under load
    stream = Stream(arguments.target, arguments.interval)
    stream.run(stop)
    stream.write(arguments.out)


if __name__ == "__main__":
    main()
