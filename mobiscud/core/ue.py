"""What signalling tells about a UE and the nodes that serve it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mobiscud.core.ids import Ecgi, EnbId, ERabId, FTeid, Gummei, Plmn, Tai


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
