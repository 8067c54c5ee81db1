"""Delay links on this machine's kernel: frames between two namespaces, by way of a third."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from mobiscud.core.errors import AdapterError
from testbed import netns
from testbed.delay import DelayLink, DelayLinks, netem_works
from testbed.delay_queue import Shape
from testbed.netns_socket import inside
from testbed.sweep import RunDirectory
from testbed.topology import namespace_prefix

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

DELAY_MS = 4.0
EXPERIMENTAL = 0x88B5
"""An EtherType for local experiments (IEEE 802)."""
ETHERNET = bytes.fromhex("ffffffffffff 020000000001")
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_AUXDATA = 8
LIMIT_S = 20.0


class Wire:
    """``left`` and ``right``, a device ``e`` in each, and between them the delay links."""

    def __init__(self, run: str, directory: Path) -> None:
        prefix = namespace_prefix(run)
        self.left, self.right, self.middle = (prefix + name for name in ("left", "right", "delay"))
        self.directory = directory
        self.links = self.delay_links()

    def delay_links(self, *, capacity: int = 2000) -> DelayLinks:
        link = DelayLink(name="wire", a="w-a", b="w-b", shape=Shape(delay_ms=DELAY_MS), capacity=capacity)
        return DelayLinks(self.middle, [link], self.directory)

    async def build(self) -> None:
        await netns.create([self.left, self.right, self.middle])
        for end, device in ((self.left, "w-a"), (self.right, "w-b")):
            await netns.ip_batch([netns.veth((end, "e"), (self.middle, device), mtu=2000)])
            await netns.ip_batch(["link set e up"], end)
            await netns.ip_batch([f"link set {device} up"], self.middle)

    def socket(self, namespace: str) -> socket.socket:
        with inside(namespace):
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        opened.bind(("e", 3))
        opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        opened.settimeout(LIMIT_S)
        return opened


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    place = RunDirectory.create()
    built = Wire(place.run, place.path)
    await built.build()
    yield built
    await built.links.stop()
    await place.remove()


def frame(number: int, length: int = 60) -> bytes:
    return (ETHERNET + struct.pack("!HIQ", EXPERIMENTAL, number, time.time_ns())).ljust(length, b"\0")


def receive(end: socket.socket) -> tuple[int, int, int]:
    """Number, when it was sent, and when the kernel received it (ns)."""
    while True:
        data, ancillary, _, _ = end.recvmsg(4096, 64)
        if data[12:14] == EXPERIMENTAL.to_bytes(2):
            seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
            number, sent = struct.unpack_from("!IQ", data, 14)
            return number, sent, seconds * 1_000_000_000 + nanoseconds


async def test_frames_keep_order_and_take_the_set_time(wire: Wire, record_property: Callable[..., None]) -> None:
    await wire.links.start("user space")

    def exchange(near: socket.socket, far: socket.socket) -> list[tuple[int, int, int]]:
        got = []
        for number in range(300):
            near.send(frame(number))
            if number >= 10:
                got.append(receive(far))
        return got + [receive(far) for _ in range(10)]

    with ExitStack() as stack:
        left, right = (stack.enter_context(wire.socket(end)) for end in (wire.left, wire.right))
        there = await asyncio.to_thread(exchange, left, right)
        back = await asyncio.to_thread(exchange, right, left)
    (to_right, to_left) = await wire.links.stop()

    for got in (there, back):
        assert [number for number, _, _ in got] == list(range(300))
        errors_ms = sorted((received - sent) / 1e6 - DELAY_MS for _, sent, received in got)
        assert errors_ms[0] >= 0
    record_property("median_error_ms", round(statistics.median(errors_ms), 3))
    record_property("p99_error_ms", round(errors_ms[296], 3))
    assert (to_right.from_device, to_right.to_device, to_right.forwarded, to_right.dropped) == ("w-a", "w-b", 300, 0)
    assert to_left.forwarded == 300


async def test_large_frames_and_vlan_tags_pass_unchanged(wire: Wire) -> None:
    await wire.links.start("user space")
    tagged = ETHERNET + bytes.fromhex("8100 a064") + struct.pack("!HIQ", EXPERIMENTAL, 1, 0) + b"tagged".ljust(50)
    large = frame(2, length=2014)

    def exchange(left: socket.socket, right: socket.socket) -> tuple[bytes, bytes, bytes]:
        # The kernel takes the tag off for the receiver, who learns of it beside the frame.
        right.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        left.send(tagged)
        left.send(large)
        untagged, ancillary, _, _ = right.recvmsg(4096, 256)
        (beside,) = [content for level, kind, content in ancillary if (level, kind) == (SOL_PACKET, PACKET_AUXDATA)]
        return untagged, beside, right.recv(4096)

    with ExitStack() as stack:
        left, right = (stack.enter_context(wire.socket(end)) for end in (wire.left, wire.right))
        untagged, beside, second = await asyncio.to_thread(exchange, left, right)
    assert untagged == tagged[:12] + tagged[16:]
    assert struct.unpack("@IIIHHHH", beside)[5:] == (0xA064, 0x8100)
    assert second == large


async def test_full_queue_drops_and_counts(wire: Wire) -> None:
    wire.links = wire.delay_links(capacity=5)
    await wire.links.start("user space")
    last = 1000

    def burst(left: socket.socket, right: socket.socket) -> int:
        for number in range(200):
            left.send(frame(number))
        got = {receive(right)[0] for _ in range(5)}
        # Should the queue be full, too, for the last one, then others are still to come from it.
        while last not in got:
            left.send(frame(last))
            got.add(receive(right)[0])
        return len(got)

    with ExitStack() as stack:
        left, right = (stack.enter_context(wire.socket(end)) for end in (wire.left, wire.right))
        got = await asyncio.to_thread(burst, left, right)
    to_right, _ = await wire.links.stop()
    assert got < 200
    assert to_right.dropped >= 200 - to_right.forwarded > 0


async def test_missing_device_is_told(wire: Wire) -> None:
    link = DelayLink(name="wire", a="w-a", b="nowhere", shape=Shape(delay_ms=1))
    broken = DelayLinks(wire.middle, [link], wire.directory)

    with pytest.raises(AdapterError, match="cannot open nowhere"):
        await broken.start("user space")

    assert broken.pid is None
    assert await broken.stop() == []


async def test_netem_takes_the_set_time(wire: Wire) -> None:
    if not await netem_works(wire.middle):
        pytest.skip("this kernel has no netem")
    await wire.links.start("netem")

    def exchange(left: socket.socket, right: socket.socket) -> list[tuple[int, int, int]]:
        for number in range(50):
            left.send(frame(number))
        return [receive(right) for _ in range(50)]

    with ExitStack() as stack:
        left, right = (stack.enter_context(wire.socket(end)) for end in (wire.left, wire.right))
        got = await asyncio.to_thread(exchange, left, right)
    assert [number for number, _, _ in got] == list(range(50))
    assert min(received - sent for _, sent, received in got) >= DELAY_MS * 1e6
