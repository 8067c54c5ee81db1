"""What a controller learns about a UE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mobiscud.core.commands import Moment
from mobiscud.core.edge import DownlinkTunnel, UplinkTunnel
from mobiscud.core.ids import CloudletId
from mobiscud.core.ue import BearerContext


@dataclass(frozen=True, slots=True)
class Tunnels:
    """The UE's GTP-U tunnels at one eNodeB: all uplinks, and the downlink of its default bearer."""

    uplinks: tuple[UplinkTunnel, ...] = ()
    downlink: DownlinkTunnel | None = None

    @classmethod
    def of(cls, bearers: tuple[BearerContext, ...]) -> Tunnels:
        """Read the bearers of an event; one whose ends are not both known is passed over."""
        known = [(b.uplink, b.downlink) for b in bearers if b.uplink is not None and b.downlink is not None]
        uplinks = tuple(UplinkTunnel(down.address, up) for up, down in known)
        downlink = DownlinkTunnel(known[0][0].address, known[0][1], known[0][0].teid) if known else None
        return cls(uplinks, downlink)

    def uplinks_at(self, enbs: Iterable[str]) -> tuple[UplinkTunnel, ...]:
        """The uplinks as they would be at eNodeBs with these addresses: the S-GW's ends persist over a handover."""
        return tuple(UplinkTunnel(enb, uplink.sgw) for enb in enbs for uplink in self.uplinks)


# From the monitor ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UeArrived:
    """The UE is connected through an eNodeB of ``cloudlet`` (None: of no cloudlet).

    ``standby``: its uplinks as they would be at each eNodeB of ours.
    """

    cloudlet: CloudletId | None
    ue_ip: str | None
    tunnels: Tunnels
    standby: tuple[UplinkTunnel, ...] = ()


@dataclass(frozen=True, slots=True)
class HandoverExpected:
    """The target's tunnels are known; the UE may come to ``cloudlet``, or is being sent (``moment``)."""

    cloudlet: CloudletId | None
    ue_ip: str | None
    tunnels: Tunnels
    moment: Moment = Moment.PREPARED


@dataclass(frozen=True, slots=True)
class HandoverOrdered:
    """The UE has been told to go; the handover that was expected is being executed."""


@dataclass(frozen=True, slots=True)
class HandoverDone:
    """The UE is at ``cloudlet`` now; ``standby`` as in its arrival."""

    cloudlet: CloudletId | None
    ue_ip: str | None
    tunnels: Tunnels
    standby: tuple[UplinkTunnel, ...] = ()


@dataclass(frozen=True, slots=True)
class HandoverOff:
    """The handover that was expected does not come."""


@dataclass(frozen=True, slots=True)
class UeWentIdle:
    """The UE has no S1-U any more, but is registered."""


@dataclass(frozen=True, slots=True)
class UeLeft:
    """The UE is no longer registered."""


# From other controllers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PvmSeen:
    """The PVM runs in ``cloudlet``, says the controller there."""

    cloudlet: CloudletId
    epoch: int = 0
    """The ledger's; 0: not told."""


@dataclass(frozen=True, slots=True)
class PvmGone:
    """The PVM no longer runs in ``cloudlet``, or could not be started there."""

    cloudlet: CloudletId
    epoch: int = 0
    """The ledger's; 0: not told."""


@dataclass(frozen=True, slots=True)
class DetourAsked:
    """The rules of ``by`` stand: the UE's traffic may be sent there when the UE is."""

    by: CloudletId
    epoch: int = 0
    """What the asker knows of the ledger; 0: nothing."""


@dataclass(frozen=True, slots=True)
class DetourAwaited:
    """``of``, which has the PVM, has not granted the detour for some seconds: it is away, or refuses."""

    of: CloudletId


@dataclass(frozen=True, slots=True)
class DetourGranted:
    """``of`` has granted the detour after all."""

    of: CloudletId


@dataclass(frozen=True, slots=True)
class MoveAsked:
    """``to`` wants the PVM."""

    to: CloudletId
    epoch: int = 0
    """What the asker knows of the ledger; 0: nothing."""


@dataclass(frozen=True, slots=True)
class MoveRefused:
    """The cloudlet that has the PVM does not let it go now."""

    reason: str


@dataclass(frozen=True, slots=True)
class HaltedThere:
    """The guest has stopped at the source, ``at`` ns since 1970; it is about to run here."""

    at: int
    epoch: int = 0
    """The ledger's; 0: not told."""


@dataclass(frozen=True, slots=True)
class MovedHere:
    """The source has given the PVM away; it is ours, since ``epoch``. The migration took ``total_ms``."""

    total_ms: float
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class DoubtThere:
    """The migration from ``by`` to us has ended in doubt: until it is settled, no packet may reach a copy here."""

    by: CloudletId


@dataclass(frozen=True, slots=True)
class StaysThere:
    """The migration failed; the PVM is where it was."""

    reason: str
    epoch: int = 0
    """The ledger's since then; 0: not told."""


@dataclass(frozen=True, slots=True)
class PvmKept:
    """The PVM does not run, and goes on from ``cloudlet`` when its UE is back."""

    cloudlet: CloudletId
    epoch: int = 0
    """The ledger's; 0: not told."""


# From our own parts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PvmRunning:
    """The hypervisor has started the PVM; ``anew`` says why it boots although it was kept."""

    anew: str | None = None


@dataclass(frozen=True, slots=True)
class PvmRefused:
    """The hypervisor could not start the PVM."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halted:
    """The guest has stopped here, at the switch-over of its migration (``at``: ns since the epoch)."""

    at: int


@dataclass(frozen=True, slots=True)
class Landed:
    """The guest has begun to run here, at the switch-over of its migration (``at``: ns since the epoch)."""

    at: int


@dataclass(frozen=True, slots=True)
class MoveSucceeded:
    """The migration from here is over, the guest runs at the target."""

    total_ms: float


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """The migration from here failed, the guest runs here."""

    reason: str


@dataclass(frozen=True, slots=True)
class MoveInDoubt:
    """The migration from here failed, and the guest may run here, there, on both sides or nowhere."""

    reason: str


@dataclass(frozen=True, slots=True)
class MoveLost:
    """The migration from here failed, and no whole guest is left."""

    reason: str


@dataclass(frozen=True, slots=True)
class PvmCrashed:
    """The guest that ran here has ended, and nobody asked for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class MoveDue:
    """The policy, asked at ``token``, wants the PVM here now."""

    token: int


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Our own hypervisor cannot take the PVM."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotReady:
    """The cloudlet to which the UE went at ``token`` has had its time; whether its rules stand, the record tells."""

    token: int


@dataclass(frozen=True, slots=True)
class NoStragglers:
    """Nothing is on its way here any more for a UE that has left, since the arrival ``token``."""

    token: int


@dataclass(frozen=True, slots=True)
class StayedAway:
    """The UE has been idle or detached for as long as its PVM waits, since the arrival ``token``."""

    token: int


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """Other traffic of the UE is offloaded than before, or (not ``told``) the same under the name of other rules.

    It is the same in every phase, so the table has no row for it.
    """

    told: bool = True


Input = (
    UeArrived
    | HandoverExpected
    | HandoverOrdered
    | HandoverDone
    | HandoverOff
    | UeWentIdle
    | UeLeft
    | PvmSeen
    | PvmGone
    | PvmKept
    | DetourAsked
    | DetourAwaited
    | DetourGranted
    | MoveAsked
    | MoveRefused
    | HaltedThere
    | MovedHere
    | StaysThere
    | DoubtThere
    | PvmRunning
    | PvmRefused
    | Halted
    | Landed
    | MoveSucceeded
    | MoveFailed
    | MoveInDoubt
    | MoveLost
    | PvmCrashed
    | MoveDue
    | NoRoom
    | NotReady
    | NoStragglers
    | StayedAway
)
