"""A site of three cloudlets with simple fakes for switches, hypervisors and lines, and a UE that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from migration.lifecycle import Notice, PvmResumed, PvmState, PvmSuspended
from migration.service import PersonalVmHost
from mobiscud.controller.offload_policy import OffloadPolicy
from mobiscud.controller.ports import Neighbourhood
from mobiscud.controller.service import CloudletController
from mobiscud.core.config import MigrationConfig
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.events import (
    Event,
    HandoverCancelled,
    HandoverCompleted,
    HandoverExecuting,
    HandoverPrepared,
    UeAttached,
    UeConnected,
    UeDetached,
    UeEvent,
    UeIdle,
)
from mobiscud.core.ids import CloudletId, EnbId, ERabId, FTeid, PvmId, Teid, UeKey
from mobiscud.core.ue import BearerContext, Enb, Forwarding, HandoverEnd, HandoverKind
from mobiscud.core.vm_config import HypervisorConfig
from testbed.fake_hypervisor import FakeSite
from tests.property.stand_ins import Inlet, Memory, Switch

UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10")
IP = "45.45.0.2"
SGW = FTeid("10.0.0.2", Teid(0x1001))
CLOUDLETS = tuple(CloudletId(f"c{k}") for k in (1, 2, 3))
UNCOVERED = 4
"""An eNodeB that no cloudlet stands beside."""


class Line:
    """A controller's line to the others, with delays of its own."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self._site = site
        self._chance = chance
        self.answerers: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {}
        self._done: set[str] = set()

    def answer(self, name: str, answerer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        self.answerers[name] = answerer

    async def ask(
        self, node: str, name: str, body: dict[str, Any], *, timeout_s: float, correlation: str | None = None
    ) -> dict[str, Any]:
        await asyncio.sleep(self._chance.choice((0.0005, 0.002, 0.02)))
        fate = self._chance.random()
        if fate < self._site.loss:
            await asyncio.sleep(timeout_s)
            raise AdapterError("the request was lost")
        answer: dict[str, Any] = {}
        if correlation not in self._done:
            answerer = self._site.lines[CloudletId(node)].answerers.get(name)
            if answerer is None:
                await asyncio.sleep(timeout_s)
                raise AdapterError("nobody answers")
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await answerer(body)
            except TimeoutError:  # it died while it had to answer
                raise AdapterError("no answer") from None
            self._done |= {correlation} if correlation else set()
        if fate < 2 * self._site.loss:
            await asyncio.sleep(timeout_s)
            raise AdapterError("the answer was lost")
        return answer


def stands_by(path: PathSpec, here: CloudletId, home: CloudletId) -> bool:
    """Whether a path is only that of a cloudlet to which the UE may come."""
    return path.ue_at == here and path.pvm_at == home and path.downlink is None


def waits_for_core(path: PathSpec, cloudlet: CloudletId | None) -> bool:
    """Whether a path leads nowhere but through the core, with the VM where it belongs."""
    return (path.pvm_at, path.ue_at, path.downlink) == (cloudlet, None, None)


class Site:
    """Three cloudlets, their controllers, and the UE."""

    def __init__(
        self, chance: random.Random, migration: MigrationConfig, loss: float = 0.0, *, keeps: bool = True
    ) -> None:
        """``loss``: how likely a request is lost, and how likely its answer.

        ``keeps``: VMs with a term of absence go on from where they stopped.
        """
        self.loss = loss
        self._keeps = keeps and migration.absence_s is not None
        self._chance = chance
        self._migration = migration
        self._stack = contextlib.AsyncExitStack()
        self.fakes = FakeSite()
        self.switches = {c: Switch() for c in CLOUDLETS}
        self.lines = {c: Line(self, chance) for c in CLOUDLETS}
        self.controllers: dict[CloudletId, CloudletController] = {}
        self.state: UeEvent | None = None
        self._hosts: dict[CloudletId, PersonalVmHost] = {}
        self._memories = {c: Memory() for c in CLOUDLETS}
        self._queue: dict[CloudletId, asyncio.Queue[Event]] = {}
        self._dead: set[CloudletId] = set()
        self._restarting: set[CloudletId] = set()
        self.published: list[Event] = []
        self._moments = 0
        self.at: int | None = None
        self.attached = False
        self._coming: int | None = None
        self._teid = 0x2000

    async def __aenter__(self) -> Site:
        for cloudlet in CLOUDLETS:
            config = HypervisorConfig(
                cloudlet=cloudlet,
                kernel=Path("/k"),
                initrd=Path("/i"),
                bandwidth_mib_s=100,
                on_stop="save" if self._keeps else "destroy",
            )
            host = PersonalVmHost(
                config,
                IPv4Interface("172.16.0.1/16"),
                self._hear(cloudlet),
                hypervisor=self.fakes.add(f"fake://{cloudlet}"),
            )
            self._hosts[cloudlet] = await self._stack.enter_async_context(host)
            self._queue[cloudlet] = asyncio.Queue()
            await self._start(cloudlet)
            delivering = asyncio.create_task(self._deliver(cloudlet))
            self._stack.callback(delivering.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        for controller in self.controllers.values():
            await controller.__aexit__(None, None, None)
        await self._stack.aclose()

    async def _start(self, cloudlet: CloudletId) -> None:
        self.lines[cloudlet].answerers.clear()
        self.switches[cloudlet].kept.clear()  # what a process remembers ends with it
        controller = self.controllers[cloudlet] = CloudletController(
            Neighbourhood(
                here=cloudlet,
                cloudlet_of={EnbId(k): c for k, c in enumerate(CLOUDLETS, 1)},
                node_of={c: str(c) for c in CLOUDLETS},
                migration_uri_of={c: f"fake://{c}" for c in CLOUDLETS},
            ),
            OffloadPolicy.plain({UE: PVM}),
            self._migration,
            switch=self.switches[cloudlet],
            hypervisor=self._hosts[cloudlet],
            requests=self.lines[cloudlet],
            journal=self._memories[cloudlet],
            inlet=Inlet(),
            publish=self.publish,
            packets=self.switches[cloudlet],
        )
        await controller.__aenter__()
        if UE not in controller.offloaded:
            self.switches[cloudlet].path = None  # what the switch adapter sweeps

    async def kill(self, cloudlet: CloudletId) -> None:
        """The controller dies, and for now no other begins."""
        self._dead.add(cloudlet)
        await self.controllers[cloudlet].__aexit__(None, None, None)
        self.lines[cloudlet].answerers.clear()

    async def restart(self, cloudlet: CloudletId) -> None:
        """The controller dies, and another begins with what it remembered; what it heard meanwhile is told again."""
        self._restarting.add(cloudlet)
        await self.kill(cloudlet)
        await self._start(cloudlet)
        self._dead.discard(cloudlet)
        self._restarting.discard(cloudlet)
        if self.state is not None:
            self.controllers[cloudlet].on_state(self.state)

    def die_at_next_step(self, cloudlet: CloudletId) -> None:
        """The controller dies when it has remembered its next step and done nothing of it, and another begins."""

        def die() -> None:
            restarting = asyncio.create_task(self.restart(cloudlet))
            self._stack.callback(restarting.cancel)
            raise AdapterError("killed")

        self._memories[cloudlet].on_put = die

    def change(self, migration: MigrationConfig) -> None:
        """All nodes read their files again."""
        self._migration = migration
        for controller in self.controllers.values():
            controller.change_migration(migration)

    def _hear(self, cloudlet: CloudletId) -> Callable[[Notice], None]:
        def hear(notice: Notice) -> None:
            if isinstance(notice, PvmSuspended) and notice.migrating:
                self.controllers[cloudlet].on_halted(notice.pvm_id, notice.at_ns)
            elif isinstance(notice, PvmResumed) and notice.migrated:
                self.controllers[cloudlet].on_landed(notice.pvm_id, notice.at_ns)

        return hear

    def publish(self, event: Event) -> None:
        """Everybody hears it, each after a while, in order; where the UE is, the monitor retains."""
        self.published.append(event)
        if isinstance(event, UeAttached | UeConnected | UeIdle):
            self.state = event
        elif isinstance(event, HandoverCompleted):
            about = {"at": event.at, "origin": event.origin, "ue": event.ue, "ue_ip": event.ue_ip}
            self.state = UeConnected(**about, enb=event.enb, ecgi=None, tai=None, bearers=event.bearers)  # type: ignore[arg-type]
        elif isinstance(event, UeDetached):
            self.state = None
        for queue in self._queue.values():
            queue.put_nowait(event)

    async def _deliver(self, cloudlet: CloudletId) -> None:
        while True:
            event = await self._queue[cloudlet].get()
            await asyncio.sleep(self._chance.choice((0.0002, 0.001, 0.01)))
            while cloudlet in self._restarting:  # noqa: ASYNC110  # as if that took no time
                await asyncio.sleep(0.001)
            if cloudlet not in self._dead:
                self.controllers[cloudlet].on_event(event)

    # What the UE does; what it cannot do now, it does not ----------------------------------------------------------

    async def do(self, deed: str, enb: int) -> None:
        match deed:
            case "attach" if not self.attached:
                self.attached, self.at = True, enb
                self.publish(UeAttached(**self._about(), **self._place(enb)))
            case "service" if self.attached and self.at is None:
                self.at = enb
                self.publish(UeConnected(**self._about(), **self._place(enb)))
            case "idle" if self.at is not None and self._coming is None:
                self.publish(UeIdle(**self._about(), enb=_enb(self.at), cause=None))
                self.at = None
            case "detach" if self.attached and self._coming is None:
                self.publish(UeDetached(**self._about(), cause=None))
                self.attached, self.at = False, None
            case "prepare" if self.at is not None and self._coming is None and enb != self.at:
                self._coming = enb
                self._tunnel = self._bearers(enb)
                about = {**self._handover(enb), "enb": _enb(enb), "bearers": self._tunnel}
                self.publish(HandoverPrepared(**about))
            case "order" if self._coming is not None:
                about = {**self._handover(self._coming), "enb": _enb(self._coming), "bearers": self._tunnel}
                self.publish(HandoverExecuting(**about, forwarding=Forwarding()))
            case "complete" if self._coming is not None:
                enb, self._coming = self._coming, None
                done = HandoverCompleted(
                    **self._handover(enb), enb=_enb(enb), ecgi=None, tai=None, bearers=self._tunnel
                )
                self.at = enb
                self.publish(done)
            case "cancel" if self._coming is not None:
                self.publish(HandoverCancelled(**self._handover(self._coming)))
                self._coming = None
            case "break":
                for hypervisor in self.fakes.hypervisors.values():
                    hypervisor.breaks = LEFT[enb - 1]
            case "restart":
                await self.restart(CLOUDLETS[enb % len(CLOUDLETS)])
            case "die":
                self.die_at_next_step(CLOUDLETS[enb % len(CLOUDLETS)])
            case "unplug":
                self.switches[CLOUDLETS[enb % len(CLOUDLETS)]].unplug()
            case "handover" if self.at is not None and self._coming is None:
                await self.do("prepare", enb)
                await asyncio.sleep(0.01)
                await self.do("order", enb)
                await asyncio.sleep(0.01)
                await self.do("complete", enb)

    def _about(self) -> dict[str, Any]:
        self._moments += 1
        return {"at": self._moments, "origin": b"%d" % self._moments, "ue": UE, "ue_ip": (IP,)}

    def _bearers(self, enb: int) -> tuple[BearerContext, ...]:
        self._teid += 1
        return (BearerContext(ERabId(5), 9, SGW, FTeid(f"10.0.0.1{enb}", Teid(self._teid))),)

    def _place(self, enb: int) -> dict[str, Any]:
        return {"enb": _enb(enb), "ecgi": None, "tai": None, "bearers": self._bearers(enb)}

    def _handover(self, enb: int) -> dict[str, Any]:
        assert self.at is not None
        ends = {"source": HandoverEnd(_enb(self.at)), "target": HandoverEnd(_enb(enb))}
        return {**self._about(), "kind": HandoverKind.S1, **ends}

    # What comes of it ----------------------------------------------------------------------------------------------

    def runs_at(self) -> list[CloudletId]:
        """Where a copy of the VM runs."""
        fakes = ((c, self.fakes.hypervisors[f"fake://{c}"].guests.get(PVM.id)) for c in CLOUDLETS)
        return [c for c, guest in fakes if guest is not None and guest.state is PvmState.RUNNING]

    def uplink(self, enb: int) -> str:
        """Where what the UE sends to its VM at this eNodeB comes out."""
        here = CLOUDLETS[enb - 1]
        path = self.switches[here].path
        if path is None or all(tunnel.enb_address != f"10.0.0.1{enb}" for tunnel in path.uplinks):
            return "core"
        for _ in CLOUDLETS:
            if path is None:
                return f"dropped at {here}"
            if path.pvm_at == here:
                return f"pvm at {here}"
            here = path.pvm_at
            path = self.switches[here].path
        return "circling"

    def downlink(self, cloudlet: CloudletId) -> str:
        """Where what the VM sends to its UE from this cloudlet comes out."""
        here, path = cloudlet, self.switches[cloudlet].path
        if path is None:
            return "core"
        for _ in CLOUDLETS:
            if path is None:
                return f"dropped at {here}"
            if path.ue_at == here:
                return f"eNB at {path.downlink.enb.address}" if path.downlink else f"dropped at {here}"
            if path.ue_at is None:
                return "core"
            here = path.ue_at
            path = self.switches[here].path
        return "circling"

    def check(self) -> None:
        """At rest, all is where it belongs."""
        phases = {c: self.controllers[c].records[UE] for c in CLOUDLETS}
        assert not any(switch.kept for switch in self.switches.values()), phases
        if not self.attached:
            assert self.runs_at() == [], phases
        elif self.at is not None and self.at != UNCOVERED:
            serving = CLOUDLETS[self.at - 1]
            [home] = self.runs_at()
            assert self._migration.policy == "stay" or home == serving, phases
            assert self.uplink(self.at) == f"pvm at {home}", phases
            assert self.downlink(home) == f"eNB at 10.0.0.1{self.at}", phases
            others = {c: s.path for c, s in self.switches.items() if c not in (serving, home)}
            assert all(path is None or stands_by(path, here, home) for here, path in others.items()), others
        else:
            assert len(self.runs_at()) <= 1, phases
            vm_at = next(iter(self.runs_at()), None)
            for cloudlet, switch in self.switches.items():
                # The core brings the VM's packets to the one cloudlet that has it, and takes them from there.
                if cloudlet == vm_at:
                    assert switch.path is not None, phases
                    assert waits_for_core(switch.path, vm_at), phases
                else:
                    path = switch.path  # a VM that does not run is waited for where it is kept
                    awaits = path is not None and waits_for_core(path, vm_at or path.pvm_at)
                    assert path is None or (awaits and self.at == UNCOVERED), phases


def _enb(number: int) -> Enb:
    return Enb(None, EnbId(number), f"10.0.0.1{number}")


LEFT = (
    (PvmState.RUNNING, PvmState.RUNNING),
    (PvmState.RUNNING, PvmState.ABSENT),
    (PvmState.ABSENT, PvmState.RUNNING),
    (PvmState.SUSPENDED, PvmState.SUSPENDED),
)
"""What a migration that breaks at its switch-over may leave at source and target."""
