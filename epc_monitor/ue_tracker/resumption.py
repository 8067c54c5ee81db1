"""From what is known to what is retained of it, and back: how a monitor that is started again goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable

from epc_monitor import values
from epc_monitor.identity import UeKeys
from epc_monitor.sctp import Association
from epc_monitor.ue_tracker.registry import Registry
from epc_monitor.ue_tracker.state import Leg, S1Association, S11Tunnel, Ue, by_number, ordered
from mobiscud.core.ids import EnbUeS1apId, FTeid, MmeUeS1apId, UeKey
from mobiscud.core.ue import EnbState, HandoverEnd, S1Place, S11Place, SctpEnd, UeState

CONNECTED, IDLE = "connected", "idle"


class Resumption:
    """Keeps the states of UEs and associations, and takes them in."""

    def __init__(self, registry: Registry, keys: UeKeys) -> None:
        self._registry = registry
        self._keys = keys

    # --- what is retained --------------------------------------------------------------------------------------------

    def state_of(self, key: UeKey) -> UeState | None:
        """The UE as it is known now; None when it is not registered, as far as is known."""
        ue = self._registry.by_key(key)
        if ue is None or not ue.registered:
            return None
        last, is_connected = ue.last, ue.connected and ue.connection is not None
        end = HandoverEnd() if last is None else HandoverEnd(last.enb)
        if is_connected and ue.connection is not None:
            end = ue.connection.end
        return UeState(
            ue=ue.key,
            imsi=ue.imsi,
            ue_ip=ue.ue_ip,
            status=CONNECTED if ue.connected else IDLE,
            enb=end.enb,
            ecgi=end.ecgi,
            tai=end.tai,
            bearers=ue.bearers,
            pdns=ue.pdns,
            s1=None if last is None else _s1_place(ue, last),
            s11=_s11_place(ue),
            temporary=tuple(self._keys.of_temporary(node.mme.address or "", s_tmsi) for node, s_tmsi in ue.s_tmsis),
            ciphering=ue.ciphering,
        )

    def enb_state_of(self, name: str) -> EnbState | None:
        """An association as it is known now; None when it is no more."""
        association = self._registry.by_name(name)
        if association is None:
            return None
        sender = association.enb_sender
        return EnbState(
            association=name,
            enb=association.enb,
            tais=association.tais,
            mme=association.mme.mme,
            enb_end=_sctp_end(association.sctp, sender),
            mme_end=_sctp_end(association.sctp, 1 - sender),
        )

    # --- and taken in again ------------------------------------------------------------------------------------------

    def resume_enb(self, state: EnbState, sctp: Association) -> None:
        """Take in an association, whose end 0 is the eNodeB. Any message may follow.

        :raises ValueError: the state cannot have been one
        """
        gummeis = () if state.mme is None else tuple(map(values.gummei_octets, state.mme.gummeis))
        association = self._registry.open_association(sctp, 0)
        self._registry.know_enb(association, state.enb)
        association.tais = state.tais
        if state.mme is not None:
            association.mme.mme = state.mme
            self._registry.serve(association.mme, gummeis)

    def resume(self, states: Iterable[tuple[UeState, int]], *, trusted: bool) -> int:
        """Take in UEs, each with when it was so; how many.

        Those that are not to be trusted any more only keep their key, and are forgotten at their age.
        """
        newest = sorted(states, key=lambda state: state[1])[-self._registry.limits.ues :]
        return sum(self._take_in(state, at, trusted) for state, at in newest)

    def _take_in(self, state: UeState, at: int, trusted: bool) -> bool:
        registry = self._registry
        if registry.by_key(state.ue) is not None:
            return False
        ue = Ue(state.ue, state.imsi)
        ue.named = ue.registered = True
        if not trusted:
            registry.take_in(ue, at)
            return True
        try:
            session = _session(ue, state)
            ecgi = None if state.ecgi is None else values.ecgi(values.ecgi_octets(state.ecgi))
            tai = None if state.tai is None else values.tai(values.tai_octets(state.tai))
        except ValueError:
            return False
        ue.connected = state.status == CONNECTED
        ue.place = state.enb.address if ue.connected and state.enb is not None else None
        ue.ue_ip, ue.pdns, ue.ciphering = state.ue_ip, state.pdns, state.ciphering
        ue.bearers = ordered(by_number(state.bearers).values())
        registry.take_in(ue, at)
        for bearer in state.bearers:
            if bearer.uplink is not None:
                registry.own_tunnel(ue, bearer.uplink)
        if session is not None:
            registry.open_session(session)
        for mark in state.temporary:
            registry.marks[mark] = ue
        place = state.s1
        ue.last = None if place is None else registry.by_name(place.association)
        if ue.last is not None and place is not None and place.mme_ue_s1ap_id is not None and ue.connected:
            leg = registry.open(ue.last, ue, Leg.CONNECTED, place.mme_ue_s1ap_id, place.enb_ue_s1ap_id)
            leg.ecgi, leg.tai = ecgi, tai
            registry.make_current(leg)
            registry.established(leg)
        ue.seen = at
        return True


def _s1_place(ue: Ue, last: S1Association) -> S1Place:
    connection, name = ue.connection, last.sctp.place.hex()
    if ue.connected and connection is not None and connection.association is last:
        mme_id, enb_id = connection.mme_ue_s1ap_id, connection.enb_ue_s1ap_id
        if mme_id is not None and enb_id is not None:
            return S1Place(name, MmeUeS1apId(mme_id), EnbUeS1apId(enb_id))
    return S1Place(name)


def _sctp_end(sctp: Association, sender: int) -> SctpEnd:
    end = sctp.ends[sender]
    return SctpEnd(end.port, tuple(map(values.address, end.addresses)), sctp.directions[sender].tag.hex())


def _s11_place(ue: Ue) -> S11Place | None:
    """The S11 tunnel of a UE that has one; of several, the addresses of each would not be known."""
    if len(ue.sessions) != 1:
        return None
    session = ue.sessions[0]
    return S11Place(values.unpacked(session.mme), values.unpacked(session.sgw))


def _session(ue: Ue, state: UeState) -> S11Tunnel | None:
    if state.s11 is None:
        return None

    def packed(f_teid: FTeid) -> bytes:
        return values.packed(values.address_octets(f_teid.address), f_teid.teid)

    mme, sgw = state.s11.mme, state.s11.sgw
    session = S11Tunnel(ue, packed(mme), mme.address, packed(sgw))
    session.pdns = state.pdns
    return session
