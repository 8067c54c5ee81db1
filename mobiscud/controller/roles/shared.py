"""Rows that phases of more than one role have."""

from __future__ import annotations

from typing import Any

from mobiscud.controller.inputs import (
    DetourAsked,
    HandoverExpected,
    HandoverOff,
    MoveAsked,
    PvmCrashed,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import NO_TUNNELS, Phase, UeRecord, by_core, pulling_path, replace, set_path
from mobiscud.controller.roles.places import (
    Arrival,
    Result,
    await_return,
    consult,
    nowhere,
    placed,
    redirect,
    settle,
    stand_by,
    unsettle,
    without_ue,
)
from mobiscud.core.commands import Announce, Refuse, SetPath, StartPvm, TellMoved
from mobiscud.core.events import OffloadMoved, OffloadPrepared, OffloadRemoved, PvmStopped


def move(r: UeRecord, i: Arrival) -> Result:
    """SERVING, LENDING or PARKED: the UE is at a cell of ours, of another cloudlet, or of none."""
    tunnels = r.tunnels  # those that lead to the old eNodeB go last
    r = placed(r, i)
    return settle(r if r.ue_at == r.here else replace(r, tunnels=tunnels), OffloadMoved)


def forget(r: UeRecord, i: UeLeft) -> Result:
    """Detached. A PVM elsewhere is there until it is said to be gone."""
    if r.pvm_at == r.here:
        return await_return(replace(r, registered=False))
    gone = without_ue(r)
    return gone, (SetPath(None, OffloadRemoved),) if r.phase is not Phase.AWAY or r.standby else ()


def go_idle(r: UeRecord, i: UeWentIdle) -> Result:
    return not_coming(replace(r, ue_at=None, standby=()), i)


def not_coming(r: UeRecord, i: Any) -> Result:
    r = replace(r, phase=Phase.AWAY, tunnels=NO_TUNNELS, expected=None, going_to=None, silent=None)
    return stand_by(r, OffloadRemoved)


def note_idle(r: UeRecord, i: UeWentIdle) -> Result:
    """STARTING, PULLING or PUSHING: what is under way ends first; who has the PVM has it reach the UE by the core."""
    r = replace(nowhere(r), absent=True)
    if r.phase is Phase.PUSHING:
        return r, (by_core(r, OffloadRemoved),)
    if r.phase is Phase.PULLING and r.flipped:
        return r, (pulling_path(r, OffloadRemoved),)
    return r, (SetPath(None, OffloadRemoved),)


def note_left(r: UeRecord, i: UeLeft) -> Result:
    """The same for a UE that detached; whoever then has the PVM stops it."""
    return replace(nowhere(r), registered=False, absent=True), (SetPath(None, OffloadRemoved),)


def expect_inside(r: UeRecord, i: HandoverExpected) -> Result:
    """From one eNodeB of this cloudlet to another: the uplinks of both are good until it is done."""
    r = replace(r, going_to=i.cloudlet)
    if i.cloudlet != r.here:
        return r, ()
    r = replace(r, expected=i.tunnels)
    return r, (set_path(r, OffloadPrepared),)


def stay_inside(r: UeRecord, i: HandoverOff) -> Result:
    """A handover inside this cloudlet does not come: its tunnels go; one to elsewhere had left nothing here.

    Only where the PVM would have been at its end, the policy is asked anew.
    """
    to_pvm = r.phase is Phase.DETOURED and r.going_to is not None and r.going_to == r.pvm_at
    r = replace(r, going_to=None, ready=tuple(cloudlet for cloudlet in r.ready if cloudlet != r.going_to))
    if r.expected is None:
        return r, consult(r) if to_pvm else ()
    r = replace(r, expected=None)
    return r, (set_path(r, None),)


def crash(r: UeRecord, i: PvmCrashed) -> Result:
    """The PVM that was here runs no longer."""
    stopped = Announce(PvmStopped, from_cloudlet=r.here, to_cloudlet=r.here if r.keeps else None, reason=i.reason)
    if r.registered and r.ue_at == r.here:
        r = replace(r, phase=Phase.STARTING, pvm_at=r.here, ready=())
        return r, (stopped, SetPath(None, OffloadRemoved), StartPvm(r.pvm))
    if r.keeps:
        r = replace(r, phase=Phase.DORMANT, pvm_at=r.here, ready=(), tunnels=NO_TUNNELS, standby=())
        return r, (stopped, SetPath(None, OffloadRemoved))
    r, commands = unsettle(replace(r, pvm_at=None), None)
    return r, (stopped, *commands)


def ready(r: UeRecord, i: DetourAsked) -> Result:
    """The target's rules stand. Flip now if the UE is there already, else when it is; once is enough."""
    awaited = r.phase in (Phase.LENDING, Phase.PUSHING) and r.ue_at == i.by and i.by not in r.ready
    r = replace(r, ready=(*(cloudlet for cloudlet in r.ready if cloudlet != i.by), i.by))
    return redirect(r) if awaited else (r, ())


def refuse_detour(r: UeRecord, i: DetourAsked) -> Result:
    return r, (Refuse("the personal VM is not here"),)


def refuse_move(r: UeRecord, i: MoveAsked) -> Result:
    return r, (Refuse(f"not while {r.phase}"),)


def point_to(r: UeRecord, i: MoveAsked) -> Result:
    """It is not here. One that has gone to the asker, who has not heard so, is its own, as the ledger says."""
    passed = i.to == r.pvm_at and i.epoch < r.epoch
    return (r, (TellMoved(i.to, 0.0),)) if passed else refuse_move(r, i)
