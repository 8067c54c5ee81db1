"""The controller's hands: what it hears, what it does once, and how it begins again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest

from mobiscud.bus.cloudevents import EVENT_TYPES
from mobiscud.controller.hearing import HEARD, read
from mobiscud.controller.inputs import HandoverDone, NoStragglers, Tunnels, UeArrived, UeWentIdle
from mobiscud.controller.offload_policy import OffloadPolicy
from mobiscud.controller.outlook import Outlook
from mobiscud.controller.ports import Neighbourhood
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.controller.service import CloudletController
from mobiscud.core.config import CostConfig
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.errors import AdapterError
from mobiscud.core.events import Event, HandoverCompleted, HandoverPrepared, OffloadMoved, UeConnected, UeEvent
from mobiscud.core.ids import CloudletId, EnbId, ERabId, FTeid, PvmId, Teid, UeKey
from mobiscud.core.ue import BearerContext, Enb, HandoverEnd, HandoverKind
from tests.unit.mobiscud.stand_ins import Parts, Switch

C1, C2 = CloudletId("c1"), CloudletId("c2")
SGW = FTeid("10.0.0.2", Teid(0x1001))
LIMIT_S = 30


def pvm(number: int) -> Pvm:
    return Pvm(PvmId(f"pvm-{number}"), f"172.16.{number // 250}.{number % 250 + 1}", f"52:54:00:00:{number:04x}"[:17])


def ue(number: int) -> UeKey:
    return UeKey(f"ue-{number:016x}")


def serving(number: int) -> UeRecord:
    tunnels = Tunnels((UplinkTunnel("10.0.0.11", SGW),), DownlinkTunnel(SGW.address, FTeid("10.0.0.11", Teid(7))))
    return UeRecord(pvm(number), C1, Phase.SERVING, True, "45.45.0.2", C1, C1, tunnels)


def controller(parts: Parts) -> CloudletController:
    around = Neighbourhood(C1, {EnbId(1): C1, EnbId(2): C1}, {C1: "c1", C2: "c2"}, {})
    return parts.controller(around, OffloadPolicy.plain({of: record.pvm for of, record in parts.remembered.items()}))


async def until(true: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not true():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0)


def completed(of: UeKey) -> HandoverCompleted:
    enbs = [Enb(None, EnbId(number), f"10.0.0.1{number}") for number in (1, 2)]
    bearers = (BearerContext(ERabId(5), 9, SGW, FTeid("10.0.0.12", Teid(8))),)
    return HandoverCompleted(
        at=1,
        origin=b"1",
        ue=of,
        ue_ip=("45.45.0.2",),
        kind=HandoverKind.S1,
        source=HandoverEnd(enbs[0]),
        target=HandoverEnd(enbs[1]),
        enb=enbs[1],
        ecgi=None,
        tai=None,
        bearers=bearers,
    )


async def test_the_retained_state_behind_an_event_is_no_news() -> None:
    """Both come in one reading of the bus, before the event is dealt with."""
    parts = Parts({ue(1): serving(1)})
    async with controller(parts) as hands:
        event = completed(ue(1))
        hands.on_event(event)
        about = {"at": event.at, "origin": b"state", "ue": event.ue, "ue_ip": event.ue_ip}
        hands.on_state(UeConnected(**about, enb=event.enb, ecgi=None, tai=None, bearers=event.bearers))  # type: ignore[arg-type]
        await until(lambda: not hands.backlog.waiting)
        assert [type(event) for event in parts.published] == [OffloadMoved]
        there = DownlinkTunnel(SGW.address, event.bearers[0].downlink, SGW.teid)  # type: ignore[arg-type]
        assert hands.records[ue(1)].tunnels.downlink == there


async def test_ten_thousand_paths_are_taken_up_in_a_few_steps() -> None:
    parts = Parts({ue(number): serving(number) for number in range(10_000)})
    async with controller(parts) as hands:
        assert len(parts.switch.paths) == len(hands.offloaded) == 10_000
        assert parts.switch.steps == 10
        assert not parts.published


async def test_a_path_that_is_refused_holds_up_no_other() -> None:
    parts = Parts({ue(number): serving(number) for number in range(10)}, Switch(refused=frozenset({ue(3)})))
    async with controller(parts):
        assert parts.switch.paths.keys() == parts.remembered.keys() - {ue(3)}


class Silent(Parts):
    """Whose neighbour never answers."""

    asked = asking = 0

    async def ask(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.asked += 1
        self.asking += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.asking -= 1
        return {}


async def test_a_silent_neighbour_is_asked_by_one_however_often_the_ue_comes() -> None:
    expected = replace(serving(1), phase=Phase.PREPARED, ue_at=C2, pvm_at=C2)
    parts = Silent({ue(1): expected})
    event = completed(ue(1))
    about = {field.name: getattr(event, field.name) for field in fields(HandoverPrepared)}
    async with controller(parts) as hands:
        for number in range(2, 10):
            hands.on_event(HandoverPrepared(**about))
            await until(lambda: parts.asked == number)  # noqa: B023  # called at once
            assert parts.asking == 1


@pytest.mark.parametrize("kind", [kind for kind in EVENT_TYPES.values() if kind not in HEARD])
def test_events_that_a_controller_does_not_hear_tell_it_nothing(kind: type[Event]) -> None:
    event = object.__new__(kind)  # who looked at more than its type would find nothing in it
    for field in fields(kind):
        object.__setattr__(event, field.name, ())
    outlook, untouched = Outlook(CostConfig()), Outlook(CostConfig())
    outlook.heard(event)
    assert vars(outlook) == vars(untouched)
    if isinstance(event, UeEvent):
        assert read(event, {}) is None


def test_what_is_heard_is_read() -> None:
    event = UeConnected(at=1, origin=b"", ue=ue(1), ue_ip=(), enb=None, ecgi=None, tai=None, bearers=())
    assert type(event) in HEARD
    assert isinstance(read(event, {}), UeArrived)


class AwaySwitch(Switch):
    """Gone for some steps, then back."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.away = steps

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> dict[UeKey, tuple[str, ...]]:
        self.away -= 1
        if self.away >= 0:
            raise AdapterError("not connected")
        return await super().apply_all(paths)


async def test_what_the_switch_could_not_do_is_done_when_it_is_back() -> None:
    switch = AwaySwitch(0)
    parts = Parts({ue(1): serving(1)}, switch)
    async with controller(parts) as hands:
        switch.away = 2
        hands.on_event(completed(ue(1)))
        await until(lambda: switch.away < 0)
        await until(lambda: parts.published)
        path = switch.paths[ue(1)]
        assert path is not None
        assert path.downlink == hands.records[ue(1)].tunnels.downlink
        assert [type(event) for event in parts.published] == [OffloadMoved]


async def test_what_the_switch_could_not_do_gives_way_to_what_came_later() -> None:
    switch = AwaySwitch(0)
    parts = Parts({ue(1): serving(1)}, switch)
    async with controller(parts) as hands:
        switch.away = 2
        hands.on_event(completed(ue(1)))
        await until(lambda: switch.away == 1)
        hands.submit(ue(1), UeWentIdle())

        def by_core() -> bool:
            path = switch.paths.get(ue(1))
            return path is not None and (path.ue_at, path.uplinks) == (None, ())

        await until(by_core)
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("again-")])
        await until(lambda: not hands.backlog.waiting)
        assert by_core()


async def test_a_path_that_could_not_be_made_gives_way_to_a_later_one_of_the_same_record() -> None:
    """What is late for a UE that has left goes after it for a while, and then no more: the record is as it was."""
    gone = replace(serving(1), phase=Phase.DETOURED, pvm_at=C2, standby=serving(1).tunnels.uplinks)
    switch = AwaySwitch(0)
    parts = Parts({ue(1): gone}, switch)
    async with controller(parts) as hands:
        switch.away = 1
        hands.submit(ue(1), HandoverDone(C2, "45.45.0.2", Tunnels(), gone.standby))
        await until(lambda: switch.away == 0)
        hands.submit(ue(1), NoStragglers(hands.records[ue(1)].token))
        await until(lambda: not hands.backlog.waiting)
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("again-")])
        await until(lambda: not hands.backlog.waiting)
        path = switch.paths[ue(1)]
        assert path is not None
        assert path.ue_at == C1


async def test_an_enodeb_whose_number_nobody_has_seen_is_known_by_its_address() -> None:
    """A monitor that began after the eNodeB's S1 Setup does not know its id."""
    parts = Parts({ue(1): serving(1)})
    async with controller(parts) as hands:
        hands.on_event(completed(ue(1)))
        await until(lambda: not hands.backlog.waiting)
        event = completed(ue(1))
        hands.on_event(replace(event, enb=Enb(None, None, "10.0.0.12")))
        await until(lambda: not hands.backlog.waiting)
        assert hands.records[ue(1)].ue_at == C1
