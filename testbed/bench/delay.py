"""How exact the delay links are: ``mobiscud bench delay``.

Two namespaces joined by one link of ``testbed.delay``; numbered frames go through it at a steady pace; each is timed
from just before it is sent to the kernel's receive time stamp, both on the monotonic clock. The error is what a frame
took more than was set. With netem in the kernel both engines are measured.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import SetupError
from testbed import netns, sweep
from testbed.bench import common
from testbed.delay import DelayLink, DelayLinks, Engine, netem_works
from testbed.delay_queue import Shape
from testbed.netns_socket import socket_in
from testbed.pinger import BILLION, PRIORITY, SO_TIMESTAMPNS, Instant
from testbed.results import quantiles
from testbed.topology import namespace_prefix

SET_MS: Final = 4.0
RATES: Final = (100, 1_000, 2_000, 5_000, 10_000, 20_000)
"""Frames a second."""
EACH_S: Final = 5.0
GRACE_S: Final = 0.5
MEDIAN_LIMIT_MS: Final = 0.1
P99_LIMIT_MS: Final = 0.5
JITTER_MS: Final = 1.0
LOSS_PERCENT: Final = 2.0
RATE_MBIT_S: Final = 10.0
BUFFER_OCTETS: Final = 8 << 20

_EXPERIMENTAL: Final = 0x88B5
"""An EtherType for local experiments (IEEE 802)."""
_ETHERNET: Final = bytes.fromhex("ffffffffffff020000000001") + _EXPERIMENTAL.to_bytes(2)
_NUMBER: Final = struct.Struct("!Q")
_SO_RCVBUFFORCE: Final = 33


@dataclass(frozen=True, slots=True)
class Passage:
    """What went through a link: one-way times in milliseconds by frame number, how many were sent, in how long."""

    took_ms: dict[int, float]
    sent: int
    received_in_s: float


class _Wire:
    """The link between ``left`` and ``right``, and a socket at each end."""

    def __init__(self, run: str, directory: Path) -> None:
        self._prefix = namespace_prefix(run)
        self._directory = directory
        self.left, self.right, self.middle = (self._prefix + name for name in ("left", "right", "delay"))

    async def build(self) -> None:
        await netns.create([self.left, self.right, self.middle])
        for end, device in ((self.left, "w-a"), (self.right, "w-b")):
            await netns.ip_batch([netns.veth((end, "e"), (self.middle, device), mtu=2000)])
            await netns.run_in(end, "sh", stdin=netns.offloads_off(["e"]) + "ip link set e up\n")
            await netns.run_in(self.middle, "sh", stdin=netns.offloads_off([device]) + f"ip link set {device} up\n")

    @asynccontextmanager
    async def link(self, shape: Shape, engine: Engine) -> AsyncIterator[DelayLinks]:
        links = DelayLinks(self.middle, [DelayLink(name="bench", a="w-a", b="w-b", shape=shape)], self._directory)
        await links.start(engine)
        try:
            yield links
        finally:
            await links.stop()

    def socket(self, namespace: str) -> socket.socket:
        opened = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EXPERIMENTAL))
        opened.bind(("e", _EXPERIMENTAL))
        opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_OCTETS)
        opened.setblocking(False)
        return opened


def run() -> dict[str, Any]:
    """Measure; the whole report.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    if os.geteuid() != 0:
        raise SetupError("the testbed makes network namespaces and needs root: sudo .venv/bin/mobiscud bench delay")
    return common.report("delay", asyncio.run(measure()))


async def measure(rates: Sequence[int] = RATES, each_s: float = EACH_S) -> dict[str, Any]:
    """Measure every engine there is."""
    await sweep.sweep()
    place = sweep.RunDirectory.create()
    try:
        wire = _Wire(place.run, place.path)
        await wire.build()
        engines: list[Engine] = ["user space"]
        if await netem_works(wire.middle):
            engines.append("netem")
        return {
            "set_ms": SET_MS,
            "engines": {engine: await _engine(wire, engine, rates, each_s) for engine in engines},
        }
    finally:
        await place.remove()


async def _engine(wire: _Wire, engine: Engine, rates: Sequence[int], each_s: float) -> dict[str, Any]:
    rows = []
    for rate in rates:
        common.say(f"{engine}: {rate} frames a second for {each_s:g} s")
        async with wire.link(Shape(delay_ms=SET_MS), engine) as links:
            before = _processor_s(links.pid)
            passage = await asyncio.to_thread(_pass, wire, rate, each_s, 60)
            used_s = _processor_s(links.pid) - before
        rows.append(row(rate, passage) | {"processor_share": round(used_s / each_s, 3) if used_s else None})
    common.say(f"{engine}: jitter, loss, rate")
    async with wire.link(Shape(delay_ms=SET_MS, jitter_ms=JITTER_MS), engine):
        jittered = await asyncio.to_thread(_pass, wire, 500, each_s, 60)
    async with wire.link(Shape(delay_ms=SET_MS, loss_percent=LOSS_PERCENT), engine):
        lossy = await asyncio.to_thread(_pass, wire, 2000, each_s, 60)
    async with wire.link(Shape(delay_ms=SET_MS, rate_mbit_s=RATE_MBIT_S), engine):
        limited = await asyncio.to_thread(_pass, wire, 2000, each_s, 1000)
    return {
        "rates": rows,
        "within_limits_up_to_packets_per_s": limit(rows),
        "jitter": {"set_ms": JITTER_MS, **spread(jittered)},
        "loss": {"set_percent": LOSS_PERCENT, "percent": _lost_percent(lossy)},
        "rate": {
            "set_mbit_s": RATE_MBIT_S,
            "mbit_s": round(8e-6 * 1000 * len(limited.took_ms) / limited.received_in_s, 3),
        },
    }


def row(rate: int, passage: Passage) -> dict[str, Any]:
    """The figures at one rate."""
    return {
        "packets_per_s": rate,
        "error_ms": quantiles(took - SET_MS for took in passage.took_ms.values()),
        "lost": passage.sent - len(passage.took_ms),
    }


def limit(rows: Sequence[dict[str, Any]]) -> int | None:
    """The highest rate up to which, and at which, the errors are within the limits; ``None``: at none."""
    kept = None
    for found in rows:
        median, worst = found["error_ms"]["p50"], found["error_ms"]["p99"]
        if median is None or median > MEDIAN_LIMIT_MS or worst > P99_LIMIT_MS or found["lost"]:
            return kept
        kept = found["packets_per_s"]
    return kept


def spread(passage: Passage) -> dict[str, float | None]:
    """How far frames were before and behind the middle."""
    errors = sorted(took - SET_MS for took in passage.took_ms.values())
    if not errors:
        return {"least_ms": None, "median_ms": None, "most_ms": None}
    edge = len(errors) // 100
    figures = {"least_ms": errors[edge], "median_ms": errors[len(errors) // 2], "most_ms": errors[-1 - edge]}
    return {name: round(value, 3) for name, value in figures.items()}


def _lost_percent(passage: Passage) -> float:
    return round(100 * (1 - len(passage.took_ms) / passage.sent), 3)


def _processor_s(pid: int | None) -> float:
    """User and system time of a process (proc(5), fields 14 and 15); nought for none."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pass(wire: _Wire, rate: int, each_s: float, octets: int) -> Passage:
    """Send at a steady pace and receive what comes, on one thread with real-time priority."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except PermissionError:
        pass  # a little less exact under load
    gc.disable()
    try:
        with wire.socket(wire.left) as near, wire.socket(wire.right) as far:
            return _exchange(near, far, rate, each_s, octets)
    finally:
        gc.enable()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _exchange(near: socket.socket, far: socket.socket, rate: int, each_s: float, octets: int) -> Passage:
    sent: list[Instant] = []
    took_ms: dict[int, float] = {}
    padding = bytes(octets - len(_ETHERNET) - _NUMBER.size)
    interval = BILLION // rate
    first = last = time.monotonic_ns()

    def receive(within_ns: int) -> None:
        nonlocal last
        if not select.select([far], [], [], max(0, within_ns) / BILLION)[0]:
            return
        while True:
            try:
                frame, control, _, _ = far.recvmsg(4096, 64)
            except BlockingIOError:
                return
            (number,) = _NUMBER.unpack_from(frame, len(_ETHERNET))
            instant = sent[number]
            took_ms[number] = (instant.answered(control) - instant.wall_ns) / 1e6
            last = time.monotonic_ns()

    due = first
    end = first + round(each_s * BILLION)
    while due < end:
        if time.monotonic_ns() >= due:
            sent.append(Instant.now())
            try:
                near.send(_ETHERNET + _NUMBER.pack(len(sent) - 1) + padding)
            except BlockingIOError:
                pass  # lost at our own door
            due += interval
        receive(due - time.monotonic_ns())
    until = time.monotonic_ns() + round(GRACE_S * BILLION)
    while len(took_ms) < len(sent) and (left := until - time.monotonic_ns()) > 0:
        receive(left)
    return Passage(took_ms, len(sent), (last - first) / BILLION)
