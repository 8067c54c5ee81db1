"""The PVM follows its UE."""

from __future__ import annotations

from dataclasses import replace

from mobiscud.controller.inputs import (
    DetourAsked,
    Halted,
    HaltedThere,
    HandoverDone,
    Landed,
    MovedHere,
    MoveDue,
    MoveFailed,
    MoveRefused,
    MoveSucceeded,
    NoRoom,
    PvmCrashed,
    StaysThere,
)
from mobiscud.controller.record import Phase
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AskDetour,
    AskMove,
    AwaitReady,
    Consult,
    ForgetPackets,
    Moment,
    ResendPackets,
    SetPath,
    StartPvm,
    TellHalted,
    TellMoved,
    TellStays,
)
from mobiscud.core.events import (
    OffloadActivated,
    OffloadMoved,
    OffloadRemoved,
    PvmMigrated,
    PvmMigrationFailed,
    PvmStopped,
)
from tests.unit.mobiscud.machine.playbook import (
    ARRIVING,
    C1,
    C2,
    C3,
    DETOUR_AGAIN,
    IP,
    PVM,
    T1,
    T2,
    T3,
    detoured,
    path,
    pulling,
    pushing,
)


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


def test_a_pvm_that_ends_as_soon_as_it_has_come_starts_anew() -> None:
    (
        pulling()
        .on(HaltedThere(1_000_000), SetPath(path(C2, C2, T2), OffloadMoved, "local"))
        .on(Landed(24_000_000))
        .on(PvmCrashed("crashed"))
        .on(
            MovedHere(900.0),
            Announce(PvmMigrated, C1, C2, downtime_ms=23.0, total_ms=900.0),
            Announce(PvmStopped, from_cloudlet=C2, reason="crashed"),
            SetPath(None, OffloadRemoved),
            StartPvm(PVM),
        )
        .is_in(Phase.STARTING)
    )


def test_a_copy_that_ended_with_its_migration_is_not_missed() -> None:
    (
        pulling()
        .on(PvmCrashed("failed"))
        .on(StaysThere("failed"), *DETOUR_AGAIN)
        .on(MoveDue(1), ARRIVING, AskMove(C1))
        .on(Landed(5), SetPath(path(C2, C2, T2), OffloadMoved, "local"))
        .on(
            MovedHere(900.0),
            Announce(PvmMigrated, C1, C2, total_ms=900.0),
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
