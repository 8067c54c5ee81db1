"""The PVM begins to move before the UE has come."""

from __future__ import annotations

from mobiscud.controller.inputs import (
    DetourAsked,
    Halted,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    HandoverOrdered,
    Landed,
    MoveAsked,
    MovedHere,
    MoveDue,
    MoveFailed,
    MoveRefused,
    MoveSucceeded,
    NotReady,
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
    KeepPackets,
    MigratePvm,
    Moment,
    ResendPackets,
    SetPath,
    TellHalted,
    TellMoved,
    TellStays,
)
from mobiscud.core.events import (
    OffloadActivated,
    OffloadMoved,
    OffloadPrepared,
    OffloadRemoved,
    PvmMigrated,
    PvmMigrating,
    PvmMigrationFailed,
)
from tests.unit.mobiscud.machine.playbook import (
    ARRIVING,
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
    detoured,
    lending,
    path,
    serving,
)


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
