"""The policy in a controller at work: who comes under it, who leaves it, and that nobody else is touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from mobiscud.controller.offload_policy import OffloadPolicy
from mobiscud.controller.ports import Neighbourhood
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.controller.service import CloudletController
from mobiscud.core.config import MigrationConfig, parse
from mobiscud.core.edge import FlowFilter, MigrationMode, PathSpec, Pvm, PvmState
from mobiscud.core.events import Event, OffloadChanged, OffloadRemoved, PvmStopped, UeAttached, UeConnected
from mobiscud.core.ids import CloudletId, EnbId, ERabId, FTeid, Imsi, PvmId, Teid, UeKey
from mobiscud.core.ue import BearerContext, Enb, Pdn

C1 = CloudletId("c1")
ALICE, BOB = UeKey("ue-0000000000000001"), UeKey("ue-0000000000000002")
IP_OF = {ALICE: "45.45.0.2", BOB: "45.45.0.3"}


@dataclass
class Fakes:
    """A switch, a hypervisor, a line to nobody, and a journal."""

    applied: list[tuple[UeKey, PathSpec | None]] = field(default_factory=list)
    runs: set[PvmId] = field(default_factory=set)
    published: list[Event] = field(default_factory=list)
    remembered: dict[UeKey, UeRecord] = field(default_factory=dict)

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        self.applied.append((ue, path))
        return ()

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> Mapping[UeKey, tuple[str, ...]]:
        self.applied += paths.items()
        return {}

    def hold(self) -> None: ...

    def go_on(self) -> None: ...

    async def start(self, pvm: Pvm, *, kept: bool) -> None:
        self.runs.add(pvm.id)

    @property
    def mode(self) -> MigrationMode:
        return MigrationMode.PRE_COPY

    async def state(self, pvm_id: PvmId) -> PvmState:
        raise NotImplementedError

    async def fence(self, pvm_id: PvmId) -> None:
        raise NotImplementedError

    async def let_run(self, pvm_id: PvmId) -> None:
        raise NotImplementedError

    def keeps(self, pvm: Pvm) -> bool:
        return False

    async def expect(self, pvm: Pvm) -> None: ...

    async def stop(self, pvm_id: PvmId) -> None:
        self.runs.discard(pvm_id)

    async def migrate(self, pvm_id: PvmId, migration_uri: str, *, progress: Any = None) -> Any:
        raise NotImplementedError

    async def abort(self, pvm_id: PvmId) -> None: ...

    async def fill_pool(self, pvms: Sequence[Pvm]) -> None: ...

    async def running(self) -> tuple[PvmId, ...]:
        return tuple(self.runs)

    def answer(self, name: str, answerer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None: ...

    async def ask(self, node: str, name: str, body: dict[str, Any], **how: Any) -> dict[str, Any]:
        raise NotImplementedError

    def load(self) -> dict[UeKey, UeRecord]:
        return dict(self.remembered)

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        self.remembered |= records


def subscriber(ue: UeKey) -> str:
    k = ue[-1]
    return f"    - {{ue: {ue}, pvm: {{id: p{k}, address: 172.16.1.1{k}, mac: '52:54:00:00:00:1{k}'}}}}\n"


WEB = (
    "  rules: [{traffic_rule_id: web, traffic_filter: [{protocol: tcp, dst_port: 80}], action: FORWARD_DECAPSULATED}]\n"
)
CORP = WEB.replace("traffic_filter", "subscribers: {apn: corp}, traffic_filter")


def policy(*ues: UeKey, rules: str = "") -> OffloadPolicy:
    named = "".join(map(subscriber, ues))
    return OffloadPolicy(parse(f"offload:\n  subscribers:\n{named}{rules}").offload, lambda imsi: UeKey(Imsi(imsi)))


def placed(ue: UeKey, kind: type[UeAttached] | type[UeConnected] = UeAttached, apn: str | None = "internet") -> Any:
    number = int(ue[-1])
    sgw, enb = FTeid("10.0.0.2", Teid(0x1000 + number)), FTeid("10.0.0.11", Teid(0x2000 + number))
    return kind(
        at=1,
        origin=b"",
        ue=ue,
        ue_ip=(IP_OF[ue],),
        enb=Enb(None, EnbId(1), "10.0.0.11"),
        ecgi=None,
        tai=None,
        bearers=(BearerContext(ERabId(5), 9, sgw, enb),),
        pdns=(Pdn(ERabId(5), apn, (IP_OF[ue],)),) if apn else (),
    )


def build(fakes: Fakes, first: OffloadPolicy) -> CloudletController:
    around = Neighbourhood(C1, {EnbId(1): C1}, {C1: "c1"}, {})
    return CloudletController(
        around,
        first,
        MigrationConfig(),
        switch=fakes,
        hypervisor=fakes,
        requests=fakes,
        journal=fakes,
        inlet=fakes,
        publish=fakes.published.append,
    )


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
async def controller(fakes: Fakes) -> AsyncIterator[CloudletController]:
    async with build(fakes, policy(ALICE, BOB)) as at_work:
        yield at_work


async def rest() -> None:
    """Everything here is done within some rounds of the loop."""
    for _ in range(200):
        await asyncio.sleep(0)


def paths(fakes: Fakes, ue: UeKey) -> list[PathSpec | None]:
    return [path for who, path in fakes.applied if who == ue]


async def attached(controller: CloudletController, *ues: UeKey) -> None:
    for ue in ues:
        controller.on_event(placed(ue))
    await rest()


async def test_other_flows_take_effect_for_who_is_connected(fakes: Fakes, controller: CloudletController) -> None:
    await attached(controller, ALICE)
    [path] = paths(fakes, ALICE)
    assert path is not None
    assert path.flows == ()
    await controller.change_policy(policy(ALICE, BOB, rules=WEB))
    await rest()
    _, changed = paths(fakes, ALICE)
    assert changed is not None
    assert changed.flows == (FlowFilter(6, None, 80),)
    assert isinstance(fakes.published[-1], OffloadChanged)
    assert controller.records[ALICE].phase is Phase.SERVING


async def test_the_same_policy_changes_nothing(fakes: Fakes, controller: CloudletController) -> None:
    await attached(controller, ALICE, BOB)
    before = list(fakes.applied)
    await controller.change_policy(policy(ALICE, BOB))
    await rest()
    assert fakes.applied == before


async def test_who_leaves_the_policy_goes_by_the_core_and_nobody_else_notices(
    fakes: Fakes, controller: CloudletController
) -> None:
    await attached(controller, ALICE, BOB)
    before = paths(fakes, BOB)
    await controller.change_policy(policy(BOB))
    await rest()
    assert paths(fakes, ALICE)[-1] is None
    assert fakes.runs == {"p2"}
    assert {type(event) for event in fakes.published[-2:]} == {OffloadRemoved, PvmStopped}
    controller.on_event(placed(ALICE, UeConnected))
    await rest()
    assert fakes.runs == {"p2"}, "what is heard of it no longer counts"
    assert paths(fakes, BOB) == before
    assert controller.offloaded == {BOB}


async def test_who_comes_under_the_policy_is_served_where_the_retained_state_says(fakes: Fakes) -> None:
    async with build(fakes, policy(BOB)) as controller:
        await attached(controller, ALICE, BOB)
        assert fakes.runs == {"p2"}
        before = paths(fakes, BOB)
        await controller.change_policy(policy(ALICE, BOB))
        for ue in (ALICE, BOB):
            controller.on_state(placed(ue, UeConnected))
        await rest()
        assert fakes.runs == {"p1", "p2"}
        assert paths(fakes, ALICE)[-1] is not None
        assert paths(fakes, BOB) == before


async def test_back_under_the_policy(fakes: Fakes, controller: CloudletController) -> None:
    await attached(controller, ALICE)
    await controller.change_policy(policy(BOB))
    await rest()
    await controller.change_policy(policy(ALICE, BOB))
    controller.on_state(placed(ALICE, UeConnected))
    await rest()
    assert fakes.runs == {"p1"}
    assert controller.offloaded == {ALICE}


async def test_another_apn_at_the_next_connection_is_another_answer(fakes: Fakes) -> None:
    async with build(fakes, policy(ALICE, rules=CORP)) as controller:
        await attached(controller, ALICE)
        assert fakes.runs == set()
        controller.on_event(placed(ALICE, UeConnected, apn="corp"))
        await rest()
        assert fakes.runs == {"p1"}
        controller.on_event(placed(ALICE, UeConnected, apn="internet"))
        await rest()
        assert fakes.runs == set()


async def test_a_restart_finds_the_policy_changed(fakes: Fakes) -> None:
    async with build(fakes, policy(ALICE, BOB, rules=CORP)) as controller:
        controller.on_event(placed(ALICE, apn="corp"))
        controller.on_event(placed(BOB, apn="corp"))
        await rest()
    assert fakes.runs == {"p1", "p2"}
    fakes.applied.clear()
    other = CORP.replace("dst_port: 80", "dst_port: 81")
    async with build(fakes, policy(BOB, rules=other)) as controller:
        await rest()
        assert fakes.runs == {"p2"}
        assert set(paths(fakes, ALICE)) == {None}
        [path] = paths(fakes, BOB)
        assert path is not None
        assert path.flows == (FlowFilter(6, None, 81),)
        assert controller.offloaded == {BOB}


async def test_another_personal_vm_waits_until_the_first_is_stopped(
    fakes: Fakes, controller: CloudletController
) -> None:
    await attached(controller, ALICE)
    text = f"offload:\n  subscribers:\n{subscriber(ALICE).replace('id: p1', 'id: p9')}"
    await controller.change_policy(OffloadPolicy(parse(text).offload, lambda imsi: UeKey(Imsi(imsi))))
    await rest()
    assert controller.records[ALICE].pvm.id == "p1"
    assert fakes.runs == {"p1"}
