"""What UEs send, to an echo on the loopback interface, and what is written down of it."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import pytest

from testbed.application import Record, TcpStream, UdpStream

LIMIT = 2000
"""Looks at a socket, each of which waits a little."""


class Echo:
    """UDP and TCP on one port. ``swallow``: packets of UDP to leave unanswered; ``hang_up``: after so many octets."""

    def __init__(self, *, swallow: int = 0, hang_up: int | None = None) -> None:
        self._swallow, self._hang_up = swallow, hang_up
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._datagrams, self._streams)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._udp.sendto(b"", ("127.0.0.1", self.port))
        self._hang_up = -1
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join(10)
        self._udp.close()
        self._listener.close()

    def _datagrams(self) -> None:
        while True:
            packet, sender = self._udp.recvfrom(65_535)
            if not packet:
                return
            if self._swallow:
                self._swallow -= 1
            else:
                self._udp.sendto(packet, sender)

    def _streams(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self._hang_up == -1:
                    return
                echoed = 0
                while octets := connection.recv(4096):
                    connection.sendall(octets)
                    echoed += len(octets)
                    if self._hang_up is not None and echoed >= self._hang_up:
                        self._hang_up = None
                        break


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


def rows(out: io.StringIO) -> list[tuple[int, int, int | None]]:
    lines = (line.split(",") for line in out.getvalue().splitlines())
    return sorted((int(number), int(sent), int(received) if received else None) for number, sent, received in lines)


def exchange(source: UdpStream | TcpStream, count: int) -> list[tuple[int, int, int | None]]:
    out = io.StringIO()
    record = Record(out)
    for _ in range(count):
        source.send(record)
        source.receive(record, 0.01)
    for _ in range(LIMIT):
        if record.complete:
            break
        source.receive(record, 0.001)
    source.close()
    record.close()
    return rows(out)


def test_each_packet_and_each_piece_is_written_down_once(echo: Echo) -> None:
    for source in (UdpStream("127.0.0.1", None, 64, echo.port), TcpStream("127.0.0.1", "127.0.0.1", 3000, echo.port)):
        found = exchange(source, 50)
        assert [number for number, _, _ in found] == list(range(50))
        assert all(received is not None and received >= sent for _, sent, received in found)


def test_what_is_never_answered_has_no_time() -> None:
    made = Echo(swallow=3)
    found = exchange(UdpStream("127.0.0.1", None, 64, made.port), 5)
    made.close()
    assert [received is None for _, _, received in found] == [True, True, True, False, False]


def test_a_broken_connection_is_made_anew() -> None:
    made = Echo(hang_up=1000)
    stream = TcpStream("127.0.0.1", None, 200, made.port)
    found = exchange(stream, 30)
    made.close()
    lost = [number for number, _, received in found if received is None]
    assert found[-1][2] is not None, "the later ones go by a new connection"
    assert all(number >= 4 for number in lost)


def test_where_nobody_listens_everything_is_lost() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = exchange(TcpStream("127.0.0.1", None, 100, unused.getsockname()[1]), 2)
    assert [received for _, _, received in found] == [None, None]
