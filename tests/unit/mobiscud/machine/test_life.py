"""The PVM starts, waits for its UE, is kept, and stops."""

from __future__ import annotations

from mobiscud.controller.inputs import (
    DetourAsked,
    MoveAsked,
    MovedHere,
    MoveSucceeded,
    PvmCrashed,
    PvmKept,
    PvmRefused,
    PvmRunning,
    PvmSeen,
    StayedAway,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import Phase
from mobiscud.core.commands import (
    Announce,
    AskDetour,
    AwaitReturn,
    Consult,
    ForgetPackets,
    KeepPackets,
    MigratePvm,
    Moment,
    SetPath,
    StartPvm,
    StopPvm,
    TellMoved,
)
from mobiscud.core.events import (
    OffloadActivated,
    OffloadMoved,
    OffloadRemoved,
    PvmMigrated,
    PvmMigrating,
    PvmStarted,
    PvmStopped,
)
from tests.unit.mobiscud.machine.playbook import (
    C1,
    C2,
    IP,
    PVM,
    STOPPED,
    T1,
    T2,
    Playbook,
    core,
    detoured,
    dormant,
    lending,
    lingering,
    path,
    pulling,
    pushing,
    serving,
)


def test_attach_starts_the_pvm_and_then_the_path() -> None:
    serving()


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


def test_a_pvm_that_does_not_start_leaves_the_traffic_on_the_core() -> None:
    (
        Playbook(C1)
        .on(UeArrived(C1, IP, T1), StartPvm(PVM))
        .on(PvmRefused("no memory"), Announce(PvmStopped, from_cloudlet=C1, reason="no memory"))
        .is_in(Phase.AWAY)
    )


def test_detach_leaves_neither_rules_nor_pvm() -> None:
    (
        serving()
        .on(UeLeft(), SetPath(None, OffloadRemoved), StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1))
        .is_in(Phase.AWAY)
    )
    detoured().on(UeLeft(), SetPath(None, OffloadRemoved)).is_in(Phase.AWAY)


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


def test_a_guest_that_ends_of_itself_is_started_anew() -> None:
    stopped = Announce(PvmStopped, from_cloudlet=C1, reason="crashed")
    (serving().on(PvmCrashed("crashed"), stopped, SetPath(None, OffloadRemoved), StartPvm(PVM)).is_in(Phase.STARTING))
    lending().on(PvmCrashed("crashed"), stopped, SetPath(None, OffloadRemoved)).is_in(Phase.AWAY)
