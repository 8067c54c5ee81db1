"""Who is who: the indices of the tracker, and the one place where UEs and legs come into being, merge and go."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Final

from epc_monitor import values
from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from epc_monitor.s1ap.message import S1apMessage
from epc_monitor.sctp import Association
from epc_monitor.ue_tracker.doubts import Doubts
from epc_monitor.ue_tracker.facts import Facts
from epc_monitor.ue_tracker.state import Leg, MmeNode, S1Association, S1Connection, S11Tunnel, Ue
from mobiscud.core.events import UeIdentified
from mobiscud.core.ids import FTeid, Imsi, UeKey
from mobiscud.core.ue import Enb

_SECOND_CHANCES = 16
_MOST_TUNNELS = 32
"""Twice as many as a UE can have bearers (TS 24.301 9.3.2): those of now and those of before."""
_MOST_ABSENT_MMES = 64
"""MMEs without any association, whose UEs may come back with their temporary identities."""
_SOURCES: Final = frozenset((Leg.PREPARING, Leg.LEAVING, Leg.CANCELLING))
_S: Final = 1_000_000_000


class Registry:
    """UEs by IMSI, S-TMSI and S1-U tunnel; legs by the ids of both ends; MMEs by address."""

    def __init__(self, keys: UeKeys, limits: Limits, facts: Facts, doubts: Doubts) -> None:
        self.limits = limits
        self.evicted = 0
        self.expired = 0
        self._keys = keys
        self._facts = facts
        self._doubts = doubts
        self._ues: OrderedDict[Ue, None] = OrderedDict()  # heard of longest ago first
        self._trimmed_at = 0
        self._half_open: OrderedDict[S1Connection, int] = OrderedDict()  # since when
        self.marks: dict[str, Ue] = {}  # of temporary identities from before a restart
        self._names: dict[str, S1Association] = {}
        self.forgotten: list[UeKey] = []  # of UEs that have events, for want of news or room
        self._by_key: dict[UeKey, Ue] = {}
        self._by_imsi: dict[str, Ue] = {}
        self._by_tunnel: dict[FTeid, Ue] = {}
        self._mmes: dict[bytes, MmeNode] = {}
        self._mmes_by_gummei: dict[bytes, MmeNode] = {}
        self._associations: dict[Association, S1Association] = {}
        self._enbs: dict[Enb, dict[S1Association, None]] = {}
        self._absent_mmes: dict[MmeNode, None] = {}
        self._sessions: dict[bytes, S11Tunnel] = {}  # by either of its F-TEIDs

    # --- associations ------------------------------------------------------------------------------------------------

    def association(self, sctp: Association) -> S1Association | None:
        return self._associations.get(sctp)

    def open_association(self, sctp: Association, enb_sender: int) -> S1Association:
        """An association is heard for the first time, and which of its ends is the eNodeB."""
        addresses = sctp.ends[1 - enb_sender].addresses
        node = next((self._mmes[address] for address in addresses if address in self._mmes), None)
        if node is None:
            node = MmeNode(addresses[0])
        for address in addresses:
            node.addresses.add(address)
            self._mmes[address] = node
        association = self._associations[sctp] = S1Association(sctp, enb_sender, node)
        node.associations[association] = None
        self._absent_mmes.pop(node, None)
        return association

    def by_name(self, name: str) -> S1Association | None:
        """An association whose eNodeB is known, by its verification tags."""
        return self._names.get(name)

    def close_association(self, association: S1Association) -> None:
        """Its legs are gone already. An MME without any association is remembered while its UEs are, within bounds."""
        self._associations.pop(association.sctp, None)
        if self._names.get(association.name) is association:
            del self._names[association.name]
        self._unknow_enb(association)
        node = association.mme
        node.associations.pop(association, None)
        if not node.associations:
            self._absent_mmes[node] = None
            if not node.s_tmsis:
                self._forget_mme(node)
            elif len(self._absent_mmes) > _MOST_ABSENT_MMES:
                self._forget_mme(next(iter(self._absent_mmes)))
                self.evicted += 1

    def _forget_mme(self, node: MmeNode) -> None:
        self._absent_mmes.pop(node, None)
        for address in node.addresses:
            self._mmes.pop(address, None)
        self.serve(node, ())
        for s_tmsi, ue in node.s_tmsis.items():
            _disown(ue, node, s_tmsi)
        node.s_tmsis.clear()

    def know_enb(self, association: S1Association, enb: Enb) -> None:
        """An eNodeB has said who it is."""
        self._unknow_enb(association)
        association.enb = enb
        association.name = association.sctp.place.hex()
        self._names[association.name] = association
        self._enbs.setdefault(replace(enb, address=None), {})[association] = None

    def _unknow_enb(self, association: S1Association) -> None:
        identity = replace(association.enb, address=None)
        associations = self._enbs.get(identity)
        if associations is not None:
            associations.pop(association, None)
            if not associations:
                del self._enbs[identity]

    def enb(self, identity: Enb) -> Enb | None:
        """An eNodeB by PLMN and id, with its address; it may be connected to several MMEs."""
        associations = self._enbs.get(identity)
        return None if associations is None else next(iter(associations)).enb

    def serve(self, node: MmeNode, gummeis: tuple[bytes, ...]) -> None:
        """An MME says which GUMMEIs, 6 octets each, it is."""
        for gummei in node.gummeis:
            if self._mmes_by_gummei.get(gummei) is node:
                del self._mmes_by_gummei[gummei]
        node.gummeis = gummeis
        for gummei in gummeis:
            self._mmes_by_gummei[gummei] = node

    def names(self) -> list[str]:
        """The associations whose eNodeBs are known."""
        return list(self._names)

    # --- UEs ---------------------------------------------------------------------------------------------------------

    def keys(self) -> list[tuple[UeKey, int]]:
        """The UEs whose keys the world has been told, with when each was last heard of."""
        return [(ue.key, ue.seen) for ue in self._ues if ue.named]

    def stranger(self) -> Ue:
        """A UE of which we know nothing but the message at hand."""
        return self._keep(Ue(self._keys.of_place(self._facts.place)))

    def by_imsi(self, imsi: str) -> Ue:
        ue = self._known_by_imsi(imsi)
        if ue is None:
            ue = self._keep(Ue(self._keys.of_imsi(imsi)))
            self._call(ue, imsi)
        return ue

    def _known_by_imsi(self, imsi: str) -> Ue | None:
        """A UE from before a restart is known by its key alone, until its IMSI is heard."""
        ue = self._by_imsi.get(imsi)
        if ue is None:
            ue = self._by_key.get(self._keys.of_imsi(imsi))
            if ue is not None:
                self._call(ue, imsi)
        return ue

    def _call(self, ue: Ue, imsi: str) -> None:
        ue.imsi = known = Imsi(imsi)
        self._by_imsi[known] = ue

    def by_key(self, key: UeKey) -> Ue | None:
        return self._by_key.get(key)

    def is_known(self, ue: Ue) -> bool:
        """Whether it has not been forgotten meanwhile."""
        return ue in self._ues

    def take_in(self, ue: Ue, seen: int) -> None:
        """A UE from before a restart, last heard of at ``seen``; the oldest first."""
        self._keep(ue)
        ue.seen = seen
        if ue.imsi is not None:
            self._by_imsi[ue.imsi] = ue

    def by_tunnel(self, tunnel: FTeid) -> Ue | None:
        return self._by_tunnel.get(tunnel)

    def by_s_tmsi(self, node: MmeNode, s_tmsi: bytes) -> Ue | None:
        ue = node.s_tmsis.get(s_tmsi)
        if ue is None and self.marks:
            marks = (self._keys.of_temporary(values.address(address), s_tmsi) for address in node.addresses)
            ue = next((found for mark in marks if (found := self.marks.pop(mark, None)) in self._ues), None)
            if ue is not None:
                self.own_s_tmsi(ue, node, s_tmsi)
        return ue

    def by_guti(self, node: MmeNode, guti: bytes) -> Ue | None:
        """The UE of a GUTI that perhaps another MME has given."""
        return self.by_s_tmsi(self._mmes_by_gummei.get(guti[:6], node), guti[5:])

    def own_tunnel(self, ue: Ue, tunnel: FTeid) -> None:
        """The S-GW's end of a bearer belongs to this UE; whoever had it before has it no more."""
        before = self._by_tunnel.get(tunnel)
        if before is not ue:
            if before is not None:
                before.tunnels = tuple(other for other in before.tunnels if other != tunnel)
            self._by_tunnel[tunnel] = ue
            ue.tunnels = (*ue.tunnels, tunnel)
            if len(ue.tunnels) > _MOST_TUNNELS:
                del self._by_tunnel[ue.tunnels[0]]
                ue.tunnels = ue.tunnels[1:]

    def drop_tunnels(self, ue: Ue) -> None:
        for tunnel in ue.tunnels:
            del self._by_tunnel[tunnel]
        ue.tunnels = ()

    def own_s_tmsi(self, ue: Ue, node: MmeNode, s_tmsi: bytes) -> None:
        """The UE answers to this S-TMSI; the one before the last it will not use again."""
        before = node.s_tmsis.get(s_tmsi)
        if before is ue:
            return
        if before is not None:
            _disown(before, node, s_tmsi)
        node.s_tmsis[s_tmsi] = ue
        ue.s_tmsis = (*ue.s_tmsis, (node, s_tmsi))
        if len(ue.s_tmsis) > 2:
            old_node, old = ue.s_tmsis[0]
            ue.s_tmsis = ue.s_tmsis[1:]
            del old_node.s_tmsis[old]

    def _keep(self, ue: Ue) -> Ue:
        ue.seen = self._facts.at
        self._ues[ue] = None
        self._by_key[ue.key] = ue
        return ue

    def _touch(self, ue: Ue) -> None:
        """The UE was heard of just now."""
        ue.seen = self._facts.at
        if ue in self._ues:
            self._ues.move_to_end(ue)

    def trim(self, now: int) -> None:
        """Keep the limits; this runs for every message, and ages are long."""
        limits = self.limits
        if (
            len(self._ues) > limits.ues
            or len(self._half_open) > limits.half_open
            or not -_S < now - self._trimmed_at < _S
        ):
            self._trimmed_at = now
            self._trim(limits, now)

    def _trim(self, limits: Limits, now: int) -> None:
        """Who was not heard of for longest goes, but the connected have some chances more."""
        half_open, oldest_ns = self._half_open, now - limits.half_open_age_s * _S
        while half_open:
            connection, since = next(iter(half_open.items()))
            if len(half_open) > limits.half_open:
                self.evicted += 1
            elif since < oldest_ns:
                self.expired += 1
            else:
                break
            self.close(connection)
        ues, oldest_ns, chances = self._ues, now - limits.ue_age_s * _S, _SECOND_CHANCES
        while ues:
            ue = next(iter(ues))
            excess = len(ues) > limits.ues
            if not excess and ue.seen >= oldest_ns:
                break
            if ue.connection is not None and (chances or not excess):
                chances -= 1 if excess else 0
                self._touch(ue)
                continue
            if excess:
                self.evicted += 1
            else:
                self.expired += 1
            if ue.named:
                self.forgotten.append(ue.key)
            self.forget(ue)

    def forget(self, ue: Ue) -> None:
        """Drop a UE, its legs and everything that leads to it."""
        self._doubts.dismiss(ue)
        self._ues.pop(ue, None)
        if self._by_key.get(ue.key) is ue:
            del self._by_key[ue.key]
        if ue.imsi is not None and self._by_imsi.get(ue.imsi) is ue:
            del self._by_imsi[ue.imsi]
        self.drop_tunnels(ue)
        for session in ue.sessions:
            self.close_session(session)
        for node, s_tmsi in ue.s_tmsis:
            del node.s_tmsis[s_tmsi]
        ue.s_tmsis = ()
        for leg in tuple(ue.legs):
            self.close(leg)

    def identify(self, connection: S1Connection, ue: Ue) -> None:
        """The UE behind a leg is found to be ``ue``: what was learnt about the stranger is now ``ue``'s."""
        stranger = connection.ue
        if stranger is ue:
            return
        if stranger.imsi is None and not stranger.sessions:
            self._merge(stranger, ue)
        else:
            self._hand_over(connection, ue)
        self.make_current(connection)
        if connection.s_tmsi is not None:
            self.own_s_tmsi(ue, connection.association.mme, connection.s_tmsi)
        self._doubts.known(connection, ue)

    def name(self, connection: S1Connection, imsi: str) -> None:
        """The UE behind a leg has told its IMSI."""
        connection.imsi_told = True
        known = self._known_by_imsi(imsi)
        if known is None and connection.ue.imsi is None:
            ue = connection.ue
            previous = ue.key
            if self._by_key.get(previous) is ue:
                del self._by_key[previous]
            ue.key = self._keys.of_imsi(imsi)
            self._by_key[ue.key] = ue
            self._call(ue, imsi)
            if ue.named:
                self._facts.about(ue, UeIdentified, previous_ue=previous)
            self._doubts.known(connection, ue)
            return
        self.identify(connection, self.by_imsi(imsi))

    @staticmethod
    def _hand_over(connection: S1Connection, ue: Ue) -> None:
        """A leg was taken for another UE's."""
        before = connection.ue
        del before.legs[connection]
        if before.connection is connection:
            before.connection = None
        connection.ue = ue
        ue.legs[connection] = None

    def _merge(self, stranger: Ue, ue: Ue) -> None:
        """All that was the stranger's is this UE's."""
        for leg in tuple(stranger.legs):
            self._hand_over(leg, ue)
        for tunnel in stranger.tunnels:
            self.own_tunnel(ue, tunnel)
        for node, s_tmsi in stranger.s_tmsis:
            self.own_s_tmsi(ue, node, s_tmsi)
        if stranger.bearers:
            ue.bearers = stranger.bearers
        if stranger.ciphering is not None:
            ue.ciphering = stranger.ciphering
        if not ue.ue_ip:
            ue.ue_ip = stranger.ue_ip
            ue.pdns = stranger.pdns
        ue.connected = ue.connected or stranger.connected
        ue.place = stranger.place or ue.place
        ue.last = stranger.last or ue.last
        if ue.registered is None:
            ue.registered = stranger.registered
        self.forget(stranger)
        if stranger.named:
            self._facts.about(ue, UeIdentified, previous_ue=stranger.key)

    # --- S11 tunnels -------------------------------------------------------------------------------------------------

    def session(self, address: bytes, teid: int) -> S11Tunnel | None:
        """The S11 tunnel that has this F-TEID at either of its ends."""
        return self._sessions.get(values.packed(address, teid))

    def open_session(self, session: S11Tunnel) -> None:
        for end in (session.mme, session.sgw):
            before = self._sessions.get(end)
            if before is not None:
                self.close_session(before)
        self._sessions[session.mme] = self._sessions[session.sgw] = session
        session.ue.sessions = (*session.ue.sessions, session)
        self._touch(session.ue)

    def move_session(self, session: S11Tunnel, mme: bytes, mme_address: str) -> None:
        """Another MME has taken the session over, or the same one has given it another TEID."""
        if self._sessions.get(session.mme) is session:
            del self._sessions[session.mme]
        before = self._sessions.get(mme)
        if before is not None and before is not session:
            self.close_session(before)
        session.mme, session.mme_address = mme, mme_address
        self._sessions[mme] = session

    def close_session(self, session: S11Tunnel) -> None:
        for end in (session.mme, session.sgw):
            if self._sessions.get(end) is session:
                del self._sessions[end]
        ue = session.ue
        ue.sessions = tuple(other for other in ue.sessions if other is not session)

    # --- legs --------------------------------------------------------------------------------------------------------

    def open(
        self, association: S1Association, ue: Ue, state: Leg, mme_id: int | None, enb_id: int | None
    ) -> S1Connection:
        """A new leg; one that had the same id before it is gone."""
        connection = S1Connection(association, ue, state)
        ue.legs[connection] = None
        if mme_id is not None:
            self._bind_mme_id(connection, mme_id)
        if enb_id is not None:
            self._bind_enb_id(connection, enb_id)
        self._half_open[connection] = self._facts.at
        return connection

    def legs_of(self, association: S1Association) -> list[S1Connection]:
        """All legs over an association, in an order that is the same for everyone who has seen them."""
        legs = dict.fromkeys(association.connections.values())
        for connection in association.mme.connections.values():
            if connection.association is association:
                legs[connection] = None
        return sorted(legs, key=lambda connection: connection.ids)

    def make_current(self, connection: S1Connection) -> None:
        """This leg is now the one that serves its UE; the one before it will be released."""
        ue = connection.ue
        before = ue.connection
        if before is not None and before is not connection:
            self._half_open.setdefault(before, self._facts.at)
        ue.connection = connection
        self._touch(ue)

    def established(self, connection: S1Connection) -> None:
        """The leg has bearers: if it serves its UE, it is no longer one of those that anybody can open."""
        if connection.ue.connection is connection:
            self._half_open.pop(connection, None)
            connection.ue.last = connection.association

    def find(self, association: S1Association, message: S1apMessage) -> S1Connection | None:
        """The leg of a message; an id that it tells for the first time is noted."""
        mme_id, enb_id = message.mme_ue_s1ap_id, message.enb_ue_s1ap_id
        if enb_id is not None:
            connection = association.connections.get(enb_id)
            if connection is not None:
                if mme_id is None or connection.mme_ue_s1ap_id == mme_id:
                    return connection
                if connection.mme_ue_s1ap_id is None:
                    self._bind_mme_id(connection, mme_id)
                    return connection
        if mme_id is not None:
            connection = association.mme.connections.get(mme_id)
            if connection is not None and connection.association is association:
                if enb_id is None or connection.enb_ue_s1ap_id == enb_id:
                    return connection
                if connection.enb_ue_s1ap_id is None:
                    self._bind_enb_id(connection, enb_id)
                    return connection
        return None

    def take_mme_id(self, connection: S1Connection, mme_id: int) -> None:
        """An X2 handover is done: the id that led to the source leads to the target, and the source is no more."""
        self.make_current(connection)
        self._bind_mme_id(connection, mme_id)

    def close(self, connection: S1Connection) -> None:
        """A leg is no more; a stranger that had nothing else is forgotten with it."""
        connections = connection.association.connections
        if connection.enb_ue_s1ap_id is not None and connections.get(connection.enb_ue_s1ap_id) is connection:
            del connections[connection.enb_ue_s1ap_id]
        by_mme_id = connection.association.mme.connections
        if connection.mme_ue_s1ap_id is not None and by_mme_id.get(connection.mme_ue_s1ap_id) is connection:
            del by_mme_id[connection.mme_ue_s1ap_id]
            source = None if connection.handover is None else connection.handover.source
            if source is not None and source.mme_ue_s1ap_id == connection.mme_ue_s1ap_id and source in source.ue.legs:
                by_mme_id[connection.mme_ue_s1ap_id] = source
        self._half_open.pop(connection, None)
        self._doubts.gone(connection)
        ue = connection.ue
        ue.legs.pop(connection, None)
        if ue.connection is connection:
            ue.connection = None
        if ue.imsi is None and not ue.legs and not ue.bearers and ue in self._ues:
            self.forget(ue)

    def _bind_mme_id(self, connection: S1Connection, mme_id: int) -> None:
        """An MME may keep its id of a UE for both legs of a handover (TS 36.401 6.2.1), else the older leg is gone."""
        connections = connection.association.mme.connections
        before = connections.get(mme_id)
        if before is not None and before is not connection:
            is_source = before.ue is connection.ue and before.state in _SOURCES
            if not is_source:
                self.close(before)
        connection.mme_ue_s1ap_id = mme_id
        connections[mme_id] = connection

    def _bind_enb_id(self, connection: S1Connection, enb_id: int) -> None:
        connections = connection.association.connections
        before = connections.get(enb_id)
        if before is not None and before is not connection:
            self.close(before)
        connection.enb_ue_s1ap_id = enb_id
        connections[enb_id] = connection


def _disown(ue: Ue, node: MmeNode, s_tmsi: bytes) -> None:
    """The S-TMSI is no longer this UE's."""
    ue.s_tmsis = tuple(own for own in ue.s_tmsis if own != (node, s_tmsi))
