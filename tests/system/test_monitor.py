"""``mobiscud monitor`` as a user starts it: on a wire in a network namespace, with a real broker."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from epc_monitor.capture import read_capture
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.app.node import _tell_losses
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.publisher import EventPublisher
from mobiscud.core.config import BusConfig
from mobiscud.core.events import UeEvent
from testbed.mosquitto import Mosquitto

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]

Json = dict[str, Any]

CAPTURES: Final = Path(__file__).parents[1] / "vectors" / "captures"
CAPTURE: Final = CAPTURES / "epc-multi-ue-a.pcap"
CLONE_NEWNET: Final = 0x4000_0000
LIMIT_S: Final = 60
KEY: Final = "a key that only these tests know"
PROGRAM: Final = (sys.executable, "-m", "mobiscud")


# The wire ----------------------------------------------------------------------------------------------------------


class Wire:
    """A namespace in which what is sent on ``one`` comes out of ``two`` and, by a mirror, again out of ``four``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Wire:
        self.run("ip netns add {0}")
        self.run("ip -n {0} link set lo up")
        self.lay()
        self.run("ip -n {0} link add three type veth peer name four")
        self.run("ip -n {0} link set three addrgenmode none up")
        self.run("ip -n {0} link set four addrgenmode none up")
        self.run("tc -n {0} qdisc add dev two ingress")
        everything = "protocol all u32 match u32 0 0"
        self.run(f"tc -n {{0}} filter add dev two parent ffff: {everything} action mirred egress mirror dev three")
        return self

    def lay(self) -> None:
        """Make ``one`` and ``two``, the ends of a cable."""
        self.run("ip -n {0} link add one type veth peer name two")
        self.run("ip -n {0} link set one addrgenmode none up")
        self.run("ip -n {0} link set two addrgenmode none up")

    def __exit__(self, *_: object) -> None:
        self.run("ip netns del {0}")

    def run(self, command: str) -> None:
        subprocess.run(command.format(self.name).split(), check=True)

    def send(self, frames: Iterable[bytes], interface: str = "one") -> None:
        with self._socket(interface) as sending:
            for frame in frames:
                sending.send(frame)

    def unread(self) -> int:
        """Octets that packet sockets inside have received and nobody has read."""
        listed = subprocess.run(
            ["ip", "netns", "exec", self.name, "cat", "/proc/net/packet"], capture_output=True, text=True, check=True
        )
        return sum(int(line.split()[6]) for line in listed.stdout.splitlines()[1:])

    def _socket(self, interface: str) -> socket.socket:
        """A packet socket inside; the thread that opens it stays there and ends."""
        opened: list[socket.socket] = []

        def open_inside() -> None:
            with open(f"/run/netns/{self.name}") as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
            opened.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            opened[0].bind((interface, 0))

        thread = threading.Thread(target=open_inside, name="inside")
        thread.start()
        thread.join()
        return opened[0]


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with TemporaryDirectory(prefix="monitor-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def open_program(open_path: Path) -> Iterator[tuple[str, ...]]:
    """The program where everybody may read it; the checkout may lie where only root looks."""
    checkout, shown = Path(__file__).parents[2], open_path / "checkout"
    shown.mkdir()
    subprocess.run(["mount", "--bind", checkout, shown], check=True)
    python = Path(sys.executable)
    if python.is_relative_to(checkout):
        python = shown / python.relative_to(checkout)
    try:
        yield ("env", f"PYTHONPATH={shown}", "PYTHONDONTWRITEBYTECODE=1", str(python), "-m", "mobiscud")
    finally:
        subprocess.run(["umount", shown], check=True)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire(f"monitor-test-{os.getpid()}") as wire:
        yield wire


def frames_of(capture: Path) -> list[bytes]:
    return [frame.data for frame in read_capture(capture)]


# The bus -----------------------------------------------------------------------------------------------------------


class Listener:
    """Hears everything on the bus; ``events`` are those without repeats, in the order in which they came."""

    def __init__(self) -> None:
        self.all: list[tuple[str, bytes]] = []
        self.events: list[Json] = []
        self.states: dict[str, Json] = {}
        self.health: dict[str, Json] = {}
        self.connections = 0
        self._ids: set[str] = set()
        self._news = asyncio.Event()

    def hear(self, topic: str, payload: bytes) -> None:
        self.all.append((topic, payload))
        content: Any = json.loads(payload) if payload else None
        kind = topic.split("/")[-3:]
        if kind[2] == "health":
            self.health[kind[1]] = content
        elif kind[0] == "ue" and kind[2] == "state":
            self.states[kind[1]] = content
        elif kind[0] != "ue" and kind[1] != "event":
            pass  # of associations, and what nodes ask of each other
        elif content["id"] not in self._ids:
            self._ids.add(content["id"])
            self.events.append(content)
        self._news.set()

    def on_connect(self) -> None:
        self.connections += 1
        self._news.set()

    def told(self) -> list[str]:
        """The ids of all events, with repeats."""
        events = [payload for topic, payload in self.all if topic.split("/")[-1].count(".") == 1]
        return [json.loads(payload)["id"] for payload in events]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def is_online(self, node: str) -> bool:
        return self.health.get(node, {}).get("status") == "online"


@asynccontextmanager
async def listening(url: str, topics: str = "mobiscud/#") -> AsyncIterator[Listener]:
    listener = Listener()
    async with MqttBus(Broker.from_config(BusConfig(), url)) as bus:
        await bus.subscribe(topics, listener.hear)
        bus.on_connect(listener.on_connect)
        yield listener


def configuration(directory: Path, url: str, node: str, monitor: str = "{}") -> Path:
    path = directory / f"{node}.yaml"
    path.write_text(
        f"site: {{name: lab, node: {node}}}\nbus: {{url: '{url}'}}\nprivacy: {{key: {KEY}}}\nmonitor: {monitor}\n"
    )
    return path


class Process:
    """A running ``mobiscud``; what it says is in ``log`` and ``printed``."""

    def __init__(self, directory: Path, name: str) -> None:
        self.log = directory / f"{name}.log"
        self.printed = directory / f"{name}.out"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *command: str) -> None:
        with self.log.open("ab") as log, self.printed.open("ab") as printed:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=printed, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def status(self) -> str:
        return Path(f"/proc/{self.pid}/status").read_text()

    async def stop(self, how: int = signal.SIGTERM) -> int:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
        return await self._process.wait()


@asynccontextmanager
async def monitor(
    wire: Wire,
    config: Path,
    interfaces: Iterable[str],
    *options: str,
    prefix: tuple[str, ...] = (),
    program: tuple[str, ...] = PROGRAM,
) -> AsyncIterator[Process]:
    process = Process(config.parent, config.stem)
    watched = [word for name in interfaces for word in ("-i", name)]
    inside = ("ip", "netns", "exec", wire.name, *prefix)
    await process.start(*inside, *program, "monitor", "-c", str(config), "--log-level", "debug", *watched, *options)
    try:
        yield process
    finally:
        await process.stop()


def replayed(capture: Path, config: Path) -> list[Json]:
    done = subprocess.run([*PROGRAM, "replay", "-c", str(config), str(capture)], capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def facts(events: Iterable[Json]) -> list[tuple[str, str, Json]]:
    return [(event["id"], event["type"], event["data"]) for event in events]


def ids(events: Iterable[Json]) -> list[str]:
    return [event["id"] for event in events]


def statuses(events: Iterable[Json]) -> dict[str, str]:
    """Where each UE is in the end: what its state says."""
    found: dict[str, str] = {}
    for event in events:
        kind = event["type"].removeprefix("org.mobiscud.")
        if kind in ("ue.attached", "ue.connected", "handover.completed"):
            found[event["subject"]] = "connected"
        elif kind == "ue.idle":
            found[event["subject"]] = "idle"
        elif kind == "ue.detached":
            found.pop(event["subject"], None)
        elif kind == "ue.identified":
            found.pop(event["data"]["previous_ue"], None)
    return found


async def eventually(condition: Callable[[], bool]) -> None:
    """For what announces itself to nobody."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def has_said(path: Path, words: str) -> Callable[[], bool]:
    return lambda: words in path.read_text()


# What it must show -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interfaces", "send_on"),
    [(["two"], "one"), (["two", "four"], "one"), (["lo"], "lo")],
    ids=["one port", "mirrored twice", "loopback"],
)
async def test_live_is_what_a_replay_is(wire: Wire, tmp_path: Path, interfaces: list[str], send_on: str) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, interfaces) as process:
            await heard.until(lambda: heard.is_online("m1"))
            assert "CapEff:\t0000000000000000" in process.status()
            assert "CapBnd:\t0000000000000000" in process.status()
            wire.send(frames_of(CAPTURE), send_on)
            await heard.until(lambda: len(heard.events) >= len(expected))
            assert await process.stop() == 0
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
    assert facts(heard.events) == facts(expected)
    counters = heard.health["m1"]["counters"]
    assert counters["events"] == len(expected)
    assert counters["frames"] >= len(interfaces) * 100
    assert (counters["kernel_drops"], counters["spool_lost"]) == (0, 0)
    assert {ue: state["status"] for ue, state in heard.states.items() if state} == statuses(expected)


async def test_it_prints_what_it_would_publish(wire: Wire, tmp_path: Path) -> None:
    config = configuration(tmp_path, "mqtt://127.0.0.1:1", "m1")
    expected = replayed(CAPTURE, config)
    async with monitor(wire, config, ["two"], "--stdout") as process:
        await eventually(has_said(process.log, "privileges dropped"))
        wire.send(frames_of(CAPTURE))
        await eventually(lambda: process.printed.read_text().count("\n") >= len(expected))
        assert await process.stop() == 0
    assert facts(map(json.loads, process.printed.read_text().splitlines())) == facts(expected)


async def test_the_privilege_to_capture_is_enough(wire: Wire, open_path: Path, open_program: tuple[str, ...]) -> None:
    keep = ("setpriv", "--inh-caps=-all,+net_raw", "--bounding-set=-all,+net_raw", "--ambient-caps=-all,+net_raw")
    as_nobody = (*keep, "--reuid=65534", "--regid=65534", "--clear-groups")
    async with Mosquitto(open_path) as broker, listening(broker.url) as heard:
        (open_path / "mqtt.sock").chmod(0o777)
        config = configuration(open_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, ["two"], prefix=as_nobody, program=open_program) as process:
            await heard.until(lambda: heard.is_online("m1"))
            assert "CapPrm:\t0000000000000000" in process.status()
            wire.send(frames_of(CAPTURE))
            await heard.until(lambda: len(heard.events) >= len(expected))
    assert facts(heard.events) == facts(expected)
    assert "give CAP_NET_ADMIN" in process.log.read_text()


async def test_it_becomes_the_user_it_is_told(wire: Wire, open_path: Path, open_program: tuple[str, ...]) -> None:
    async with Mosquitto(open_path) as broker, listening(broker.url) as heard:
        (open_path / "mqtt.sock").chmod(0o777)
        config = configuration(open_path, broker.unix_url, "m1", monitor="{user: nobody}")
        async with monitor(wire, config, ["two"], program=open_program) as process:
            await heard.until(lambda: heard.is_online("m1"))
            assert "Uid:\t65534\t65534\t65534\t65534" in process.status()


async def test_a_port_that_was_away_needs_no_privilege_again(wire: Wire, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.run("ip -n {0} link del two")
            await eventually(has_said(process.log, "interface is down or gone"))
            wire.lay()
            await eventually(has_said(process.log, "interface is back"))
            wire.send(frames_of(CAPTURE))
            await heard.until(lambda: len(heard.events) >= len(expected))
    assert facts(heard.events) == facts(expected)


async def test_two_monitors_on_one_wire_tell_the_same_facts(wire: Wire, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        configs = [configuration(tmp_path, broker.unix_url, node) for node in ("m1", "m2")]
        expected = replayed(CAPTURE, configs[0])
        async with monitor(wire, configs[0], ["two"]), monitor(wire, configs[1], ["four"]):
            await heard.until(lambda: heard.is_online("m1") and heard.is_online("m2"))
            wire.send(frames_of(CAPTURE))
            await heard.until(lambda: len(heard.told()) >= 2 * len(expected))
    assert sorted(heard.told()) == sorted(2 * ids(expected))


async def test_a_broker_that_was_away_costs_nothing(wire: Wire, tmp_path: Path) -> None:
    frames = frames_of(CAPTURE)
    half = len(frames) // 2
    broker = Mosquitto(tmp_path)
    await broker.__aenter__()
    config = configuration(tmp_path, broker.unix_url, "m1")
    expected = replayed(CAPTURE, config)
    tail = Process(tmp_path, "tail")
    await tail.start(*PROGRAM, "events", "--bus", broker.url)
    try:
        async with listening(broker.url) as heard, monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            await eventually(has_said(tail.log, "waiting for events"))
            wire.send(frames[:half])
            await settled(heard, tail)
            assert 0 < len(heard.events) < len(expected)
            await broker.stop(kill=True)
            await eventually(has_said(process.log, "connection to the broker lost"))
            wire.send(frames[half:])
            await eventually(lambda: wire.unread() == 0)
            os.kill(process.pid, signal.SIGSTOP)  # a broker keeps nothing for subscribers that it does not know yet
            heard.health.clear()
            connections = heard.connections
            async with Mosquitto(tmp_path, broker.port):
                await heard.until(lambda: heard.connections > connections)
                await eventually(has_said(tail.log, "connected to the broker again"))
                os.kill(process.pid, signal.SIGCONT)
                await heard.until(lambda: len(heard.events) >= len(expected) and heard.is_online("m1"))
                await eventually(has_said(tail.printed, expected[-1]["id"]))
                async with listening(broker.url) as later:
                    await later.until(lambda: later.is_online("m1") and set(later.states) >= set(statuses(expected)))
                assert later.events == []
                await process.stop()
    finally:
        await tail.stop(signal.SIGINT)
    assert ids(heard.events) == ids(expected)
    assert ids(map(json.loads, tail.printed.read_text().splitlines())) == ids(expected)
    assert {ue: state for ue, state in heard.states.items() if state} == later.states


async def settled(heard: Listener, tail: Process) -> None:
    """Until all that has been sent was told, to everybody: the wire falls silent, and both have heard the same."""
    async with asyncio.timeout(LIMIT_S):
        before = -1
        while not (len(heard.events) == before > 0 and tail.printed.read_text().count("\n") == before):
            before = len(heard.events)
            await asyncio.sleep(0.5)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")  # paho leaves a socket that finds no door to the GC
async def test_what_the_spool_cannot_hold_is_counted_and_told(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    await broker.__aenter__()
    door = tmp_path / "door"  # which stays shut for the speaker until the listener is back
    door.symlink_to(tmp_path / "mqtt.sock")
    watching = Monitor(UeKeys(KEY.encode()))
    seen = [event for frame in read_capture(CAPTURE) for event in watching.receive(frame)]
    made = [event for event in seen if isinstance(event, UeEvent)]
    expected = replayed(CAPTURE, configuration(tmp_path, broker.url, "m1"))
    speaker = MqttBus(Broker.from_config(BusConfig(), f"unix://{door}"), spool_bytes=20_000)
    async with listening(broker.url) as heard, speaker as bus:
        publisher = EventPublisher(bus, "lab", "monitor", show_imsi=False, states=watching.tracker)
        telling = asyncio.create_task(_tell_losses(bus, publisher.publish))
        door.unlink()
        await broker.stop()
        await eventually(lambda: not bus.connected)
        for event in made:
            publisher.publish(event)
        assert bus.lost > 0
        connections = heard.connections
        async with Mosquitto(tmp_path, broker.port):
            await heard.until(lambda: heard.connections > connections)
            door.symlink_to(tmp_path / "mqtt.sock")
            await heard.until(lambda: any(e["type"].endswith("monitor.dropped") for e in heard.events))
            assert await bus.flush(LIMIT_S)
            telling.cancel()
    [dropped] = [event for event in heard.events if event["type"].endswith("monitor.dropped")]
    assert dropped["data"]["where"] == {"interface": None, "reason": "spool"}
    assert dropped["data"]["count"] + len(heard.events) - 1 == len(made)
    complete = [event for event in expected if "subject" in event]
    assert {ue: state["status"] for ue, state in heard.states.items() if state} == statuses(complete)


async def test_a_restart_tells_nothing_twice_and_nothing_false(wire: Wire, tmp_path: Path) -> None:
    frames = frames_of(CAPTURE)
    half = len(frames) // 2
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[:half])
            await eventually(lambda: wire.unread() == 0)
            await process.stop()
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
        before = len(heard.events)
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[half:])
            await eventually(lambda: wire.unread() == 0)
            await process.stop()
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
    assert 0 < before < len(heard.events)
    assert len(heard.told()) == len(heard.events), "nothing twice"
    known = {event.get("subject") for event in expected}
    # It was cut in the middle of procedures: how a UE came, or where it went meanwhile, was not seen, and that is said.
    late = tuple(f"org.mobiscud.{kind}" for kind in ("ue.connected", "ue.identified", "monitor.desynchronised"))
    told = [event for event in heard.events if event.get("subject") in known and event["type"] not in late]
    assert set(ids(told)) <= set(ids(expected)), "nothing false"
    sequences = [int(event["sequence"]) for event in heard.events]
    assert sequences == sorted(set(sequences))


@pytest.mark.parametrize("is_doubled", [False, True], ids=["alone", "doubled"])
async def test_a_monitor_that_was_killed_goes_on_where_it_was(wire: Wire, tmp_path: Path, is_doubled: bool) -> None:
    """Killed where no procedure is under way (tests/property/test_resumption.py finds such places)."""
    capture, cut = CAPTURES / "epc-attach-eea2.pcap", 203
    frames = frames_of(capture)
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard, AsyncExitStack() as stack:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(capture, config)
        told_before = len(events_of(capture, cut))
        if is_doubled:
            other = configuration(tmp_path, broker.unix_url, "m2")
            await stack.enter_async_context(monitor(wire, other, ["four"]))
            await heard.until(lambda: heard.is_online("m2"))
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[:cut])
            await heard.until(lambda: len(heard.events) >= told_before)
            await eventually(lambda: wire.unread() == 0)
            await process.stop(signal.SIGKILL)
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[cut:])
            await heard.until(lambda: len(heard.events) >= len(expected))
            await eventually(lambda: wire.unread() == 0)
            assert await process.stop() == 0
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
        assert "UEs known from before" in process.log.read_text()
    assert 0 < told_before < len(expected)
    assert sorted(map(str, facts(heard.events))) == sorted(map(str, facts(expected)))
    assert {ue: state["status"] for ue, state in heard.states.items() if state} == statuses(expected)


async def test_it_says_that_it_lives_and_the_broker_when_not(wire: Wire, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            first = heard.health["m1"]["time"]
            await heard.until(lambda: heard.health["m1"]["time"] > first)
            await process.stop(signal.SIGKILL)
            await heard.until(lambda: heard.health["m1"]["status"] == "offline")


def events_of(capture: Path, frames: int | None = None) -> list[Any]:
    watching = Monitor(UeKeys(KEY.encode()))
    return [event for frame in islice(read_capture(capture), frames) for event in watching.receive(frame)]


def imsis() -> set[str]:
    """Every IMSI that can be learnt from the captures."""
    found = {
        event.imsi
        for capture in sorted(CAPTURES.glob("*.pcap"))
        for event in events_of(capture)
        if isinstance(event, UeEvent) and event.imsi is not None
    }
    for truth in CAPTURES.glob("*.truth.jsonl"):
        found |= {line["imsi"] for line in map(json.loads, truth.read_text().splitlines()) if "imsi" in line}
    return {str(imsi) for imsi in found}


def encoded(imsi: str) -> bytes:
    """As it stands in a message: two digits an octet, the earlier one in the low half (TS 23.003, TBCD)."""
    digits = imsi + "f"
    return bytes(int(digits[i + 1] + digits[i], 16) for i in range(0, len(digits), 2))


async def test_no_identity_leaves_the_process(wire: Wire, tmp_path: Path) -> None:
    secret = imsis()
    assert len(secret) >= 5
    captures = sorted(CAPTURES.glob("*.pcap"))
    async with Mosquitto(tmp_path) as broker, listening(broker.url, "#") as heard:
        for form, output in (("console", "table"), ("json", "jsonl")):
            config = configuration(tmp_path, broker.unix_url, f"replay-{form}")
            process = Process(tmp_path, f"replay-{form}")
            options = ("--publish", "--stats", "--output", output, "--log-level", "debug", "--log-format", form)
            await process.start(*PROGRAM, "replay", "-c", str(config), *options, *map(str, captures))
            assert await process.stop(0) == 0
        async with monitor(wire, configuration(tmp_path, broker.unix_url, "m1"), ["two"]):
            await heard.until(lambda: heard.is_online("m1"))
            for capture in captures:
                wire.send(frames_of(capture))
            wire.send(damaged(frame) for frame in frames_of(CAPTURE))
            await eventually(lambda: wire.unread() == 0)
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
    assert heard.health["m1"]["counters"]["decode_errors"] > 0
    assert len(heard.told()) > 2 * len(heard.events) > 0
    said = b"\n".join(topic.encode() + b" " + payload for topic, payload in heard.all) + everything_below(tmp_path)
    for imsi in secret:
        assert imsi.encode() not in said
        assert encoded(imsi) not in said
        assert encoded(imsi).hex().encode() not in said.lower()


def damaged(frame: bytes) -> bytes:
    """The frame with an IP packet that says it is longer than it is."""
    return frame[:16] + b"\xff\xff" + frame[18:]


def everything_below(directory: Path) -> bytes:
    """What the files are called, and what is in them."""
    paths = list(directory.rglob("*"))
    names = [str(path.relative_to(directory)).encode() for path in paths]
    return b"\n".join(names + [path.read_bytes() for path in paths if path.is_file()])
