"""S11: which subscriber has which addresses and S1-U tunnels, and when the last session ends."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from epc_monitor import gtpv2, values
from epc_monitor.frames import Packet
from epc_monitor.gtpv2 import GtpMessage, GtpType
from epc_monitor.ue_tracker.connections import Connections
from epc_monitor.ue_tracker.facts import Facts
from epc_monitor.ue_tracker.registry import Registry
from epc_monitor.ue_tracker.state import S11Tunnel, Ue
from mobiscud.core.ue import Pdn


class _Create(NamedTuple):
    """A Create Session Request of an MME that waits for its answer."""

    imsi: str
    apn: str | None
    mme: bytes
    session: S11Tunnel | None


class _Delete(NamedTuple):
    """A request to delete the PDN connection of a default bearer, or all of them (None)."""

    session: S11Tunnel
    ebi: int | None


class _Move(NamedTuple):
    """A request of an MME that takes a session over."""

    session: S11Tunnel
    mme: bytes


_Asked = _Create | _Delete | _Move


class Sessions:
    """Follows GTPv2-C between MMEs and S-GWs; what belongs to S5 has other F-TEIDs and falls through."""

    def __init__(self, registry: Registry, facts: Facts, connections: Connections) -> None:
        self._registry = registry
        self._facts = facts
        self._connections = connections
        self._waiting: OrderedDict[bytes, tuple[int, _Asked]] = OrderedDict()  # since when
        self._handlers: Mapping[int, Callable[[GtpMessage, Packet], None]] = {
            GtpType.CREATE_SESSION_REQUEST: self._create_request,
            GtpType.CREATE_SESSION_RESPONSE: self._create_response,
            GtpType.DELETE_SESSION_REQUEST: self._delete_session_request,
            GtpType.DELETE_SESSION_RESPONSE: self._delete_response,
            GtpType.DELETE_BEARER_REQUEST: self._delete_bearer_request,
            GtpType.DELETE_BEARER_RESPONSE: self._delete_response,
            GtpType.MODIFY_BEARER_REQUEST: self._modify_request,
            GtpType.MODIFY_BEARER_RESPONSE: self._modify_response,
            GtpType.CREATE_BEARER_REQUEST: self._create_bearer_request,
        }

    def follows(self, kind: int) -> bool:
        """Whether messages of this type tell us anything."""
        return kind in self._handlers

    def receive(self, message: GtpMessage, packet: Packet) -> None:
        """Take one message of a type that is followed, and the packet that has brought it."""
        self._handlers[message.type](message, packet)

    def _create_request(self, message: GtpMessage, packet: Packet) -> None:
        mme = message.f_teid(gtpv2.S11_MME)
        if mme is None or message.imsi is None:
            return
        session = self._registry.session(packet.destination, message.teid) if message.teid else None
        self._wait(packet, message, _Create(message.imsi, message.apn, mme.packed, session))

    def _create_response(self, message: GtpMessage, packet: Packet) -> None:
        asked = self._answered(packet, message)
        if not isinstance(asked, _Create) or message.cause not in gtpv2.ACCEPTED:
            return
        ue = self._registry.by_imsi(asked.imsi)
        session, known = asked.session, ue.pdns
        if session is None or session.ue is not ue:
            sgw = message.f_teid(gtpv2.S11_SGW)
            if sgw is None:
                return
            session = S11Tunnel(ue, asked.mme, values.address(packet.destination), sgw.packed)
            for before in ue.sessions:
                if before.sgw[:-4] == sgw.address:
                    self._registry.close_session(before)
            self._registry.open_session(session)
        default = next((bearer.ebi for bearer in message.bearers if bearer.ebi is not None), None)
        if default is not None:
            addresses = tuple(map(values.address, message.addresses))
            if not addresses:
                addresses = _addresses_of(known, default)
            pdn = Pdn(values.e_rab_id(default), asked.apn, addresses)
            session.pdns = _with(session.pdns, pdn)
        self._own_tunnels(ue, message)
        _tell_addresses(ue)
        self._connections.sessions_back(ue)

    def _create_bearer_request(self, message: GtpMessage, packet: Packet) -> None:
        session = self._registry.session(packet.destination, message.teid or 0)
        if session is not None:
            self._own_tunnels(session.ue, message)

    def _modify_request(self, message: GtpMessage, packet: Packet) -> None:
        session, mme = self._registry.session(packet.destination, message.teid or 0), message.f_teid(gtpv2.S11_MME)
        if session is not None and mme is not None and session.mme != mme.packed:
            self._wait(packet, message, _Move(session, mme.packed))

    def _modify_response(self, message: GtpMessage, packet: Packet) -> None:
        """The S-GW may give other tunnels; the MME that asked may be another one, after a handover or TAU."""
        asked = self._answered(packet, message)
        if message.cause not in gtpv2.ACCEPTED:
            return
        if isinstance(asked, _Move) and asked.session in asked.session.ue.sessions:
            self._registry.move_session(asked.session, asked.mme, values.address(packet.destination))
        session = self._registry.session(packet.destination, message.teid or 0)
        if session is not None:
            self._own_tunnels(session.ue, message)

    def _own_tunnels(self, ue: Ue, message: GtpMessage) -> None:
        for bearer in message.bearers:
            for f_teid in bearer.f_teids:
                if f_teid.interface == gtpv2.S1U_SGW:
                    self._registry.own_tunnel(ue, values.f_teid(f_teid.address, f_teid.teid))

    def _delete_session_request(self, message: GtpMessage, packet: Packet) -> None:
        session = self._registry.session(packet.destination, message.teid or 0)
        if session is not None and (
            values.address(packet.source) == session.mme_address or packet.source == session.mme[:-4]
        ):
            self._wait(packet, message, _Delete(session, message.ebi))

    def _delete_bearer_request(self, message: GtpMessage, packet: Packet) -> None:
        session = self._registry.session(packet.destination, message.teid or 0)
        if session is not None and message.ebi is not None:
            self._wait(packet, message, _Delete(session, message.ebi))

    def _delete_response(self, message: GtpMessage, packet: Packet) -> None:
        asked = self._answered(packet, message)
        if not isinstance(asked, _Delete):
            return
        if message.cause not in gtpv2.ACCEPTED and message.cause != gtpv2.CONTEXT_NOT_FOUND:
            return
        session, ue = asked.session, asked.session.ue
        if session not in ue.sessions:
            return
        if asked.ebi is None:
            session.pdns = ()
        else:
            session.pdns = _others(session.pdns, asked.ebi)
        if session.pdns:
            _tell_addresses(ue)
            return
        self._registry.close_session(session)
        if ue.sessions:
            _tell_addresses(ue)
        else:
            self._connections.sessions_gone(ue)

    def _wait(self, packet: Packet, message: GtpMessage, what: _Asked) -> None:
        key = packet.source + packet.destination + message.sequence.to_bytes(3, "big")
        self._waiting[key] = self._facts.at, what
        while len(self._waiting) > self._registry.limits.transactions:
            self._waiting.popitem(last=False)
            self._registry.evicted += 1

    def _answered(self, packet: Packet, message: GtpMessage) -> _Asked | None:
        """What a response answers; a request from long ago had the same number by chance."""
        key = packet.destination + packet.source + message.sequence.to_bytes(3, "big")
        since, asked = self._waiting.pop(key, (0, None))
        age_ns = self._registry.limits.transaction_age_s * 1_000_000_000
        return asked if abs(self._facts.at - since) <= age_ns else None


def _addresses_of(pdns: tuple[Pdn, ...], default: int) -> tuple[str, ...]:
    """Of a PDN connection that comes to another S-GW, which does not tell them anew (TS 29.274 7.2.2)."""
    return next((pdn.addresses for pdn in pdns if pdn.e_rab_id == default), ())


def _with(pdns: tuple[Pdn, ...], pdn: Pdn) -> tuple[Pdn, ...]:
    """The PDN connections, this one in the place of the one with the same default bearer, or after all."""
    if all(other.e_rab_id != pdn.e_rab_id for other in pdns):
        return (*pdns, pdn)
    return tuple(pdn if other.e_rab_id == pdn.e_rab_id else other for other in pdns)


def _others(pdns: tuple[Pdn, ...], default: int) -> tuple[Pdn, ...]:
    """The PDN connections without the one of this default bearer."""
    return tuple(pdn for pdn in pdns if pdn.e_rab_id != default)


def _tell_addresses(ue: Ue) -> None:
    """All addresses of a UE, those of its first PDN connection first."""
    sessions = ue.sessions
    ue.pdns = sessions[0].pdns if len(sessions) == 1 else tuple(pdn for session in sessions for pdn in session.pdns)
    ue.ue_ip = tuple(dict.fromkeys(address for pdn in ue.pdns for address in pdn.addresses))
