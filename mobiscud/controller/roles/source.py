"""The PVM runs here, and may have to go: to a UE that is at another cloudlet, or about to be."""

from __future__ import annotations

from typing import Final

from mobiscud.controller.inputs import (
    DetourAsked,
    Halted,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    MoveAsked,
    MoveFailed,
    MoveInDoubt,
    MoveLost,
    MoveSucceeded,
    NotReady,
    PvmCrashed,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import NO_TUNNELS, Phase, UeRecord, by_core, replace, set_path
from mobiscud.controller.roles.places import Arrival, Result, Rows, idle, known, placed, redirect, settle, unsettle
from mobiscud.controller.roles.shared import (
    crash,
    expect_inside,
    forget,
    move,
    note_idle,
    note_left,
    ready,
    refuse_move,
    stay_inside,
)
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AwaitReady,
    ForgetPackets,
    KeepPackets,
    MigratePvm,
    Refuse,
    ResendPackets,
    SetPath,
    SettleMove,
    TellHalted,
    TellMoved,
    TellStays,
)
from mobiscud.core.events import (
    OffloadActivated,
    OffloadMoved,
    OffloadPrepared,
    OffloadRemoved,
    PvmMigrating,
    PvmMigrationFailed,
)


def _expect_back(r: UeRecord, i: HandoverExpected) -> Result:
    """LENDING: the UE may come back to where its PVM still is."""
    r = replace(r, going_to=i.cloudlet)
    if i.cloudlet != r.here:
        return r, ()
    r = replace(r, tunnels=i.tunnels)
    return r, (set_path(r, OffloadPrepared, ue_at=r.ue_at),)


def _stay_away(r: UeRecord, i: HandoverOff) -> Result:
    r = replace(r, tunnels=NO_TUNNELS, going_to=None)
    return r, (set_path(r, None, ue_at=r.ue_at),)


def _not_ready(r: UeRecord, i: NotReady) -> Result:
    """LENDING or PUSHING: the target's controller is away. The core finds the UE, until it is back."""
    if i.token != r.token or r.ue_at in (None, r.here, *r.ready) or r.going_to == r.here:
        return r, ()
    r = replace(r, tunnels=NO_TUNNELS)
    return r, (by_core(r, OffloadRemoved),)


def _push(r: UeRecord, i: MoveAsked) -> Result:
    """LENDING or SERVING: to where the UE is, or is about to go."""
    if i.to not in (r.ue_at, r.going_to):
        return r, (Refuse("the UE is neither there nor expected"),)
    r = replace(r, phase=Phase.PUSHING, moving_to=i.to, epoch=max(r.epoch, i.epoch))
    migrating = Announce(PvmMigrating, from_cloudlet=r.here, to_cloudlet=i.to)
    return r, (migrating, KeepPackets(r.pvm), MigratePvm(r.pvm, i.to))


def _expect_elsewhere(r: UeRecord, i: HandoverExpected) -> Result:
    """PUSHING: where the UE may go; the path is found when it has gone."""
    return replace(r, going_to=i.cloudlet), ()


def _moved_while_pushing(r: UeRecord, i: Arrival) -> Result:
    """The UE has gone on, or come back: the migration is in vain. Too late to end it: the PVM follows from there."""
    to, tunnels = r.moving_to, r.tunnels  # those that lead to the old eNodeB go last
    r = placed(r, i)
    vain = () if r.ue_at == to else (AbortMove(r.pvm),)
    if r.ue_at is None:
        return r, (*vain, by_core(r, OffloadRemoved))
    if r.ue_at == r.here:
        return r, (*vain, set_path(r, OffloadMoved))
    r = replace(r, tunnels=tunnels)
    if r.ue_at not in r.ready:
        return r, (*vain, AwaitReady(r.token))
    r, commands = redirect(r)
    return r, (*vain, *commands)


def _push_in_vain(r: UeRecord, i: HandoverOff) -> Result:
    """PUSHING: the PVM has set out for where the UE does not go."""
    return replace(r, going_to=None), () if r.ue_at == r.moving_to else (AbortMove(r.pvm),)


def _push_on(r: UeRecord, i: MoveAsked) -> Result:
    """PUSHING: the one it is on its way to asks after it."""
    return (r, ()) if i.to == r.moving_to else refuse_move(r, i)


def _halt(r: UeRecord, i: Halted) -> Result:
    """The switch-over: the target flips; what still reaches us for the PVM goes after it, and what reached nobody."""
    to = known(r.moving_to)
    r = replace(r, pvm_at=to)
    if not r.registered:
        return r, (TellHalted(to, i.at), ForgetPackets(r.pvm))
    flipped = set_path(r, None, ue_at=r.ue_at) if r.ue_at else by_core(r, None)
    return r, (TellHalted(to, i.at), ResendPackets(r.pvm, to), flipped)


def _pushed(r: UeRecord, i: MoveSucceeded) -> Result:
    """It is the target's now. A UE that has come back here meanwhile makes us ask for it."""
    to = known(r.moving_to)
    r, commands = unsettle(replace(r, pvm_at=to, epoch=r.epoch + 1), OffloadActivated)
    return r, (TellMoved(to, i.total_ms), ForgetPackets(r.pvm), *commands)


def _push_failed(r: UeRecord, i: MoveFailed) -> Result:
    """It runs here: the path comes back to it. With a new epoch, so that what was said of the migration is over."""
    to = known(r.moving_to)
    r, commands = settle(replace(r, epoch=r.epoch + 1), OffloadMoved)
    failed = Announce(PvmMigrationFailed, from_cloudlet=r.here, to_cloudlet=to, reason=i.reason)
    return r, (ForgetPackets(r.pvm), failed, TellStays(to, i.reason), *commands)


def _doubt(r: UeRecord, i: MoveInDoubt) -> Result:
    """No packet to either side until it is settled who has the PVM."""
    to = known(r.moving_to)
    r = replace(r, doubtful=True)
    return r, (ForgetPackets(r.pvm), SetPath(None, OffloadRemoved), SettleMove(r.pvm, to, i.reason))


def _lose(r: UeRecord, i: MoveLost) -> Result:
    """Nobody has it whole: it starts anew where its user is, or when there is one."""
    return crash(replace(r, moving_to=None, halted_at=None, landed_at=None, doubtful=False), PvmCrashed(i.reason))


SERVING: Final[Rows] = {
    UeArrived: move,
    HandoverExpected: expect_inside,
    HandoverDone: move,
    HandoverOff: stay_inside,
    UeWentIdle: idle,
    UeLeft: forget,
    DetourAsked: ready,
    MoveAsked: _push,
    PvmCrashed: crash,
}


LENDING: Final[Rows] = {
    UeArrived: move,
    HandoverExpected: _expect_back,
    HandoverDone: move,
    HandoverOff: _stay_away,
    UeWentIdle: idle,
    UeLeft: forget,
    DetourAsked: ready,
    NotReady: _not_ready,
    MoveAsked: _push,
    PvmCrashed: crash,
}


PUSHING: Final[Rows] = {
    Halted: _halt,
    MoveSucceeded: _pushed,
    MoveFailed: _push_failed,
    MoveInDoubt: _doubt,
    MoveLost: _lose,
    UeArrived: _moved_while_pushing,
    HandoverExpected: _expect_elsewhere,
    HandoverDone: _moved_while_pushing,
    HandoverOff: _push_in_vain,
    UeWentIdle: note_idle,
    UeLeft: note_left,
    DetourAsked: ready,
    NotReady: _not_ready,
    MoveAsked: _push_on,
}
