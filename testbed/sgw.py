"""The control plane of the emulated S-GW and P-GW: sessions by GTPv2-C on S11, addresses and tunnels behind it.

S5-C is a call inside the process; S5-U is real. What Open5GS shows is copied: the S-GW's F-TEIDs persist from Create
to Delete Session, and Modify Bearer Response echoes the F-TEID of the eNodeB.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import FTeid, Teid
from testbed import tft
from testbed.gateway_user_plane import PgwUserPlane, Session, SgwUserPlane
from testbed.gtpu_socket import GTPU_PORT
from testbed.gtpv2_build import (
    CAUSE_CONTEXT_NOT_FOUND,
    GTPC_PORT,
    Gtpv2Message,
    Ie,
    IeType,
    Interface,
    MessageType,
    bearer_context,
    cause,
    decode,
    decode_ies,
    dedicated_bearer_qos,
    ebi,
    encode,
    f_teid,
    f_teid_of,
    find,
    pdn_address,
)
from testbed.lte_config import PgwConfig, SgwConfig
from testbed.nas_build import DEFAULT_BEARER


@dataclass(slots=True)
class _SgwContext:
    """One PDN connection."""

    own_teid: int
    mme: FTeid
    ue_address: ipaddress.IPv4Address
    user_plane: Session
    dedicated: dict[int, Session] = field(default_factory=dict)
    """By EPS bearer identity."""
    forwarding_teid: int | None = None
    """Of the indirect tunnel during a handover."""


class AddressPool:
    """The addresses of the UEs, which the P-GW gives out, whichever S-GW asks."""

    def __init__(self, pool: ipaddress.IPv4Network) -> None:
        self._fresh = _addresses(pool)
        self._returned: deque[ipaddress.IPv4Address] = deque()

    def take(self) -> ipaddress.IPv4Address:
        """A fresh address while there are any, so that a new attach is seen to change it.

        :raises DecodeError: when none is left
        """
        fresh = next(self._fresh, None)
        if fresh is not None:
            return fresh
        if not self._returned:
            raise DecodeError("the address pool is exhausted")
        return self._returned.popleft()

    def give_back(self, address: ipaddress.IPv4Address) -> None:
        """Take an address back."""
        self._returned.append(address)


class Gateways:
    """An S-GW, and the P-GW, which it may share with others. Owns the S11 socket of the S-GW side; the user planes and
    the addresses are only borrowed."""

    def __init__(
        self,
        sgw: SgwConfig,
        pgw: PgwConfig,
        s11: socket.socket,
        sgw_user: SgwUserPlane,
        pgw_user: PgwUserPlane,
        pool: AddressPool,
    ) -> None:
        self._sgw = sgw
        self._pgw = pgw
        self._s11 = s11
        self._sgw_user = sgw_user
        self._pgw_user = pgw_user
        self._contexts: dict[int, _SgwContext] = {}
        self._pool = pool
        self._asked: dict[int, Session] = {}
        """Dedicated bearers that the MME has not answered for yet, by our own TEID."""
        self._notification = 0
        sgw_user.on_data_for_idle = self._notify_downlink_data
        asyncio.get_running_loop().add_reader(s11, self._readable)

    def close(self) -> None:
        """Close the S11 socket."""
        asyncio.get_running_loop().remove_reader(self._s11)
        self._s11.close()

    def _readable(self) -> None:
        try:
            datagram, sender = self._s11.recvfrom(65_535)
        except (BlockingIOError, ConnectionError):
            return
        try:
            request = decode(datagram)
            answer = self._answer(request)
        except DecodeError:
            return
        if answer is not None:
            self._s11.sendto(encode(answer), sender)

    def _answer(self, request: Gtpv2Message) -> Gtpv2Message | None:
        if request.type is MessageType.CREATE_SESSION_REQUEST:
            return self._create(request)
        if request.type is MessageType.DOWNLINK_DATA_NOTIFICATION_ACK:
            return None
        context = self._contexts.get(request.teid)
        if context is None:
            refusal = (cause(CAUSE_CONTEXT_NOT_FOUND),)
            return Gtpv2Message(MessageType(request.type + 1), 0, request.sequence, refusal)
        match request.type:
            case MessageType.MODIFY_BEARER_REQUEST:
                ies = self._modify(context, request)
            case MessageType.BEARER_RESOURCE_COMMAND | MessageType.DELETE_BEARER_COMMAND:
                return self._change_bearers(context, request)
            case MessageType.CREATE_BEARER_RESPONSE:
                self._point_dedicated(context, request)
                return None
            case MessageType.DELETE_BEARER_RESPONSE:
                return None
            case MessageType.RELEASE_ACCESS_BEARERS_REQUEST:
                for session in (context.user_plane, *context.dedicated.values()):
                    self._sgw_user.release(session)
                ies = (cause(),)
            case MessageType.CREATE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST:
                ies = self._forward(context, request)
            case MessageType.DELETE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST:
                self._stop_forwarding(context)
                ies = (cause(),)
            case MessageType.DELETE_SESSION_REQUEST:
                self._delete(context, detached=any(ie.type is IeType.INDICATION for ie in request.ies))
                ies = (cause(),)
            case _:
                return None
        return Gtpv2Message(MessageType(request.type + 1), context.mme.teid, request.sequence, ies)

    def _create(self, request: Gtpv2Message) -> Gtpv2Message:
        mme = f_teid_of(request.find(IeType.F_TEID))
        if any(ie.type is IeType.INDICATION for ie in request.ies):
            return self._take_over(request, mme)
        ue_address = self._pool.take()
        pgw_teid = _new_teid()
        pgw_end = (str(self._pgw.s5_address), GTPU_PORT)
        session = Session(s1u_teid=_new_teid(), s5u_teid=_new_teid(), pgw=pgw_end, pgw_teid=pgw_teid)
        context = _SgwContext(_new_teid(), mme, ue_address, session)
        self._contexts[context.own_teid] = context
        self._sgw_user.add(session)
        self._pgw_user.add(ue_address.packed, pgw_teid, (str(self._sgw.s5_address), GTPU_PORT), session.s5u_teid)
        s11 = FTeid(str(self._sgw.s11_address), Teid(context.own_teid))
        s1u = FTeid(str(self._sgw.s1u_address), Teid(session.s1u_teid))
        s5u = FTeid(str(self._pgw.s5_address), Teid(pgw_teid))
        ies = (
            cause(),
            f_teid(Interface.S11_SGW, s11),
            f_teid(Interface.S5C_PGW, s5u, instance=1),
            pdn_address(str(ue_address)),
            Ie(IeType.APN_RESTRICTION, b"\0"),
            bearer_context(
                ebi(DEFAULT_BEARER),
                cause(),
                f_teid(Interface.S1U_SGW, s1u),
                f_teid(Interface.S5U_PGW, s5u, instance=2),
            ),
        )
        return Gtpv2Message(MessageType.CREATE_SESSION_RESPONSE, mme.teid, request.sequence, ies)

    def _take_over(self, request: Gtpv2Message, mme: FTeid) -> Gtpv2Message:
        """Take a session over from another S-GW: the P-GW turns to us at once, the eNodeB is known already."""
        (bearer,) = request.bearers()
        pgw = f_teid_of(find(bearer, IeType.F_TEID, 3))
        session = Session(_new_teid(), _new_teid(), (pgw.address, GTPU_PORT), pgw.teid)
        ue_address = self._pgw_user.turn(pgw.teid, (str(self._sgw.s5_address), GTPU_PORT), session.s5u_teid)
        if ue_address is None:
            refusal = (cause(CAUSE_CONTEXT_NOT_FOUND),)
            return Gtpv2Message(MessageType.CREATE_SESSION_RESPONSE, mme.teid, request.sequence, refusal)
        context = _SgwContext(_new_teid(), mme, ipaddress.IPv4Address(ue_address), session)
        self._contexts[context.own_teid] = context
        self._sgw_user.add(session)
        self._sgw_user.point_to(session, f_teid_of(find(bearer, IeType.F_TEID)))
        s11 = FTeid(str(self._sgw.s11_address), Teid(context.own_teid))
        s1u = FTeid(str(self._sgw.s1u_address), Teid(session.s1u_teid))
        ies = (
            cause(),
            f_teid(Interface.S11_SGW, s11),
            bearer_context(ebi(DEFAULT_BEARER), cause(), f_teid(Interface.S1U_SGW, s1u)),
        )
        return Gtpv2Message(MessageType.CREATE_SESSION_RESPONSE, mme.teid, request.sequence, ies)

    def _modify(self, context: _SgwContext, request: Gtpv2Message) -> tuple[Ie, ...]:
        answers = []
        for bearer in request.bearers():
            number = find(bearer, IeType.EBI)[0]
            session = context.user_plane if number == DEFAULT_BEARER else context.dedicated.get(number)
            if session is None:
                continue
            enb = f_teid_of(find(bearer, IeType.F_TEID))
            self._sgw_user.point_to(session, enb)
            answers.append(bearer_context(ebi(number), f_teid(Interface.S1U_ENB, enb), cause()))
        return (cause(), *answers)

    def _change_bearers(self, context: _SgwContext, command: Gtpv2Message) -> Gtpv2Message:
        """The P-GW grants what the UE asks for: a dedicated bearer, or the end of some (TS 23.401 5.4.5, 5.4.4.2)."""
        ended = [ie.value[0] for ie in command.ies if ie.type is IeType.EBI and ie.instance == 1]
        ended += [find(bearer, IeType.EBI)[0] for bearer in command.bearers()]
        if ended:
            for number in ended:
                if (session := context.dedicated.pop(number, None)) is not None:
                    self._close(context, session)
            ies = tuple(Ie(IeType.EBI, bytes((number,)), 1) for number in ended)
            return Gtpv2Message(MessageType.DELETE_BEARER_REQUEST, context.mme.teid, command.sequence, ies)
        session = Session(_new_teid(), _new_teid(), context.user_plane.pgw, _new_teid())
        self._sgw_user.add(session)
        sgw = (str(self._sgw.s5_address), GTPU_PORT)
        traffic = tft.decode(command.find(IeType.TAD))
        self._pgw_user.add(context.ue_address.packed, session.pgw_teid, sgw, session.s5u_teid, traffic)
        self._asked[session.s1u_teid] = session
        bearer = bearer_context(
            ebi(0),
            Ie(IeType.BEARER_TFT, command.find(IeType.TAD)),
            f_teid(Interface.S1U_SGW, FTeid(str(self._sgw.s1u_address), Teid(session.s1u_teid))),
            f_teid(Interface.S5U_PGW, FTeid(str(self._pgw.s5_address), Teid(session.pgw_teid)), instance=1),
            dedicated_bearer_qos(command.find(IeType.FLOW_QOS)[0]),
        )
        ies = (Ie(IeType.PTI, command.find(IeType.PTI)), ebi(DEFAULT_BEARER), bearer)
        return Gtpv2Message(MessageType.CREATE_BEARER_REQUEST, context.mme.teid, command.sequence, ies)

    def _point_dedicated(self, context: _SgwContext, response: Gtpv2Message) -> None:
        """The MME has given the dedicated bearer its identity, and tells the eNodeB's end."""
        (bearer,) = response.bearers()
        own = f_teid_of(find(bearer, IeType.F_TEID, 1))
        if (session := self._asked.pop(own.teid, None)) is not None:
            context.dedicated[find(bearer, IeType.EBI)[0]] = session
            self._sgw_user.point_to(session, f_teid_of(find(bearer, IeType.F_TEID)))

    def _forward(self, context: _SgwContext, request: Gtpv2Message) -> tuple[Ie, ...]:
        """Open an indirect tunnel towards the target's F-TEID (TS 29.274 7.2.18, 7.2.19)."""
        self._stop_forwarding(context)
        bearer = decode_ies(request.find(IeType.BEARER_CONTEXT))
        context.forwarding_teid = _new_teid()
        self._sgw_user.forward(context.forwarding_teid, f_teid_of(find(bearer, IeType.F_TEID)))
        end = FTeid(str(self._sgw.s1u_address), Teid(context.forwarding_teid))
        return (cause(), bearer_context(ebi(DEFAULT_BEARER), cause(), f_teid(Interface.SGW_DOWNLINK_FORWARDING, end)))

    def _stop_forwarding(self, context: _SgwContext) -> None:
        if context.forwarding_teid is not None:
            self._sgw_user.stop_forwarding(context.forwarding_teid)
            context.forwarding_teid = None

    def _delete(self, context: _SgwContext, *, detached: bool) -> None:
        """``detached``: the P-GW's part ends too; else another S-GW has the session (TS 29.274 7.2.9.1, OI)."""
        self._stop_forwarding(context)
        del self._contexts[context.own_teid]
        for session in (context.user_plane, *context.dedicated.values()):
            self._sgw_user.remove(session)
            if detached:
                self._pgw_user.remove(context.ue_address.packed, session.pgw_teid)
        if detached:
            self._pool.give_back(context.ue_address)

    def _close(self, context: _SgwContext, session: Session) -> None:
        self._sgw_user.remove(session)
        self._pgw_user.remove(context.ue_address.packed, session.pgw_teid)

    def _notify_downlink_data(self, session: Session) -> None:
        for context in self._contexts.values():
            sessions = {DEFAULT_BEARER: context.user_plane} | context.dedicated
            number = next((number for number, known in sessions.items() if known is session), None)
            if number is not None:
                self._notification += 1
                notification = Gtpv2Message(
                    MessageType.DOWNLINK_DATA_NOTIFICATION, context.mme.teid, self._notification, (ebi(number),)
                )
                self._s11.sendto(encode(notification), (context.mme.address, GTPC_PORT))


def _addresses(pool: ipaddress.IPv4Network) -> Iterator[ipaddress.IPv4Address]:
    """The pool's hosts but the first, which is the P-GW's own."""
    hosts = pool.hosts()
    next(hosts)
    return hosts


def _new_teid() -> int:
    """A TEID that no other end of this process has, nearly surely; never 0."""
    return secrets.randbits(32) | 1
