"""What the stream of a bench writes down."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from pathlib import Path

import pytest

from testbed.bench import stream
from testbed.results import load_pings

STEP_NS = 10_000_000_000


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Where the stream is sent to, on this machine."""
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    monkeypatch.setattr(stream, "ECHO_PORT", sink.getsockname()[1])
    monkeypatch.setattr(stream, "GRACE_S", 0.1)
    return sink


def test_a_wall_clock_that_is_set_makes_no_gap(
    echo: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = itertools.count(time.time_ns(), STEP_NS)
    monkeypatch.setattr(time, "time_ns", lambda: next(steps))
    stop: list[int] = []

    def answer() -> None:
        for number in range(20):
            packet, sender = echo.recvfrom(2048)
            if number != 10:
                echo.sendto(packet, sender)
        stop.append(1)

    answering = threading.Thread(target=answer)
    sending = stream.Stream("127.0.0.1", 0.001)
    with echo:
        answering.start()
        sending.run(stop)
        answering.join()
    sending.write(tmp_path / "stream.csv")
    pings = load_pings(tmp_path / "stream.csv")
    assert [ping.seq for ping in pings[:20] if ping.received_ns is None] == [10]
    assert pings[19].sent_ns - pings[0].sent_ns < STEP_NS
    assert all(0 <= ping.received_ns - ping.sent_ns < STEP_NS for ping in pings if ping.received_ns is not None)
