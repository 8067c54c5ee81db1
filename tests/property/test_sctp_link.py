"""Whatever a wire does to the packets, each message arrives once and in order, and both ends end."""

from __future__ import annotations

import heapq
import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mobiscud.core.errors import DecodeError
from testbed.sctp_association import Association, Closed, Received, State, acknowledge_cookie, answer_init
from testbed.sctp_packet import CookieEcho, Init, decode_packet

SECRET = b"secret"
CLIENT, SERVER = 0, 1
FILLING = bytes(700)
"""Lets two messages into a packet, so that packets can overtake each other."""


class World:
    """Two ends, a wire that loses, repeats and delays, and a clock that jumps from event to event."""

    def __init__(self, seed: int, loss: float, repeat: float, reorder_s: float) -> None:
        self.chance = random.Random(seed)
        self.loss, self.repeat, self.reorder_s = loss, repeat, reorder_s
        self.now = 0.0
        self.wire: list[tuple[float, int, int, bytes]] = []
        self.order = itertools.count()
        self.ends: list[Association | None] = [Association(40_000, 36_412, random=self.random32), None]
        self.got: list[list[Received]] = [[], []]

    def random32(self) -> int:
        return self.chance.getrandbits(32)

    def put(self, to: int, octets: bytes) -> None:
        for _ in range(1 + (self.chance.random() < self.repeat)):
            if self.chance.random() >= self.loss:
                at = self.now + 0.01 + self.chance.random() * self.reorder_s
                heapq.heappush(self.wire, (at, next(self.order), to, octets))

    def flush(self) -> None:
        for who, end in enumerate(self.ends):
            if end is not None:
                for octets in end.packets(self.now):
                    self.put(1 - who, octets)
                self.got[who] += [event for event in end.events() if isinstance(event, Received)]

    def deliver(self, to: int, octets: bytes) -> None:
        packet = decode_packet(octets)
        end = self.ends[to]
        first = packet.chunks[0]
        if to == SERVER and isinstance(first, Init):
            self.put(CLIENT, answer_init(packet, first, SECRET, self.now, random=self.random32))
        elif to == SERVER and isinstance(first, CookieEcho) and end is None:
            self.ends[SERVER] = Association.accept(first.cookie, (36_412, 40_000), SECRET, self.now)
        elif to == SERVER and isinstance(first, CookieEcho) and end is not None:
            self.put(CLIENT, acknowledge_cookie(end))
        elif end is not None:
            end.receive(packet, self.now)

    def run(self, until: float) -> None:
        """Go on until nothing happens any more, or the time is up."""
        while self.now < until:
            self.flush()
            deadlines = [end.deadline for end in self.ends if end is not None and end.deadline is not None]
            moments = deadlines + ([self.wire[0][0]] if self.wire else [])
            if not moments:
                return
            self.now = max(self.now, min(moments))
            while self.wire and self.wire[0][0] <= self.now:
                _, _, to, octets = heapq.heappop(self.wire)
                self.deliver(to, octets)
                self.flush()
            for end in self.ends:
                if end is not None and end.deadline is not None and end.deadline <= self.now:
                    end.handle_timer(self.now)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.12),
    repeat=st.floats(0, 0.5),
    reorder_s=st.floats(0, 0.3),
    uplink=st.lists(st.integers(0, 3), max_size=30),
    downlink=st.lists(st.integers(0, 3), max_size=30),
)
def test_each_message_once_and_in_order(
    seed: int, loss: float, repeat: float, reorder_s: float, uplink: list[int], downlink: list[int]
) -> None:
    world = World(seed, loss, repeat, reorder_s)
    client = world.ends[CLIENT]
    assert client is not None
    client.connect(0.0)
    for number, stream in enumerate(uplink):
        client.send(bytes((number,)) + FILLING, stream=stream, ppid=18)
    world.run(until=100.0)
    server = world.ends[SERVER]
    assert server is not None
    for number, stream in enumerate(downlink):
        server.send(bytes((number,)) + FILLING, stream=stream, ppid=18)
    world.run(until=200.0)
    client.shutdown(world.now)
    world.run(until=400.0)

    for sent, got in ((uplink, world.got[SERVER]), (downlink, world.got[CLIENT])):
        for stream in range(4):
            expected = [number for number, chosen in enumerate(sent) if chosen == stream]
            assert [event.payload[0] for event in got if event.stream == stream] == expected
    assert client.state is State.CLOSED


@given(octets=st.binary(max_size=200))
def test_decoder_is_total(octets: bytes) -> None:
    try:
        decode_packet(octets)
    except DecodeError:
        pass


@given(chunks=st.lists(st.binary(max_size=40), max_size=6), header=st.binary(min_size=12, max_size=12))
def test_decoder_is_total_with_true_lengths(chunks: list[bytes], header: bytes) -> None:
    body = b""
    for number, chunk in enumerate(chunks):
        body += bytes((number % 15, 3)) + (4 + len(chunk)).to_bytes(2, "big") + chunk + bytes(-len(chunk) % 4)
    try:
        decode_packet(header + body)
    except DecodeError:
        pass


def test_closed_is_told_once() -> None:
    world = World(1, 0.0, 0.0, 0.0)
    client = world.ends[CLIENT]
    assert client is not None
    client.connect(0.0)
    world.run(until=1.0)
    client.abort()
    client.abort()
    assert [event for event in client.events() if isinstance(event, Closed)] != []
    assert client.events() == []
