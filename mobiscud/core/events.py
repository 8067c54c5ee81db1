"""Events: facts, in the past tense, frozen.

``TYPE`` of each class is the CloudEvents type without the ``org.mobiscud.`` prefix; the fields are the ``data`` of
the public contract. ``at`` is the capture time of the message that completed the fact, in nanoseconds since the
epoch, UTC. ``origin`` is that message's place on the wire (for a controller's own events: a name unique to the
deed), equal for every observer, so that equal facts get equal event ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mobiscud.core.edge import Pvm
from mobiscud.core.ids import CloudletId, Ecgi, ERabId, FTeid, Imsi, Tai, UeKey
from mobiscud.core.ue import BearerContext, Cause, Enb, Forwarding, HandoverEnd, HandoverKind, Mme, Pdn
from mobiscud.core.usage import Carried


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    TYPE: ClassVar[str]
    at: int
    origin: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UeEvent(Event):
    """Something that happened to one UE. ``imsi`` leaves the process only with ``privacy: clear``."""

    ue: UeKey
    imsi: Imsi | None = None
    ue_ip: tuple[str, ...] = ()


# --- what the monitor sees ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EnbConnected(Event):
    """S1 Setup accepted. ``association``: the verification tags of the SCTP association, lowest first, in hex."""

    TYPE: ClassVar[str] = "enb.connected"
    enb: Enb
    tais: tuple[Tai, ...] = ()
    mme: Mme | None = None
    association: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnbDisconnected(Event):
    """The association was shut down, aborted, or reset whole."""

    TYPE: ClassVar[str] = "enb.disconnected"
    enb: Enb
    tais: tuple[Tai, ...] = ()
    mme: Mme | None = None
    association: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UePlacedEvent(UeEvent):
    """The UE is connected, here, with these bearers."""

    enb: Enb | None
    ecgi: Ecgi | None
    tai: Tai | None
    bearers: tuple[BearerContext, ...]
    pdns: tuple[Pdn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UeAttached(UePlacedEvent):
    """Initial Context Setup Response that completes an Attach."""

    TYPE: ClassVar[str] = "ue.attached"


@dataclass(frozen=True, slots=True, kw_only=True)
class UeConnected(UePlacedEvent):
    """Any other Initial Context Setup Response."""

    TYPE: ClassVar[str] = "ue.connected"


@dataclass(frozen=True, slots=True, kw_only=True)
class UeIdle(UeEvent):
    """The S1 connection of a connected UE is gone, the UE stays registered."""

    TYPE: ClassVar[str] = "ue.idle"
    enb: Enb | None
    cause: Cause | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UeDetached(UeEvent):
    """The UE is no longer registered."""

    TYPE: ClassVar[str] = "ue.detached"
    cause: Cause | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UeIdentified(UeEvent):
    """The IMSI behind a temporary key became known: what was ``previous_ue`` is ``ue``."""

    TYPE: ClassVar[str] = "ue.identified"
    previous_ue: UeKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingAreaUpdated(UeEvent):
    """Tracking Area Update accepted."""

    TYPE: ClassVar[str] = "tracking_area.updated"
    ecgi: Ecgi | None
    tai: Tai | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerEvent(UeEvent):
    """Something happened to these bearers of a UE."""

    bearers: tuple[BearerContext, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerEstablished(BearerEvent):
    """E-RAB Setup completed."""

    TYPE: ClassVar[str] = "bearer.established"


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerModified(BearerEvent):
    """E-RAB Modify, or Modification Indication, completed."""

    TYPE: ClassVar[str] = "bearer.modified"


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerReleased(BearerEvent):
    """E-RAB Release completed."""

    TYPE: ClassVar[str] = "bearer.released"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverEvent(UeEvent):
    """One step of a handover."""

    kind: HandoverKind
    source: HandoverEnd
    target: HandoverEnd
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverPreparing(HandoverEvent):
    """Handover Required."""

    TYPE: ClassVar[str] = "handover.preparing"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverPrepared(HandoverEvent):
    """The target's end points are known: Handover Request Acknowledge, or Path Switch Request."""

    TYPE: ClassVar[str] = "handover.prepared"
    enb: Enb | None
    bearers: tuple[BearerContext, ...]
    pdns: tuple[Pdn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverExecuting(HandoverEvent):
    """Handover Command."""

    TYPE: ClassVar[str] = "handover.executing"
    enb: Enb | None
    bearers: tuple[BearerContext, ...]
    forwarding: Forwarding


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverCompleted(HandoverEvent):
    """Handover Notify, or Path Switch Request Acknowledge: the UE is served by the target."""

    TYPE: ClassVar[str] = "handover.completed"
    enb: Enb | None
    ecgi: Ecgi | None
    tai: Tai | None
    bearers: tuple[BearerContext, ...]
    pdns: tuple[Pdn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverRejected(HandoverEvent):
    """Handover Preparation Failure, or Path Switch Request Failure."""

    TYPE: ClassVar[str] = "handover.rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverCancelled(HandoverEvent):
    """Handover Cancel."""

    TYPE: ClassVar[str] = "handover.cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorDesynchronised(Event):
    """A message that cannot follow from what was seen; ``ue`` where it is known."""

    TYPE: ClassVar[str] = "monitor.desynchronised"
    detail: str
    ue: UeKey | None = None
    imsi: Imsi | None = None
    ue_ip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Where:
    """Where something was lost. ``reason``: ``kernel``, ``tsn_gap``, ``spool`` or ``limit``."""

    interface: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorDropped(Event):
    """Something was lost on the way to us."""

    TYPE: ClassVar[str] = "monitor.dropped"
    count: int
    where: Where


# --- what the controllers did ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadEvent(UeEvent):
    """A controller's rules are confirmed by its switch. ``via``: ``local``, or the cloudlet the traffic crosses.

    ``reason``: why, where it is not the UE's doing.
    """

    cloudlet: CloudletId
    via: str
    rule_ids: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadPrepared(OffloadEvent):
    """The target's rules stand before the UE is there."""

    TYPE: ClassVar[str] = "offload.prepared"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadActivated(OffloadEvent):
    """The UE's chosen traffic goes to its personal VM."""

    TYPE: ClassVar[str] = "offload.activated"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadMoved(OffloadEvent):
    """The path changed: the downlink was flipped to the target, or the detour gave way to the local PVM."""

    TYPE: ClassVar[str] = "offload.moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadChanged(OffloadEvent):
    """Other traffic of the UE goes to its personal VM than before: the configuration was changed."""

    TYPE: ClassVar[str] = "offload.changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadRemoved(OffloadEvent):
    """No rule of this UE is left at this cloudlet."""

    TYPE: ClassVar[str] = "offload.removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmEvent(UeEvent):
    """Something happened to a personal VM. Times in milliseconds."""

    pvm: Pvm
    from_cloudlet: CloudletId | None = None
    to_cloudlet: CloudletId | None = None
    downtime_ms: float | None = None
    total_ms: float | None = None
    reason: str | None = None
    epoch: int | None = None
    """Counts the owners of the PVM: what tells of an older one is out of date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmStarted(PvmEvent):
    """The personal VM runs in ``to_cloudlet``; ``reason``: why one that was kept has begun anew."""

    TYPE: ClassVar[str] = "pvm.started"


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmMigrating(PvmEvent):
    """Live migration has begun."""

    TYPE: ClassVar[str] = "pvm.migrating"


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmMigrationProgress(PvmEvent):
    """How far a live migration is: the round over the guest's memory that it is in, and what that has moved so far."""

    iteration: int = 0
    bytes_moved: int = 0
    bytes_remaining: int = 0

    TYPE: ClassVar[str] = "pvm.migration_progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmMigrated(PvmEvent):
    """The personal VM runs in ``to_cloudlet``, and nowhere else. ``downtime_ms``: how long the guest stood still."""

    TYPE: ClassVar[str] = "pvm.migrated"


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmMigrationFailed(PvmEvent):
    """The personal VM stayed in ``from_cloudlet``; ``reason`` says why."""

    TYPE: ClassVar[str] = "pvm.migration_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmStopped(PvmEvent):
    """The personal VM no longer runs in ``from_cloudlet``; ``to_cloudlet``: where it is kept, and goes on from."""

    TYPE: ClassVar[str] = "pvm.stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadObserved(UeEvent):
    """With ``offload.mode: observe``: the event of type ``would`` would have been published; nothing was done."""

    TYPE: ClassVar[str] = "offload.observed"
    would: str
    cloudlet: CloudletId
    via: str
    rule_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PvmObserved(UeEvent):
    """The same of a personal VM."""

    TYPE: ClassVar[str] = "pvm.observed"
    would: str
    pvm: Pvm
    from_cloudlet: CloudletId | None = None
    to_cloudlet: CloudletId | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReported(UeEvent):
    """What bypassed the P-GW of one bearer under one rule at one cloudlet, from ``start`` to ``end`` (RFC 3339).

    It is cumulative: ``interim`` records of one ``record`` only grow, and the ``final`` one ends them; the last counts.
    ``bearer`` is the S-GW's end of the bearer; ``rule`` the traffic rule, None where the configuration has none.
    """

    TYPE: ClassVar[str] = "usage.reported"
    cloudlet: CloudletId
    record: str
    status: str
    rule: str | None
    bearer: FTeid
    e_rab_id: ERabId | None
    qci: int | None
    apn: str | None
    start: str
    end: str
    uplink: Carried
    downlink: Carried
