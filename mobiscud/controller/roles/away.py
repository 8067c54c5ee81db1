"""Neither the UE nor its PVM is here: we note where they are, and a UE that comes is served."""

from __future__ import annotations

from typing import Final

from mobiscud.controller.inputs import (
    DetourAsked,
    HandoverDone,
    HandoverExpected,
    Landed,
    MoveAsked,
    MovedHere,
    NoStragglers,
    PvmGone,
    PvmKept,
    PvmSeen,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.record import Phase, UeRecord, replace
from mobiscud.controller.roles.places import Arrival, Result, Rows, placed, stand_by, started_elsewhere, unsettle
from mobiscud.controller.roles.shared import forget, go_idle, point_to, refuse_detour
from mobiscud.controller.roles.target import expect, pulled
from mobiscud.core.commands import Announce, StartPvm
from mobiscud.core.events import OffloadActivated, PvmStopped


def _arrive(r: UeRecord, i: Arrival) -> Result:
    """AWAY: the UE is connected, here or elsewhere."""
    stood_by = r.standby
    r = placed(r, i)
    if r.ue_at != r.here:
        return stand_by(r, None) if stood_by or r.standby else (r, ())
    if r.ue_ip is None or r.tunnels.downlink is None:
        return r, ()
    if r.pvm_at == r.here:
        return replace(r, phase=Phase.STARTING), (StartPvm(r.pvm),)
    return unsettle(r, OffloadActivated)


def _pvm_seen(r: UeRecord, i: PvmSeen) -> Result:
    """AWAY: a UE that is here, and had to do without it, reaches it over the inter-cloudlet link."""
    if r.ue_at == r.here != i.cloudlet and r.ue_ip is not None and r.tunnels.downlink is not None:
        return unsettle(replace(r, pvm_at=i.cloudlet), OffloadActivated)
    return _note_pvm(r, i)


def _refuse_detour(r: UeRecord, i: DetourAsked) -> Result:
    """AWAY: who takes the PVM to be here, by the epoch in which it ended here, was not told so: a kill cut that short.

    By that epoch it is not one that has passed to the asker, who has not heard that.
    """
    ended = r.pvm_at in (None, i.by) and i.epoch == r.epoch > 0
    r, commands = refuse_detour(r, i)
    return r, (Announce(PvmStopped, from_cloudlet=r.here), *commands) if ended else commands


def _note_pvm(r: UeRecord, i: PvmSeen | PvmKept) -> Result:
    r, known = replace(r, pvm_at=i.cloudlet), r.pvm_at
    return stand_by(r, None) if r.standby and known != r.pvm_at else (r, ())


def _pvm_gone(r: UeRecord, i: PvmGone) -> Result:
    if i.cloudlet != r.pvm_at:
        return r, ()
    r = replace(r, pvm_at=started_elsewhere(r, i))
    return stand_by(r, None) if r.standby else (r, ())


def _landed(r: UeRecord, i: Landed) -> Result:
    """AWAY: a guest that was taken for lost after a restart, and has only now come."""
    return replace(r, ended=None), ()


def _none_late(r: UeRecord, i: NoStragglers) -> Result:
    return stand_by(r, None) if i.token == r.token and r.standby else (r, ())


AWAY: Final[Rows] = {
    UeArrived: _arrive,
    HandoverDone: _arrive,
    HandoverExpected: expect,
    UeWentIdle: go_idle,
    UeLeft: forget,
    PvmSeen: _pvm_seen,
    PvmGone: _pvm_gone,
    PvmKept: _note_pvm,
    Landed: _landed,
    MovedHere: pulled,
    NoStragglers: _none_late,
    DetourAsked: _refuse_detour,
    MoveAsked: point_to,
}
