"""``mobiscud monitor`` as a user starts it: the wire that it watches, who listens on the bus, the processes."""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from epc_monitor.capture import read_capture
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.core.config import BusConfig

Json = dict[str, Any]
CAPTURES: Final = Path(__file__).parents[2] / "vectors" / "captures"
CAPTURE: Final = CAPTURES / "epc-multi-ue-a.pcap"
CLONE_NEWNET: Final = 0x4000_0000
LIMIT_S: Final = 60
KEY: Final = "a key that only these tests know"
PROGRAM: Final = (sys.executable, "-m", "mobiscud")


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


def frames_of(capture: Path) -> list[bytes]:
    return [frame.data for frame in read_capture(capture)]


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


def events_of(capture: Path, frames: int | None = None) -> list[Any]:
    watching = Monitor(UeKeys(KEY.encode()))
    return [event for frame in islice(read_capture(capture), frames) for event in watching.receive(frame)]
