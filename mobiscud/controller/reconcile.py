"""After a restart: what follows from what was remembered and from what the hypervisor says. Pure.

The switch has kept what it held, so the paths that stood are asked for again first: nothing changes there, and the
adapter learns whose they are. What was under way is taken up where it can be, else begun again.
"""

from __future__ import annotations

from typing import Final

from mobiscud.controller.inputs import UeArrived, UeWentIdle
from mobiscud.controller.record import NO_TUNNELS, Phase, UeRecord, by_core, pulling_path, replace, set_path
from mobiscud.controller.roles.places import Result, consult, unsettle
from mobiscud.controller.roles.target import unpull
from mobiscud.core.commands import (
    Announce,
    AskDetour,
    AskMove,
    AwaitReturn,
    Command,
    Consult,
    ResumeMove,
    SetPath,
    SettleMove,
    StartPvm,
    StopPvm,
)
from mobiscud.core.events import OffloadActivated, OffloadChanged, PvmStopped


def standing_path(r: UeRecord) -> SetPath | None:
    """The path that the switch held for this record; None: none."""
    if r.doubtful:
        return None
    match r.phase:
        case Phase.SERVING | Phase.PREPARED | Phase.DETOURED:
            return set_path(r, None)
        case Phase.AWAY if r.stands_by:
            return set_path(r, None) if r.ue_at else by_core(r, None)
        case Phase.PULLING if r.ue_at is not None:
            return pulling_path(r, None)
        case Phase.PULLING if r.registered and r.flipped:
            return pulling_path(r, None)
        case Phase.LENDING | Phase.PUSHING if r.ue_at is not None:
            if r.ue_at not in r.ready and r.tunnels.downlink is None:
                return by_core(r, None)  # it came from where no cloudlet is, to one whose rules do not stand yet
            return set_path(r, None, ue_at=r.ue_at if r.ue_at in r.ready else None)
        case Phase.PUSHING if r.registered:
            return by_core(r, None)
        case Phase.PARKED if r.ue_ip is not None:
            return by_core(r, None)
        case _:
            return None


def resume(r: UeRecord, *, runs_here: bool) -> Result:
    """Go on from a remembered record. ``runs_here``: the hypervisor of this cloudlet has the PVM."""
    path = standing_path(r)
    again: tuple[Command, ...] = (path,) if path is not None else ()
    match r.phase:
        case Phase.STARTING:
            return r, (StartPvm(r.pvm),)
        case Phase.SERVING if not runs_here:
            lost = Announce(PvmStopped, from_cloudlet=r.here, to_cloudlet=r.here if r.keeps else None, reason="lost")
            return replace(r, phase=Phase.STARTING), (lost, StartPvm(r.pvm))
        case Phase.DORMANT if runs_here:  # it was stopped, or about to be
            return r, (StopPvm(r.pvm),)
        case Phase.AWAY if r.ue_at == r.here and r.pvm_at not in (None, r.here) and r.tunnels.downlink is not None:
            return unsettle(r, OffloadActivated)  # that it runs there may have been said while nobody heard
        case Phase.AWAY if runs_here and r.pvm_at is None:  # we died before it was stopped
            return r, (*again, StopPvm(r.pvm), Announce(PvmStopped, from_cloudlet=r.here))
        case Phase.LENDING | Phase.PARKED if not runs_here and r.keeps:
            kept = replace(r, phase=Phase.DORMANT, ready=(), tunnels=NO_TUNNELS, standby=())
            return kept, (Announce(PvmStopped, from_cloudlet=r.here, to_cloudlet=r.here, reason="lost"),)
        case Phase.LENDING | Phase.PARKED if not runs_here:
            gone = replace(r, phase=Phase.AWAY, pvm_at=None, ready=(), tunnels=NO_TUNNELS, standby=())
            return gone, (Announce(PvmStopped, from_cloudlet=r.here, reason="lost"),)
        case Phase.PARKED if r.absent and r.lingers:
            return r, (*again, AwaitReturn(r.token))
        case Phase.PUSHING:
            return r, (*again, ResumeMove(r.pvm))
        case Phase.PULLING if not runs_here:
            r, commands = unpull(r)
            return replace(r, ended="lost"), commands  # it may have come, and ended with its host, while we were away
        case Phase.PULLING if r.flipped and r.pvm_at is not None:  # its source may have told us in vain that it is ours
            return r, (*again, AskMove(r.pvm_at))
        case Phase.PREPARED | Phase.DETOURED if r.pvm_at is not None:
            follow = consult(r, again=True) if r.phase is Phase.DETOURED else ()
            return r, (*again, AskDetour(r.pvm_at), *follow)
        case _:
            return r, again


NEEDS_PATH: Final = SetPath | AskDetour | AskMove | Consult | SettleMove
"""What waits for the path before it: it tells, or leads to it, that the path stands."""


def redo(r: UeRecord, undone: tuple[Command, ...]) -> tuple[Command, ...]:
    """The switch failed an earlier step: what this record stands for, and what of ``undone`` is still wanted."""
    path = standing_path(r) or SetPath(None)
    wanted = tuple(command for command in undone if _still_wanted(r, command))
    if r.phase not in (Phase.PREPARED, Phase.DETOURED) or r.pvm_at is None:
        return path, *wanted
    return path, AskDetour(r.pvm_at), *wanted, *(consult(r, again=True) if r.phase is Phase.DETOURED else ())


def _still_wanted(r: UeRecord, command: Command) -> bool:
    """Whether a command that waited for a path has a meaning for the record as it is now."""
    match command:
        case Consult(token=token):
            return token == r.token and r.phase is Phase.PREPARED
        case AskMove(of) | AskDetour(of):
            return r.phase is Phase.PULLING and r.pvm_at == of
        case SettleMove():
            return r.phase is Phase.PUSHING and r.doubtful
        case SetPath():
            return False
        case _:
            return True


def repath(r: UeRecord, *, told: bool) -> Result:
    """Other traffic is offloaded than before: the path that stands is asked for again."""
    path = standing_path(r)
    return r, () if path is None else (SetPath(path.path, OffloadChanged if told else None, path.via),)


def already_known(r: UeRecord, place: UeArrived | UeWentIdle) -> bool:
    """Whether a retained state tells this record nothing new."""
    if isinstance(place, UeWentIdle):
        return r.ue_at is None
    if not r.registered or r.ue_at != place.cloudlet:
        return False
    return place.cloudlet != r.here or r.tunnels == place.tunnels or r.phase is Phase.STARTING
