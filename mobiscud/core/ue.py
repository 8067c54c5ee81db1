"""What signalling tells about a UE and the nodes that serve it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mobiscud.core.ids import Ecgi, EnbId, EnbUeS1apId, ERabId, FTeid, Gummei, Imsi, MmeUeS1apId, Plmn, Tai, UeKey


@dataclass(frozen=True, slots=True)
class Enb:
    """An eNodeB, as its S1 Setup and its association name it; ``enb_id`` is None where no S1 Setup was seen."""

    plmn: Plmn | None
    enb_id: EnbId | None
    address: str | None


@dataclass(frozen=True, slots=True)
class Mme:
    """The MME at the other end of an S1 association (S1 Setup Response)."""

    address: str | None
    name: str | None = None
    gummeis: tuple[Gummei, ...] = ()


@dataclass(frozen=True, slots=True)
class BearerContext:
    """One E-RAB on S1-U. ``uplink`` is the S-GW's end, ``downlink`` the eNodeB's; None while not known."""

    e_rab_id: ERabId
    qci: int | None = None
    uplink: FTeid | None = None
    downlink: FTeid | None = None


@dataclass(frozen=True, slots=True)
class Pdn:
    """A PDN connection: the E-RAB of its default bearer, its APN without the operator identifier, the UE's addresses.

    ``apn`` is in lower case (TS 23.003 9.1); None where it was not overheard.
    """

    e_rab_id: ERabId
    apn: str | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cause:
    """Why (TS 36.413 9.2.1.3): group ``radio_network``, ``transport``, ``nas``, ``protocol`` or ``misc``."""

    group: str
    value: int
    name: str


class HandoverKind(StrEnum):
    """Over the MME, or between the eNodeBs."""

    S1 = "s1"
    X2 = "x2"


@dataclass(frozen=True, slots=True)
class HandoverEnd:
    """Source or target of a handover; what is not known yet is None."""

    enb: Enb | None = None
    ecgi: Ecgi | None = None
    tai: Tai | None = None


@dataclass(frozen=True, slots=True)
class ForwardedBearer:
    """Where the source eNodeB forwards what it still holds for one E-RAB."""

    e_rab_id: ERabId
    downlink: FTeid | None = None
    uplink: FTeid | None = None


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Data forwarding of an S1 handover: ``direct`` over X2, ``indirect`` over the S-GW, or ``none``."""

    kind: str = "none"
    bearers: tuple[ForwardedBearer, ...] = ()


@dataclass(frozen=True, slots=True)
class SctpEnd:
    """One end of an SCTP association; ``tag`` is the verification tag of what it sends, in hex."""

    port: int
    addresses: tuple[str, ...]
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnbState:
    """An S1 association as a monitor knows it, called by its verification tags, lowest first, in hex."""

    association: str
    enb: Enb
    tais: tuple[Tai, ...] = ()
    mme: Mme | None = None
    enb_end: SctpEnd
    mme_end: SctpEnd


@dataclass(frozen=True, slots=True)
class S1Place:
    """Over which association a UE is, or was last, served; without ids when it has no S1 connection."""

    association: str
    mme_ue_s1ap_id: MmeUeS1apId | None = None
    enb_ue_s1ap_id: EnbUeS1apId | None = None


@dataclass(frozen=True, slots=True)
class S11Place:
    """The S11 tunnel of a UE."""

    mme: FTeid
    sgw: FTeid


@dataclass(frozen=True, slots=True, kw_only=True)
class UeState:
    """A UE as a monitor knows it: ``status`` is ``connected`` or ``idle``, ``enb`` the one that serves it, or did last.

    ``s1``, ``s11``, ``temporary`` (marks of temporary identities) and ``ciphering`` (the EEA in use) are there for a
    monitor that is started again.
    """

    ue: UeKey
    imsi: Imsi | None = None
    ue_ip: tuple[str, ...] = ()
    status: str
    enb: Enb | None = None
    ecgi: Ecgi | None = None
    tai: Tai | None = None
    bearers: tuple[BearerContext, ...] = ()
    pdns: tuple[Pdn, ...] = ()
    s1: S1Place | None = None
    s11: S11Place | None = None
    temporary: tuple[str, ...] = ()
    ciphering: int | None = None
