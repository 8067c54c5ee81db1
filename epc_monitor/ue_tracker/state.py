"""What the tracker remembers: MMEs, S1 associations, UEs, their legs (S1 connections), handovers and S11 tunnels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from epc_monitor import values
from epc_monitor.s1ap.erabs import ERabAdmitted, ERabEnd, ERabModify, ERabSetup
from epc_monitor.s1ap.message import S1apMessage
from epc_monitor.sctp import Association
from mobiscud.core.ids import Ecgi, FTeid, Imsi, Tai, UeKey
from mobiscud.core.ue import BearerContext, Cause, Enb, HandoverEnd, HandoverKind, Mme, Pdn

MOST_BEARERS: Final = 256
"""E-RABs of one UE (TS 36.413 9.3.7, maxnoofE-RABs)."""

NOTHING: Final[Mapping[int, Any]] = MappingProxyType({})
"""What most legs have under way. There are many legs, so they share it."""


class Leg(StrEnum):
    """Where an S1 connection is in its life."""

    OVERHEARD = "overheard"  # there before us: any message may follow
    OPEN = "open"  # signalling only
    SETTING_UP = "setting up"  # Initial Context Setup is under way
    CONNECTED = "connected"  # it has bearers
    PREPARING = "preparing"  # source of an S1 handover that was asked for
    LEAVING = "leaving"  # source of an S1 handover that was commanded
    CANCELLING = "cancelling"  # source of an S1 handover that is taken back
    ADMITTING = "admitting"  # target of an S1 handover that was asked for
    ADMITTED = "admitted"  # target of an S1 handover with resources
    ARRIVING = "arriving"  # target of an X2 handover, before the MME has agreed
    RELEASING = "releasing"


class MmeNode:
    """One MME, at any of its addresses. ``connections``: by MME UE S1AP ID; ``s_tmsis``: by MME code and M-TMSI."""

    __slots__ = ("addresses", "associations", "connections", "gummeis", "mme", "s_tmsis")

    def __init__(self, address: bytes) -> None:
        self.addresses = {address}
        self.mme = Mme(values.address(address))
        self.associations: dict[S1Association, None] = {}
        self.connections: dict[int, S1Connection] = {}
        self.gummeis: tuple[bytes, ...] = ()
        self.s_tmsis: dict[bytes, Ue] = {}


class S1Association:
    """An SCTP association between an eNodeB and an MME. ``connections``: by eNB UE S1AP ID.

    ``complete``: its S1 Setup was seen, so that nothing about it should be new to us.
    """

    __slots__ = (
        "asked",
        "complete",
        "connections",
        "enb",
        "enb_sender",
        "mme",
        "name",
        "resetting",
        "sctp",
        "tais",
    )

    def __init__(self, sctp: Association, enb_sender: int, mme: MmeNode) -> None:
        self.sctp = sctp
        self.enb_sender = enb_sender
        self.mme = mme
        self.enb: Enb = values.enb(None, sctp.ends[enb_sender].addresses[0])
        self.name = ""  # its verification tags, once the eNodeB is known
        self.tais: tuple[Tai, ...] = ()
        self.asked: S1apMessage | None = None  # S1 Setup Request, or a configuration update, without its answer
        self.resetting: S1apMessage | None = None
        self.complete = False
        self.connections: dict[int, S1Connection] = {}


class Ue:
    """One UE. ``registered`` is None while we cannot know; ``connected``: it was said to be, and not yet to be idle.

    ``bearers`` are ordered by E-RAB, and outlive the connection without their downlink. ``ciphering`` is the EEA in
    use, None while not known.

    There are very many UEs: what most of them have none or one of is a tuple, which costs a quarter of a dict.
    """

    __slots__ = (
        "bearers",
        "ciphering",
        "connected",
        "connection",
        "imsi",
        "key",
        "last",
        "legs",
        "named",
        "pdns",
        "place",
        "registered",
        "s_tmsis",
        "seen",
        "sessions",
        "sessions_gone",
        "tunnels",
        "ue_ip",
    )

    def __init__(self, key: UeKey, imsi: Imsi | None = None) -> None:
        self.key = key
        self.imsi = imsi
        self.seen = 0  # when it was last heard of, roughly
        self.named = False  # an event has told this key to the world
        self.place: str | None = None  # the address of the eNodeB where the world believes it to be
        self.ue_ip: tuple[str, ...] = ()
        self.pdns: tuple[Pdn, ...] = ()
        self.bearers: tuple[BearerContext, ...] = ()
        self.connection: S1Connection | None = None  # the one that serves it
        self.last: S1Association | None = None  # over which it was last served
        self.legs: dict[S1Connection, None] = {}  # all of them
        self.connected = False
        self.registered: bool | None = None
        self.ciphering: int | None = None
        self.sessions: tuple[S11Tunnel, ...] = ()
        self.sessions_gone: tuple[int, bytes] | None = None  # when and where, while a new attach may bring them back
        self.tunnels: tuple[FTeid, ...] = ()  # the S-GW's ends, the oldest first
        self.s_tmsis: tuple[tuple[MmeNode, bytes], ...] = ()  # the last two, the older first


class S1Connection:
    """One UE-associated logical S1 connection: a leg. The MME's id is not known before its first answer."""

    __slots__ = (
        "association",
        "attaching",
        "cs_detaching",
        "detaching",
        "ecgi",
        "enb_ue_s1ap_id",
        "handover",
        "imsi_told",
        "mme_ue_s1ap_id",
        "modifying",
        "moving",
        "release_cause",
        "s_tmsi",
        "setting_up",
        "state",
        "tai",
        "ue",
        "updated",
    )

    def __init__(self, association: S1Association, ue: Ue, state: Leg) -> None:
        self.association = association
        self.ue = ue
        self.state = state
        self.mme_ue_s1ap_id: int | None = None
        self.enb_ue_s1ap_id: int | None = None
        self.ecgi: Ecgi | None = None
        self.tai: Tai | None = None
        self.s_tmsi: bytes | None = None
        self.imsi_told = False  # the UE itself has told its IMSI here
        self.attaching = False
        self.detaching = False
        self.cs_detaching = False  # from circuit-switched services alone
        self.updated = False  # the TAU under way was accepted
        self.handover: Handover | None = None
        self.setting_up: Mapping[int, ERabSetup] = NOTHING
        self.modifying: Mapping[int, ERabModify] = NOTHING
        self.moving: Mapping[int, ERabEnd] = NOTHING
        self.release_cause: Cause | None = None

    @property
    def end(self) -> HandoverEnd:
        """This leg as source or target of a handover."""
        return HandoverEnd(self.association.enb, self.ecgi, self.tai)

    @property
    def ids(self) -> bytes:
        """What tells this leg from others of its association, the same to everyone who sees it."""
        return b"".join(
            b"\xff" if number is None else number.to_bytes(4, "big")
            for number in (self.mme_ue_s1ap_id, self.enb_ue_s1ap_id)
        )


class Handover:
    """A handover under way. ``admitted``: what the target has answered, E-RAB by E-RAB."""

    __slots__ = ("admitted", "bearers", "kind", "source", "source_end", "target", "target_end")

    def __init__(self, kind: HandoverKind, source: S1Connection | None, target_end: HandoverEnd) -> None:
        self.kind = kind
        self.source = source
        self.source_end = HandoverEnd() if source is None else source.end
        self.target: S1Connection | None = None
        self.target_end = target_end
        self.bearers: tuple[BearerContext, ...] = ()
        self.admitted: dict[int, ERabAdmitted] = {}


class S11Tunnel:
    """The S11 tunnel of one UE: the F-TEIDs of MME and S-GW, each an address and 4 octets of TEID.

    ``mme_address`` is the one from which the MME has spoken.
    """

    __slots__ = ("mme", "mme_address", "pdns", "sgw", "ue")

    def __init__(self, ue: Ue, mme: bytes, mme_address: str, sgw: bytes) -> None:
        self.ue = ue
        self.mme = mme
        self.mme_address = mme_address
        self.sgw = sgw
        self.pdns: tuple[Pdn, ...] = ()


def by_number(bearers: Iterable[BearerContext]) -> dict[int, BearerContext]:
    return {bearer.e_rab_id: bearer for bearer in bearers}


def ordered(bearers: Iterable[BearerContext]) -> tuple[BearerContext, ...]:
    """Bearers as the contract wants them; as many as there can be."""
    found = tuple(bearers)
    return found if len(found) < 2 else tuple(sorted(found, key=attrgetter("e_rab_id"))[:MOST_BEARERS])


def changed(bearers: Iterable[BearerContext], found: Iterable[BearerContext]) -> tuple[BearerContext, ...]:
    """The bearers, those found in the place of those they had been, or beside them."""
    return ordered({**by_number(bearers), **by_number(found)}.values())


def joined(
    ends: Iterable[ERabEnd | ERabAdmitted], setups: Mapping[int, ERabSetup], known: Iterable[BearerContext]
) -> tuple[BearerContext, ...]:
    """Bearers from the eNodeB's ends and the request that asked for them; what it did not tell, from what is known."""
    found: dict[int, BearerContext] = {}
    earlier = by_number(known)
    for end in ends:
        number = end.e_rab_id
        setup, before = setups.get(number), earlier.get(number)
        qci: int | None = None
        uplink: FTeid | None = None
        if setup is not None:
            qci, uplink = setup.qci, values.tunnel(setup.tunnel)
        elif before is not None:
            qci, uplink = before.qci, before.uplink
        found[number] = BearerContext(values.e_rab_id(number), qci, uplink, values.tunnel(end.tunnel))
    return ordered(found.values())
