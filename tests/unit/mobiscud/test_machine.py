"""The controller's table, as scripts: what happened, and exactly what is then to be done."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from mobiscud.controller.inputs import (
    DetourAsked,
    DoubtThere,
    Halted,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    HandoverOrdered,
    Input,
    Landed,
    MoveAsked,
    MovedHere,
    MoveDue,
    MoveFailed,
    MoveInDoubt,
    MoveLost,
    MoveRefused,
    MoveSucceeded,
    NoRoom,
    NotReady,
    PvmCrashed,
    PvmGone,
    PvmKept,
    PvmRefused,
    PvmRunning,
    PvmSeen,
    StayedAway,
    StaysThere,
    Tunnels,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.machine import TRANSITIONS, step
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AskDetour,
    AskMove,
    AwaitReady,
    AwaitReturn,
    Command,
    Consult,
    ForgetPackets,
    KeepPackets,
    MigratePvm,
    Moment,
    Refuse,
    ResendPackets,
    SetPath,
    SettleMove,
    StartPvm,
    StopPvm,
    TellHalted,
    TellMoved,
    TellStays,
)
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.events import (
    OffloadActivated,
    OffloadEvent,
    OffloadMoved,
    OffloadPrepared,
    OffloadRemoved,
    PvmMigrated,
    PvmMigrating,
    PvmMigrationFailed,
    PvmStarted,
    PvmStopped,
)
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid

PVM = Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10")
C1, C2, C3 = CloudletId("c1"), CloudletId("c2"), CloudletId("c3")
IP = "45.45.0.2"
SGW = FTeid("10.0.0.2", Teid(0x1001))


def tunnels(enb: int) -> Tunnels:
    address = f"10.0.0.1{enb}"
    return Tunnels((UplinkTunnel(address, SGW),), DownlinkTunnel("10.0.0.2", FTeid(address, Teid(0x2000 + enb))))


T1, T2, T3 = tunnels(1), tunnels(2), tunnels(3)
MIGRATING = Announce(PvmMigrating, from_cloudlet=C1, to_cloudlet=C2)


def path(pvm_at: CloudletId, ue_at: CloudletId, via: Tunnels = Tunnels()) -> PathSpec:  # noqa: B008  # frozen
    return PathSpec(IP, PVM, pvm_at, ue_at, via.uplinks, via.downlink)


def arriving(source: CloudletId, here: CloudletId, via: Tunnels) -> PathSpec:
    """The path at ``here`` while the PVM is on its way there."""
    return replace(path(source, here, via), arriving_from=source)


ARRIVING = SetPath(arriving(C1, C2, T2), None, C1)


class Playbook:
    """One controller's record, carried over inputs; every command must be expected."""

    def __init__(self, here: CloudletId, **known: object) -> None:
        self.record = UeRecord(PVM, here, **known)  # type: ignore[arg-type]

    def on(self, happened: Input, *expected: Command) -> Playbook:
        result = step(self.record, happened)
        assert result is not None, f"no row for {self.record.phase} and {happened}"
        self.record, commands = result
        assert commands == expected
        return self

    def ignores(self, happened: Input) -> Playbook:
        assert step(self.record, happened) is None
        return self

    def is_in(self, phase: Phase) -> Playbook:
        assert self.record.phase is phase
        return self


def core(pvm_at: CloudletId, announce: type[OffloadEvent] | None = None, via: Tunnels = Tunnels()) -> SetPath:  # noqa: B008
    """The PVM reaches its UE, and the UE its PVM, through the core."""
    return SetPath(PathSpec(IP, PVM, pvm_at, None, via.uplinks), announce, "core")


DETOUR_AGAIN = (SetPath(path(C1, C2, T2), OffloadMoved, C1), AskDetour(C1), Consult(Moment.ARRIVED, 1, again=True))
"""What c2 does when the PVM did not come from c1."""


def serving(here: CloudletId = C1, via: Tunnels = T1) -> Playbook:
    return (
        Playbook(here)
        .on(UeArrived(here, IP, via), StartPvm(PVM))
        .is_in(Phase.STARTING)
        .on(
            PvmRunning(),
            Announce(PvmStarted, to_cloudlet=here),
            SetPath(path(here, here, via), OffloadActivated, "local"),
        )
        .is_in(Phase.SERVING)
    )


def detoured() -> Playbook:
    """c2, whose UE has come from c1, where its PVM still is."""
    return (
        Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP, ue_at=C1)
        .on(
            HandoverExpected(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadPrepared, C1),
            AskDetour(C1),
            Consult(Moment.PREPARED, 0),
        )
        .is_in(Phase.PREPARED)
        .on(
            HandoverDone(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadActivated, C1),
            AskDetour(C1),
            Consult(Moment.ARRIVED, 1),
        )
        .is_in(Phase.DETOURED)
    )


def lending() -> Playbook:
    """c1, whose UE has gone to c2."""
    return (
        serving()
        .on(DetourAsked(C2))
        .on(HandoverDone(C2, IP, T2), SetPath(path(C1, C2, T1), OffloadMoved, C2), SetPath(path(C1, C2), None, C2))
        .is_in(Phase.LENDING)
    )


def pushing() -> Playbook:
    return lending().on(MoveAsked(C2), MIGRATING, KeepPackets(PVM), MigratePvm(PVM, C2)).is_in(Phase.PUSHING)


def pulling() -> Playbook:
    return detoured().on(MoveDue(1), ARRIVING, AskMove(C1)).is_in(Phase.PULLING)


def test_attach_starts_the_pvm_and_then_the_path() -> None:
    serving()


STOPPED = (StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1))
KEPT = (StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1, to_cloudlet=C1))


def lingering(*, keeps: bool = False) -> Playbook:
    """c1, whose PVM outlasts its UE's absence for a while."""
    book = serving()
    book.record = replace(book.record, lingers=True, keeps=keeps)
    return book


def dormant() -> Playbook:
    """c1, where the PVM is kept of a UE that has detached."""
    return (
        lingering(keeps=True)
        .on(UeLeft(), SetPath(None, OffloadRemoved), AwaitReturn(1))
        .is_in(Phase.PARKED)
        .on(StayedAway(1), *KEPT)
        .is_in(Phase.DORMANT)
    )


def test_a_pvm_waits_for_its_ue_and_then_stops() -> None:
    (
        lingering()
        .on(UeLeft(), SetPath(None, OffloadRemoved), AwaitReturn(1))
        .is_in(Phase.PARKED)
        .on(StayedAway(1), *STOPPED)
        .is_in(Phase.AWAY)
    )
    (
        lingering()
        .on(UeWentIdle(), core(C1, OffloadRemoved), AwaitReturn(1))
        .is_in(Phase.PARKED)
        .on(StayedAway(1), SetPath(None), *STOPPED)
        .is_in(Phase.AWAY)
    )


def test_a_ue_that_returns_in_time_finds_its_pvm() -> None:
    (
        lingering()
        .on(UeLeft(), SetPath(None, OffloadRemoved), AwaitReturn(1))
        .on(UeArrived(C1, IP, T1), SetPath(path(C1, C1, T1), OffloadMoved, "local"))
        .is_in(Phase.SERVING)
        .ignores(StayedAway(1))
        .on(UeWentIdle(), core(C1, OffloadRemoved), AwaitReturn(2))
        .on(StayedAway(1))
        .is_in(Phase.PARKED)
    )


def test_a_ue_at_a_cell_without_cloudlet_is_not_absent() -> None:
    (
        lingering()
        .on(UeWentIdle(), core(C1, OffloadRemoved), AwaitReturn(1))
        .on(UeArrived(None, IP, T1), core(C1, OffloadRemoved))
        .on(StayedAway(1))
        .is_in(Phase.PARKED)
    )


def test_without_a_term_idleness_is_for_ever_and_detaching_the_end() -> None:
    serving().on(UeWentIdle(), core(C1, OffloadRemoved)).is_in(Phase.PARKED)
    serving().on(UeLeft(), SetPath(None, OffloadRemoved), *STOPPED).is_in(Phase.AWAY)


def test_a_kept_pvm_goes_on_when_its_ue_is_back() -> None:
    (
        dormant()
        .on(UeArrived(C1, IP, T1), StartPvm(PVM, kept=True))
        .is_in(Phase.STARTING)
        .on(
            PvmRunning(),
            Announce(PvmStarted, to_cloudlet=C1),
            SetPath(path(C1, C1, T1), OffloadActivated, "local"),
        )
    )


def test_a_kept_pvm_that_begins_anew_says_why() -> None:
    (
        dormant()
        .on(UeArrived(C1, IP, T1), StartPvm(PVM, kept=True))
        .on(
            PvmRunning("damaged"),
            Announce(PvmStarted, to_cloudlet=C1, reason="damaged"),
            SetPath(path(C1, C1, T1), OffloadActivated, "local"),
        )
    )


def test_a_kept_pvm_of_a_ue_that_is_back_elsewhere_goes_on_where_it_is() -> None:
    (
        dormant()
        .on(UeArrived(C2, IP, T2), StartPvm(PVM, kept=True))
        .on(DetourAsked(C2))
        .on(
            PvmRunning(),
            Announce(PvmStarted, to_cloudlet=C1),
            SetPath(path(C1, C2), OffloadMoved, C2),
            SetPath(path(C1, C2), None, C2),
        )
        .is_in(Phase.LENDING)
        .on(
            MoveAsked(C2),
            Announce(PvmMigrating, from_cloudlet=C1, to_cloudlet=C2),
            KeepPackets(PVM),
            MigratePvm(PVM, C2),
        )
    )


def test_others_ask_for_a_kept_pvm_where_it_is() -> None:
    (
        Playbook(C2, pvm_at=C1)
        .on(PvmKept(C1))
        .on(
            UeArrived(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadActivated, C1),
            AskDetour(C1),
            Consult(Moment.ARRIVED, 1),
        )
        .is_in(Phase.DETOURED)
    )


def test_a_kept_pvm_that_cannot_go_on_stays_kept_and_traffic_takes_the_core() -> None:
    (
        dormant()
        .on(UeArrived(C2, IP, T2), StartPvm(PVM, kept=True))
        .on(PvmRefused("full"), Announce(PvmStopped, from_cloudlet=C1, to_cloudlet=C1, reason="full"))
        .is_in(Phase.DORMANT)
    )
    (
        detoured()
        .on(PvmKept(C1), SetPath(None, OffloadRemoved))
        .is_in(Phase.AWAY)
        .on(PvmSeen(C1), SetPath(path(C1, C2, T2), OffloadActivated, C1), AskDetour(C1), Consult(Moment.ARRIVED, 1))
        .is_in(Phase.DETOURED)
    )


def test_a_kept_pvm_sleeps_on_while_its_ue_comes_and_goes_where_it_cannot_reach_it() -> None:
    dormant().on(UeArrived(None, IP, T1)).on(UeWentIdle()).on(UeLeft()).on(PvmSeen(C1)).is_in(Phase.DORMANT)
    dormant().on(PvmSeen(C2)).is_in(Phase.AWAY)


def test_a_pvm_that_does_not_fit_is_not_asked_for_and_that_is_told_once() -> None:
    detour = (SetPath(path(C1, C2, T2), None, C1), AskDetour(C1), Consult(Moment.ARRIVED, 1, again=True))
    failed = Announce(PvmMigrationFailed, from_cloudlet=C1, to_cloudlet=C2, reason="full")
    (
        pulling()
        .on(NoRoom("full"), *detour, failed)
        .is_in(Phase.DETOURED)
        .on(MoveDue(1), ARRIVING, AskMove(C1))
        .on(NoRoom("full"), *detour)
        .on(MoveDue(1), ARRIVING, AskMove(C1))
        .on(NoRoom("no libvirt"), *detour, replace(failed, reason="no libvirt"))
    )


def test_attach_at_a_cell_of_another_cloudlet_is_none_of_ours() -> None:
    Playbook(C2).on(UeArrived(C1, IP, T1)).is_in(Phase.AWAY)


def test_a_pvm_that_does_not_start_leaves_the_traffic_on_the_core() -> None:
    (
        Playbook(C1)
        .on(UeArrived(C1, IP, T1), StartPvm(PVM))
        .on(PvmRefused("no memory"), Announce(PvmStopped, from_cloudlet=C1, reason="no memory"))
        .is_in(Phase.AWAY)
    )


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


def test_what_was_heard_already_means_nothing() -> None:
    there = pulling().on(HaltedThere(7), SetPath(path(C2, C2, T2), OffloadMoved, "local")).on(HaltedThere(7))
    there.on(
        MovedHere(900.0),
        Announce(PvmMigrated, C1, C2, total_ms=900.0),
        SetPath(path(C2, C2, T2), None, "local"),
    )
    there.ignores(MovedHere(900.0)).ignores(HaltedThere(7)).ignores(StaysThere("late")).is_in(Phase.SERVING)
    lending().on(DetourAsked(C2)).on(DetourAsked(C2)).is_in(Phase.LENDING)


def test_migration_from_the_source() -> None:
    (
        pushing()
        .on(Halted(7), TellHalted(C2, 7), ResendPackets(PVM, C2), SetPath(path(C2, C2), None, C2))
        .on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), SetPath(None, OffloadRemoved))
        .is_in(Phase.AWAY)
    )


def test_migration_to_the_target_flips_at_the_sources_halt() -> None:
    (
        pulling()
        .on(HaltedThere(1_000_000), SetPath(path(C2, C2, T2), OffloadMoved, "local"))
        .on(Landed(24_000_000))
        .on(
            MovedHere(900.0),
            Announce(PvmMigrated, C1, C2, downtime_ms=23.0, total_ms=900.0),
            SetPath(path(C2, C2, T2), None, "local"),
        )
        .is_in(Phase.SERVING)
    )


def test_migration_to_the_target_flips_at_landing_when_the_halt_was_not_heard() -> None:
    (pulling().on(Landed(5), SetPath(path(C2, C2, T2), OffloadMoved, "local")).on(HaltedThere(3)).is_in(Phase.PULLING))


def test_a_clock_that_was_set_back_makes_no_downtime() -> None:
    (
        pulling()
        .on(HaltedThere(9_000_000), SetPath(path(C2, C2, T2), OffloadMoved, "local"))
        .on(Landed(4_000_000))
        .on(
            MovedHere(900.0),
            Announce(PvmMigrated, C1, C2, downtime_ms=None, total_ms=900.0),
            SetPath(path(C2, C2, T2), None, "local"),
        )
    )


def test_a_failed_migration_brings_the_path_back() -> None:
    (
        pushing()
        .on(Halted(7), TellHalted(C2, 7), ResendPackets(PVM, C2), SetPath(path(C2, C2), None, C2))
        .on(
            MoveFailed("link down"),
            ForgetPackets(PVM),
            Announce(PvmMigrationFailed, C1, C2, reason="link down"),
            TellStays(C2, "link down"),
            SetPath(path(C1, C2), OffloadMoved, C2),
            SetPath(path(C1, C2), None, C2),
        )
        .is_in(Phase.LENDING)
    )
    (
        pulling()
        .on(HaltedThere(7), SetPath(path(C2, C2, T2), OffloadMoved, "local"))
        .on(StaysThere("link down"), *DETOUR_AGAIN)
        .is_in(Phase.DETOURED)
    )


def test_a_refused_move_is_asked_for_again_later() -> None:
    pulling().on(MoveRefused("busy"), *DETOUR_AGAIN).is_in(Phase.DETOURED).on(MoveDue(1), ARRIVING, AskMove(C1))


def test_an_old_decision_means_nothing() -> None:
    detoured().on(MoveDue(0)).is_in(Phase.DETOURED)


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


def test_a_ue_without_cloudlet_is_reached_through_the_core() -> None:
    (
        serving()
        .on(HandoverDone(None, IP, T2), core(C1, OffloadRemoved))
        .is_in(Phase.PARKED)
        .on(HandoverDone(C1, IP, T1), SetPath(path(C1, C1, T1), OffloadMoved, "local"))
        .is_in(Phase.SERVING)
    )


def test_an_idle_ue_is_reached_through_the_core() -> None:
    (
        serving()
        .on(UeWentIdle(), core(C1, OffloadRemoved))
        .is_in(Phase.PARKED)
        .on(UeArrived(C1, IP, T1), SetPath(path(C1, C1, T1), OffloadMoved, "local"))
        .is_in(Phase.SERVING)
    )


def test_a_ue_that_comes_back_elsewhere_is_found_though_that_was_heard_there_first() -> None:
    (
        serving()
        .on(DetourAsked(C2))
        .on(UeWentIdle(), core(C1, OffloadRemoved))
        .on(UeArrived(C2, IP, T2), SetPath(path(C1, C2), OffloadMoved, C2), SetPath(path(C1, C2), None, C2))
        .is_in(Phase.LENDING)
        .on(UeWentIdle(), core(C1, OffloadRemoved))
        .on(UeArrived(C2, IP, T2), AwaitReady(3))
    )


def test_from_a_cell_without_cloudlet_to_another_cloudlet_the_core_serves_until_its_rules_stand() -> None:
    (
        serving()
        .on(HandoverDone(None, IP, T2), core(C1, OffloadRemoved))
        .on(HandoverDone(C3, IP, T3), AwaitReady(3))
        .is_in(Phase.LENDING)
        .on(DetourAsked(C3), SetPath(path(C1, C3), OffloadMoved, C3), SetPath(path(C1, C3), None, C3))
    )
    (
        serving()
        .on(UeWentIdle(), core(C1, OffloadRemoved))
        .on(DetourAsked(C3))
        .on(UeArrived(C3, IP, T3), SetPath(path(C1, C3), OffloadMoved, C3), SetPath(path(C1, C3), None, C3))
    )


def test_what_is_under_way_to_a_cloudlet_that_the_ue_left_for_none_leaves_by_the_core() -> None:
    detoured().on(HandoverDone(None, IP, T3, T2.uplinks), core(C1, OffloadRemoved, T2)).is_in(Phase.AWAY)


def test_a_ue_that_falls_idle_while_its_pvm_moves_is_reached_from_wherever_it_is() -> None:
    (
        pushing()
        .on(UeWentIdle(), core(C1, OffloadRemoved))
        .on(Halted(7), TellHalted(C2, 7), ResendPackets(PVM, C2), core(C2))
        .on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), SetPath(None, OffloadRemoved))
    )
    (
        pushing()
        .on(HandoverDone(None, IP, T3), AbortMove(PVM), core(C1, OffloadRemoved))
        .on(
            MoveFailed("aborted"),
            ForgetPackets(PVM),
            Announce(PvmMigrationFailed, C1, C2, reason="aborted"),
            TellStays(C2, "aborted"),
            core(C1, OffloadRemoved),
        )
        .is_in(Phase.PARKED)
    )
    (
        pulling()
        .on(UeWentIdle(), SetPath(None, OffloadRemoved))
        .on(HaltedThere(7), core(C2))
        .on(MovedHere(900.0), Announce(PvmMigrated, C1, C2, total_ms=900.0), core(C2, OffloadRemoved))
        .is_in(Phase.PARKED)
    )
    pulling().on(Landed(7), SetPath(path(C2, C2, T2), OffloadMoved, "local")).on(UeWentIdle(), core(C2, OffloadRemoved))


def test_detach_leaves_neither_rules_nor_pvm() -> None:
    (
        serving()
        .on(UeLeft(), SetPath(None, OffloadRemoved), StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1))
        .is_in(Phase.AWAY)
    )
    detoured().on(UeLeft(), SetPath(None, OffloadRemoved)).is_in(Phase.AWAY)


def test_a_ue_that_goes_on_while_its_pvm_comes_is_followed_from_here() -> None:
    (
        pulling()
        .on(HandoverDone(C3, IP, T3))
        .on(DetourAsked(C3))
        .on(Landed(9), SetPath(path(C2, C3), OffloadMoved, C3))
        .on(
            MovedHere(800.0),
            Announce(PvmMigrated, C1, C2, downtime_ms=None, total_ms=800.0),
            SetPath(path(C2, C3), OffloadMoved, C3),
            SetPath(path(C2, C3), None, C3),
        )
        .is_in(Phase.LENDING)
    )


def test_a_detour_follows_the_pvm_to_where_it_is() -> None:
    (
        detoured()
        .on(PvmSeen(C3), SetPath(path(C3, C2, T2), OffloadMoved, C3), AskDetour(C3), Consult(Moment.ARRIVED, 1))
        .is_in(Phase.DETOURED)
    )


def test_a_source_that_has_the_pvm_still_is_asked_again() -> None:
    pulling().on(PvmSeen(C1), *DETOUR_AGAIN).is_in(Phase.DETOURED)
    pulling().on(HaltedThere(7), SetPath(path(C2, C2, T2), OffloadMoved, "local")).on(PvmSeen(C1)).is_in(Phase.PULLING)


def test_a_pvm_that_is_nowhere_is_started_where_its_user_is() -> None:
    (
        detoured()
        .on(PvmGone(C3))
        .is_in(Phase.DETOURED)
        .on(PvmGone(C1), SetPath(None, OffloadRemoved), StartPvm(PVM))
        .is_in(Phase.STARTING)
    )


def test_what_is_said_of_a_migration_that_has_ended_means_nothing() -> None:
    failed = pushing().on(
        MoveFailed("link down"),
        ForgetPackets(PVM),
        Announce(PvmMigrationFailed, C1, C2, reason="link down"),
        TellStays(C2, "link down"),
        SetPath(path(C1, C2), OffloadMoved, C2),
        SetPath(path(C1, C2), None, C2),
    )
    assert failed.record.epoch == 2
    target = pulling().on(StaysThere("link down", epoch=2), *DETOUR_AGAIN)
    assert target.record.epoch == 2
    target.ignores(HaltedThere(7, epoch=1)).ignores(PvmSeen(C3, epoch=1)).is_in(Phase.DETOURED)


def test_who_prepares_and_is_not_taken_does_not_unmake_who_was() -> None:
    lending().on(HandoverExpected(C3, IP, T3)).on(DetourAsked(C3)).on(
        HandoverOff(), SetPath(path(C1, C2), None, C2)
    ).on(NotReady(2))


def test_only_who_is_told_of_by_the_ledger_is_pointed_to() -> None:
    gone = Playbook(C1, phase=Phase.AWAY, registered=True, ue_ip=IP, ue_at=C2, pvm_at=C2, epoch=2)
    gone.on(MoveAsked(C2, epoch=1), TellMoved(C2, 0.0)).on(MoveAsked(C2, epoch=2), Refuse("not while away"))


def test_a_user_who_goes_on_ends_the_migration() -> None:
    (
        pushing()
        .on(HandoverDone(C3, IP, T3), AbortMove(PVM), AwaitReady(3))
        .on(
            MoveFailed("aborted"),
            ForgetPackets(PVM),
            Announce(PvmMigrationFailed, C1, C2, reason="aborted"),
            TellStays(C2, "aborted"),
            AwaitReady(3),
        )
        .is_in(Phase.LENDING)
        .on(DetourAsked(C3), SetPath(path(C1, C3), OffloadMoved, C3), SetPath(path(C1, C3), None, C3))
    )


def test_a_user_who_comes_back_ends_the_migration() -> None:
    (
        pushing()
        .on(HandoverDone(C1, IP, T1), AbortMove(PVM), SetPath(path(C1, C1, T1), OffloadMoved, "local"))
        .on(
            MoveFailed("aborted"),
            ForgetPackets(PVM),
            Announce(PvmMigrationFailed, C1, C2, reason="aborted"),
            TellStays(C2, "aborted"),
            SetPath(path(C1, C1, T1), OffloadMoved, "local"),
        )
        .is_in(Phase.SERVING)
    )


def test_a_user_who_comes_back_too_late_is_followed() -> None:
    (
        pushing()
        .on(Halted(7), TellHalted(C2, 7), ResendPackets(PVM, C2), SetPath(path(C2, C2), None, C2))
        .on(HandoverDone(C1, IP, T1), AbortMove(PVM), SetPath(path(C2, C1, T1), OffloadMoved, C2))
        .on(
            MoveSucceeded(900.0),
            TellMoved(C2, 900.0),
            ForgetPackets(PVM),
            SetPath(path(C2, C1, T1), OffloadActivated, C2),
            AskDetour(C2),
            Consult(Moment.ARRIVED, 3),
        )
        .is_in(Phase.DETOURED)
    )


def test_a_detach_while_the_pvm_moves_stops_it_where_it_ends() -> None:
    (
        pushing()
        .on(UeLeft(), SetPath(None, OffloadRemoved))
        .on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), SetPath(None, OffloadRemoved))
        .is_in(Phase.AWAY)
    )
    (
        pulling()
        .on(UeLeft(), SetPath(None, OffloadRemoved))
        .on(
            MovedHere(900.0),
            Announce(PvmMigrated, C1, C2, total_ms=900.0),
            SetPath(None, OffloadRemoved),
            StopPvm(PVM),
            Announce(PvmStopped, from_cloudlet=C2),
        )
        .is_in(Phase.AWAY)
    )


def test_a_detach_while_the_pvm_starts_stops_it_when_it_runs() -> None:
    (
        Playbook(C1)
        .on(UeArrived(C1, IP, T1), StartPvm(PVM))
        .on(UeLeft(), SetPath(None, OffloadRemoved))
        .on(
            PvmRunning(),
            Announce(PvmStarted, to_cloudlet=C1),
            SetPath(None, OffloadRemoved),
            StopPvm(PVM),
            Announce(PvmStopped, from_cloudlet=C1),
        )
        .is_in(Phase.AWAY)
    )


def test_what_is_not_there_is_refused() -> None:
    Playbook(C1).on(DetourAsked(C2), Refuse("the personal VM is not here"))
    Playbook(C1).on(MoveAsked(C2), Refuse("not while away"))
    serving().on(MoveAsked(C2), Refuse("the UE is neither there nor expected"))
    lending().on(MoveAsked(C3), Refuse("the UE is neither there nor expected"))


def test_a_migration_in_doubt_blocks_both_sides_until_it_is_settled() -> None:
    settling = SettleMove(PVM, C2, "link down")
    doubtful = pushing().on(MoveInDoubt("link down"), ForgetPackets(PVM), SetPath(None, OffloadRemoved), settling)
    doubtful.on(HandoverDone(C1, IP, T1), AbortMove(PVM)).on(Halted(7), TellHalted(C2, 7), ResendPackets(PVM, C2))
    doubtful.on(
        MoveFailed("link down"),
        ForgetPackets(PVM),
        Announce(PvmMigrationFailed, C1, C2, reason="link down"),
        TellStays(C2, "link down"),
        SetPath(path(C1, C1, T1), OffloadMoved, "local"),
    ).is_in(Phase.SERVING)

    target = pulling().on(DoubtThere(C3)).on(DoubtThere(C1), SetPath(None, OffloadRemoved))
    target.on(HaltedThere(7)).on(Landed(9)).is_in(Phase.PULLING)
    target.on(
        MovedHere(900.0, epoch=2),
        Announce(PvmMigrated, C1, C2, downtime_ms=2e-6, total_ms=900.0),
        SetPath(path(C2, C2, T2), None, "local"),
    ).is_in(Phase.SERVING)
    assert target.record.epoch == 2


def test_a_guest_that_no_side_has_whole_starts_anew_where_its_user_is() -> None:
    settling = SettleMove(PVM, C2, "torn")
    (
        pushing()
        .on(MoveInDoubt("torn"), ForgetPackets(PVM), SetPath(None, OffloadRemoved), settling)
        .on(
            MoveLost("torn"),
            Announce(PvmStopped, from_cloudlet=C1, reason="torn"),
            SetPath(None, OffloadRemoved),
        )
        .is_in(Phase.AWAY)
    )
    (
        pulling()
        .on(DoubtThere(C1), SetPath(None, OffloadRemoved))
        .on(PvmGone(C1), SetPath(None, OffloadRemoved), StartPvm(PVM))
        .is_in(Phase.STARTING)
    )


def test_a_guest_that_ends_of_itself_is_started_anew() -> None:
    stopped = Announce(PvmStopped, from_cloudlet=C1, reason="crashed")
    (serving().on(PvmCrashed("crashed"), stopped, SetPath(None, OffloadRemoved), StartPvm(PVM)).is_in(Phase.STARTING))
    lending().on(PvmCrashed("crashed"), stopped, SetPath(None, OffloadRemoved)).is_in(Phase.AWAY)


def test_the_ledger_counts_on_while_the_user_is_away() -> None:
    assert dormant().record.epoch == 1
    assert serving().on(UeLeft(), SetPath(None, OffloadRemoved), *STOPPED).record.epoch == 1
    assert Playbook(C3, epoch=4).on(UeLeft()).record.epoch == 4


def test_the_ledger_counts_owners() -> None:
    assert serving().record.epoch == 1
    source = pushing().on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), SetPath(None, OffloadRemoved))
    assert source.record.epoch == 2
    other = Playbook(C3).on(PvmSeen(C2, epoch=2))
    assert other.record.epoch == 2
    asked = lending().on(MoveAsked(C2, epoch=7), MIGRATING, KeepPackets(PVM), MigratePvm(PVM, C2))
    assert asked.record.epoch == 7
    left = serving().on(UeLeft(), SetPath(None, OffloadRemoved), StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1))
    assert left.record.epoch == 1


def test_who_asks_again_after_a_promised_pvm_learns_how_it_stands() -> None:
    pushing().on(MoveAsked(C2)).on(MoveAsked(C3), Refuse("not while pushing")).is_in(Phase.PUSHING)
    away = pushing().on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), SetPath(None, OffloadRemoved))
    away.on(MoveAsked(C2), TellMoved(C2, 0.0)).on(MoveAsked(C3), Refuse("not while away"))


def test_what_cannot_follow_changes_nothing() -> None:
    serving().ignores(PvmRunning()).ignores(Landed(1)).is_in(Phase.SERVING)


@pytest.mark.parametrize("kind", get_args(Input), ids=lambda k: k.__name__)
def test_every_input_means_something_somewhere(kind: type[Input]) -> None:
    assert any(known is kind for _, known in TRANSITIONS)


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_can_be_left(phase: Phase) -> None:
    assert any(known is phase for known, _ in TRANSITIONS)


# Uplinks stand before the UE comes ---------------------------------------------------------------------------------


def standing_by() -> Playbook:
    """c2, while UE and PVM are at c1: its uplink stands, since in X2 the UE sends before anybody hears of it."""
    expected = PathSpec(IP, PVM, C1, C1, T2.uplinks)
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
        .on(HandoverDone(C3, IP, T3, T2.uplinks), SetPath(PathSpec(IP, PVM, C1, C3, T2.uplinks), OffloadRemoved, C1))
        .is_in(Phase.AWAY)
    )


def test_a_neighbour_leads_to_where_the_pvm_is() -> None:
    standing_by().on(PvmSeen(C3), SetPath(PathSpec(IP, PVM, C3, C1, T2.uplinks), None, C3))
    standing_by().on(PvmGone(C1), SetPath(None, None))
    expected_there = PathSpec(IP, PVM, C3, C3, T2.uplinks)
    stays = Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP).on(
        UeArrived(C3, IP, T3, T2.uplinks), SetPath(PathSpec(IP, PVM, C1, C3, T2.uplinks), None, C1)
    )
    stays.on(PvmGone(C1), SetPath(expected_there, None, C3))


# The PVM begins to move before the UE has come ---------------------------------------------------------------------


def prepared() -> Playbook:
    """c2, where a UE is expected from c1."""
    return (
        Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP, ue_at=C1)
        .on(
            HandoverExpected(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadPrepared, C1),
            AskDetour(C1),
            Consult(Moment.PREPARED, 0),
        )
        .on(HandoverOrdered(), Consult(Moment.EXECUTING, 0))
    )


def pulling_early() -> Playbook:
    return prepared().on(MoveDue(0), ARRIVING, AskMove(C1)).is_in(Phase.PULLING)


def pushing_early() -> Playbook:
    """c1, whose UE is about to go to c2, where its PVM is going already."""
    return (
        serving()
        .on(DetourAsked(C2))
        .on(HandoverExpected(C2, IP, T2))
        .on(
            MoveAsked(C2),
            Announce(PvmMigrating, from_cloudlet=C1, to_cloudlet=C2),
            KeepPackets(PVM),
            MigratePvm(PVM, C2),
        )
        .is_in(Phase.PUSHING)
    )


def test_a_ue_may_come_before_its_pvm_that_set_out_first() -> None:
    (
        pulling_early()
        .on(HandoverDone(C2, IP, T2), SetPath(arriving(C1, C2, T2), OffloadActivated, C1), AskDetour(C1))
        .on(HaltedThere(5), SetPath(path(C2, C2, T2), OffloadMoved, "local"))
        .is_in(Phase.PULLING)
    )
    (
        pushing_early()
        .on(HandoverDone(C2, IP, T2), SetPath(path(C1, C2, T1), OffloadMoved, C2), SetPath(path(C1, C2), None, C2))
        .on(Halted(5), TellHalted(C2, 5), ResendPackets(PVM, C2), SetPath(path(C2, C2), None, C2))
        .on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), SetPath(None, OffloadRemoved))
        .is_in(Phase.AWAY)
    )


def test_a_pvm_may_come_before_its_ue() -> None:
    (
        pulling_early()
        .on(HaltedThere(5_000_000), SetPath(path(C2, C1, T2), OffloadMoved, C1))
        .on(Landed(6_000_000))
        .on(
            MovedHere(900.0),
            Announce(PvmMigrated, C1, C2, downtime_ms=1.0, total_ms=900.0),
            AwaitReady(0),
        )
        .is_in(Phase.LENDING)
        .on(NotReady(0))
        .on(DetourAsked(C1), SetPath(path(C2, C1, T2), OffloadMoved, C1))
        .on(HandoverDone(C2, IP, T2), SetPath(path(C2, C2, T2), OffloadMoved, "local"))
        .is_in(Phase.SERVING)
    )
    (
        pushing_early()
        .on(Halted(5), TellHalted(C2, 5), ResendPackets(PVM, C2), SetPath(path(C2, C1, T1), None, C2))
        .on(
            MoveSucceeded(900.0),
            TellMoved(C2, 900.0),
            ForgetPackets(PVM),
            SetPath(path(C2, C1, T1), OffloadActivated, C2),
            AskDetour(C2),
        )
        .is_in(Phase.DETOURED)
        .on(HandoverDone(C2, IP, T2), SetPath(None, OffloadRemoved))
        .is_in(Phase.AWAY)
    )


def test_a_cancelled_handover_ends_the_move() -> None:
    (
        pushing_early()
        .on(HandoverOff(), AbortMove(PVM))
        .on(
            MoveFailed("aborted"),
            ForgetPackets(PVM),
            Announce(PvmMigrationFailed, C1, C2, reason="aborted"),
            TellStays(C2, "aborted"),
            SetPath(path(C1, C1, T1), OffloadMoved, "local"),
        )
        .is_in(Phase.SERVING)
    )
    (
        pulling_early()
        .on(HandoverOff(), SetPath(None, OffloadRemoved))
        .on(StaysThere("aborted"), SetPath(None, OffloadRemoved))
        .is_in(Phase.AWAY)
    )


def test_a_pvm_whose_handover_is_cancelled_too_late_is_called_back_by_the_policy() -> None:
    detoured_at_home = SetPath(path(C2, C1, T1), OffloadActivated, C2)
    late = pushing_early().on(Halted(5), TellHalted(C2, 5), ResendPackets(PVM, C2), SetPath(path(C2, C1, T1), None, C2))
    late.on(HandoverOff(), AbortMove(PVM)).on(
        MoveSucceeded(900.0),
        TellMoved(C2, 900.0),
        ForgetPackets(PVM),
        detoured_at_home,
        AskDetour(C2),
        Consult(Moment.ARRIVED, 1),
    ).on(MoveDue(1), SetPath(arriving(C2, C1, T1), None, C2), AskMove(C2)).is_in(Phase.PULLING)

    later = pushing_early().on(
        Halted(5), TellHalted(C2, 5), ResendPackets(PVM, C2), SetPath(path(C2, C1, T1), None, C2)
    )
    later.on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), detoured_at_home, AskDetour(C2)).on(
        HandoverOff(), Consult(Moment.ARRIVED, 1)
    ).is_in(Phase.DETOURED)


def test_an_early_move_that_is_refused_leaves_the_ue_expected() -> None:
    (
        pulling_early()
        .on(MoveRefused("busy"), SetPath(path(C1, C2, T2), OffloadPrepared, C1), AskDetour(C1))
        .is_in(Phase.PREPARED)
        .on(
            HandoverDone(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadActivated, C1),
            AskDetour(C1),
            Consult(Moment.ARRIVED, 1),
        )
    )


def test_a_chain_of_handovers_may_send_the_pvm_straight_on() -> None:
    (
        lending()
        .on(HandoverExpected(C3, IP, T3))
        .on(
            MoveAsked(C3),
            Announce(PvmMigrating, from_cloudlet=C1, to_cloudlet=C3),
            KeepPackets(PVM),
            MigratePvm(PVM, C3),
        )
        .on(HandoverOff(), AbortMove(PVM))
    )


def test_a_user_on_the_way_back_to_its_pvm_does_not_draw_it_away() -> None:
    (
        detoured()
        .on(HandoverExpected(C1, IP, T1))
        .on(MoveDue(1))
        .is_in(Phase.DETOURED)
        .on(HandoverOff(), Consult(Moment.ARRIVED, 1))
        .on(MoveDue(1), ARRIVING, AskMove(C1))
    )
