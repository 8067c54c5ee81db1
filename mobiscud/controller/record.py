"""What the controller of one cloudlet knows of one UE, and the path that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from mobiscud.controller.inputs import Tunnels
from mobiscud.core.commands import SetPath
from mobiscud.core.edge import PathSpec, Pvm, UplinkTunnel
from mobiscud.core.events import OffloadEvent
from mobiscud.core.ids import CloudletId
from mobiscud.core.ue import Pdn

NO_TUNNELS: Final = Tunnels()


class Phase(StrEnum):
    """What this cloudlet is to the UE."""

    AWAY = "away"  # neither the UE nor its PVM is here
    STARTING = "starting"  # its PVM is being started here
    SERVING = "serving"  # both are here
    PREPARED = "prepared"  # the UE may come, its PVM is elsewhere, our rules stand
    DETOURED = "detoured"  # the UE is here, its PVM elsewhere
    PULLING = "pulling"  # its PVM is on the way to us
    LENDING = "lending"  # the PVM is here, the UE at another cloudlet
    PUSHING = "pushing"  # the PVM is leaving for another cloudlet
    PARKED = "parked"  # the PVM is here, the UE idle or gone, or at a cell without cloudlet
    DORMANT = "dormant"  # the PVM does not run, but what it goes on from is here


@dataclass(frozen=True)  # without slots: see replace
class UeRecord:
    """What the controller of ``here`` knows of one UE."""

    pvm: Pvm
    here: CloudletId
    phase: Phase = Phase.AWAY
    registered: bool = False
    """Whether the UE is attached to the network."""
    ue_ip: str | None = None
    ue_at: CloudletId | None = None
    """The cloudlet of the eNodeB it is connected through; None: of none, or it is idle."""
    pvm_at: CloudletId | None = None
    tunnels: Tunnels = NO_TUNNELS
    """Those through an eNodeB of this cloudlet, current or expected."""
    expected: Tunnels | None = None
    """Those of a handover between two eNodeBs of this cloudlet, before it is done."""
    going_to: CloudletId | None = None
    """The cloudlet that a prepared handover leads to."""
    ready: tuple[CloudletId, ...] = ()
    """The cloudlets whose rules stand for the detour, the one heard last at the end."""
    moving_to: CloudletId | None = None
    halted_at: int | None = None
    landed_at: int | None = None
    ended: str | None = None
    """Why a guest that is on its way here, or was, does not run here: it may be ours already, and the last to know."""
    epoch: int = 0
    """Counts the owners of the PVM and the migrations that failed, as far as known here: rises when either ends.

    With ``pvm_at`` and ``moving_to`` it is the ledger's line; what is said of an earlier one means nothing.
    """
    doubtful: bool = False
    """Whether it is in doubt who has the PVM: until it is settled, no path leads to it."""
    token: int = 0
    """Counts the UE's arrivals, so that an old dwell timer means nothing."""
    lingers: bool = False
    """Whether the PVM outlasts its UE's absence for a while; else it stops at once at detach, never for idleness."""
    keeps: bool = False
    """Whether a stop here leaves something to go on from: memory, or a disk that no other host has."""
    no_room: str | None = None
    """Why our hypervisor does not take the PVM, as it was last told."""
    absent: bool = False
    """Whether the UE is idle or detached."""
    standby: tuple[UplinkTunnel, ...] = ()
    """Its uplinks as they would be at our eNodeBs. They stand before it comes: in X2 it sends before we hear of it."""
    silent: CloudletId | None = None
    """The cloudlet that has not granted us a detour for so long that what the UE sends is left to the core."""
    pdn: Pdn | None = None
    """The PDN connection whose traffic is offloaded, as far as it was heard of."""

    @property
    def coming(self) -> bool:
        """Whether the UE is elsewhere, and expected here."""
        return self.going_to == self.here != self.ue_at

    @property
    def flipped(self) -> bool:
        """Whether the guest of a migration to here has left its source."""
        return self.halted_at is not None or self.landed_at is not None

    @property
    def stands_by(self) -> bool:
        """Whether a UE at another cell finds its uplinks here if it comes."""
        return bool(self.standby) and None not in (self.ue_ip, self.pvm_at)


if TYPE_CHECKING:
    from dataclasses import replace as replace
else:

    def replace(r, /, **changes):
        """What ``dataclasses.replace`` does, for a ``UeRecord``, in a fifth of the time: a handover takes 25."""
        new = object.__new__(UeRecord)
        object.__setattr__(new, "__dict__", r.__dict__ | changes)
        return new


def set_path(
    r: UeRecord,
    announce: type[OffloadEvent] | None,
    *,
    ue_at: CloudletId | None = None,
    pvm_at: CloudletId | None = None,
    arriving_from: CloudletId | None = None,
) -> SetPath:
    """The path between a UE that is here (or at ``ue_at``) and its PVM.

    :raises ValueError: the UE has no address
    """
    if r.ue_ip is None:
        raise ValueError("a UE without address has no path")
    ue_at = ue_at or r.here
    pvm_at = pvm_at or r.pvm_at or r.here
    uplinks = r.tunnels.uplinks
    if r.expected is not None or r.standby:
        all_uplinks = (*uplinks, *(r.expected.uplinks if r.expected else ()), *r.standby)
        uplinks = tuple(dict.fromkeys(all_uplinks))
    if r.silent == pvm_at and ue_at == r.here:  # what comes from there still reaches the UE
        path = PathSpec(r.ue_ip, r.pvm, pvm_at, ue_at, (), r.tunnels.downlink, arriving_from=arriving_from)
        return SetPath(path, None, "core")
    path = PathSpec(r.ue_ip, r.pvm, pvm_at, ue_at, uplinks, r.tunnels.downlink, arriving_from=arriving_from)
    via = pvm_at if pvm_at != r.here else ue_at if ue_at != r.here else "local"
    return SetPath(path, announce, via)


def pulling_path(r: UeRecord, announce: type[OffloadEvent] | None) -> SetPath:
    """The path while the PVM is on its way to us. Until its guest has left the source, what goes to a UE that is
    expected here goes to it here, as in PREPARED: the source alone decides when that begins.
    """
    if r.flipped:
        if r.ue_at is None:
            return by_core(r, announce, pvm_at=r.here)
        return set_path(r, announce, ue_at=r.ue_at, pvm_at=r.here)
    return set_path(r, announce, ue_at=r.here if r.coming else r.ue_at, arriving_from=r.pvm_at)


def by_core(r: UeRecord, announce: type[OffloadEvent] | None, *, pvm_at: CloudletId | None = None) -> SetPath:
    """No cloudlet has the UE: it and its PVM (here, or at ``pvm_at``) reach each other through the core.

    The S-GW pages a UE that is idle; where it has no address yet there is nothing to reach.
    """
    if r.ue_ip is None:
        return SetPath(None, announce)
    return SetPath(PathSpec(r.ue_ip, r.pvm, pvm_at or r.pvm_at or r.here, None, r.standby), announce, "core")
