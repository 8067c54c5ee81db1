"""The path follows the UE from cell to cell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobiscud.controller.inputs import (
    DetourAsked,
    DetourAwaited,
    DetourGranted,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    MoveDue,
    NoStragglers,
    NotReady,
    PvmGone,
    PvmSeen,
    Tunnels,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import Phase
from mobiscud.core.commands import AbortMove, AskDetour, AskMove, AwaitReady, AwaitStragglers, Consult, Moment, SetPath
from mobiscud.core.edge import DownlinkTunnel, PathSpec, UplinkTunnel
from mobiscud.core.events import OffloadActivated, OffloadEvent, OffloadMoved, OffloadPrepared, OffloadRemoved
from mobiscud.core.ids import FTeid, Teid
from tests.unit.mobiscud.machine.playbook import (
    C1,
    C2,
    C3,
    IP,
    PVM,
    T1,
    T2,
    T3,
    Playbook,
    arriving,
    core,
    detoured,
    lending,
    path,
    pushing,
    serving,
)


def test_attach_at_a_cell_of_another_cloudlet_is_none_of_ours() -> None:
    Playbook(C2).on(UeArrived(C1, IP, T1)).is_in(Phase.AWAY)


def test_the_source_flips_when_the_ue_is_there_and_the_target_ready() -> None:
    lending()


def test_the_source_waits_for_a_target_that_is_not_ready() -> None:
    (
        serving()
        .on(HandoverDone(C2, IP, T2), AwaitReady(2))
        .is_in(Phase.LENDING)
        .on(DetourAsked(C2), SetPath(path(C1, C2, T1), OffloadMoved, C2), SetPath(path(C1, C2), None, C2))
        .on(DetourAsked(C2))
        .on(NotReady(2))
    )


def test_a_target_that_stays_away_leaves_the_ue_to_the_core_until_it_is_back() -> None:
    (
        serving()
        .on(HandoverDone(C2, IP, T2), AwaitReady(2))
        .on(NotReady(1))
        .on(NotReady(2), core(C1, OffloadRemoved))
        .is_in(Phase.LENDING)
        .on(DetourAsked(C2), SetPath(path(C1, C2), OffloadMoved, C2), SetPath(path(C1, C2), None, C2))
    )
    (
        pushing()
        .on(HandoverDone(C3, IP, T3), AbortMove(PVM), AwaitReady(3))
        .on(NotReady(3), core(C1, OffloadRemoved))
        .on(DetourAsked(C3), SetPath(path(C1, C3), OffloadMoved, C3), SetPath(path(C1, C3), None, C3))
    )


def test_a_cancelled_handover_leaves_nothing() -> None:
    (
        Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP, ue_at=C1)
        .on(
            HandoverExpected(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadPrepared, C1),
            AskDetour(C1),
            Consult(Moment.PREPARED, 0),
        )
        .on(HandoverOff(), SetPath(None, OffloadRemoved))
        .is_in(Phase.AWAY)
    )
    serving().on(DetourAsked(C2)).on(HandoverOff()).is_in(Phase.SERVING)


def test_a_handover_inside_the_cloudlet_needs_no_migration() -> None:
    both = Tunnels(T1.uplinks + T2.uplinks, T1.downlink)
    (
        serving()
        .on(HandoverExpected(C1, IP, T2), SetPath(path(C1, C1, both), OffloadPrepared, "local"))
        .on(HandoverDone(C1, IP, T2), SetPath(path(C1, C1, T2), OffloadMoved, "local"))
        .is_in(Phase.SERVING)
    )
    (
        serving()
        .on(HandoverExpected(C1, IP, T2), SetPath(path(C1, C1, both), OffloadPrepared, "local"))
        .on(HandoverOff(), SetPath(path(C1, C1, T1), None, "local"))
    )


def by_other_sgw(enb: int) -> Tunnels:
    """The tunnels at an eNodeB, once another S-GW has taken the UE over."""
    address, sgw = f"10.0.0.1{enb}", FTeid("10.0.0.3", Teid(0x3003))
    return Tunnels((UplinkTunnel(address, sgw),), DownlinkTunnel(sgw.address, FTeid(address, Teid(0x2000 + enb))))


@pytest.mark.parametrize("prepared", [by_other_sgw(2), T2], ids=["known when prepared (S1)", "known when done (X2)"])
def test_another_sgw_may_take_the_ue_over_at_a_handover(prepared: Tunnels) -> None:
    other = by_other_sgw(2)
    (
        Playbook(C2, pvm_at=C1)
        .on(
            HandoverExpected(C2, IP, prepared),
            SetPath(path(C1, C2, prepared), OffloadPrepared, C1),
            AskDetour(C1),
            Consult(Moment.PREPARED, 0),
        )
        .on(
            HandoverDone(C2, IP, other),
            SetPath(path(C1, C2, other), OffloadActivated, C1),
            AskDetour(C1),
            Consult(Moment.ARRIVED, 1),
        )
    )


def test_another_sgw_after_a_tracking_area_update_comes_with_the_next_connection() -> None:
    other = by_other_sgw(1)
    (
        serving()
        .on(UeWentIdle(), core(C1, OffloadRemoved))
        .on(UeArrived(C1, IP, other), SetPath(path(C1, C1, other), OffloadMoved, "local"))
        .on(UeArrived(C1, IP, T1), SetPath(path(C1, C1, T1), OffloadMoved, "local"))
        .is_in(Phase.SERVING)
    )


def test_a_ue_that_comes_back_finds_its_pvm() -> None:
    (
        lending()
        .on(HandoverExpected(C1, IP, T1), SetPath(path(C1, C2, T1), OffloadPrepared, C2))
        .on(HandoverDone(C1, IP, T1), SetPath(path(C1, C1, T1), OffloadMoved, "local"))
        .is_in(Phase.SERVING)
    )


def standing_by() -> Playbook:
    """c2, while UE and PVM are at c1: its uplink stands, since in X2 the UE sends before anybody hears of it."""
    expected = PathSpec(IP, PVM, C1, C2, T2.uplinks)
    return Playbook(C2).on(UeArrived(C1, IP, T1, T2.uplinks), SetPath(expected, None, C1)).is_in(Phase.AWAY)


def test_a_neighbour_stands_by_while_the_ue_is_connected() -> None:
    standing_by().on(PvmSeen(C1)).on(UeWentIdle(), SetPath(None, OffloadRemoved)).on(UeLeft())
    standing_by().on(UeLeft(), SetPath(None, OffloadRemoved))


def test_what_is_under_way_to_the_old_cloudlet_follows_the_ue() -> None:
    (
        standing_by()
        .on(
            HandoverExpected(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadPrepared, C1),
            AskDetour(C1),
            Consult(Moment.PREPARED, 1),
        )
        .on(
            HandoverDone(C2, IP, T2, T2.uplinks),
            SetPath(path(C1, C2, T2), OffloadActivated, C1),
            AskDetour(C1),
            Consult(Moment.ARRIVED, 2),
        )
        .on(
            HandoverDone(C3, IP, T3, T2.uplinks),
            SetPath(PathSpec(IP, PVM, C1, C3, T2.uplinks), OffloadRemoved, C1),
            AwaitStragglers(3),
        )
        .is_in(Phase.AWAY)
        .on(NoStragglers(2))
        .on(NoStragglers(3), SetPath(PathSpec(IP, PVM, C1, C2, T2.uplinks), None, C1))
    )


def test_who_is_expected_before_the_last_straggler_finds_its_rules() -> None:
    expected = (SetPath(path(C1, C2, T2), OffloadPrepared, C1), AskDetour(C1), Consult(Moment.PREPARED, 1))
    (
        standing_by()
        .on(HandoverExpected(C2, IP, T2), *expected)
        .on(HandoverOff(), SetPath(PathSpec(IP, PVM, C1, C1, T2.uplinks), OffloadRemoved, C1), AwaitStragglers(1))
        .on(HandoverExpected(C2, IP, T2), *expected)
        .ignores(NoStragglers(1))
    )


def test_a_neighbour_leads_to_where_the_pvm_is() -> None:
    standing_by().on(PvmSeen(C3), SetPath(PathSpec(IP, PVM, C3, C2, T2.uplinks), None, C3))
    standing_by().on(PvmGone(C1), SetPath(None, None))
    expected_there = PathSpec(IP, PVM, C3, C2, T2.uplinks)
    stays = Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP).on(
        UeArrived(C3, IP, T3, T2.uplinks), SetPath(PathSpec(IP, PVM, C1, C2, T2.uplinks), None, C1)
    )
    stays.on(PvmGone(C1), SetPath(expected_there, None, C3))


def unheeded(via: Tunnels = T2, announce: type[OffloadEvent] | None = None, reason: str | None = None) -> SetPath:
    """The path at c2 while c1 does not grant the detour: what the UE sends is left to the core."""
    return SetPath(replace(path(C1, C2, via), uplinks=()), announce, "core", reason)


def test_a_source_that_does_not_answer_leaves_what_the_ue_sends_to_the_core_until_it_does() -> None:
    """It is never taken to be without the PVM: only its own word says that."""
    target = detoured().on(DetourAwaited(C3)).on(DetourGranted(C1))
    target.on(DetourAwaited(C1), unheeded(announce=OffloadRemoved, reason="c1 does not grant the detour"))
    target.on(DetourAwaited(C1)).is_in(Phase.DETOURED)
    target.on(MoveDue(1), SetPath(replace(arriving(C1, C2, T2), uplinks=()), None, "core"), AskMove(C1))
    target.on(DetourGranted(C1), SetPath(arriving(C1, C2, T2), OffloadActivated, C1)).is_in(Phase.PULLING)


def test_a_ue_that_comes_while_the_source_is_silent_is_left_to_the_core() -> None:
    target = (
        Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP, ue_at=C1)
        .on(
            HandoverExpected(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadPrepared, C1),
            AskDetour(C1),
            Consult(Moment.PREPARED, 0),
        )
        .on(DetourAwaited(C1), unheeded(announce=OffloadRemoved, reason="c1 does not grant the detour"))
        .on(HandoverDone(C2, IP, T2), unheeded(), AskDetour(C1), Consult(Moment.ARRIVED, 1))
    )
    target.on(PvmSeen(C3), SetPath(path(C3, C2, T2), OffloadMoved, C3), AskDetour(C3), Consult(Moment.ARRIVED, 1))
    target.on(HandoverDone(C3, IP, T3), SetPath(None, OffloadRemoved)).is_in(Phase.AWAY)
    assert target.record.silent is None


def test_what_the_guest_brings_along_goes_to_it_though_its_source_was_silent() -> None:
    target = detoured().on(DetourAwaited(C1), unheeded(announce=OffloadRemoved, reason="c1 does not grant the detour"))
    target.on(HaltedThere(7), SetPath(path(C2, C2, T2), OffloadMoved, "local")).on(DetourAwaited(C1))
    assert target.is_in(Phase.PULLING).record.flipped
