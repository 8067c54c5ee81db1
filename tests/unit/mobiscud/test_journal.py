"""A controller remembers, whatever ends it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mobiscud.controller.inputs import MovedHere, Tunnels, UeArrived, UeWentIdle
from mobiscud.controller.journal import Journal
from mobiscud.controller.machine import step
from mobiscud.controller.reconcile import already_known, resume, standing_path
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.commands import (
    Announce,
    AskDetour,
    AwaitReturn,
    Consult,
    Moment,
    ResumeMove,
    SetPath,
    StartPvm,
    StopPvm,
)
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.errors import SetupError
from mobiscud.core.events import OffloadMoved, PvmStopped
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey

UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10")
C1, C2 = CloudletId("c1"), CloudletId("c2")
IP = "45.45.0.2"
SGW = FTeid("10.0.0.2", Teid(0x1001))
TUNNELS = Tunnels((UplinkTunnel("10.0.0.11", SGW),), DownlinkTunnel("10.0.0.2", FTeid("10.0.0.11", Teid(0x2001))))


def record(phase: Phase, **more: object) -> UeRecord:
    known = {"registered": True, "ue_ip": IP, "ue_at": C1, "pvm_at": C1, "tunnels": TUNNELS, "token": 3}
    return UeRecord(PVM, C1, phase, **{**known, **more})  # type: ignore[arg-type]


def test_records_survive(tmp_path: Path) -> None:
    with Journal(tmp_path / "c1.journal") as journal:
        journal.put({UE: record(Phase.SERVING)})
        journal.put({UE: record(Phase.LENDING, ue_at=C2, ready=(C2,))})
    with Journal(tmp_path / "c1.journal") as journal:
        assert journal.load() == {UE: record(Phase.LENDING, ue_at=C2, ready=(C2,))}
    assert (tmp_path / "c1.journal").stat().st_mode & 0o077 == 0


def test_what_is_not_understood_is_forgotten(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put({UE: record(Phase.SERVING)})
    database = sqlite3.connect(tmp_path / "j")
    database.execute("INSERT INTO ue VALUES ('ue-2', 1, '{}'), ('ue-3', 99, '{}')")
    database.commit()
    database.close()
    with Journal(tmp_path / "j") as journal:
        assert set(journal.load()) == {UE}


def test_a_journal_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(SetupError, match=r"site\.state_dir"), Journal(tmp_path / "file" / "j"):
        pass
    (tmp_path / "other").write_text("this is no database, and long enough to be looked at" * 20)
    with pytest.raises(SetupError, match="not a database"), Journal(tmp_path / "other"):
        pass


def local() -> SetPath:
    return SetPath(PathSpec(IP, PVM, C1, C1, TUNNELS.uplinks, TUNNELS.downlink), None)


def test_what_stood_is_asked_for_again() -> None:
    assert resume(record(Phase.SERVING), runs_here=True) == (record(Phase.SERVING), (local(),))


def test_a_pvm_that_was_lost_is_started_again() -> None:
    _, commands = resume(record(Phase.SERVING), runs_here=False)
    assert commands == (Announce(PvmStopped, from_cloudlet=C1, reason="lost"), StartPvm(PVM))
    after, commands = resume(record(Phase.LENDING, ue_at=C2), runs_here=False)
    assert after.phase is Phase.AWAY
    assert commands == (Announce(PvmStopped, from_cloudlet=C1, reason="lost"),)


def test_a_kept_pvm_is_taken_up_as_what_it_is() -> None:
    waiting = record(Phase.PARKED, ue_at=None, absent=True, lingers=True)
    by_core = SetPath(PathSpec(IP, PVM, C1, None), None, "core")
    assert resume(waiting, runs_here=True) == (waiting, (by_core, AwaitReturn(3)))
    after, commands = resume(record(Phase.PARKED, ue_at=None, keeps=True), runs_here=False)
    assert after.phase is Phase.DORMANT
    assert commands == (Announce(PvmStopped, from_cloudlet=C1, to_cloudlet=C1, reason="lost"),)
    assert resume(after, runs_here=False) == (after, ())
    assert resume(after, runs_here=True) == (after, (StopPvm(PVM),))


@pytest.mark.parametrize(
    "known", [{"registered": False}, {"absent": True}, {"ue_at": C2}], ids=lambda known: min(known)
)
def test_a_pvm_that_was_to_stop_when_the_controller_died_is_stopped(known: dict[str, Any]) -> None:
    r = record(Phase.AWAY, **{"ue_at": None, "pvm_at": None, **known})
    assert resume(r, runs_here=True) == (r, (StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1)))


def test_a_detour_is_asked_for_again() -> None:
    r = record(Phase.DETOURED, pvm_at=C2)
    path = SetPath(PathSpec(IP, PVM, C2, C1, TUNNELS.uplinks, TUNNELS.downlink), None, C2)
    assert resume(r, runs_here=False) == (r, (path, AskDetour(C2), Consult(Moment.ARRIVED, 3, again=True)))


def test_a_migration_from_here_is_looked_after() -> None:
    r = record(Phase.PUSHING, ue_at=C2, ready=(C2,), moving_to=C2)
    _, commands = resume(r, runs_here=True)
    assert commands[-1] == ResumeMove(PVM)


def test_a_migration_to_here_is_asked_for_again_unless_it_came() -> None:
    r = record(Phase.PULLING, pvm_at=C2)
    after, commands = resume(r, runs_here=False)
    assert after.phase is Phase.DETOURED
    assert isinstance(commands[0], SetPath)
    assert commands[0].announce is OffloadMoved
    assert resume(r, runs_here=True)[0].phase is Phase.PULLING


def test_a_pvm_that_ended_with_its_host_when_it_had_just_come_starts_anew() -> None:
    after, _ = resume(record(Phase.PULLING, pvm_at=C2, halted_at=1, landed_at=2), runs_here=False)
    result = step(after, MovedHere(5.0))
    assert result is not None
    assert result[0].phase is Phase.STARTING
    assert StartPvm(PVM) in result[1]


@pytest.mark.parametrize(
    "known",
    [
        {"phase": Phase.PARKED, "ue_at": None},
        {"phase": Phase.PUSHING, "ue_at": None, "moving_to": C2},
        {"phase": Phase.PULLING, "ue_at": None, "pvm_at": C2, "landed_at": 7},
        {"phase": Phase.LENDING, "ue_at": C2, "tunnels": Tunnels()},
    ],
)
def test_the_way_by_the_core_is_asked_for_again(known: dict[str, Any]) -> None:
    r = record(**known)
    assert standing_path(r) == SetPath(PathSpec(IP, PVM, C1, None), None, "core")


@pytest.mark.parametrize("phase", [Phase.AWAY, Phase.STARTING, Phase.PULLING])
def test_some_phases_have_no_path(phase: Phase) -> None:
    assert standing_path(record(phase, ue_at=None)) is None


def test_a_retained_state_is_news_only_where_it_differs() -> None:
    serving = record(Phase.SERVING)
    assert already_known(serving, UeArrived(C1, IP, TUNNELS))
    assert not already_known(serving, UeArrived(C2, IP, TUNNELS))
    assert not already_known(serving, UeArrived(C1, IP, Tunnels()))
    assert not already_known(serving, UeWentIdle())
    assert already_known(record(Phase.PARKED, ue_at=None), UeWentIdle())
