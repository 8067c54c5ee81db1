"""The whole testbed, up and down: network, EPC and RAN, cloudlets, broker, and the nodes of MobiScud.

The nodes are started as a user starts them, ``mobiscud run -c FILE``, inside the namespaces of their cloudlets (and
the monitor inside the core's). Everything that is started or made registers with an exit stack before it exists, and
carries the mark of the run, so that neither a failure nor a kill leaves anything for good (``testbed.sweep``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from epc_monitor.identity import UeKeys
from mobiscud.bus import topics
from mobiscud.bus.cloudevents import TYPE_PREFIX, decode, encode
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, DecodeError, SetupError
from mobiscud.core.ids import Imsi, UeKey
from testbed import priority, sweep
from testbed.cloudlet_host import CloudletHost
from testbed.delay_node import DirectionStats
from testbed.guest import image
from testbed.mosquitto import Mosquitto
from testbed.node_configs import MONITOR, SITE, Places, epc, nodes, ran
from testbed.ovs import OpenVSwitch
from testbed.ran_client import RanClient
from testbed.report.ladder_file import CAPTURE
from testbed.setting import FIRST as FIRST
from testbed.setting import PVM_ADDRESS as PVM_ADDRESS
from testbed.setting import UE as UE
from testbed.setting import Setting as Setting
from testbed.setting import Subscriber
from testbed.spawn import PYTHON, Child, spawn
from testbed.topology import AT_MTSO, RunningTopology, cloudlet_mgmt, cloudlet_name, paper_topology

ONLINE_LIMIT_S: Final = 60.0

Progress = Callable[[str], None]


class RunningTestbed:
    """The testbed, up while the context lasts."""

    def __init__(self, setting: Setting, out: Path, say: Progress) -> None:
        """``out`` takes logs and events; ``say`` hears, in a line each, what is being done."""
        self.setting = setting
        self.out = out
        self.events: list[dict[str, Any]] = []
        """Every event on the bus, in the order of arrival."""
        self.delay_stats: list[DirectionStats] = []
        """What the delay node counted, once the testbed is down."""
        self.say = say
        self._stack = contextlib.AsyncExitStack()
        self._arrived = asyncio.Event()
        self._online: set[str] = set()
        self._key = secrets.token_hex(16)
        self._numbers = (*range(1, setting.cloudlets + 1), *([AT_MTSO] if setting.mtso_ues else []))
        self.subscribers = tuple(Subscriber(number) for number in range(1, setting.ues + 1))

    @property
    def ue_key(self) -> UeKey:
        """The first UE, as the events call it."""
        return self.key_of(FIRST)

    @property
    def bpffs(self) -> Path:
        """Where the cloudlets' maps are pinned."""
        return self._run.bpffs

    def key_of(self, subscriber: Subscriber) -> UeKey:
        """A UE, as the events call it."""
        return UeKeys(self._key.encode()).of_imsi(Imsi(subscriber.imsi))

    async def __aenter__(self) -> Self:
        try:
            await self._up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.say("taking everything down")
        await self._stack.aclose()

    # Up ----------------------------------------------------------------------------------------------------------

    async def _up(self) -> None:
        swept = await sweep.sweep()
        if swept:
            self.say(f"swept what earlier runs left: {swept}")
        self.out.mkdir(parents=True, exist_ok=True)
        self.say("building the guest image (cached after the first time)")
        self._image = await asyncio.to_thread(image.build)
        self._run = sweep.RunDirectory.create()
        self._stack.push_async_callback(self._run.remove)
        self._logs = self._run.path / "log"
        self._logs.mkdir()
        self._stack.callback(self._keep_logs)

        self.say("building the network: namespaces, links, delays")
        setting = self.setting
        topology = paper_topology(
            setting.delays,
            setting.cloudlets,
            bare_cells=setting.bare_cells,
            sharing_cells=setting.sharing_cells,
            mtso_cloud=bool(setting.mtso_ues),
            shapes=setting.shapes,
        )
        self.network = RunningTopology(topology, self._run.run, self._run.path / "network")
        self._stack.push_async_callback(self._network_down)
        await self.network.up()
        self.say(f"delays are made by {self.network.delay_engine}")

        self.say("starting the broker, the hypervisors and the switches")
        self.broker = await self._stack.enter_async_context(Mosquitto(self._run.path / "mosquitto"))
        self.hosts = {k: self._host(k) for k in self._numbers}
        for host in self.hosts.values():
            self._stack.push_async_callback(host.stop)
        await asyncio.gather(*(host.start() for host in self.hosts.values()))
        self.switches = {k: await self._switch(k) for k in self._numbers}

        await self._listen()
        self.say("starting the controllers and the monitor")
        self.nodes = {name: await self._node(name, config) for name, config in self._node_configs().items()}
        await self._until(lambda: self._online >= set(self.nodes), ONLINE_LIMIT_S, self._who_is_missing)
        if self.setting.recorded:
            await self._record()
        self.say("starting the EPC and the RAN")
        await self._start_network_functions()

    async def _network_down(self) -> None:
        self.delay_stats = await self.network.down()

    def _host(self, number: int) -> CloudletHost:
        return CloudletHost(
            cloudlet_name(number),
            netns=self.network.namespace(cloudlet_name(number)),
            management_address=cloudlet_mgmt(number),
            run_dir=self._run.path / "hosts",
            bridge_ports=("pvm1",),
        )

    async def _switch(self, number: int) -> OpenVSwitch:
        name = cloudlet_name(number)
        switch = OpenVSwitch(self._run.path / f"ovs-{name}", self.network.namespace(name))
        await self._stack.enter_async_context(switch)
        neighbours = [
            f"isl-c{k}" for k in (number - 1, number + 1) if k in self._numbers and AT_MTSO not in (k, number)
        ]
        await switch.add_bridge(f"br-{name}", ["gi1", "pvm0", "sgi", *neighbours])
        return switch

    def _node_configs(self) -> dict[str, dict[str, Any]]:
        """The configuration file of each node, by the node's name."""
        places = Places(
            broker_url=self.broker.unix_url,
            key=self._key,
            run_directory=self._run.path,
            image=self._image,
            hosts=self.hosts,
            switches=self.switches,
        )
        return nodes(self.setting, self.subscribers, places)

    async def _node(self, name: str, config: dict[str, Any]) -> Child:
        (self._run.path / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return await self._start_node(name)

    async def _start_node(self, name: str) -> Child:
        file = self._run.path / f"{name}.yaml"
        namespace = self.network.namespace("core" if name == MONITOR else name)
        return await self.start(name, *PYTHON, "mobiscud", "run", "-c", str(file), namespace=namespace)

    async def _record(self) -> None:
        """Capture the signalling: S1AP, and S11 once, though the loopback interface shows every frame twice."""
        words = ("-i", "any", "-U", "--immediate-mode", "-Z", "root", "-w", str((self.out / CAPTURE).absolute()))
        wanted = "sctp or (udp port 2123 and inbound)"
        recorder = await self.start("tcpdump", "tcpdump", *words, wanted, namespace=self.network.namespace("core"))
        try:
            async with asyncio.timeout(ONLINE_LIMIT_S):
                while "listening on" not in recorder.last_words():
                    if recorder.ended:
                        raise SetupError(f"tcpdump does not capture: {recorder.last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise SetupError(f"tcpdump does not capture: {recorder.last_words()}") from None

    async def _start_network_functions(self) -> None:
        functions: dict[str, Child] = {}
        control = self._run.path / "ran.sock"
        for name, config in (
            ("epc", epc(self.network.namespace, self.subscribers, self.setting)),
            ("ran", ran(self.network.namespace, self.subscribers, self.setting, control)),
        ):
            file = self._run.path / f"{name}.json"
            file.write_text(json.dumps(config))
            functions[name] = await self.start(name, *PYTHON, f"testbed.{name}", str(file), ready=True)
            await functions[name].ready()
        if self.setting.preferred:
            self._prefer(functions.values())
        self.ran = await self._stack.enter_async_context(RanClient(control))

    def _prefer(self, functions: Iterable[Child]) -> None:
        switches = (switch.pid for switch in self.switches.values())
        children = (child.pid for child in (*functions, *self.nodes.values()))
        if not priority.prefer([self.broker.pid, *switches, *children]):
            self.say("real-time priority is not granted: times depend on what else this machine does")

    # While it is up ----------------------------------------------------------------------------------------------

    async def start(self, name: str, *arguments: str, namespace: str | None = None, ready: bool = False) -> Child:
        """Start a process that ends with the testbed."""
        child = await spawn(name, *arguments, log=self._logs / f"{name}.log", namespace=namespace, ready=ready)
        self._stack.push_async_callback(child.stop)
        return child

    async def restart_node(self, name: str, after_s: float = 0.0) -> None:
        """Kill a node as the kernel would, without a word, and start it again ``after_s`` after it is missed."""
        self.nodes[name].kill()
        await self.nodes[name].wait()
        await self._until(lambda: name not in self._online, ONLINE_LIMIT_S, lambda: f"{name} is not missed")
        await asyncio.sleep(after_s)
        self.nodes[name] = await self._start_node(name)
        await self._until(lambda: name in self._online, ONLINE_LIMIT_S, self._who_is_missing)

    async def kill(self, part: str, for_s: float) -> None:
        """Kill a part and start it again ``for_s`` later.

        ``part``: a node's name, ``broker``, ``switch:cN``, ``libvirt:cN``.

        :raises AdapterError: it does not come up again
        """
        kind, _, place = part.partition(":")
        if kind == "broker":
            await self.broker.stop(kill=True)
            await asyncio.sleep(for_s)
            await self.broker.start()
        elif kind == "switch":
            switch = self.switches[int(place.removeprefix("c"))]
            os.kill(switch.pid, signal.SIGKILL)
            await asyncio.sleep(for_s)
            await switch.start_switch()
        elif kind == "libvirt":
            host = self.hosts[int(place.removeprefix("c"))]
            await host.kill_daemon()
            await asyncio.sleep(for_s)
            await host.start_daemon()
        else:
            await self.restart_node(part, for_s)

    def config_of(self, name: str) -> Path:
        """The configuration file of a node."""
        return self._run.path / f"{name}.yaml"

    def reload_node(self, name: str, **sections: Any) -> None:
        """Change sections of a node's configuration, and tell it so."""
        file = self.config_of(name)
        config = yaml.safe_load(file.read_text()) | sections
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        os.kill(self.nodes[name].pid, signal.SIGHUP)

    def prefer_guests(self) -> None:
        """Let the personal VMs that run now, and do not work all the time, run first too."""
        priority.prefer(guest for host in self.hosts.values() for guest in priority.guests_of(host.init_pid))

    async def event(self, kind: str, *, after: int, within_s: float, **expected: Any) -> int:
        """Wait for an event of type ``kind`` whose data has ``expected``; returns its place in ``events``.

        ``after``: only from this place on.

        :raises AdapterError: it did not come in time
        """
        return await self.any_event((kind,), after=after, within_s=within_s, **expected)

    async def any_event(self, kinds: Sequence[str], *, after: int, within_s: float, **expected: Any) -> int:
        """Wait for an event of one of these types, as :meth:`event` does."""
        types = {f"{TYPE_PREFIX}{kind}" for kind in kinds}
        found: list[int] = []
        looked_at = after

        def come() -> bool:
            nonlocal looked_at
            for place in range(looked_at, len(self.events)):
                event = self.events[place]
                data = event["data"]
                if event["type"] in types and all(data.get(k) == v for k, v in expected.items()):
                    found.append(place)
                    return True
            looked_at = len(self.events)
            return False

        wanted = ", ".join([" or ".join(kinds), *(f"{k}={v}" for k, v in expected.items())])
        await self._until(come, within_s, lambda: f"no event {wanted} within {within_s:g} s; {self._deaths()}")
        return found[0]

    async def _listen(self) -> None:
        bus = await self._stack.enter_async_context(MqttBus(Broker.from_config(BusConfig(), self.broker.url)))
        recording = self._stack.enter_context((self.out / "events.jsonl").open("wb"))

        def on_event(topic: str, payload: bytes) -> None:
            if topic.endswith(f"/{topics.STATE}"):
                return
            try:
                event = decode(payload)
            except DecodeError:
                return
            self.events.append(event)
            recording.write(encode(event) + b"\n")
            self._arrived.set()

        def on_health(topic: str, payload: bytes) -> None:
            health = json.loads(payload)
            (self._online.add if health["status"] == "online" else self._online.discard)(health["node"])
            self._arrived.set()

        for topic_filter in topics.ALL_EVENTS:
            await bus.subscribe(topic_filter, on_event)
        await bus.subscribe(topics.health(SITE, "+"), on_health)

    async def _until(self, condition: Callable[[], bool], within_s: float, complaint: Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AdapterError(complaint()) from None

    def _who_is_missing(self) -> str:
        missing = sorted(set(self.nodes) - self._online)
        return "not online: " + "; ".join(f"{name}: {self.nodes[name].last_words()}" for name in missing)

    def _deaths(self) -> str:
        dead = [f"{name} has ended: {node.last_words()}" for name, node in self.nodes.items() if node.ended]
        return "; ".join(dead) or f"logs are in {self.out / 'log'}"

    def _keep_logs(self) -> None:
        kept = self.out / "log"
        kept.mkdir(exist_ok=True)
        for log in self._logs.glob("*.log"):
            (kept / log.name).write_bytes(log.read_bytes())
