"""Where a UE and its PVM are, and what follows: the words that the rows of all roles are made of.

Once it is certain where the PVM is, ``settle`` (it is here) and ``unsettle`` (it is not) find the phase that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mobiscud.controller.inputs import HandoverDone, Input, PvmGone, UeArrived
from mobiscud.controller.record import NO_TUNNELS, Phase, UeRecord, by_core, replace, set_path
from mobiscud.core.commands import (
    Announce,
    AskDetour,
    AwaitReady,
    AwaitReturn,
    AwaitStragglers,
    Command,
    Consult,
    Moment,
    SetPath,
    StopPvm,
)
from mobiscud.core.events import OffloadEvent, OffloadMoved, OffloadRemoved, PvmStopped
from mobiscud.core.ids import CloudletId

Result = tuple[UeRecord, tuple[Command, ...]]
Step = Callable[[UeRecord, Any], Result]
Rows = Mapping[type[Input], Step]
"""Those of one phase."""
Arrival = UeArrived | HandoverDone


def placed(r: UeRecord, i: Arrival) -> UeRecord:
    """The UE is at a cell; ours, another cloudlet's, or nobody's."""
    return replace(
        r,
        registered=True,
        absent=False,
        no_room=None,
        ue_ip=i.ue_ip or r.ue_ip,
        ue_at=i.cloudlet,
        pvm_at=r.pvm_at or i.cloudlet,
        tunnels=i.tunnels if i.cloudlet == r.here else NO_TUNNELS,
        standby=i.standby,
        expected=None,
        going_to=None,
        token=r.token + 1,
    )


def settle(r: UeRecord, announce: type[OffloadEvent] | None) -> Result:
    """The PVM is here for certain, and for now stays: our phase follows from where the UE is."""
    r = replace(
        r, pvm_at=r.here, moving_to=None, halted_at=None, landed_at=None, ended=None, doubtful=False, silent=None
    )
    if not r.registered:
        return await_return(r)
    if r.ue_at is None:
        return idle(r, None) if r.absent else _park(r, None)
    if r.ue_at == r.here:
        return replace(r, phase=Phase.SERVING, ready=()), (set_path(r, announce),)
    r = replace(r, phase=Phase.LENDING)
    return redirect(r) if r.ue_at in r.ready else (r, (AwaitReady(r.token),))


def unsettle(r: UeRecord, announce: type[OffloadEvent] | None, *, again: bool = False) -> Result:
    """The PVM is not here: a UE that is here reaches it over the inter-cloudlet link, until it has followed."""
    r = replace(r, ready=(), moving_to=None, halted_at=None, landed_at=None, doubtful=False)
    if r.ue_at != r.here or r.pvm_at is None:
        away = replace(r, phase=Phase.AWAY, tunnels=NO_TUNNELS, expected=None, going_to=None, silent=None)
        return stand_by(away, OffloadRemoved)
    r = replace(r, phase=Phase.DETOURED)
    return r, (set_path(r, announce), AskDetour(known(r.pvm_at)), *consult(r, again=again))


def consult(r: UeRecord, *, again: bool = False) -> tuple[Command, ...]:
    """DETOURED: ask the policy, unless the UE is about to go to where the PVM is."""
    return () if r.going_to == r.pvm_at else (Consult(Moment.ARRIVED, r.token, again),)


def stand_by(r: UeRecord, announce: type[OffloadEvent] | None) -> Result:
    """AWAY: all but the tunnel to the UE stands, in case it comes.

    Where it may have left (``announce``), what is still on its way to it here goes after it first.
    """
    if not r.stands_by:
        return r, (SetPath(None, announce),)
    if r.ue_at is None:
        return r, (by_core(r, announce),)
    if announce is None:
        return r, (set_path(r, None),)
    return r, (set_path(r, announce, ue_at=r.ue_at), AwaitStragglers(r.token))


def redirect(r: UeRecord) -> Result:
    """Flip the downlink to the target, whose rules stand; then let go of what led to the old eNodeB."""
    flipped = set_path(r, OffloadMoved, ue_at=r.ue_at)
    if r.going_to == r.here:
        return r, (flipped,)
    r = replace(r, tunnels=NO_TUNNELS)
    return r, (flipped, set_path(r, None, ue_at=r.ue_at))


def _park(r: UeRecord, i: Any) -> Result:
    """The PVM waits; what it sends leaves by the core, so that the S-GW pages."""
    r = replace(nowhere(r), phase=Phase.PARKED, ready=_ready_elsewhere(r), expected=None)
    return r, (by_core(r, OffloadRemoved),)


def nowhere(r: UeRecord) -> UeRecord:
    """The UE is connected through no eNodeB of a cloudlet."""
    return replace(r, ue_at=None, tunnels=NO_TUNNELS, standby=(), going_to=None)


def idle(r: UeRecord, i: Any) -> Result:
    """The UE is idle: its PVM is kept running for it, for ever or for as long as it lingers."""
    r, commands = _park(replace(r, absent=True), i)
    return r, (*commands, AwaitReturn(r.token)) if r.lingers else commands


def await_return(r: UeRecord) -> Result:
    """The UE has left, and the PVM is here: it stops, at once or after a while."""
    if not r.lingers:
        return _stop(r)
    r, commands = _park(replace(without_ue(r), absent=True), None)
    return r, (*commands, AwaitReturn(r.token))


def _stop(r: UeRecord) -> Result:
    """Neither rules nor a running PVM stay."""
    r, commands = end(r)
    return r, (SetPath(None, OffloadRemoved), *commands)


def end(r: UeRecord) -> Result:
    """The PVM stops. Where something of it is kept, it goes on from here, whoever needs it."""
    kept = r.here if r.keeps else None
    r = without_ue(r) if not r.registered else r
    stopped = Announce(PvmStopped, from_cloudlet=r.here, to_cloudlet=kept)
    r = replace(r, phase=Phase.DORMANT, pvm_at=kept) if kept else replace(r, phase=Phase.AWAY, pvm_at=None, ready=())
    return r, (StopPvm(r.pvm), stopped)


def without_ue(r: UeRecord) -> UeRecord:
    """What is known of a PVM alone, and who has heard before us where its UE is back."""
    known = UeRecord(r.pvm, r.here, pvm_at=r.pvm_at, token=r.token, epoch=r.epoch, lingers=r.lingers, keeps=r.keeps)
    return replace(known, ready=_ready_elsewhere(r)) if r.pvm_at == r.here else known


def _ready_elsewhere(r: UeRecord) -> tuple[CloudletId, ...]:
    """Those who are ready for a UE that has not been there: they may have heard of it first, and say it once."""
    return tuple(cloudlet for cloudlet in r.ready if cloudlet != r.ue_at)


def started_elsewhere(r: UeRecord, i: PvmGone) -> CloudletId | None:
    """A PVM that is nowhere is being started where its user is; None: not elsewhere."""
    return None if r.ue_at in (r.here, i.cloudlet) else r.ue_at


def known(cloudlet: CloudletId | None) -> CloudletId:
    """What the phase guarantees."""
    if cloudlet is None:
        raise ValueError("the phase says that this cloudlet is known")
    return cloudlet
