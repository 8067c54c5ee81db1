"""What the controller of one cloudlet does for one UE: a table of phases and inputs.

The names of the phases say what *this* cloudlet is to the UE. ``step`` is pure: a record and an input in, a record
and commands out. A pair that is not in the table changes nothing; the service counts it.

A handover from here (c1) to c2, seen from both sides::

    c1  SERVING  --DetourAsked-->  SERVING  --HandoverDone-->  LENDING  --MoveAsked-->  PUSHING  --MoveSucceeded--> AWAY
    c2  AWAY --HandoverExpected--> PREPARED --HandoverDone--> DETOURED --MoveDue--> PULLING  --MovedHere-->  SERVING

The target leads: it makes its own rules stand, tells the source (``AskDetour``), and asks for the PVM when the
policy wants it (``Consult``, ``AskMove``). The source flips the downlink when the UE has arrived, and not before it
knows that the target is ready (paper, figures 3 and 4). While the PVM starts or moves, where the UE goes is only
noted; once it is certain where the PVM is, ``_settle`` and ``unsettle`` find the phase that fits.

The policy may want the PVM as soon as the handover is prepared: c2 then pulls while the UE is still at c1, which
serves it on over the link once the guest has left. When the handover is called off, c1 aborts; too late for that,
and c1 is where the UE is and the PVM is not, and consults the policy as any other.

Every controller hears of every UE, so all agree that the PVM of a UE that nobody has is started where it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mobiscud.controller.inputs import (
    DetourAsked,
    DoubtThere,
    Halted,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    HandoverOrdered,
    Input,
    Landed,
    MoveAsked,
    MovedHere,
    MoveDue,
    MoveFailed,
    MoveInDoubt,
    MoveLost,
    MoveRefused,
    MoveSucceeded,
    NoRoom,
    NotReady,
    PvmCrashed,
    PvmGone,
    PvmKept,
    PvmRefused,
    PvmRunning,
    PvmSeen,
    StayedAway,
    StaysThere,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import NO_TUNNELS, Phase, UeRecord, by_core, pulling_path, replace, set_path
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AskDetour,
    AskMove,
    AwaitReady,
    AwaitReturn,
    Command,
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
    OffloadEvent,
    OffloadMoved,
    OffloadPrepared,
    OffloadRemoved,
    PvmMigrated,
    PvmMigrating,
    PvmMigrationFailed,
    PvmStarted,
    PvmStopped,
)
from mobiscud.core.ids import CloudletId

Result = tuple[UeRecord, tuple[Command, ...]]
Step = Callable[[UeRecord, Any], Result]
Arrival = UeArrived | HandoverDone


_OF_THE_LEDGER: Final = PvmSeen | MovedHere | HaltedThere | StaysThere
"""The inputs that tell since when something is so; what is told of an earlier epoch than ours is over."""


def step(record: UeRecord, happened: Input) -> Result | None:
    """Carry the record over one input. None: the table has no row for it, nothing changes."""
    row = TRANSITIONS.get((record.phase, type(happened)))
    if row is None:
        return None
    told = happened.epoch if isinstance(happened, _OF_THE_LEDGER) else 0
    if 0 < told < record.epoch:
        return None  # of a migration that has ended, by one who slept through a change, or late
    known = max(record.epoch, told)
    record, commands = row(record if record.epoch == known else replace(record, epoch=known), happened)
    if record.epoch < known:  # a record that begins anew: owners are counted for ever
        record = replace(record, epoch=known)
    if record.doubtful:  # no packet to a copy that may be the wrong one
        commands = tuple(c for c in commands if not (isinstance(c, SetPath) and c.path is not None))
    return record, commands


# Where things are ------------------------------------------------------------------------------------------------


def _placed(r: UeRecord, i: Arrival) -> UeRecord:
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


def _settle(r: UeRecord, announce: type[OffloadEvent] | None) -> Result:
    """The PVM is here for certain, and for now stays: our phase follows from where the UE is."""
    r = replace(r, pvm_at=r.here, moving_to=None, halted_at=None, landed_at=None, doubtful=False)
    if not r.registered:
        return _await_return(r)
    if r.ue_at is None:
        return _idle(r, None) if r.absent else _park(r, None)
    if r.ue_at == r.here:
        return replace(r, phase=Phase.SERVING, ready=()), (set_path(r, announce),)
    r = replace(r, phase=Phase.LENDING)
    return _redirect(r) if r.ue_at in r.ready else (r, (AwaitReady(r.token),))


def unsettle(r: UeRecord, announce: type[OffloadEvent] | None, *, again: bool = False) -> Result:
    """The PVM is not here: a UE that is here reaches it over the inter-cloudlet link, until it has followed."""
    r = replace(r, ready=(), moving_to=None, halted_at=None, landed_at=None, doubtful=False)
    if r.ue_at != r.here or r.pvm_at is None:
        away = replace(r, phase=Phase.AWAY, tunnels=NO_TUNNELS, expected=None, going_to=None)
        return _stand_by(away, OffloadRemoved)
    r = replace(r, phase=Phase.DETOURED)
    return r, (set_path(r, announce), AskDetour(_known(r.pvm_at)), *consult(r, again=again))


def consult(r: UeRecord, *, again: bool = False) -> tuple[Command, ...]:
    """DETOURED: ask the policy, unless the UE is about to go to where the PVM is."""
    return () if r.going_to == r.pvm_at else (Consult(Moment.ARRIVED, r.token, again),)


def _stand_by(r: UeRecord, announce: type[OffloadEvent] | None) -> Result:
    """AWAY: our uplinks stand in case the UE comes, and what is still on its way to it here goes after it."""
    if not r.stands_by:
        return r, (SetPath(None, announce),)
    return r, (set_path(r, announce, ue_at=r.ue_at) if r.ue_at else by_core(r, announce),)


def _redirect(r: UeRecord) -> Result:
    """Flip the downlink to the target, whose rules stand; then let go of what led to the old eNodeB."""
    flipped = set_path(r, OffloadMoved, ue_at=r.ue_at)
    if r.going_to == r.here:
        return r, (flipped,)
    r = replace(r, tunnels=NO_TUNNELS)
    return r, (flipped, set_path(r, None, ue_at=r.ue_at))


def _park(r: UeRecord, i: Any) -> Result:
    """The PVM waits; what it sends leaves by the core, so that the S-GW pages."""
    r = replace(_nowhere(r), phase=Phase.PARKED, ready=_ready_elsewhere(r), expected=None)
    return r, (by_core(r, OffloadRemoved),)


def _nowhere(r: UeRecord) -> UeRecord:
    """The UE is connected through no eNodeB of a cloudlet."""
    return replace(r, ue_at=None, tunnels=NO_TUNNELS, standby=(), going_to=None)


def _idle(r: UeRecord, i: Any) -> Result:
    """The UE is idle: its PVM is kept running for it, for ever or for as long as it lingers."""
    r, commands = _park(replace(r, absent=True), i)
    return r, (*commands, AwaitReturn(r.token)) if r.lingers else commands


def _await_return(r: UeRecord) -> Result:
    """The UE has left, and the PVM is here: it stops, at once or after a while."""
    if not r.lingers:
        return _stop(r)
    r, commands = _park(replace(_without_ue(r), absent=True), None)
    return r, (*commands, AwaitReturn(r.token))


def _stop(r: UeRecord) -> Result:
    """Neither rules nor a running PVM stay."""
    r, commands = _end(r)
    return r, (SetPath(None, OffloadRemoved), *commands)


def _end(r: UeRecord) -> Result:
    """The PVM stops. Where something of it is kept, it goes on from here, whoever needs it."""
    kept = r.here if r.keeps else None
    r = _without_ue(r) if not r.registered else r
    stopped = Announce(PvmStopped, from_cloudlet=r.here, to_cloudlet=kept)
    r = replace(r, phase=Phase.DORMANT, pvm_at=kept) if kept else replace(r, phase=Phase.AWAY, pvm_at=None, ready=())
    return r, (StopPvm(r.pvm), stopped)


def _without_ue(r: UeRecord) -> UeRecord:
    """What is known of a PVM alone, and who has heard before us where its UE is back."""
    known = UeRecord(r.pvm, r.here, pvm_at=r.pvm_at, token=r.token, epoch=r.epoch, lingers=r.lingers, keeps=r.keeps)
    return replace(known, ready=_ready_elsewhere(r)) if r.pvm_at == r.here else known


def _ready_elsewhere(r: UeRecord) -> tuple[CloudletId, ...]:
    """Those who are ready for a UE that has not been there: they may have heard of it first, and say it once."""
    return tuple(cloudlet for cloudlet in r.ready if cloudlet != r.ue_at)


def _known(cloudlet: CloudletId | None) -> CloudletId:
    """What the phase guarantees."""
    if cloudlet is None:
        raise ValueError("the phase says that this cloudlet is known")
    return cloudlet


# The UE comes ----------------------------------------------------------------------------------------------------


def _arrive(r: UeRecord, i: Arrival) -> Result:
    """AWAY: the UE is connected, here or elsewhere."""
    stood_by = r.standby
    r = _placed(r, i)
    if r.ue_at != r.here:
        return _stand_by(r, None) if stood_by or r.standby else (r, ())
    if r.ue_ip is None or r.tunnels.downlink is None:
        return r, ()
    if r.pvm_at == r.here:
        return replace(r, phase=Phase.STARTING), (StartPvm(r.pvm),)
    return unsettle(r, OffloadActivated)


def _running(r: UeRecord, i: PvmRunning) -> Result:
    r, commands = _settle(replace(r, epoch=r.epoch + 1), OffloadActivated)
    return r, (Announce(PvmStarted, to_cloudlet=r.here), *commands)


def _not_running(r: UeRecord, i: PvmRefused) -> Result:
    """Its traffic stays on the core. What is kept is kept: started elsewhere, it would be without its past."""
    kept = r.here if r.keeps else None
    r = replace(r, phase=Phase.DORMANT if r.keeps else Phase.AWAY, pvm_at=kept, ready=())
    return r, (Announce(PvmStopped, from_cloudlet=r.here, to_cloudlet=kept, reason=i.reason),)


def _note_place(r: UeRecord, i: Arrival) -> Result:
    """STARTING: the PVM still comes to be here; where its traffic goes then is decided then."""
    return _placed(r, i), ()


def _note_idle(r: UeRecord, i: UeWentIdle) -> Result:
    """STARTING, PULLING or PUSHING: what is under way ends first; who has the PVM has it reach the UE by the core."""
    r = replace(_nowhere(r), absent=True)
    if r.phase is Phase.PUSHING:
        return r, (by_core(r, OffloadRemoved),)
    if r.phase is Phase.PULLING and r.flipped:
        return r, (pulling_path(r, OffloadRemoved),)
    return r, (SetPath(None, OffloadRemoved),)


def _note_left(r: UeRecord, i: UeLeft) -> Result:
    """The same for a UE that detached; whoever then has the PVM stops it."""
    return replace(_nowhere(r), registered=False, absent=True), (SetPath(None, OffloadRemoved),)


# The UE may come -------------------------------------------------------------------------------------------------


def _expect(r: UeRecord, i: HandoverExpected) -> Result:
    """Make our rules stand, then let the source know."""
    ue_ip = i.ue_ip or r.ue_ip
    if i.cloudlet != r.here or r.pvm_at is None or ue_ip is None:
        return r, ()
    r, commands = prepare(replace(r, ue_ip=ue_ip, tunnels=i.tunnels, going_to=r.here))
    return r, (*commands, Consult(i.moment, r.token))


def prepare(r: UeRecord) -> Result:
    """The UE may come: what it sends and what it gets then finds its way over the link."""
    r = replace(r, phase=Phase.PREPARED, doubtful=False)
    return r, (set_path(r, OffloadPrepared), AskDetour(_known(r.pvm_at)))


def _ordered(r: UeRecord, i: HandoverOrdered) -> Result:
    return r, (Consult(Moment.EXECUTING, r.token),)


def _expect_elsewhere(r: UeRecord, i: HandoverExpected) -> Result:
    """PUSHING: where the UE may go; the path is found when it has gone."""
    return replace(r, going_to=i.cloudlet), ()


def _expect_back(r: UeRecord, i: HandoverExpected) -> Result:
    """LENDING: the UE may come back to where its PVM still is."""
    r = replace(r, going_to=i.cloudlet)
    if i.cloudlet != r.here:
        return r, ()
    r = replace(r, tunnels=i.tunnels)
    return r, (set_path(r, OffloadPrepared, ue_at=r.ue_at),)


def _expect_inside(r: UeRecord, i: HandoverExpected) -> Result:
    """From one eNodeB of this cloudlet to another: the uplinks of both are good until it is done."""
    r = replace(r, going_to=i.cloudlet)
    if i.cloudlet != r.here:
        return r, ()
    r = replace(r, expected=i.tunnels)
    return r, (set_path(r, OffloadPrepared),)


def _not_coming(r: UeRecord, i: Any) -> Result:
    r = replace(r, phase=Phase.AWAY, tunnels=NO_TUNNELS, expected=None, going_to=None)
    return _stand_by(r, OffloadRemoved)


def _come(r: UeRecord, i: Arrival) -> Result:
    """PREPARED or DETOURED: the UE is here, or it went elsewhere."""
    return unsettle(_placed(r, i), OffloadActivated)


def _stay_inside(r: UeRecord, i: HandoverOff) -> Result:
    """A handover inside this cloudlet does not come: its tunnels go; one to elsewhere had left nothing here.

    Only where the PVM would have been at its end, the policy is asked anew.
    """
    to_pvm = r.phase is Phase.DETOURED and r.going_to is not None and r.going_to == r.pvm_at
    r = replace(r, going_to=None, ready=tuple(cloudlet for cloudlet in r.ready if cloudlet != r.going_to))
    if r.expected is None:
        return r, consult(r) if to_pvm else ()
    r = replace(r, expected=None)
    return r, (set_path(r, None),)


def _stay_away(r: UeRecord, i: HandoverOff) -> Result:
    r = replace(r, tunnels=NO_TUNNELS, going_to=None)
    return r, (set_path(r, None, ue_at=r.ue_at),)


def _push_in_vain(r: UeRecord, i: HandoverOff) -> Result:
    """PUSHING: the PVM has set out for where the UE does not go."""
    return replace(r, going_to=None), () if r.ue_at == r.moving_to else (AbortMove(r.pvm),)


# The UE goes -----------------------------------------------------------------------------------------------------


def _move(r: UeRecord, i: Arrival) -> Result:
    """SERVING, LENDING or PARKED: the UE is at a cell of ours, of another cloudlet, or of none."""
    tunnels = r.tunnels  # those that lead to the old eNodeB go last
    r = _placed(r, i)
    return _settle(r if r.ue_at == r.here else replace(r, tunnels=tunnels), OffloadMoved)


def _go_idle(r: UeRecord, i: UeWentIdle) -> Result:
    return _not_coming(replace(r, ue_at=None, standby=()), i)


def _forget(r: UeRecord, i: UeLeft) -> Result:
    """Detached. A PVM elsewhere is there until it is said to be gone."""
    if r.pvm_at == r.here:
        return _await_return(replace(r, registered=False))
    gone = _without_ue(r)
    return gone, (SetPath(None, OffloadRemoved),) if r.phase is not Phase.AWAY or r.standby else ()


def _stayed_away(r: UeRecord, i: StayedAway) -> Result:
    if not r.absent or i.token != r.token:
        return r, ()
    path = (SetPath(None),) if r.registered else ()
    r, commands = _end(r)
    return r, (*path, *commands)


def _wake(r: UeRecord, i: Arrival) -> Result:
    """DORMANT: the UE is back. At another cloudlet it is served from here, until its PVM has followed."""
    r = _placed(r, i)
    if r.ue_at is None or (r.ue_at == r.here and (r.ue_ip is None or r.tunnels.downlink is None)):
        return r, ()
    return replace(r, phase=Phase.STARTING), (StartPvm(r.pvm),)


def _sleep_on(r: UeRecord, i: UeLeft | UeWentIdle) -> Result:
    """DORMANT: the UE is away again, with or without a word of its PVM."""
    if isinstance(i, UeLeft):
        return replace(_without_ue(r), phase=Phase.DORMANT), ()
    return replace(r, absent=True, ue_at=None, tunnels=NO_TUNNELS, standby=()), ()


# The source's part -----------------------------------------------------------------------------------------------


def _ready(r: UeRecord, i: DetourAsked) -> Result:
    """The target's rules stand. Flip now if the UE is there already, else when it is; once is enough."""
    awaited = r.phase in (Phase.LENDING, Phase.PUSHING) and r.ue_at == i.by and i.by not in r.ready
    r = replace(r, ready=(*(cloudlet for cloudlet in r.ready if cloudlet != i.by), i.by))
    return _redirect(r) if awaited else (r, ())


def _not_ready(r: UeRecord, i: NotReady) -> Result:
    """LENDING or PUSHING: the target's controller is away. The core finds the UE, until it is back."""
    if i.token != r.token or r.ue_at in (None, r.here, *r.ready) or r.going_to == r.here:
        return r, ()
    r = replace(r, tunnels=NO_TUNNELS)
    return r, (by_core(r, OffloadRemoved),)


def _refuse_detour(r: UeRecord, i: DetourAsked) -> Result:
    return r, (Refuse("the personal VM is not here"),)


def _push(r: UeRecord, i: MoveAsked) -> Result:
    """LENDING or SERVING: to where the UE is, or is about to go."""
    if i.to not in (r.ue_at, r.going_to):
        return r, (Refuse("the UE is neither there nor expected"),)
    r = replace(r, phase=Phase.PUSHING, moving_to=i.to, epoch=max(r.epoch, i.epoch))
    migrating = Announce(PvmMigrating, from_cloudlet=r.here, to_cloudlet=i.to)
    return r, (migrating, KeepPackets(r.pvm), MigratePvm(r.pvm, i.to))


def _refuse_move(r: UeRecord, i: MoveAsked) -> Result:
    return r, (Refuse(f"not while {r.phase}"),)


def _push_on(r: UeRecord, i: MoveAsked) -> Result:
    """PUSHING: the one it is on its way to asks after it."""
    return (r, ()) if i.to == r.moving_to else _refuse_move(r, i)


def _point_to(r: UeRecord, i: MoveAsked) -> Result:
    """It is not here. One that has gone to the asker, who has not heard so, is its own, as the ledger says."""
    passed = i.to == r.pvm_at and i.epoch < r.epoch
    return (r, (TellMoved(i.to, 0.0),)) if passed else _refuse_move(r, i)


def _halt(r: UeRecord, i: Halted) -> Result:
    """The switch-over: the target flips; what still reaches us for the PVM goes after it, and what reached nobody."""
    to = _known(r.moving_to)
    r = replace(r, pvm_at=to)
    if not r.registered:
        return r, (TellHalted(to, i.at), ForgetPackets(r.pvm))
    flipped = set_path(r, None, ue_at=r.ue_at) if r.ue_at else by_core(r, None)
    return r, (TellHalted(to, i.at), ResendPackets(r.pvm, to), flipped)


def _pushed(r: UeRecord, i: MoveSucceeded) -> Result:
    """It is the target's now. A UE that has come back here meanwhile makes us ask for it."""
    to = _known(r.moving_to)
    r, commands = unsettle(replace(r, pvm_at=to, epoch=r.epoch + 1), OffloadActivated)
    return r, (TellMoved(to, i.total_ms), ForgetPackets(r.pvm), *commands)


def _push_failed(r: UeRecord, i: MoveFailed) -> Result:
    """It runs here: the path comes back to it. With a new epoch, so that what was said of the migration is over."""
    to = _known(r.moving_to)
    r, commands = _settle(replace(r, epoch=r.epoch + 1), OffloadMoved)
    failed = Announce(PvmMigrationFailed, from_cloudlet=r.here, to_cloudlet=to, reason=i.reason)
    return r, (ForgetPackets(r.pvm), failed, TellStays(to, i.reason), *commands)


def _doubt(r: UeRecord, i: MoveInDoubt) -> Result:
    """No packet to either side until it is settled who has the PVM."""
    to = _known(r.moving_to)
    r = replace(r, doubtful=True)
    return r, (ForgetPackets(r.pvm), SetPath(None, OffloadRemoved), SettleMove(r.pvm, to, i.reason))


def _lose(r: UeRecord, i: MoveLost) -> Result:
    """Nobody has it whole: it starts anew where its user is, or when there is one."""
    return _crash(replace(r, moving_to=None, halted_at=None, landed_at=None, doubtful=False), PvmCrashed(i.reason))


def _crash(r: UeRecord, i: PvmCrashed) -> Result:
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


def _moved_while_pushing(r: UeRecord, i: Arrival) -> Result:
    """The UE has gone on, or come back: the migration is in vain. Too late to end it: the PVM follows from there."""
    to, tunnels = r.moving_to, r.tunnels  # those that lead to the old eNodeB go last
    r = _placed(r, i)
    vain = () if r.ue_at == to else (AbortMove(r.pvm),)
    if r.ue_at is None:
        return r, (*vain, by_core(r, OffloadRemoved))
    if r.ue_at == r.here:
        return r, (*vain, set_path(r, OffloadMoved))
    r = replace(r, tunnels=tunnels)
    if r.ue_at not in r.ready:
        return r, (*vain, AwaitReady(r.token))
    r, commands = _redirect(r)
    return r, (*vain, *commands)


# The target's part -----------------------------------------------------------------------------------------------


def _pull(r: UeRecord, i: MoveDue) -> Result:
    if i.token != r.token or r.going_to == r.pvm_at:  # a user on the way back needs no VM here
        return r, ()
    r = replace(r, phase=Phase.PULLING, halted_at=None, landed_at=None)
    prepared = (pulling_path(r, None),) if r.ue_at is not None or r.coming else ()
    return r, (*prepared, AskMove(_known(r.pvm_at)))


def _pull_later(r: UeRecord, i: MoveRefused | StaysThere) -> Result:
    """The PVM is where it was, and so is the detour."""
    return unpull(r)


def _no_room(r: UeRecord, i: NoRoom) -> Result:
    """The PVM was not asked for, since it would not fit here: it is reached where it is, and that is told once."""
    failed = Announce(PvmMigrationFailed, from_cloudlet=r.pvm_at, to_cloudlet=r.here, reason=i.reason)
    told = (failed,) if r.no_room != i.reason else ()
    r = replace(r, no_room=i.reason)
    r, commands = prepare(r) if r.coming else unsettle(r, None, again=True)
    return r, (*commands, *told)


def unpull(r: UeRecord) -> Result:
    """PULLING no longer: the UE is here, is expected, or has gone elsewhere."""
    if r.coming:
        return prepare(replace(r, ready=(), halted_at=None, landed_at=None))
    return unsettle(r, OffloadMoved, again=True)


def _expect_while_pulling(r: UeRecord, i: HandoverExpected) -> Result:
    r = replace(r, going_to=i.cloudlet)
    if not r.coming:
        return r, ()
    r = replace(r, tunnels=i.tunnels)
    return r, (pulling_path(r, OffloadPrepared),)


def _come_while_pulling(r: UeRecord, i: Arrival) -> Result:
    """The PVM is still on its way; a UE that went elsewhere is found when it is here."""
    was_here = r.ue_at == r.here
    r = _placed(r, i)
    if r.ue_at is None and r.flipped:
        return r, (pulling_path(r, OffloadRemoved),)
    if r.ue_at != r.here or r.tunnels.downlink is None:
        return r, ()
    path = pulling_path(r, OffloadMoved if was_here else OffloadActivated)
    return r, (path,) if r.flipped else (path, AskDetour(_known(r.pvm_at)))


def _not_coming_while_pulling(r: UeRecord, i: HandoverOff) -> Result:
    """Nor will the PVM, if its source can help it."""
    if not r.coming:
        return replace(r, going_to=None), ()
    r = replace(r, tunnels=NO_TUNNELS, going_to=None)
    return r, (pulling_path(r, None) if r.flipped else SetPath(None, OffloadRemoved),)


def _halted_there(r: UeRecord, i: HaltedThere) -> Result:
    """The path flips now; what comes before the guest runs waits in its tap."""
    return _flip(replace(r, phase=Phase.PULLING, halted_at=i.at), done=r.flipped)


def _landed(r: UeRecord, i: Landed) -> Result:
    """It runs here; where the source's word has not come, the path flips now."""
    return _flip(replace(r, phase=Phase.PULLING, landed_at=i.at), done=r.flipped)


def _flip(r: UeRecord, *, done: bool) -> Result:
    if done or not r.registered:
        return r, ()
    return r, (pulling_path(r, OffloadMoved if r.ue_at else None),)


def _pulled(r: UeRecord, i: MovedHere) -> Result:
    downtime = (r.landed_at - r.halted_at) / 1e6 if r.landed_at and r.halted_at else None
    if downtime is not None and downtime < 0:
        downtime = None  # a clock was set meanwhile, or two hosts' clocks differ
    moved = Announce(PvmMigrated, r.pvm_at, r.here, downtime, i.total_ms)
    r, commands = _settle(r, None if r.flipped else OffloadMoved)
    return r, (moved, *commands)


def _doubt_there(r: UeRecord, i: DoubtThere) -> Result:
    """A guest that has begun to run here may be one of two: not a packet to it until the source has settled it."""
    if i.by != r.pvm_at:
        return r, ()
    return replace(r, doubtful=True), (SetPath(None, OffloadRemoved),)


# What is heard of the PVM ----------------------------------------------------------------------------------------


def _pvm_seen(r: UeRecord, i: PvmSeen) -> Result:
    """AWAY: a UE that is here, and had to do without it, reaches it over the inter-cloudlet link."""
    if r.ue_at == r.here != i.cloudlet and r.ue_ip is not None and r.tunnels.downlink is not None:
        return unsettle(replace(r, pvm_at=i.cloudlet), OffloadActivated)
    return _note_pvm(r, i)


def _note_pvm(r: UeRecord, i: PvmSeen | PvmKept) -> Result:
    r, known = replace(r, pvm_at=i.cloudlet), r.pvm_at
    return _stand_by(r, None) if r.standby and known != r.pvm_at else (r, ())


def _pvm_gone(r: UeRecord, i: PvmGone) -> Result:
    if i.cloudlet != r.pvm_at:
        return r, ()
    r = replace(r, pvm_at=_started_elsewhere(r, i))
    return _stand_by(r, None) if r.standby else (r, ())


def _started_elsewhere(r: UeRecord, i: PvmGone) -> CloudletId | None:
    """A PVM that is nowhere is being started where its user is; None: not elsewhere."""
    return None if r.ue_at in (r.here, i.cloudlet) else r.ue_at


def _kept_elsewhere(r: UeRecord, i: PvmKept) -> Result:
    """PREPARED, DETOURED or PULLING: it does not run; until it does, the UE's traffic stays on the core."""
    if i.cloudlet == r.here:
        return r, ()
    r = replace(r, phase=Phase.AWAY, pvm_at=i.cloudlet, expected=None, ready=(), standby=())
    return r, (SetPath(None, OffloadRemoved),)


def _run_elsewhere(r: UeRecord, i: PvmSeen) -> Result:
    """DORMANT: it runs at another cloudlet, which knows better."""
    if i.cloudlet == r.here:
        return r, ()
    return replace(r, phase=Phase.AWAY, pvm_at=i.cloudlet, ready=()), ()


def _prepared_for_another(r: UeRecord, i: PvmSeen) -> Result:
    """PREPARED: the PVM is at another cloudlet than we thought."""
    return (r, ()) if i.cloudlet == r.pvm_at else prepare(replace(r, pvm_at=i.cloudlet))


def _prepared_for_none(r: UeRecord, i: PvmGone) -> Result:
    if i.cloudlet != r.pvm_at:
        return r, ()
    r = replace(r, pvm_at=_started_elsewhere(r, i))
    return _not_coming(r, i) if r.pvm_at is None else prepare(r)


def _detour_elsewhere(r: UeRecord, i: PvmSeen) -> Result:
    """DETOURED or PULLING: the detour leads to where the PVM is, and from there it is asked for.

    A source that has begun anew may say that it has it still, and not that it no longer gives it.
    """
    if i.cloudlet == r.here:
        return r, ()
    if i.cloudlet == r.pvm_at:
        return (r, ()) if r.phase is Phase.DETOURED or r.flipped else unpull(r)
    r = replace(r, pvm_at=i.cloudlet)
    return unpull(r) if r.coming else unsettle(r, OffloadMoved)


def _start_after_all(r: UeRecord, i: PvmGone) -> Result:
    """DETOURED or PULLING: a PVM that is nowhere is started where its user is."""
    if i.cloudlet != r.pvm_at:
        return r, ()
    if r.ue_at != r.here:
        return unsettle(replace(r, pvm_at=None), None)
    r = replace(r, phase=Phase.STARTING, pvm_at=r.here, doubtful=False)
    return r, (SetPath(None, OffloadRemoved), StartPvm(r.pvm))


TRANSITIONS: Final[Mapping[tuple[Phase, type[Input]], Step]] = {
    (Phase.AWAY, UeArrived): _arrive,
    (Phase.AWAY, HandoverDone): _arrive,
    (Phase.AWAY, HandoverExpected): _expect,
    (Phase.AWAY, UeWentIdle): _go_idle,
    (Phase.AWAY, UeLeft): _forget,
    (Phase.AWAY, PvmSeen): _pvm_seen,
    (Phase.AWAY, PvmGone): _pvm_gone,
    (Phase.AWAY, PvmKept): _note_pvm,
    (Phase.AWAY, MovedHere): _pulled,
    (Phase.AWAY, DetourAsked): _refuse_detour,
    (Phase.AWAY, MoveAsked): _point_to,
    (Phase.STARTING, PvmRunning): _running,
    (Phase.STARTING, PvmRefused): _not_running,
    (Phase.STARTING, UeArrived): _note_place,
    (Phase.STARTING, HandoverDone): _note_place,
    (Phase.STARTING, UeWentIdle): _note_idle,
    (Phase.STARTING, UeLeft): _note_left,
    (Phase.STARTING, DetourAsked): _ready,
    (Phase.STARTING, MoveAsked): _refuse_move,
    (Phase.SERVING, UeArrived): _move,
    (Phase.SERVING, HandoverExpected): _expect_inside,
    (Phase.SERVING, HandoverDone): _move,
    (Phase.SERVING, HandoverOff): _stay_inside,
    (Phase.SERVING, UeWentIdle): _idle,
    (Phase.SERVING, UeLeft): _forget,
    (Phase.SERVING, DetourAsked): _ready,
    (Phase.SERVING, MoveAsked): _push,
    (Phase.SERVING, PvmCrashed): _crash,
    (Phase.PREPARED, UeArrived): _come,
    (Phase.PREPARED, HandoverExpected): _expect,
    (Phase.PREPARED, HandoverOrdered): _ordered,
    (Phase.PREPARED, HandoverDone): _come,
    (Phase.PREPARED, HandoverOff): _not_coming,
    (Phase.PREPARED, UeWentIdle): _go_idle,
    (Phase.PREPARED, UeLeft): _forget,
    (Phase.PREPARED, PvmSeen): _prepared_for_another,
    (Phase.PREPARED, PvmGone): _prepared_for_none,
    (Phase.PREPARED, MoveDue): _pull,
    (Phase.PREPARED, HaltedThere): _halted_there,
    (Phase.PREPARED, Landed): _landed,
    (Phase.PREPARED, MovedHere): _pulled,
    (Phase.PREPARED, PvmKept): _kept_elsewhere,
    (Phase.PREPARED, DetourAsked): _refuse_detour,
    (Phase.PREPARED, MoveAsked): _point_to,
    (Phase.DETOURED, UeArrived): _come,
    (Phase.DETOURED, HandoverExpected): _expect_inside,
    (Phase.DETOURED, HandoverDone): _come,
    (Phase.DETOURED, HandoverOff): _stay_inside,
    (Phase.DETOURED, UeWentIdle): _go_idle,
    (Phase.DETOURED, UeLeft): _forget,
    (Phase.DETOURED, MoveDue): _pull,
    (Phase.DETOURED, PvmSeen): _detour_elsewhere,
    (Phase.DETOURED, PvmGone): _start_after_all,
    (Phase.DETOURED, PvmKept): _kept_elsewhere,
    (Phase.DETOURED, HaltedThere): _halted_there,
    (Phase.DETOURED, DoubtThere): _doubt_there,
    (Phase.DETOURED, Landed): _landed,
    (Phase.DETOURED, MovedHere): _pulled,
    (Phase.DETOURED, DetourAsked): _refuse_detour,
    (Phase.DETOURED, MoveAsked): _point_to,
    (Phase.PULLING, MoveRefused): _pull_later,
    (Phase.PULLING, StaysThere): _pull_later,
    (Phase.PULLING, DoubtThere): _doubt_there,
    (Phase.PULLING, NoRoom): _no_room,
    (Phase.PULLING, HaltedThere): _halted_there,
    (Phase.PULLING, Landed): _landed,
    (Phase.PULLING, MovedHere): _pulled,
    (Phase.PULLING, PvmSeen): _detour_elsewhere,
    (Phase.PULLING, PvmGone): _start_after_all,
    (Phase.PULLING, PvmKept): _kept_elsewhere,
    (Phase.PULLING, UeArrived): _come_while_pulling,
    (Phase.PULLING, HandoverExpected): _expect_while_pulling,
    (Phase.PULLING, HandoverDone): _come_while_pulling,
    (Phase.PULLING, HandoverOff): _not_coming_while_pulling,
    (Phase.PULLING, UeWentIdle): _note_idle,
    (Phase.PULLING, UeLeft): _note_left,
    (Phase.PULLING, DetourAsked): _ready,
    (Phase.PULLING, MoveAsked): _point_to,
    (Phase.LENDING, UeArrived): _move,
    (Phase.LENDING, HandoverExpected): _expect_back,
    (Phase.LENDING, HandoverDone): _move,
    (Phase.LENDING, HandoverOff): _stay_away,
    (Phase.LENDING, UeWentIdle): _idle,
    (Phase.LENDING, UeLeft): _forget,
    (Phase.LENDING, DetourAsked): _ready,
    (Phase.LENDING, NotReady): _not_ready,
    (Phase.LENDING, MoveAsked): _push,
    (Phase.LENDING, PvmCrashed): _crash,
    (Phase.PUSHING, Halted): _halt,
    (Phase.PUSHING, MoveSucceeded): _pushed,
    (Phase.PUSHING, MoveFailed): _push_failed,
    (Phase.PUSHING, MoveInDoubt): _doubt,
    (Phase.PUSHING, MoveLost): _lose,
    (Phase.PUSHING, UeArrived): _moved_while_pushing,
    (Phase.PUSHING, HandoverExpected): _expect_elsewhere,
    (Phase.PUSHING, HandoverDone): _moved_while_pushing,
    (Phase.PUSHING, HandoverOff): _push_in_vain,
    (Phase.PUSHING, UeWentIdle): _note_idle,
    (Phase.PUSHING, UeLeft): _note_left,
    (Phase.PUSHING, DetourAsked): _ready,
    (Phase.PUSHING, NotReady): _not_ready,
    (Phase.PUSHING, MoveAsked): _push_on,
    (Phase.PARKED, UeArrived): _move,
    (Phase.PARKED, HandoverDone): _move,
    (Phase.PARKED, UeLeft): _forget,
    (Phase.PARKED, DetourAsked): _ready,
    (Phase.PARKED, MoveAsked): _refuse_move,
    (Phase.PARKED, PvmCrashed): _crash,
    (Phase.PARKED, UeWentIdle): _idle,
    (Phase.PARKED, StayedAway): _stayed_away,
    (Phase.DORMANT, UeArrived): _wake,
    (Phase.DORMANT, HandoverDone): _wake,
    (Phase.DORMANT, UeWentIdle): _sleep_on,
    (Phase.DORMANT, UeLeft): _sleep_on,
    (Phase.DORMANT, PvmSeen): _run_elsewhere,
    (Phase.DORMANT, DetourAsked): _ready,
    (Phase.DORMANT, MoveAsked): _refuse_move,
}
