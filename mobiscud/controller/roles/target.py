"""The UE is here, or expected, and its PVM elsewhere: it is reached over the link, and asked for."""

from __future__ import annotations

from typing import Final

from mobiscud.controller.inputs import (
    DetourAsked,
    DetourAwaited,
    DetourGranted,
    DoubtThere,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    HandoverOrdered,
    Landed,
    MoveAsked,
    MovedHere,
    MoveDue,
    MoveRefused,
    NoRoom,
    PvmCrashed,
    PvmGone,
    PvmKept,
    PvmSeen,
    StaysThere,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import NO_TUNNELS, Phase, UeRecord, pulling_path, replace, set_path
from mobiscud.controller.roles.places import Arrival, Result, Rows, known, placed, settle, started_elsewhere, unsettle
from mobiscud.controller.roles.shared import (
    crash,
    expect_inside,
    forget,
    go_idle,
    not_coming,
    note_idle,
    note_left,
    point_to,
    ready,
    refuse_detour,
    stay_inside,
)
from mobiscud.core.commands import Announce, AskDetour, AskMove, Consult, Moment, SetPath, StartPvm
from mobiscud.core.events import (
    OffloadActivated,
    OffloadEvent,
    OffloadMoved,
    OffloadPrepared,
    OffloadRemoved,
    PvmMigrated,
    PvmMigrationFailed,
)


def expect(r: UeRecord, i: HandoverExpected) -> Result:
    """Make our rules stand, then let the source know."""
    ue_ip = i.ue_ip or r.ue_ip
    if i.cloudlet != r.here or r.pvm_at is None or ue_ip is None:
        return r, ()
    r, commands = prepare(replace(r, ue_ip=ue_ip, tunnels=i.tunnels, going_to=r.here))
    return r, (*commands, Consult(i.moment, r.token))


def prepare(r: UeRecord) -> Result:
    """The UE may come: what it sends and what it gets then finds its way over the link."""
    r = replace(r, phase=Phase.PREPARED, doubtful=False)
    return r, (set_path(r, OffloadPrepared), AskDetour(known(r.pvm_at)))


def _ordered(r: UeRecord, i: HandoverOrdered) -> Result:
    return r, (Consult(Moment.EXECUTING, r.token),)


def _come(r: UeRecord, i: Arrival) -> Result:
    """PREPARED or DETOURED: the UE is here, or it went elsewhere.

    Who was prepared asks for the detour again: the source may have heard that before it heard where the UE was last.
    """
    return unsettle(placed(r, i), OffloadActivated)


def _detour_awaited(r: UeRecord, i: DetourAwaited) -> Result:
    """PREPARED, DETOURED or PULLING: what the UE sends over the link may end there; the core knows no worse.

    What comes over the link still reaches it: that may be a source whose answer was lost.
    """
    if i.of != r.pvm_at or r.silent == i.of or r.flipped:
        return r, ()
    r = replace(r, silent=i.of)
    reason = f"{i.of} does not grant the detour"
    return r, tuple(SetPath(p.path, OffloadRemoved, p.via, reason) for p in _standing(r, None))


def _detour_granted(r: UeRecord, i: DetourGranted) -> Result:
    if r.silent != i.of:
        return r, ()
    r = replace(r, silent=None)
    return r, _standing(r, OffloadPrepared if r.coming else OffloadActivated)


def _standing(r: UeRecord, announce: type[OffloadEvent] | None) -> tuple[SetPath, ...]:
    """The path of a UE that is here, or expected."""
    if r.ue_at != r.here and not r.coming:
        return ()
    return (pulling_path(r, announce) if r.phase is Phase.PULLING else set_path(r, announce),)


def _pull(r: UeRecord, i: MoveDue) -> Result:
    if i.token != r.token or r.going_to == r.pvm_at:  # a user on the way back needs no VM here
        return r, ()
    r = replace(r, phase=Phase.PULLING, halted_at=None, landed_at=None)
    prepared = (pulling_path(r, None),) if r.ue_at is not None or r.coming else ()
    return r, (*prepared, AskMove(known(r.pvm_at)))


def _pull_later(r: UeRecord, i: MoveRefused | StaysThere) -> Result:
    """The PVM is where it was, and so is the detour."""
    return unpull(replace(r, ended=None))


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
    r = placed(r, i)
    if r.ue_at is None and r.flipped:
        return r, (pulling_path(r, OffloadRemoved),)
    if r.ue_at != r.here or r.tunnels.downlink is None:
        return r, ()
    path = pulling_path(r, OffloadMoved if was_here else OffloadActivated)
    return r, (path,) if r.flipped else (path, AskDetour(known(r.pvm_at)))


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
    return _flip(replace(r, phase=Phase.PULLING, landed_at=i.at, ended=None), done=r.flipped)


def _flip(r: UeRecord, *, done: bool) -> Result:
    if done or not r.registered:
        return r, ()
    return r, (pulling_path(r, OffloadMoved if r.ue_at else None),)


def _ended(r: UeRecord, i: PvmCrashed) -> Result:
    """PREPARED, DETOURED or PULLING: its source says whether it was ours. If it was not, nothing has happened."""
    return replace(r, ended=i.reason), ()


def pulled(r: UeRecord, i: MovedHere) -> Result:
    downtime = (r.landed_at - r.halted_at) / 1e6 if r.landed_at and r.halted_at else None
    if downtime is not None and downtime < 0:
        downtime = None  # a clock was set meanwhile, or two hosts' clocks differ
    moved = Announce(PvmMigrated, r.pvm_at, r.here, downtime, i.total_ms)
    if r.ended is not None:
        arrived = replace(r, pvm_at=r.here, halted_at=None, landed_at=None, ended=None, doubtful=False)
        r, commands = crash(arrived, PvmCrashed(r.ended))
    else:
        r, commands = settle(r, None if r.flipped else OffloadMoved)
    return r, (moved, *commands)


def _doubt_there(r: UeRecord, i: DoubtThere) -> Result:
    """A guest that has begun to run here may be one of two: not a packet to it until the source has settled it."""
    if i.by != r.pvm_at:
        return r, ()
    return replace(r, doubtful=True), (SetPath(None, OffloadRemoved),)


def _stays_there(r: UeRecord, i: StaysThere) -> Result:
    """DETOURED: no copy here is in doubt any more."""
    return unsettle(r, OffloadActivated) if r.doubtful else (r, ())


def _kept_elsewhere(r: UeRecord, i: PvmKept) -> Result:
    """PREPARED, DETOURED or PULLING: it does not run; until it does, the UE's traffic stays on the core."""
    if i.cloudlet == r.here:
        return r, ()
    r = replace(r, phase=Phase.AWAY, pvm_at=i.cloudlet, expected=None, ready=(), standby=(), silent=None)
    return r, (SetPath(None, OffloadRemoved),)


def _prepared_for_another(r: UeRecord, i: PvmSeen) -> Result:
    """PREPARED: the PVM is at another cloudlet than we thought."""
    return (r, ()) if i.cloudlet == r.pvm_at else prepare(replace(r, pvm_at=i.cloudlet))


def _prepared_for_none(r: UeRecord, i: PvmGone) -> Result:
    if i.cloudlet != r.pvm_at:
        return r, ()
    r = replace(r, pvm_at=started_elsewhere(r, i))
    return not_coming(r, i) if r.pvm_at is None else prepare(r)


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


PREPARED: Final[Rows] = {
    UeArrived: _come,
    HandoverExpected: expect,
    HandoverOrdered: _ordered,
    HandoverDone: _come,
    HandoverOff: not_coming,
    UeWentIdle: go_idle,
    UeLeft: forget,
    PvmSeen: _prepared_for_another,
    PvmGone: _prepared_for_none,
    MoveDue: _pull,
    HaltedThere: _halted_there,
    Landed: _landed,
    MovedHere: pulled,
    PvmCrashed: _ended,
    PvmKept: _kept_elsewhere,
    DetourAsked: refuse_detour,
    DetourAwaited: _detour_awaited,
    DetourGranted: _detour_granted,
    MoveAsked: point_to,
}


DETOURED: Final[Rows] = {
    UeArrived: _come,
    HandoverExpected: expect_inside,
    HandoverDone: _come,
    HandoverOff: stay_inside,
    UeWentIdle: go_idle,
    UeLeft: forget,
    MoveDue: _pull,
    PvmSeen: _detour_elsewhere,
    PvmGone: _start_after_all,
    PvmKept: _kept_elsewhere,
    HaltedThere: _halted_there,
    StaysThere: _stays_there,
    DoubtThere: _doubt_there,
    Landed: _landed,
    MovedHere: pulled,
    PvmCrashed: _ended,
    DetourAsked: refuse_detour,
    DetourAwaited: _detour_awaited,
    DetourGranted: _detour_granted,
    MoveAsked: point_to,
}


PULLING: Final[Rows] = {
    MoveRefused: _pull_later,
    StaysThere: _pull_later,
    DoubtThere: _doubt_there,
    NoRoom: _no_room,
    HaltedThere: _halted_there,
    Landed: _landed,
    MovedHere: pulled,
    PvmCrashed: _ended,
    PvmSeen: _detour_elsewhere,
    PvmGone: _start_after_all,
    PvmKept: _kept_elsewhere,
    UeArrived: _come_while_pulling,
    HandoverExpected: _expect_while_pulling,
    HandoverDone: _come_while_pulling,
    HandoverOff: _not_coming_while_pulling,
    UeWentIdle: note_idle,
    UeLeft: note_left,
    DetourAsked: ready,
    DetourAwaited: _detour_awaited,
    DetourGranted: _detour_granted,
    MoveAsked: point_to,
}
