"""``mobiscud bench latency``: from a frame on the wire to an MQTT subscriber, through a real monitor and Mosquitto.

    sender -- veth --> mobiscud monitor --> Mosquitto --> subscriber (this process)

Each event carries the kernel's time of the frame that completed it; its latency ends when the subscriber has it. The
network is a namespace of its own. Beside the last load 150,000 packets a second of GTP-U pass the same interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from epc_monitor.frames import LINKTYPE_ETHERNET, Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.bus import topics
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, SetupError
from mobiscud.core.events import UeAttached, UeIdle
from testbed import netns
from testbed.bench import common, forms
from testbed.bench.common import say
from testbed.bench.ue_life import UeLives
from testbed.bench.wire import write_capture
from testbed.mosquitto import Mosquitto
from testbed.spawn import PYTHON, Child, spawn

SECONDS: Final = 8.0
GTP_U_PER_S: Final = 150_000
ENBS: Final = 50
STAY: Final = 50
"""How many others attach before a UE falls idle."""

HEARD: Final = (
    *(f"{topics.ROOT}/ue/+/{event.TYPE}" for event in (UeAttached, UeIdle)),
    f"{topics.ROOT}/site/+/event/+",
    topics.health("bench", "monitor"),
)
"""What the subscriber wants: not the retained states, which come with the events and would only cost it time."""

QUIET_S: Final = 3.0
START_LIMIT_S: Final = 20.0
PRIORITY: Final = 5
SECRET: Final = "only for the bench: " + "0" * 16


@dataclass(frozen=True, slots=True)
class Load:
    """Signalling messages a second, and GTP-U packets a second beside them."""

    messages_per_s: int
    gtp_u_per_s: int = 0

    @property
    def name(self) -> str:
        return str(self.messages_per_s) + ("_beside_gtp_u" if self.gtp_u_per_s else "")


LOADS: Final = (Load(1000), Load(5000), Load(5000, GTP_U_PER_S))


@dataclass(slots=True)
class _Heard:
    """What the subscriber has: latencies in milliseconds, and frames that the monitor knows to be lost."""

    latencies_ms: list[float] = field(default_factory=list)
    dropped: int = 0
    online: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, topic: str, payload: bytes) -> None:
        now = time.time()
        if topic.endswith("/health"):
            if json.loads(payload)["status"] == "online":
                self.online.set()
        elif topic.endswith("/monitor.dropped"):
            self.dropped += json.loads(payload)["data"]["count"]
        else:
            seen = datetime.fromisoformat(json.loads(payload)["time"]).timestamp()
            self.latencies_ms.append((now - seen) * 1000)


def run(seconds: float = SECONDS) -> dict[str, Any]:
    """Measure; the whole report.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a part failed
    """
    if os.geteuid() != 0:
        raise SetupError("bench latency makes a network namespace and needs root: sudo mobiscud bench latency")
    with tempfile.TemporaryDirectory(prefix="mobiscud-bench-") as name, _ahead_of_others():
        return common.report("latency", asyncio.run(_measure(Path(name), seconds)))


@contextlib.contextmanager
def _ahead_of_others() -> Iterator[None]:
    """All parts go before other programs of the machine, which then is as good as idle, if it has cores enough."""
    policy, usual = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, usual)


async def _measure(directory: Path, seconds: float) -> dict[str, Any]:
    traffic = _traffic(seconds)
    gc.freeze()  # the subscriber must not halt to look through all those frames
    async with contextlib.AsyncExitStack() as stack:
        namespace = await stack.enter_async_context(_network())
        broker = await stack.enter_async_context(Mosquitto(directory / "broker"))
        heard = _Heard()
        bus = await stack.enter_async_context(MqttBus(Broker.from_config(BusConfig(), broker.unix_url)))
        for topic_filter in HEARD:
            await bus.subscribe(topic_filter, heard)
        monitor = await stack.enter_async_context(_monitor(directory, namespace, broker.unix_url))
        try:
            await asyncio.wait_for(heard.online.wait(), START_LIMIT_S)
        except TimeoutError:
            raise AdapterError(f"the monitor does not come online: {monitor.last_words()}") from None
        results: dict[str, Any] = {}
        for load, (frames, expected) in zip(LOADS, traffic, strict=True):
            say(
                f"{load.messages_per_s} messages/s for {seconds:.0f} s" + (", beside GTP-U" if load.gtp_u_per_s else "")
            )
            path = directory / f"{load.name}.pcap"
            write_capture(path, frames)
            before = _cpu_s(monitor.pid)
            results[load.name] = await _one(namespace, load, seconds, path, heard, expected)
            results[load.name]["monitor_cpu_s"] = round(_cpu_s(monitor.pid) - before, 2)
        return {**results, "monitor": "compiled" if forms.is_compiled() else "plain"}


async def _one(namespace: str, load: Load, seconds: float, path: Path, heard: _Heard, expected: int) -> dict[str, Any]:
    """One load, until all its events are here or nothing more comes."""
    heard.latencies_ms.clear()
    heard.dropped = 0
    children = [await _send(namespace, load.messages_per_s, str(path))]
    if load.gtp_u_per_s:
        children.append(await _send(namespace, load.gtp_u_per_s, "--user-plane", str(seconds)))
    sent = [await _answer(child) for child in children]
    had = -1
    while had < len(heard.latencies_ms) < expected:
        had = len(heard.latencies_ms)
        await asyncio.sleep(QUIET_S)
    latencies = sorted(heard.latencies_ms)
    if not latencies:
        raise AdapterError("no event came: is the monitor alive?")
    return {
        "p50_ms": round(_quantile(latencies, 0.5), 3),
        "p99_ms": round(_quantile(latencies, 0.99), 3),
        "max_ms": round(latencies[-1], 3),
        "events": len(latencies),
        "lost_events": expected - len(latencies),
        "lost_frames": heard.dropped,
        "messages_per_s": sent[0]["per_s"],
        "gtp_u_per_s": sent[1]["per_s"] if load.gtp_u_per_s else 0,
    }


def _cpu_s(pid: int) -> float:
    """Seconds of processor that a process has had (proc(5): utime and stime, the 14th and 15th field)."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _traffic(seconds: float) -> list[tuple[list[Frame], int]]:
    """The frames of each load, and how many events they must lead to: what a monitor without a wire makes of them."""
    say("making the signalling")
    lives, reference, ue = UeLives(ENBS), Monitor(UeKeys(SECRET.encode())), 0
    made = []
    pending: Iterator[bytes] = lives.setups()
    for load in LOADS:
        frames: list[Frame] = []
        events = 0
        while len(frames) < load.messages_per_s * seconds:
            for data in pending:
                frames.append(Frame(0, LINKTYPE_ETHERNET, data))
                events += len(reference.receive(frames[-1]))
            pending = iter((*lives.attach(ue), *(lives.idle(ue - STAY) if ue >= STAY else ())))
            ue += 1
        made.append((frames, events))
    return made


@contextlib.asynccontextmanager
async def _network() -> AsyncIterator[str]:
    """A namespace with the two ends of a wire, ``far`` and ``near``."""
    namespace = f"mobiscud-bench-{os.getpid()}"
    await netns.create([namespace])
    try:
        await netns.ip_batch([netns.veth((namespace, "far"), (namespace, "near"), mtu=1500)])
        await netns.ip_batch(["link set far up", "link set near up"], namespace)
        yield namespace
    finally:
        await netns.delete([namespace])


@contextlib.asynccontextmanager
async def _monitor(directory: Path, namespace: str, url: str) -> AsyncIterator[Child]:
    """The real program, as an operator runs it."""
    config = directory / "monitor.yaml"
    config.write_text(
        f"site: {{name: bench, node: monitor}}\nbus: {{url: '{url}'}}\n"
        f"privacy: {{key: '{SECRET}'}}\nmonitor: {{interfaces: [near]}}\n"
    )
    command = (*PYTHON, "mobiscud", "monitor", "-c", str(config))
    child = await spawn("monitor", *command, log=directory / "monitor.log", namespace=namespace)
    try:
        yield child
    finally:
        await child.stop()


async def _send(namespace: str, rate: int, *what: str) -> asyncio.subprocess.Process:
    where = ("nsenter", f"--net={netns.path(namespace)}")
    return await asyncio.create_subprocess_exec(
        *where,
        *(sys.executable, "-P", "-m", "testbed.bench.sender", "far", str(rate), *what),
        stdout=asyncio.subprocess.PIPE,
        env=common.environment(None),
    )


async def _answer(child: asyncio.subprocess.Process) -> Any:
    out, _ = await child.communicate()
    if child.returncode:
        raise AdapterError(f"the sender failed with status {child.returncode}")
    return json.loads(out)
