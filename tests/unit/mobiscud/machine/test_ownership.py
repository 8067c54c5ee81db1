"""Who has the PVM: what is told of it, what is too old to count, and doubt."""

from __future__ import annotations

from mobiscud.controller.inputs import (
    DetourAsked,
    DoubtThere,
    Halted,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    Landed,
    MoveAsked,
    MovedHere,
    MoveFailed,
    MoveInDoubt,
    MoveLost,
    MoveSucceeded,
    NotReady,
    PvmGone,
    PvmKept,
    PvmSeen,
    StaysThere,
    UeArrived,
    UeLeft,
)
from mobiscud.controller.record import Phase
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AskDetour,
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
from mobiscud.core.events import (
    OffloadActivated,
    OffloadMoved,
    OffloadRemoved,
    PvmMigrated,
    PvmMigrationFailed,
    PvmStopped,
)
from tests.unit.mobiscud.machine.playbook import (
    C1,
    C2,
    C3,
    DETOUR_AGAIN,
    IP,
    MIGRATING,
    PVM,
    STOPPED,
    T1,
    T2,
    T3,
    Playbook,
    detoured,
    dormant,
    lending,
    path,
    pulling,
    pushing,
    serving,
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


def test_a_target_that_was_restarted_meanwhile_learns_that_the_migration_is_over() -> None:
    """The source tells each of its words until it is heard, so that they may come in another order."""
    target = detoured().on(StaysThere("link down", epoch=2)).ignores(HaltedThere(7, epoch=1)).is_in(Phase.DETOURED)
    target.on(DoubtThere(C1), SetPath(None, OffloadRemoved)).on(
        StaysThere("link down", epoch=3),
        SetPath(path(C1, C2, T2), OffloadActivated, C1),
        AskDetour(C1),
        Consult(Moment.ARRIVED, 1),
    )
    served = serving(C2, T2).on(StaysThere("link down", epoch=4))
    assert served.is_in(Phase.SERVING).record.epoch == 4


def test_a_guest_that_was_taken_for_lost_and_comes_is_there() -> None:
    away = Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP, absent=True, ended="lost").on(Landed(7))
    assert away.record.ended is None


def test_what_is_said_late_of_a_stop_means_nothing() -> None:
    """It has been started again since, and has an owner with a higher epoch."""
    target = Playbook(C2, phase=Phase.DETOURED, registered=True, ue_ip=IP, ue_at=C2, pvm_at=C1, tunnels=T2, epoch=3)
    target.ignores(PvmGone(C1, epoch=2)).ignores(PvmKept(C1, epoch=2)).is_in(Phase.DETOURED)
    target.on(PvmGone(C1, epoch=3), SetPath(None, OffloadRemoved), StartPvm(PVM)).is_in(Phase.STARTING)
    assert Playbook(C3, pvm_at=C1, epoch=2).on(PvmKept(C1, epoch=4)).record.epoch == 4


def test_who_died_before_it_said_that_a_pvm_has_ended_says_so_when_asked_for_it() -> None:
    ended = Playbook(C1, phase=Phase.AWAY, registered=True, ue_ip=IP, epoch=3)
    stopped, refused = Announce(PvmStopped, from_cloudlet=C1), Refuse("the personal VM is not here")
    ended.on(DetourAsked(C2, epoch=3), stopped, refused)
    ended.on(UeArrived(C2, IP, T2)).on(DetourAsked(C2, epoch=3), stopped, refused)
    ended.on(DetourAsked(C3, epoch=3), refused)
    passed = pushing().on(MoveSucceeded(900.0), TellMoved(C2, 900.0), ForgetPackets(PVM), SetPath(None, OffloadRemoved))
    passed.on(DetourAsked(C2, epoch=1), refused)


def test_who_prepares_and_is_not_taken_does_not_unmake_who_was() -> None:
    lending().on(HandoverExpected(C3, IP, T3)).on(DetourAsked(C3)).on(
        HandoverOff(), SetPath(path(C1, C2), None, C2)
    ).on(NotReady(2))


def test_only_who_is_told_of_by_the_ledger_is_pointed_to() -> None:
    gone = Playbook(C1, phase=Phase.AWAY, registered=True, ue_ip=IP, ue_at=C2, pvm_at=C2, epoch=2)
    gone.on(MoveAsked(C2, epoch=1), TellMoved(C2, 0.0)).on(MoveAsked(C2, epoch=2), Refuse("not while away"))


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
