"""The whole testbed, up and down: network, EPC and RAN, cloudlets, broker, and the nodes of MobiScud.

The nodes are started as a user starts them, ``mobiscud run -c FILE``, inside the namespaces of their cloudlets (and
the monitor inside the core's). Everything that is started or made registers with an exit stack before it exists, and
carries the mark of the run, so that neither a failure nor a kill leaves anything for good (``testbed.sweep``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import yaml

from epc_monitor.identity import UeKeys
from mobiscud.bus import topics
from mobiscud.bus.cloudevents import decode, encode
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, DecodeError
from mobiscud.core.ids import Imsi, UeKey
from testbed import priority, sweep
from testbed.cloudlet_host import CloudletHost
from testbed.guest import image
from testbed.mosquitto import Mosquitto
from testbed.ovs import OpenVSwitch
from testbed.ran_client import RanClient
from testbed.spawn import PYTHON, Child, spawn
from testbed.topology import (
    MME_S1,
    MME_S11,
    PGW_S5,
    SGW_S1,
    SGW_S5,
    SGW_S11,
    Delays,
    RunningTopology,
    cloudlet_mgmt,
    enb_s1,
    paper_topology,
)

SITE: Final = "testbed"
GATEWAY: Final = "172.16.0.1/16"
FIRST_ENB_ID: Final = 0x19B
ONLINE_LIMIT_S: Final = 60.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Subscriber:
    """UE number ``number``, from 1, and its personal VM."""

    number: int

    @property
    def ue(self) -> str:
        """By which the RAN's control socket calls the UE."""
        return f"ue{self.number}"

    @property
    def imsi(self) -> str:
        """Of the test network 999-70."""
        return f"99970{self.number:010d}"

    @property
    def pvm_id(self) -> str:
        """Of its personal VM, as address and MAC are."""
        return f"pvm-{self.ue}"

    @property
    def pvm_address(self) -> str:
        """In the subnet of ``GATEWAY``."""
        return f"172.16.{self.number}.10"

    @property
    def pvm_mac(self) -> str:
        """Locally administered, QEMU's prefix."""
        return f"52:54:00:10:{self.number:02x}:10"

    def offload(self) -> dict[str, Any]:
        """Its entry in ``offload.subscribers``."""
        pvm = {"id": self.pvm_id, "address": self.pvm_address, "mac": self.pvm_mac}
        return {"imsi": self.imsi, "pvm": pvm}


FIRST: Final = Subscriber(1)
UE: Final = FIRST.ue
PVM_ADDRESS: Final = FIRST.pvm_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What an experiment may choose.

    ``dwell_s``: how long a UE is in a new cell before its PVM follows, unless the ``policy`` is that it stays.
    ``preferred``: network and nodes run before other programs, as if each had processors of its own.
    """

    delays: Delays
    dwell_s: float
    cloudlets: int = 3
    ues: int = 1
    policy: Literal["follow", "stay"] = "follow"
    preferred: bool = False
    migration_mode: str = "auto"


class RunningTestbed:
    """The testbed, up while the context lasts."""

    def __init__(self, setting: Setting, out: Path, say: Progress) -> None:
        """``out`` takes logs and events; ``say`` hears, in a line each, what is being done."""
        self.setting = setting
        self.out = out
        self.events: list[dict[str, Any]] = []
        """Every event on the bus, in the order of arrival."""
        self._say = say
        self._stack = contextlib.AsyncExitStack()
        self._arrived = asyncio.Event()
        self._online: set[str] = set()
        self._key = secrets.token_hex(16)
        self._numbers = range(1, setting.cloudlets + 1)
        self.subscribers = tuple(Subscriber(number) for number in range(1, setting.ues + 1))

    @property
    def ue_key(self) -> UeKey:
        """The first UE, as the events call it."""
        return self.key_of(FIRST)

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
        self._say("taking everything down")
        await self._stack.aclose()

    # Up ----------------------------------------------------------------------------------------------------------

    async def _up(self) -> None:
        swept = await sweep.sweep()
        if swept:
            self._say(f"swept what earlier runs left: {swept}")
        self.out.mkdir(parents=True, exist_ok=True)
        self._say("building the guest image (cached after the first time)")
        self._image = await asyncio.to_thread(image.build)
        self._run = sweep.RunDirectory.create()
        self._stack.push_async_callback(self._run.remove)
        self._logs = self._run.path / "log"
        self._logs.mkdir()
        self._stack.callback(self._keep_logs)

        self._say("building the network: namespaces, links, delays")
        self.network = RunningTopology(paper_topology(self.setting.delays), self._run.run, self._run.path / "network")
        self._stack.push_async_callback(self.network.down)
        await self.network.up()
        self._say(f"delays are made by {self.network.delay_engine}")

        self._say("starting the broker, the hypervisors and the switches")
        self.broker = await self._stack.enter_async_context(Mosquitto(self._run.path / "mosquitto"))
        self.hosts = {k: self._host(k) for k in self._numbers}
        for host in self.hosts.values():
            self._stack.push_async_callback(host.stop)
        await asyncio.gather(*(host.start() for host in self.hosts.values()))
        self.switches = {k: await self._switch(k) for k in self._numbers}

        await self._listen()
        self._say("starting the controllers and the monitor")
        self.nodes = {name: await self._node(name, config) for name, config in self._node_configs().items()}
        await self._until(lambda: self._online >= set(self.nodes), ONLINE_LIMIT_S, self._who_is_missing)
        self._say("starting the EPC and the RAN")
        await self._start_network_functions()

    def _host(self, number: int) -> CloudletHost:
        return CloudletHost(
            f"c{number}",
            netns=self.network.namespace(f"c{number}"),
            management_address=cloudlet_mgmt(number),
            run_dir=self._run.path / "hosts",
            bridge_ports=("pvm1",),
        )

    async def _switch(self, number: int) -> OpenVSwitch:
        namespace = self.network.namespace(f"c{number}")
        switch = await self._stack.enter_async_context(OpenVSwitch(self._run.path / f"ovs-c{number}", namespace))
        neighbours = [f"isl-c{k}" for k in (number - 1, number + 1) if k in self._numbers]
        await switch.add_bridge(f"br-c{number}", ["gi1", "pvm0", *neighbours])
        return switch

    def _node_configs(self) -> dict[str, dict[str, Any]]:
        """The configuration file of each node, by the node's name."""
        common = {
            "bus": {"url": self.broker.unix_url},
            "privacy": {"mode": "pseudonym", "key": self._key},
            "cloudlets": [
                {
                    "id": f"c{k}",
                    "node": f"c{k}",
                    "enb_ids": [FIRST_ENB_ID + k - 1],
                    "migration_uri": self.hosts[k].migration_uri,
                }
                for k in self._numbers
            ],
        }
        configs = {
            "monitor": {
                **common,
                "site": self._site("monitor"),
                "monitor": {"interfaces": ["s1", "lo"]},
            }
        }
        for k in self._numbers:
            configs[f"c{k}"] = {
                **common,
                "site": self._site(f"c{k}"),
                **self._cloudlet_config(k),
            }
        return configs

    def _site(self, node: str) -> dict[str, Any]:
        return {"name": SITE, "node": node, "state_dir": str(self._run.path / "state")}

    def _cloudlet_config(self, number: int) -> dict[str, Any]:
        def towards(peer: int) -> str:
            return f"isl-c{number + 1 if peer > number else number - 1}"

        return {
            "switches": [
                {
                    "cloudlet": f"c{number}",
                    "bridge": f"br-c{number}",
                    "openflow": self.switches[number].management_target(f"br-c{number}"),
                    "enb_port": "enb",
                    "core_port": "core",
                    "pvm_port": "pvm0",
                    "peers": {f"c{k}": towards(k) for k in self._numbers if k != number},
                    "bpffs": str(self._run.bpffs),
                }
            ],
            "hypervisors": [
                {
                    "cloudlet": f"c{number}",
                    "uri": self.hosts[number].uri,
                    "kernel": str(self._image.kernel),
                    "initrd": str(self._image.initrd),
                    "mode": self.setting.migration_mode,
                }
            ],
            "offload": {
                "gateway": GATEWAY,
                "subscribers": [subscriber.offload() for subscriber in self.subscribers],
            },
            "migration": {"policy": self.setting.policy, "dwell_s": self.setting.dwell_s},
        }

    async def _node(self, name: str, config: dict[str, Any]) -> Child:
        (self._run.path / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return await self._start_node(name)

    async def _start_node(self, name: str) -> Child:
        file = self._run.path / f"{name}.yaml"
        namespace = self.network.namespace("core" if name == "monitor" else name)
        return await self.start(name, *PYTHON, "mobiscud", "run", "-c", str(file), namespace=namespace)

    async def _start_network_functions(self) -> None:
        plmn = {"mcc": "999", "mnc": "70"}
        epc = {
            "plmn": plmn,
            "namespace": self.network.namespace("core"),
            "mme": {"s1_address": MME_S1, "s11_address": MME_S11},
            "sgw": {"s1u_address": SGW_S1, "s11_address": SGW_S11, "s5_address": SGW_S5},
            "pgw": {"namespace": self.network.namespace("pgw"), "s5_address": PGW_S5},
            "subscribers": [subscriber.imsi for subscriber in self.subscribers],
        }
        ran = {
            "plmn": plmn,
            "control_socket": str(self._run.path / "ran.sock"),
            "mme_address": MME_S1,
            "ue_namespace": self.network.namespace("ue"),
            "uu_delay_s": self.setting.delays.ue_enb / 1000,
            "x2_delay_s": self.setting.delays.enb_enb / 1000,
            "enbs": [
                {
                    "number": k,
                    "namespace": self.network.namespace(f"enb{k}"),
                    "address": enb_s1(k),
                    "enb_id": FIRST_ENB_ID + k - 1,
                    "cell_id": (FIRST_ENB_ID + k - 1) << 8 | 1,
                    "ue_device": f"uu{k}",
                }
                for k in self._numbers
            ],
            "ues": [{"name": subscriber.ue, "imsi": subscriber.imsi} for subscriber in self.subscribers],
        }
        functions: dict[str, Child] = {}
        for name, config in (("epc", epc), ("ran", ran)):
            file = self._run.path / f"{name}.json"
            file.write_text(json.dumps(config))
            functions[name] = await self.start(name, *PYTHON, f"testbed.{name}", str(file), ready=True)
            await functions[name].ready()
        if self.setting.preferred:
            self._prefer(functions.values())
        self.ran = await self._stack.enter_async_context(RanClient(self._run.path / "ran.sock"))

    def _prefer(self, functions: Iterable[Child]) -> None:
        switches = (switch.pid for switch in self.switches.values())
        children = (child.pid for child in (*functions, *self.nodes.values()))
        if not priority.prefer([self.broker.pid, *switches, *children]):
            self._say("real-time priority is not granted: times depend on what else this machine does")

    # While it is up ----------------------------------------------------------------------------------------------

    async def start(self, name: str, *arguments: str, namespace: str | None = None, ready: bool = False) -> Child:
        """Start a process that ends with the testbed."""
        child = await spawn(name, *arguments, log=self._logs / f"{name}.log", namespace=namespace, ready=ready)
        self._stack.push_async_callback(child.stop)
        return child

    async def restart_node(self, name: str) -> None:
        """Kill a node as the kernel would, without a word, and start it again."""
        self.nodes[name].kill()
        await self.nodes[name].wait()
        await self._until(lambda: name not in self._online, ONLINE_LIMIT_S, lambda: f"{name} is not missed")
        self.nodes[name] = await self._start_node(name)
        await self._until(lambda: name in self._online, ONLINE_LIMIT_S, self._who_is_missing)

    def prefer_guests(self) -> None:
        """Let the personal VMs that run now, and do not work all the time, run first too."""
        priority.prefer(guest for host in self.hosts.values() for guest in priority.guests_of(host.init_pid))

    async def event(self, kind: str, *, after: int, within_s: float, **expected: Any) -> int:
        """Wait for an event of the UE of type ``kind`` whose data has ``expected``; returns its place in ``events``.

        ``after``: only from this place on.

        :raises AdapterError: it did not come in time
        """
        found: list[int] = []

        def come() -> bool:
            for place in range(after, len(self.events)):
                event = self.events[place]
                data = event["data"]
                if event["type"].endswith(f".{kind}") and all(data.get(k) == v for k, v in expected.items()):
                    found.append(place)
                    return True
            return False

        wanted = ", ".join([kind, *(f"{k}={v}" for k, v in expected.items())])
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
