"""The PVM is here and serves nobody: it is being started, waits for its UE, or is kept."""

from __future__ import annotations

from typing import Final

from mobiscud.controller.inputs import (
    DetourAsked,
    HandoverDone,
    MoveAsked,
    PvmCrashed,
    PvmRefused,
    PvmRunning,
    PvmSeen,
    StayedAway,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import NO_TUNNELS, Phase, UeRecord, replace
from mobiscud.controller.roles.places import Arrival, Result, Rows, end, idle, placed, settle, without_ue
from mobiscud.controller.roles.shared import crash, forget, move, note_idle, note_left, ready, refuse_move
from mobiscud.core.commands import Announce, SetPath, StartPvm
from mobiscud.core.events import OffloadActivated, PvmStarted, PvmStopped


def _running(r: UeRecord, i: PvmRunning) -> Result:
    r, commands = settle(replace(r, epoch=r.epoch + 1), OffloadActivated)
    return r, (Announce(PvmStarted, to_cloudlet=r.here, reason=i.anew), *commands)


def _not_running(r: UeRecord, i: PvmRefused) -> Result:
    """Its traffic stays on the core. What is kept is kept: started elsewhere, it would be without its past."""
    kept = r.here if r.keeps else None
    r = replace(r, phase=Phase.DORMANT if r.keeps else Phase.AWAY, pvm_at=kept, ready=())
    return r, (Announce(PvmStopped, from_cloudlet=r.here, to_cloudlet=kept, reason=i.reason),)


def _note_place(r: UeRecord, i: Arrival) -> Result:
    """STARTING: the PVM still comes to be here; where its traffic goes then is decided then."""
    return placed(r, i), ()


def _stayed_away(r: UeRecord, i: StayedAway) -> Result:
    if not r.absent or i.token != r.token:
        return r, ()
    path = (SetPath(None),) if r.registered else ()
    r, commands = end(r)
    return r, (*path, *commands)


def _wake(r: UeRecord, i: Arrival) -> Result:
    """DORMANT: the UE is back. At another cloudlet it is served from here, until its PVM has followed."""
    r = placed(r, i)
    if r.ue_at is None or (r.ue_at == r.here and (r.ue_ip is None or r.tunnels.downlink is None)):
        return r, ()
    return replace(r, phase=Phase.STARTING), (StartPvm(r.pvm, kept=True),)


def _sleep_on(r: UeRecord, i: UeLeft | UeWentIdle) -> Result:
    """DORMANT: the UE is away again, with or without a word of its PVM."""
    if isinstance(i, UeLeft):
        return replace(without_ue(r), phase=Phase.DORMANT), ()
    return replace(r, absent=True, ue_at=None, tunnels=NO_TUNNELS, standby=()), ()


def _run_elsewhere(r: UeRecord, i: PvmSeen) -> Result:
    """DORMANT: it runs at another cloudlet, which knows better."""
    if i.cloudlet == r.here:
        return r, ()
    return replace(r, phase=Phase.AWAY, pvm_at=i.cloudlet, ready=()), ()


STARTING: Final[Rows] = {
    PvmRunning: _running,
    PvmRefused: _not_running,
    UeArrived: _note_place,
    HandoverDone: _note_place,
    UeWentIdle: note_idle,
    UeLeft: note_left,
    DetourAsked: ready,
    MoveAsked: refuse_move,
}


PARKED: Final[Rows] = {
    UeArrived: move,
    HandoverDone: move,
    UeLeft: forget,
    DetourAsked: ready,
    MoveAsked: refuse_move,
    PvmCrashed: crash,
    UeWentIdle: idle,
    StayedAway: _stayed_away,
}


DORMANT: Final[Rows] = {
    UeArrived: _wake,
    HandoverDone: _wake,
    UeWentIdle: _sleep_on,
    UeLeft: _sleep_on,
    PvmSeen: _run_elsewhere,
    DetourAsked: ready,
    MoveAsked: refuse_move,
}
