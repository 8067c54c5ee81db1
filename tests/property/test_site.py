"""A whole site of controllers, in virtual time: wherever a UE walks, its packets find its VM, and its VM finds it.

Switches and hypervisors are simple fakes, the bus and the requests between controllers take their time; a UE does
what it likes, at any moment. When all has come to rest: one VM runs, where the UE is; what the UE sends arrives
there, what it sends arrives at the UE's eNodeB; and where the UE is not connected, no rule of it is left. A policy
may say that the VM stays: then one runs, and both find their way all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from migration.lifecycle import Notice, PvmResumed, PvmState, PvmSuspended
from migration.service import PersonalVmHost
from mobiscud.controller.offload_policy import OffloadPolicy
from mobiscud.controller.ports import Neighbourhood
from mobiscud.controller.record import UeRecord
from mobiscud.controller.service import CloudletController
from mobiscud.core.config import CostConfig, MigrationConfig
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

UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10")
IP = "45.45.0.2"
SGW = FTeid("10.0.0.2", Teid(0x1001))
CLOUDLETS = tuple(CloudletId(f"c{k}") for k in (1, 2, 3))
RECORD = TypeAdapter(UeRecord)
AWAY_S = 0.7
"""How long a switch is away."""
UNCOVERED = 4
"""An eNodeB that no cloudlet stands beside."""


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop that never waits: when there is nothing to do, it is later."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        return self._now

    def skip(self, seconds: float) -> None:
        self._now += seconds


class _Impatient(selectors.SelectSelector):
    def __init__(self, loop: VirtualTime) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._loop.skip(timeout)
        return ready


class Switch:
    """Holds one path."""

    def __init__(self) -> None:
        self.path: PathSpec | None = None
        self.kept: set[Pvm] = set()
        self.away_until = 0.0

    def unplug(self) -> None:
        """For a while it obeys nobody, and keeps what it holds."""
        self.away_until = asyncio.get_running_loop().time() + AWAY_S

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        await asyncio.sleep(0.001)
        if asyncio.get_running_loop().time() < self.away_until:
            raise AdapterError("the switch is away")
        self.path = path
        return ("rule",)

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> dict[UeKey, tuple[str, ...]]:
        return {ue: await self.apply(ue, path) for ue, path in paths.items()}

    def keep_packets(self, pvm: Pvm) -> None:
        self.kept.add(pvm)

    def resend_packets(self, pvm: Pvm, to: CloudletId) -> int:
        self.forget_packets(pvm)
        return 0

    def forget_packets(self, pvm: Pvm) -> None:
        self.kept.discard(pvm)


class Memory:
    """A journal that keeps everything as text, as the real one does."""

    def __init__(self) -> None:
        self._texts: dict[UeKey, bytes] = {}

    def load(self) -> dict[UeKey, UeRecord]:
        return {ue: RECORD.validate_json(text) for ue, text in self._texts.items()}

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        self._texts |= {ue: RECORD.dump_json(record) for ue, record in records.items()}


class Inlet:
    """One UE never fills the backlog."""

    def hold(self) -> None:
        raise AssertionError("the backlog is full")

    def go_on(self) -> None:
        pass


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


def stands_by(path: PathSpec, serving: CloudletId, home: CloudletId) -> bool:
    """Whether a path is only that of a cloudlet to which the UE may come."""
    return path.ue_at == serving and path.pvm_at == home and path.downlink is None


def waits_for_core(path: PathSpec, cloudlet: CloudletId | None) -> bool:
    """Whether a path leads nowhere but through the core, with the VM where it belongs."""
    return (path.pvm_at, path.ue_at, path.downlink) == (cloudlet, None, None)


class Site:
    """Three cloudlets, their controllers, and the UE."""

    def __init__(self, chance: random.Random, migration: MigrationConfig, loss: float) -> None:
        """``loss``: how likely a request is lost, and how likely its answer. VMs with a term of absence are kept."""
        self.loss = loss
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
                on_stop="destroy" if self._migration.absence_s is None else "save",
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

    async def restart(self, cloudlet: CloudletId) -> None:
        """The controller dies, and another begins with what it remembered; what it heard meanwhile is told again."""
        await self.controllers[cloudlet].__aexit__(None, None, None)
        await self._start(cloudlet)
        if self.state is not None:
            self.controllers[cloudlet].on_state(self.state)

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
            assert all(path is None or stands_by(path, serving, home) for path in others.values()), others
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


DEEDS = (
    "attach",
    "service",
    "idle",
    "detach",
    "handover",
    "handover",
    "handover",
    "prepare",
    "order",
    "complete",
    "cancel",
    "restart",
    "break",
    "unplug",
)
LEFT = (
    (PvmState.RUNNING, PvmState.RUNNING),
    (PvmState.RUNNING, PvmState.ABSENT),
    (PvmState.ABSENT, PvmState.RUNNING),
    (PvmState.SUSPENDED, PvmState.SUSPENDED),
)
"""What a migration that breaks at its switch-over may leave at source and target."""
steps = st.tuples(st.sampled_from(DEEDS), st.integers(1, UNCOVERED), st.sampled_from((0.0, 0.003, 0.05, 0.4, 5.0)))


MIGRATIONS = (
    MigrationConfig(),
    MigrationConfig(start="at_executing"),
    MigrationConfig(start="at_preparing"),
    MigrationConfig(dwell_s=0.3),
    MigrationConfig(policy="stay"),
    MigrationConfig(policy="hysteresis", dwell_s=0.3, ping_pong_s=5.0),
    MigrationConfig(policy="cost", cost=CostConfig(wait_ms_per_mib=2.0, usual_stay_s=1.0)),
    MigrationConfig(policy="cost", start="at_preparing"),
)
"""Each policy, each moment at which a move may start; where it pays to wait, the waiting is over before the check."""


NO_DWELL = MigrationConfig(dwell_s=0.0)
EARLY = MigrationConfig(start="at_preparing")
EXECUTING = MigrationConfig(start="at_executing")
STAY = MigrationConfig(policy="stay")
COSTS_EARLY = MigrationConfig(policy="cost", start="at_preparing")


def run(work: Awaitable[None]) -> None:
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(work)  # type: ignore[arg-type]


async def walk(way: list[tuple[str, int, float]], seed: int, migration: MigrationConfig, loss: float = 0.0) -> None:
    async with Site(random.Random(seed), migration, loss) as site:
        for deed, enb, pause_s in way:
            await site.do(deed, enb)
            await asyncio.sleep(pause_s)
        await site.do("complete", 0)
        await asyncio.sleep(120.0)
        site.check()


FOUND: tuple[tuple[list[tuple[str, int, float]], int, float, MigrationConfig], ...] = (
    # who answers dies before it has answered
    ([("prepare", 1, 5.0), ("handover", 3, 0.003), ("restart", 3, 0.0)], 495, 0.0, COSTS_EARLY),
    # another target is ready, and then not taken
    ([("handover", 3, 0.0), ("prepare", 2, 0.0), ("cancel", 4, 0.0)], 639, 0.0, STAY),
    # the answer to who asked for the VM is lost, and so is the word that it has come
    ([("prepare", 2, 0.0), ("order", 3, 0.4), ("order", 1, 0.4), ("restart", 3, 0.0)], 673, 0.1, EXECUTING),
    # both sides believe that the other one has it
    ([("handover", 2, 5.0), ("handover", 1, 5.0), ("handover", 2, 0.0), ("restart", 1, 0.0)], 882, 0.1, NO_DWELL),
    # the VM stops while its user is at another cloudlet already, and is expected at a third
    ([("detach", 2, 0.0), ("attach", 3, 0.0), ("handover", 2, 0.0)], 250, 0.0, STAY),
    # the UE is back elsewhere before who has its VM has heard that it left
    ([("detach", 2, 0.0), ("attach", 3, 0.0)], 567, 0.0, STAY.model_copy(update={"absence_s": 0.1})),
    # the same after a handover that was called off
    (
        [
            ("prepare", 4, 0.0),
            ("order", 1, 0.0),
            ("order", 4, 0.0),
            ("cancel", 2, 0.0),
            ("idle", 3, 0.0),
            ("service", 3, 0.003),
        ],
        826,
        0.0,
        STAY.model_copy(update={"absence_s": 0.1}),
    ),
    # a switch is away
    ([("unplug", 1, 0.0), ("handover", 2, 0.0)], 120, 0.0, COSTS_EARLY),
    ([("unplug", 2, 0.0), ("handover", 3, 0.0)], 949, 0.0, EXECUTING),
    ([("unplug", 3, 0.0), ("handover", 2, 0.0), ("restart", 3, 0.0)], 93, 0.0, COSTS_EARLY),
    ([("detach", 2, 0.0), ("unplug", 3, 0.0), ("attach", 3, 0.0)], 226, 0.0, NO_DWELL),
    ([("detach", 1, 0.0), ("attach", 2, 0.0), ("unplug", 3, 0.003), ("restart", 3, 0.0)], 89, 0.0, EXECUTING),
    # a controller that restarts while its move is under way
    (
        [("handover", 2, 0.0), ("break", 1, 0.4), ("detach", 2, 0.4), ("restart", 3, 0.0), ("restart", 4, 0.0)],
        135,
        0.1,
        EXECUTING.model_copy(update={"absence_s": 0.0}),
    ),
    ([("handover", 3, 0.0), ("restart", 3, 0.0)], 870, 0.0, EARLY),
    ([("prepare", 3, 0.4), ("restart", 3, 0.0)], 3, 0.1, EARLY),
    ([("handover", 2, 0.0), ("handover", 1, 0.05), ("restart", 3, 0.0)], 74, 0.1, NO_DWELL),
)


@pytest.mark.parametrize(("way", "seed", "loss", "migration"), FOUND)
def test_what_was_found_once_holds(
    way: list[tuple[str, int, float]], seed: int, loss: float, migration: MigrationConfig
) -> None:
    run(walk([("attach", 1, 1.0), *way], seed, migration, loss))


@settings(deadline=None)
@given(
    way=st.lists(steps, max_size=12),
    seed=st.integers(0, 1000),
    migration=st.sampled_from(MIGRATIONS),
    loss=st.sampled_from((0.0, 0.1)),
    absence_s=st.sampled_from((None, 0.0, 0.1, 2.0)),
)
def test_wherever_a_ue_walks_its_vm_is_there(
    way: list[tuple[str, int, float]],
    seed: int,
    migration: MigrationConfig,
    loss: float,
    absence_s: float | None,
) -> None:
    migration = migration.model_copy(update={"absence_s": absence_s})
    run(walk([("attach", 1, 1.0), *way], seed, migration, loss))


def test_a_vm_that_was_kept_is_fetched_from_where_it_is() -> None:
    async def work() -> None:
        async with Site(random.Random(1), MigrationConfig(dwell_s=0.3, absence_s=0.1), 0.0) as site:
            await site.do("attach", 1)
            await asyncio.sleep(5.0)
            (guest,) = site.fakes.running_copies(PVM.id)
            await site.do("detach", 0)
            await asyncio.sleep(5.0)
            assert site.runs_at() == []
            await site.do("attach", 3)
            await asyncio.sleep(5.0)
            site.check()
            assert [found.boot_id for found in site.fakes.running_copies(PVM.id)] == [guest.boot_id]

    run(work())


def test_a_policy_that_changes_is_in_force_for_who_is_served_over_a_detour() -> None:
    async def work() -> None:
        async with Site(random.Random(1), MigrationConfig(policy="stay"), 0.0) as site:
            await site.do("attach", 1)
            await asyncio.sleep(5.0)
            await site.do("handover", 2)
            await asyncio.sleep(60.0)
            assert site.runs_at() == [CLOUDLETS[0]]
            site.change(MigrationConfig(dwell_s=90.0))
            await asyncio.sleep(25.0)
            assert site.runs_at() == [CLOUDLETS[0]], "the UE has been there for 85 s"
            await asyncio.sleep(20.0)
            assert site.runs_at() == [CLOUDLETS[1]]
            site.check()

    run(work())


def test_a_source_that_dies_before_it_tells_that_the_vm_stays_is_asked() -> None:
    way = [("handover", 2, 0.003), ("handover", 1, 0.0), ("handover", 4, 0.003), ("restart", 3, 0.0)]
    run(walk([("attach", 1, 1.0), *way], 0, MigrationConfig()))


def test_the_walk_of_the_paper() -> None:
    run(
        walk(
            [("attach", 1, 5.0), ("handover", 2, 5.0), ("handover", 3, 5.0), ("detach", 0, 1.0)],
            1,
            MigrationConfig(dwell_s=0.3),
        )
    )
