"""The policy in a controller at work: who comes under it, who leaves it, and that nobody else is touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mobiscud.controller.offload_policy import OffloadPolicy
from mobiscud.controller.ports import Neighbourhood
from mobiscud.controller.record import Phase
from mobiscud.controller.service import CloudletController
from mobiscud.core.config import parse
from mobiscud.core.edge import FlowFilter, PathSpec
from mobiscud.core.events import OffloadChanged, OffloadRemoved, PvmStopped, UeAttached, UeConnected
from mobiscud.core.ids import CloudletId, EnbId, ERabId, FTeid, Imsi, Teid, UeKey
from mobiscud.core.ue import BearerContext, Enb, Pdn
from tests.unit.mobiscud.stand_ins import Parts

C1 = CloudletId("c1")
ALICE, BOB = UeKey("ue-0000000000000001"), UeKey("ue-0000000000000002")
IP_OF = {ALICE: "45.45.0.2", BOB: "45.45.0.3"}


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


def build(parts: Parts, first: OffloadPolicy) -> CloudletController:
    return parts.controller(Neighbourhood(C1, {EnbId(1): C1}, {C1: "c1"}, {}), first)


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def controller(parts: Parts) -> AsyncIterator[CloudletController]:
    async with build(parts, policy(ALICE, BOB)) as at_work:
        yield at_work


async def rest() -> None:
    """Everything here is done within some rounds of the loop."""
    for _ in range(200):
        await asyncio.sleep(0)


def paths(parts: Parts, ue: UeKey) -> list[PathSpec | None]:
    return [path for who, path in parts.switch.applied if who == ue]


async def attached(controller: CloudletController, *ues: UeKey) -> None:
    for ue in ues:
        controller.on_event(placed(ue))
    await rest()


async def test_other_flows_take_effect_for_who_is_connected(parts: Parts, controller: CloudletController) -> None:
    await attached(controller, ALICE)
    [path] = paths(parts, ALICE)
    assert path is not None
    assert path.flows == ()
    await controller.change_policy(policy(ALICE, BOB, rules=WEB))
    await rest()
    _, changed = paths(parts, ALICE)
    assert changed is not None
    assert changed.flows == (FlowFilter(6, None, 80),)
    assert isinstance(parts.published[-1], OffloadChanged)
    assert controller.records[ALICE].phase is Phase.SERVING


async def test_the_same_policy_changes_nothing(parts: Parts, controller: CloudletController) -> None:
    await attached(controller, ALICE, BOB)
    before = list(parts.switch.applied)
    await controller.change_policy(policy(ALICE, BOB))
    await rest()
    assert parts.switch.applied == before


async def test_who_leaves_the_policy_goes_by_the_core_and_nobody_else_notices(
    parts: Parts, controller: CloudletController
) -> None:
    await attached(controller, ALICE, BOB)
    before = paths(parts, BOB)
    await controller.change_policy(policy(BOB))
    await rest()
    assert paths(parts, ALICE)[-1] is None
    assert parts.runs == {"p2"}
    assert {type(event) for event in parts.published[-2:]} == {OffloadRemoved, PvmStopped}
    controller.on_event(placed(ALICE, UeConnected))
    await rest()
    assert parts.runs == {"p2"}, "what is heard of it no longer counts"
    assert paths(parts, BOB) == before
    assert controller.offloaded == {BOB}


async def test_who_comes_under_the_policy_is_served_where_the_retained_state_says(parts: Parts) -> None:
    async with build(parts, policy(BOB)) as controller:
        await attached(controller, ALICE, BOB)
        assert parts.runs == {"p2"}
        before = paths(parts, BOB)
        await controller.change_policy(policy(ALICE, BOB))
        for ue in (ALICE, BOB):
            controller.on_state(placed(ue, UeConnected))
        await rest()
        assert parts.runs == {"p1", "p2"}
        assert paths(parts, ALICE)[-1] is not None
        assert paths(parts, BOB) == before


async def test_back_under_the_policy(parts: Parts, controller: CloudletController) -> None:
    await attached(controller, ALICE)
    await controller.change_policy(policy(BOB))
    await rest()
    await controller.change_policy(policy(ALICE, BOB))
    controller.on_state(placed(ALICE, UeConnected))
    await rest()
    assert parts.runs == {"p1"}
    assert controller.offloaded == {ALICE}


async def test_another_apn_at_the_next_connection_is_another_answer(parts: Parts) -> None:
    async with build(parts, policy(ALICE, rules=CORP)) as controller:
        await attached(controller, ALICE)
        assert parts.runs == set()
        controller.on_event(placed(ALICE, UeConnected, apn="corp"))
        await rest()
        assert parts.runs == {"p1"}
        controller.on_event(placed(ALICE, UeConnected, apn="internet"))
        await rest()
        assert parts.runs == set()


async def test_a_restart_finds_the_policy_changed(parts: Parts) -> None:
    async with build(parts, policy(ALICE, BOB, rules=CORP)) as controller:
        controller.on_event(placed(ALICE, apn="corp"))
        controller.on_event(placed(BOB, apn="corp"))
        await rest()
    assert parts.runs == {"p1", "p2"}
    parts.switch.applied.clear()
    other = CORP.replace("dst_port: 80", "dst_port: 81")
    async with build(parts, policy(BOB, rules=other)) as controller:
        await rest()
        assert parts.runs == {"p2"}
        assert set(paths(parts, ALICE)) == {None}
        [path] = paths(parts, BOB)
        assert path is not None
        assert path.flows == (FlowFilter(6, None, 81),)
        assert controller.offloaded == {BOB}


async def test_another_personal_vm_waits_until_the_first_is_stopped(
    parts: Parts, controller: CloudletController
) -> None:
    await attached(controller, ALICE)
    text = f"offload:\n  subscribers:\n{subscriber(ALICE).replace('id: p1', 'id: p9')}"
    await controller.change_policy(OffloadPolicy(parse(text).offload, lambda imsi: UeKey(Imsi(imsi))))
    await rest()
    assert controller.records[ALICE].pvm.id == "p1"
    assert parts.runs == {"p1"}
