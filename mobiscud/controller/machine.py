"""What the controller of one cloudlet does for one UE: a table of phases and inputs.

The names of the phases say what *this* cloudlet is to the UE. ``step`` is pure: a record and an input in, a record
and commands out. A pair that is not in the table changes nothing; the service counts it.

A handover from here (c1) to c2, seen from both sides::

    c1  SERVING  --DetourAsked-->  SERVING  --HandoverDone-->  LENDING  --MoveAsked-->  PUSHING  --MoveSucceeded--> AWAY
    c2  AWAY --HandoverExpected--> PREPARED --HandoverDone--> DETOURED --Dwelled--> PULLING  --MovedHere-->  SERVING

The target leads: it makes its own rules stand, tells the source (``AskDetour``), and asks for the PVM when the
policy wants it (``AskMove``). The source flips the downlink when the UE has arrived, and not before it knows that
the target is ready (paper, figures 3 and 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from mobiscud.controller.inputs import (
    DetourAsked,
    Dwelled,
    Halted,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    Input,
    Landed,
    MoveAsked,
    MovedHere,
    MoveFailed,
    MoveRefused,
    MoveSucceeded,
    PvmRefused,
    PvmRunning,
    PvmSeen,
    StaysThere,
    Tunnels,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.core.commands import (
    Announce,
    AskDetour,
    AskMove,
    Command,
    MigratePvm,
    Refuse,
    SetPath,
    StartPvm,
    StopPvm,
    TellHalted,
    TellMoved,
    TellStays,
    Wait,
)
from mobiscud.core.edge import PathSpec, Pvm
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


class Phase(StrEnum):
    """What this cloudlet is to the UE."""

    AWAY = "away"  # neither the UE nor its PVM is here
    STARTING = "starting"  # the UE is here, its PVM is being started here
    SERVING = "serving"  # both are here
    PREPARED = "prepared"  # the UE may come, its PVM is elsewhere, our rules stand
    DETOURED = "detoured"  # the UE is here, its PVM elsewhere
    PULLING = "pulling"  # the UE is here, its PVM is on the way to us
    LENDING = "lending"  # the PVM is here, the UE at another cloudlet
    PUSHING = "pushing"  # the PVM is leaving for where the UE is
    PARKED = "parked"  # the PVM is here, the UE idle, or at a cell without cloudlet


NO_TUNNELS: Final = Tunnels()


@dataclass(frozen=True, slots=True)
class UeRecord:
    """What the controller of ``here`` knows of one UE."""

    pvm: Pvm
    here: CloudletId
    follow: bool = True
    phase: Phase = Phase.AWAY
    ue_ip: str | None = None
    ue_at: CloudletId | None = None
    pvm_at: CloudletId | None = None
    tunnels: Tunnels = NO_TUNNELS
    """Those through an eNodeB of this cloudlet, current or expected."""
    expected: Tunnels | None = None
    """Those of a handover between two eNodeBs of this cloudlet, before it is done."""
    ready: CloudletId | None = None
    """The cloudlet whose rules stand for the detour."""
    moving_to: CloudletId | None = None
    halted_at: int | None = None
    landed_at: int | None = None
    token: int = 0
    """Counts the UE's arrivals, so that an old dwell timer means nothing."""


Result = tuple[UeRecord, tuple[Command, ...]]
Step = Callable[[UeRecord, Any], Result]


def step(record: UeRecord, happened: Input) -> Result | None:
    """Carry the record over one input. None: the table has no row for it, nothing changes."""
    row = TRANSITIONS.get((record.phase, type(happened)))
    return None if row is None else row(record, happened)


# The UE comes ----------------------------------------------------------------------------------------------------


def _arrive(r: UeRecord, i: UeArrived | HandoverDone) -> Result:
    """The UE is at a cell; our own, or another's."""
    r = replace(r, ue_at=i.cloudlet, ue_ip=i.ue_ip or r.ue_ip, expected=None, token=r.token + 1)
    if i.cloudlet != r.here:
        return replace(r, phase=Phase.AWAY), ()
    r = replace(r, tunnels=i.tunnels)
    if r.ue_ip is None or r.tunnels.downlink is None:
        return r, ()
    if r.pvm_at is None:
        return replace(r, phase=Phase.STARTING), (StartPvm(r.pvm),)
    if r.pvm_at == r.here:
        return _serve(r, OffloadActivated)
    return _detour(r)


def _serve(r: UeRecord, announce: type[OffloadEvent] | None) -> Result:
    """UE and PVM are both here."""
    r = replace(r, phase=Phase.SERVING, ready=None, moving_to=None)
    return r, (_path(r, announce),)


def _detour(r: UeRecord) -> Result:
    """The UE is here, the PVM is not: over the inter-cloudlet link, until it has followed."""
    pvm_at = _known(r.pvm_at)
    r = replace(r, phase=Phase.DETOURED)
    follow = (Wait(r.token),) if r.follow else ()
    return r, (_path(r, OffloadActivated), AskDetour(pvm_at), *follow)


def _settle(r: UeRecord, announce: type[OffloadEvent] | None) -> Result:
    """The PVM is here for certain, and for now stays: our phase follows from where the UE is."""
    if r.ue_at is None:
        return _park(r, None)
    if r.ue_at == r.here:
        return _serve(r, announce)
    r = replace(r, phase=Phase.LENDING)
    return _redirect(r) if r.ready == r.ue_at else (r, ())


def _running(r: UeRecord, i: PvmRunning) -> Result:
    r, commands = _settle(replace(r, pvm_at=r.here), OffloadActivated)
    return r, (Announce(PvmStarted, to_cloudlet=r.here), *commands)


def _not_running(r: UeRecord, i: PvmRefused) -> Result:
    """Its traffic stays on the core."""
    return replace(r, phase=Phase.AWAY), (Announce(PvmStopped, from_cloudlet=r.here, reason=i.reason),)


def _note_place(r: UeRecord, i: UeArrived | HandoverDone) -> Result:
    """STARTING or PULLING: the PVM still comes here; where its traffic goes then is decided then."""
    tunnels = i.tunnels if i.cloudlet == r.here else NO_TUNNELS
    return replace(r, ue_at=i.cloudlet, ue_ip=i.ue_ip or r.ue_ip, tunnels=tunnels, token=r.token + 1), ()


def _note_idle(r: UeRecord, i: UeWentIdle) -> Result:
    """STARTING, PULLING or PUSHING: what is under way ends first; until then no packet finds the UE."""
    return replace(r, ue_at=None, tunnels=NO_TUNNELS), (SetPath(None, OffloadRemoved),)


# The UE may come -------------------------------------------------------------------------------------------------


def _expect(r: UeRecord, i: HandoverExpected) -> Result:
    """Make our rules stand, then let the source know."""
    pvm_at, ue_ip = r.pvm_at, i.ue_ip or r.ue_ip
    if i.cloudlet != r.here or pvm_at is None or ue_ip is None:
        return r, ()
    r = replace(r, phase=Phase.PREPARED, ue_ip=ue_ip, tunnels=i.tunnels)
    return r, (_path(r, OffloadPrepared), AskDetour(pvm_at))


def _expect_back(r: UeRecord, i: HandoverExpected) -> Result:
    """The UE may come back to where its PVM still is."""
    if i.cloudlet != r.here:
        return r, ()
    r = replace(r, tunnels=i.tunnels)
    return r, (_path(r, OffloadPrepared, ue_at=r.ue_at),)


def _expect_inside(r: UeRecord, i: HandoverExpected) -> Result:
    """From one eNodeB of this cloudlet to another: the uplinks of both are good until it is done."""
    if i.cloudlet != r.here:
        return r, ()
    r = replace(r, expected=i.tunnels)
    return r, (_path(r, OffloadPrepared),)


def _not_coming(r: UeRecord, i: Any) -> Result:
    return replace(r, phase=Phase.AWAY, tunnels=NO_TUNNELS), (SetPath(None, OffloadRemoved),)


def _come(r: UeRecord, i: UeArrived | HandoverDone) -> Result:
    """PREPARED or DETOURED: the UE is here, or it went elsewhere."""
    if i.cloudlet != r.here:
        r, commands = _not_coming(r, i)
        return replace(r, ue_at=i.cloudlet), commands
    r = replace(r, ue_at=r.here, ue_ip=i.ue_ip or r.ue_ip, tunnels=i.tunnels, expected=None, token=r.token + 1)
    return _detour(r)


def _stay_inside(r: UeRecord, i: HandoverOff) -> Result:
    """A handover inside this cloudlet does not come: its tunnels go; one to elsewhere had left nothing here."""
    if r.expected is None:
        return replace(r, ready=None), ()
    r = replace(r, expected=None)
    return r, (_path(r, None),)


def _stay_away(r: UeRecord, i: HandoverOff) -> Result:
    r = replace(r, tunnels=NO_TUNNELS)
    return r, (_path(r, None, ue_at=r.ue_at),)


# The UE goes -----------------------------------------------------------------------------------------------------


def _leave(r: UeRecord, i: UeArrived | HandoverDone) -> Result:
    """SERVING: to another eNodeB of ours, to another cloudlet, or to a cell that has none."""
    if i.cloudlet == r.here:
        r = replace(r, tunnels=i.tunnels, ue_ip=i.ue_ip or r.ue_ip, expected=None, token=r.token + 1)
        return r, (_path(r, OffloadMoved),)
    return _lend(replace(r, ue_ip=i.ue_ip or r.ue_ip, expected=None), i)


def _lend(r: UeRecord, i: UeArrived | HandoverDone) -> Result:
    """The PVM is here and stays for now; where the UE is, its traffic goes."""
    if i.cloudlet is None:
        return _park(replace(r, ue_at=None), i)
    r = replace(r, phase=Phase.LENDING, ue_at=i.cloudlet)
    return _redirect(r) if r.ready == i.cloudlet else (r, ())


def _redirect(r: UeRecord) -> Result:
    """Flip the downlink to the target, whose rules stand; then let go of what led to the old eNodeB."""
    flipped = _path(r, OffloadMoved, ue_at=r.ue_at)
    r = replace(r, tunnels=NO_TUNNELS)
    return r, (flipped, _path(r, None, ue_at=r.ue_at))


def _come_back(r: UeRecord, i: UeArrived | HandoverDone) -> Result:
    """LENDING or PARKED: the UE is here again, or at yet another cloudlet."""
    if i.cloudlet != r.here:
        return _lend(r, i)
    r = replace(r, ue_at=r.here, ue_ip=i.ue_ip or r.ue_ip, tunnels=i.tunnels, token=r.token + 1)
    return _serve(r, OffloadMoved)


def _park(r: UeRecord, i: Any) -> Result:
    """The PVM waits; what it sends leaves by the core, so that the S-GW pages."""
    r = replace(r, phase=Phase.PARKED, tunnels=NO_TUNNELS, ready=None, expected=None)
    return r, (SetPath(None, OffloadRemoved),)


def _go_idle(r: UeRecord, i: UeWentIdle) -> Result:
    r, commands = _not_coming(r, i)
    return replace(r, ue_at=None), commands


def _forget(r: UeRecord, i: UeLeft) -> Result:
    """Detached: neither rules nor PVM stay."""
    was_here = r.pvm_at == r.here
    gone = UeRecord(r.pvm, r.here, r.follow)
    if was_here:
        return gone, (SetPath(None, OffloadRemoved), StopPvm(r.pvm), Announce(PvmStopped, from_cloudlet=r.here))
    return gone, (SetPath(None, OffloadRemoved),) if r.phase is not Phase.AWAY else ()


# The source's part -----------------------------------------------------------------------------------------------


def _ready(r: UeRecord, i: DetourAsked) -> Result:
    """The target's rules stand. Flip now if the UE is there already, else when it is; once is enough."""
    awaited = r.phase is Phase.LENDING and r.ue_at == i.by and r.ready != i.by
    r = replace(r, ready=i.by)
    return _redirect(r) if awaited else (r, ())


def _refuse_detour(r: UeRecord, i: DetourAsked) -> Result:
    return r, (Refuse("the personal VM is not here"),)


def _push(r: UeRecord, i: MoveAsked) -> Result:
    if i.to != r.ue_at:
        return r, (Refuse("the UE is not there"),)
    r = replace(r, phase=Phase.PUSHING, moving_to=i.to)
    return r, (Announce(PvmMigrating, from_cloudlet=r.here, to_cloudlet=i.to), MigratePvm(r.pvm, i.to))


def _refuse_move(r: UeRecord, i: MoveAsked) -> Result:
    return r, (Refuse(f"not while {r.phase}"),)


def _halt(r: UeRecord, i: Halted) -> Result:
    """The switch-over: the target flips; what still reaches us for the PVM goes after it."""
    to = _known(r.moving_to)
    after = (_path(r, None, ue_at=r.ue_at, pvm_at=to),) if r.ue_at else ()
    return r, (TellHalted(to, i.at), *after)


def _pushed(r: UeRecord, i: MoveSucceeded) -> Result:
    told = TellMoved(_known(r.moving_to), i.total_ms)
    r = replace(r, phase=Phase.AWAY, pvm_at=r.moving_to, moving_to=None, ready=None, tunnels=NO_TUNNELS)
    return r, (told, SetPath(None, OffloadRemoved))


def _push_failed(r: UeRecord, i: MoveFailed) -> Result:
    """It runs here: the path comes back to it."""
    to = _known(r.moving_to)
    r, commands = _settle(replace(r, moving_to=None), OffloadMoved)
    failed = Announce(PvmMigrationFailed, from_cloudlet=r.here, to_cloudlet=to, reason=i.reason)
    return r, (*commands, TellStays(to, i.reason), failed)


def _moved_while_pushing(r: UeRecord, i: UeArrived | HandoverDone) -> Result:
    tunnels = i.tunnels if i.cloudlet == r.here else NO_TUNNELS
    r = replace(r, ue_at=i.cloudlet, ue_ip=i.ue_ip or r.ue_ip, tunnels=tunnels)
    reachable = i.cloudlet is not None and i.cloudlet in (r.here, r.ready)
    return r, (_path(r, OffloadMoved, ue_at=r.ue_at),) if reachable else ()


# The target's part -----------------------------------------------------------------------------------------------


def _pull(r: UeRecord, i: Dwelled) -> Result:
    if i.token != r.token:
        return r, ()
    r = replace(r, phase=Phase.PULLING, halted_at=None, landed_at=None)
    return r, (AskMove(_known(r.pvm_at)),)


def _pull_later(r: UeRecord, i: MoveRefused) -> Result:
    return replace(r, phase=Phase.DETOURED), (Wait(r.token, again=True),)


def _halted_there(r: UeRecord, i: HaltedThere) -> Result:
    """The path flips now; what comes before the guest runs waits in its tap."""
    return _flip(replace(r, phase=Phase.PULLING, halted_at=i.at), done=r.landed_at is not None)


def _landed(r: UeRecord, i: Landed) -> Result:
    """It runs here; where the source's word has not come, the path flips now."""
    return _flip(replace(r, phase=Phase.PULLING, landed_at=i.at), done=r.halted_at is not None)


def _flip(r: UeRecord, *, done: bool) -> Result:
    return r, () if done or r.ue_at != r.here else (_path(r, OffloadMoved, pvm_at=r.here),)


def _pulled(r: UeRecord, i: MovedHere) -> Result:
    downtime = (r.landed_at - r.halted_at) / 1e6 if r.landed_at and r.halted_at else None
    moved = Announce(PvmMigrated, r.pvm_at, r.here, downtime, i.total_ms)
    flipped = r.landed_at is not None or r.halted_at is not None
    r = replace(r, pvm_at=r.here, halted_at=None, landed_at=None)
    r, commands = _settle(r, None if flipped else OffloadMoved)
    return r, (*commands, moved)


def _pull_failed(r: UeRecord, i: StaysThere) -> Result:
    """The PVM is where it was, and so is the detour."""
    r = replace(r, phase=Phase.DETOURED, halted_at=None, landed_at=None)
    if r.ue_at != r.here:
        return _not_coming(r, i)
    return r, (_path(r, OffloadMoved), Wait(r.token, again=True))


def _pvm_elsewhere(r: UeRecord, i: PvmSeen) -> Result:
    """DETOURED: the PVM is at another cloudlet than we thought; the detour leads there."""
    if i.cloudlet is None:
        return _not_coming(replace(r, pvm_at=None), i)
    if i.cloudlet in (r.here, r.pvm_at):
        return replace(r, pvm_at=i.cloudlet), ()
    return _detour(replace(r, pvm_at=i.cloudlet))


def _pvm_seen(r: UeRecord, i: PvmSeen) -> Result:
    return replace(r, pvm_at=i.cloudlet), ()


def _known(cloudlet: CloudletId | None) -> CloudletId:
    """What the phase guarantees."""
    if cloudlet is None:
        raise ValueError("the phase says that this cloudlet is known")
    return cloudlet


def _path(
    r: UeRecord,
    announce: type[OffloadEvent] | None,
    *,
    ue_at: CloudletId | None = None,
    pvm_at: CloudletId | None = None,
) -> SetPath:
    """The path of a UE that is here (or at ``ue_at``) to its PVM."""
    if r.ue_ip is None:
        raise ValueError("a UE without address has no path")
    ue_at = ue_at or r.here
    pvm_at = pvm_at or r.pvm_at or r.here
    uplinks = r.tunnels.uplinks + (r.expected.uplinks if r.expected else ())
    path = PathSpec(r.ue_ip, r.pvm, pvm_at, ue_at, uplinks, r.tunnels.downlink)
    elsewhere = next((c for c in (pvm_at, ue_at) if c != r.here), None)
    return SetPath(path, announce, elsewhere or "local")


TRANSITIONS: Final[Mapping[tuple[Phase, type[Input]], Step]] = {
    (Phase.AWAY, UeArrived): _arrive,
    (Phase.AWAY, HandoverDone): _arrive,
    (Phase.AWAY, HandoverExpected): _expect,
    (Phase.AWAY, PvmSeen): _pvm_seen,
    (Phase.AWAY, UeLeft): _forget,
    (Phase.AWAY, DetourAsked): _refuse_detour,
    (Phase.AWAY, MoveAsked): _refuse_move,
    (Phase.STARTING, PvmRunning): _running,
    (Phase.STARTING, PvmRefused): _not_running,
    (Phase.STARTING, UeArrived): _note_place,
    (Phase.STARTING, HandoverDone): _note_place,
    (Phase.STARTING, UeWentIdle): _note_idle,
    (Phase.STARTING, DetourAsked): _ready,
    (Phase.STARTING, MoveAsked): _refuse_move,
    (Phase.STARTING, UeLeft): _forget,
    (Phase.SERVING, UeArrived): _leave,
    (Phase.SERVING, HandoverExpected): _expect_inside,
    (Phase.SERVING, HandoverDone): _leave,
    (Phase.SERVING, HandoverOff): _stay_inside,
    (Phase.SERVING, DetourAsked): _ready,
    (Phase.SERVING, MoveAsked): _refuse_move,
    (Phase.SERVING, UeWentIdle): _park,
    (Phase.SERVING, UeLeft): _forget,
    (Phase.PREPARED, HandoverExpected): _expect,
    (Phase.PREPARED, HandoverDone): _come,
    (Phase.PREPARED, HandoverOff): _not_coming,
    (Phase.PREPARED, PvmSeen): _pvm_elsewhere,
    (Phase.PREPARED, UeWentIdle): _not_coming,
    (Phase.PREPARED, UeLeft): _forget,
    (Phase.DETOURED, UeArrived): _come,
    (Phase.DETOURED, HandoverExpected): _expect_inside,
    (Phase.DETOURED, HandoverOff): _stay_inside,
    (Phase.DETOURED, HandoverDone): _come,
    (Phase.DETOURED, Dwelled): _pull,
    (Phase.DETOURED, HaltedThere): _halted_there,
    (Phase.DETOURED, Landed): _landed,
    (Phase.DETOURED, MovedHere): _pulled,
    (Phase.DETOURED, PvmSeen): _pvm_elsewhere,
    (Phase.DETOURED, UeWentIdle): _go_idle,
    (Phase.DETOURED, UeLeft): _forget,
    (Phase.PULLING, MoveRefused): _pull_later,
    (Phase.PULLING, HaltedThere): _halted_there,
    (Phase.PULLING, Landed): _landed,
    (Phase.PULLING, MovedHere): _pulled,
    (Phase.PULLING, StaysThere): _pull_failed,
    (Phase.PULLING, UeArrived): _note_place,
    (Phase.PULLING, HandoverDone): _note_place,
    (Phase.PULLING, UeWentIdle): _note_idle,
    (Phase.PULLING, DetourAsked): _ready,
    (Phase.PULLING, MoveAsked): _refuse_move,
    (Phase.LENDING, UeArrived): _come_back,
    (Phase.LENDING, HandoverExpected): _expect_back,
    (Phase.LENDING, HandoverDone): _come_back,
    (Phase.LENDING, HandoverOff): _stay_away,
    (Phase.LENDING, DetourAsked): _ready,
    (Phase.LENDING, MoveAsked): _push,
    (Phase.LENDING, UeWentIdle): _park,
    (Phase.LENDING, UeLeft): _forget,
    (Phase.PUSHING, Halted): _halt,
    (Phase.PUSHING, MoveSucceeded): _pushed,
    (Phase.PUSHING, MoveFailed): _push_failed,
    (Phase.PUSHING, UeArrived): _moved_while_pushing,
    (Phase.PUSHING, HandoverDone): _moved_while_pushing,
    (Phase.PUSHING, UeWentIdle): _note_idle,
    (Phase.PUSHING, DetourAsked): _ready,
    (Phase.PUSHING, MoveAsked): _refuse_move,
    (Phase.PARKED, UeArrived): _come_back,
    (Phase.PARKED, HandoverDone): _come_back,
    (Phase.PARKED, DetourAsked): _ready,
    (Phase.PARKED, MoveAsked): _refuse_move,
    (Phase.PARKED, UeLeft): _forget,
}
