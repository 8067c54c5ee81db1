"""The UE is where no cloudlet is, or idle: it is reached through the core."""

from __future__ import annotations

from mobiscud.controller.inputs import (
    DetourAsked,
    Halted,
    HaltedThere,
    HandoverDone,
    Landed,
    MovedHere,
    MoveFailed,
    MoveSucceeded,
    UeArrived,
    UeWentIdle,
)
from mobiscud.controller.record import Phase
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AwaitReady,
    ForgetPackets,
    ResendPackets,
    SetPath,
    TellHalted,
    TellMoved,
    TellStays,
)
from mobiscud.core.events import OffloadMoved, OffloadRemoved, PvmMigrated, PvmMigrationFailed
from tests.unit.mobiscud.machine.playbook import (
    C1,
    C2,
    C3,
    IP,
    PVM,
    T1,
    T2,
    T3,
    core,
    detoured,
    path,
    pulling,
    pushing,
    serving,
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
