"""Connections: initial messages, context setup and release, bearers, and the NAS messages they carry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from epc_monitor import nas, values
from epc_monitor.nas import NasMessage, NasType
from epc_monitor.s1ap.erabs import ERabSetup
from epc_monitor.s1ap.message import S1apMessage
from epc_monitor.s1ap.types import MessageType, cause_of
from epc_monitor.ue_tracker.doubts import Doubts, When
from epc_monitor.ue_tracker.facts import Facts
from epc_monitor.ue_tracker.legs import step
from epc_monitor.ue_tracker.registry import Registry
from epc_monitor.ue_tracker.state import (
    NOTHING,
    Leg,
    S1Association,
    S1Connection,
    Ue,
    by_number,
    changed,
    joined,
    ordered,
)
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import (
    BearerEstablished,
    BearerModified,
    BearerReleased,
    TrackingAreaUpdated,
    UeAttached,
    UeConnected,
    UeDetached,
    UeIdle,
)
from mobiscud.core.ue import BearerContext, Cause, HandoverKind

_EEA0: Final = 0
_NORMAL_RELEASE: Final = cause_of(2, 0)
_HANDED_OVER: Final = cause_of(0, 2)
_TARGETS: Final = frozenset((Leg.ADMITTING, Leg.ADMITTED, Leg.ARRIVING))
_UNKNOWN_ID: Final = frozenset(cause_of(0, value) for value in (13, 14, 15))


class Connections:
    """Follows each S1 connection between its Initial UE Message and its release."""

    def __init__(self, registry: Registry, facts: Facts, doubts: Doubts) -> None:
        self.malformed = 0
        self._registry = registry
        self._facts = facts
        self._doubts = doubts

    # --- opening -----------------------------------------------------------------------------------------------------

    def initial_ue_message(self, message: S1apMessage, association: S1Association) -> None:
        """A UE comes to the network; whom it says to be may be known already."""
        if message.enb_ue_s1ap_id is None:
            raise DecodeError("Initial UE Message without eNB UE S1AP ID")
        registry, node = self._registry, association.mme
        told = self._read(message.nas, uplink=True, readable=None)
        ue: Ue | None = None
        s_tmsi = message.s_tmsi
        if s_tmsi is None and told is not None and told.guti is not None and told.guti[:6] in node.gummeis:
            s_tmsi = told.guti[5:]
        if told is not None and told.imsi is not None:
            ue = registry.by_imsi(told.imsi)
        elif s_tmsi is not None:
            ue = registry.by_s_tmsi(node, s_tmsi)
        elif told is not None and told.guti is not None:
            ue = registry.by_guti(node, told.guti)
        if ue is not None:
            self._doubts.confirm(ue)
        connection = registry.open(association, ue or registry.stranger(), Leg.OPEN, None, message.enb_ue_s1ap_id)
        connection.s_tmsi = s_tmsi
        connection.imsi_told = told is not None and told.imsi is not None
        self._place(connection, message)
        registry.make_current(connection)
        if connection.ue.imsi is None and not connection.ue.sessions:
            self._doubts.came(connection)
            if s_tmsi is not None:
                registry.own_s_tmsi(connection.ue, node, s_tmsi)
        if told is not None and told.type is NasType.ATTACH_REQUEST:
            self._attaching(connection)
        if told is not None and told.type is NasType.DETACH_REQUEST:
            self._detaching(connection, told)

    def _attaching(self, connection: S1Connection) -> None:
        connection.attaching = True
        connection.ue.sessions_gone = None
        if connection.ue.registered is None:
            connection.ue.registered = False

    @staticmethod
    def _detaching(connection: S1Connection, told: NasMessage) -> None:
        connection.detaching = not told.cs_only
        connection.cs_detaching = told.cs_only

    def _detach_accepted(self, connection: S1Connection) -> None:
        if connection.cs_detaching:
            connection.cs_detaching = False
        else:
            self.detached(connection.ue, None)

    def _overheard(self, message: S1apMessage, association: S1Association) -> S1Connection:
        """A leg that was there before us; one that we should have seen begin is worth a word."""
        if message.mme_ue_s1ap_id is None and message.enb_ue_s1ap_id is None:
            raise DecodeError(f"{MessageType(message.type).name} without ids of its connection")
        registry = self._registry
        connection = registry.open(
            association, registry.stranger(), Leg.OVERHEARD, message.mme_ue_s1ap_id, message.enb_ue_s1ap_id
        )
        registry.make_current(connection)
        if association.complete:
            self._facts.desynchronised(f"{MessageType(message.type).name} for a connection that was not seen to begin")
        return connection

    def leg(self, message: S1apMessage, association: S1Association) -> S1Connection:
        """The leg of a message that proves that there is one."""
        return self._registry.find(association, message) or self._overheard(message, association)

    @staticmethod
    def _place(connection: S1Connection, message: S1apMessage) -> None:
        if message.ecgi is not None:
            connection.ecgi = values.ecgi(message.ecgi)
        if message.tai is not None:
            connection.tai = values.tai(message.tai)

    def step(self, connection: S1Connection, message: S1apMessage) -> None:
        """Move a leg on, and say so when it could not have gone that way."""
        before = connection.state
        if not step(connection, message.type):
            self._facts.desynchronised(f"{MessageType(message.type).name} while {before}", connection.ue)

    # --- context setup -----------------------------------------------------------------------------------------------

    def context_setup_request(self, message: S1apMessage, association: S1Association) -> None:
        connection = self.leg(message, association)
        self.step(connection, message)
        connection.setting_up = {item.e_rab_id: item for item in message.e_rabs_to_setup}
        self._recognise(connection, message.e_rabs_to_setup)
        for item in message.e_rabs_to_setup:
            self._downlink_nas(connection, item.nas)
        self._downlink_nas(connection, message.nas)

    def _recognise(self, connection: S1Connection, items: Iterable[ERabSetup]) -> None:
        """The S-GW's end of a bearer tells whose it is; only what a UE says of itself weighs more."""
        tunnels = [values.tunnel(item.tunnel) for item in items]
        owner = next((ue for ue in map(self._registry.by_tunnel, tunnels) if ue is not None), None)
        if owner is not None and owner is not connection.ue and not connection.imsi_told:
            self._registry.identify(connection, owner)
        for tunnel in tunnels:
            self._registry.own_tunnel(connection.ue, tunnel)

    def context_setup_response(self, message: S1apMessage, association: S1Association) -> None:
        """The UE is connected, with the bearers that the eNodeB took."""
        connection = self.leg(message, association)
        self.step(connection, message)
        self._registry.established(connection)
        ue = connection.ue
        if ue.connection is not connection:
            return
        self._doubts.dismiss(ue)
        ue.bearers = joined(message.e_rabs_set_up, connection.setting_up, ue.bearers)
        ue.connected = ue.registered = True
        ue.sessions_gone = None
        kind = UeAttached if connection.attaching else UeConnected
        connection.attaching = False
        connection.setting_up = NOTHING
        self._facts.about(
            ue,
            kind,
            enb=association.enb,
            ecgi=connection.ecgi,
            tai=connection.tai,
            bearers=ue.bearers,
            pdns=ue.pdns,
        )

    def context_setup_failure(self, message: S1apMessage, association: S1Association) -> None:
        connection = self.leg(message, association)
        self.step(connection, message)
        connection.setting_up = NOTHING

    # --- release -----------------------------------------------------------------------------------------------------

    def release_command(self, message: S1apMessage, association: S1Association) -> None:
        connection = self._registry.find(association, message)
        if connection is not None:
            if connection.state is Leg.ARRIVING:
                self.at_work(connection)
            connection.release_cause = message.cause
            connection.state = Leg.RELEASING

    def release_complete(self, message: S1apMessage, association: S1Association) -> None:
        """A leg is gone. That concerns its UE only when it was the one that served it."""
        connection = self._registry.find(association, message)
        if connection is None:
            return
        ue, cause = connection.ue, connection.release_cause
        if ue.connection is connection:
            if cause == _HANDED_OVER:
                self._handed_over(connection)
            elif cause is not None and (cause.group, cause.name) == ("nas", "detach"):
                self.detached(ue, cause)
            elif connection.attaching and ue.sessions_gone is not None:
                self.detached(ue, None, ue.sessions_gone)
            elif ue.connected and cause == _NORMAL_RELEASE and self._doubts.possible(association.mme):
                self._doubts.hold(ue, lambda when: self.idle(connection, cause, when=when))
            elif ue.connected:
                self.idle(connection, cause)
        self._registry.close(connection)

    def _handed_over(self, connection: S1Connection) -> None:
        """The MME says that the UE has arrived elsewhere, and we have not seen it arrive."""
        handover, ue = connection.handover, connection.ue
        if handover is None:
            self._facts.desynchronised("released after a handover that was not seen", ue)
        elif handover.target is not None and handover.target in ue.legs:
            self.at_work(handover.target)

    def at_work(self, connection: S1Connection) -> None:
        """The UE is on this leg; if that is the target of a handover under way, the end of that was not seen."""
        handover, ue = connection.handover, connection.ue
        if handover is None or connection.state not in _TARGETS:
            return
        connection.state = Leg.CONNECTED
        connection.handover = None
        if handover.source is not None:
            handover.source.handover = None
        if handover.kind is HandoverKind.X2 and connection.mme_ue_s1ap_id is not None:
            self._registry.take_mme_id(connection, connection.mme_ue_s1ap_id)
        self._registry.make_current(connection)
        self._registry.established(connection)
        ue.bearers = handover.bearers or _without_downlink(ue.bearers)
        ue.registered = True
        self._facts.desynchronised("at the target of a handover whose end was not seen", ue)

    def error_indication(self, message: S1apMessage, association: S1Association) -> None:
        """One end does not know a connection: both let go of it (TS 36.413 10.6)."""
        if message.cause not in _UNKNOWN_ID or message.mme_ue_s1ap_id is None or message.enb_ue_s1ap_id is None:
            return
        connection = self._registry.find(association, message)
        if connection is not None:
            if connection.ue.connection is connection and connection.ue.connected:
                self.idle(connection, message.cause)
            self._registry.close(connection)

    def idle(
        self, connection: S1Connection, cause: Cause | None, detail: bytes = b"", when: When | None = None
    ) -> None:
        """The UE has no S1 connection any more; its bearers wait at the S-GW."""
        ue = connection.ue
        ue.connected = False
        ue.bearers = _without_downlink(ue.bearers)
        self._facts.about(ue, UeIdle, detail=detail, when=when, enb=connection.association.enb, cause=cause)

    def detached(self, ue: Ue, cause: Cause | None, when: When | None = None) -> None:
        """The UE is registered no longer; said once."""
        self._doubts.dismiss(ue)
        if ue.registered is not False:
            self._facts.about(ue, UeDetached, when=when, cause=cause)
        ue.registered = ue.connected = False
        ue.sessions_gone = None
        ue.bearers = ()
        ue.ue_ip = ()
        ue.pdns = ()
        self._registry.drop_tunnels(ue)

    def sessions_gone(self, ue: Ue) -> None:
        """The last PDN connection was deleted: the UE has detached, unless it is just attaching anew."""
        connection = ue.connection
        if connection is not None and connection.attaching:
            ue.sessions_gone = self._facts.at, self._facts.place
        elif (connection is None or not connection.detaching) and self._doubts.possible(attaching=True):
            self._doubts.hold(ue, lambda when: self.detached(ue, None, when))
        else:
            self.detached(ue, None)

    def sessions_back(self, ue: Ue) -> None:
        """A session was created: if the ones before it were deleted, that was no detach."""
        if ue.connection is None or ue.connection.state is Leg.OPEN:
            self._doubts.dismiss(ue)

    # --- bearers -----------------------------------------------------------------------------------------------------

    def bearer_setup_request(self, message: S1apMessage, association: S1Association) -> None:
        connection = self.leg(message, association)
        self._recognise(connection, message.e_rabs_to_setup)
        connection.setting_up = {**connection.setting_up, **{item.e_rab_id: item for item in message.e_rabs_to_setup}}
        for item in message.e_rabs_to_setup:
            self._downlink_nas(connection, item.nas)

    def bearer_setup_response(self, message: S1apMessage, association: S1Association) -> None:
        connection = self.leg(message, association)
        self.at_work(connection)
        ue = connection.ue
        found = joined(message.e_rabs_set_up, connection.setting_up, ())
        connection.setting_up = NOTHING
        if found:
            ue.bearers = changed(ue.bearers, found)
            self._facts.about(ue, BearerEstablished, bearers=found)

    def bearer_modify_request(self, message: S1apMessage, association: S1Association) -> None:
        connection = self.leg(message, association)
        connection.modifying = {**connection.modifying, **{item.e_rab_id: item for item in message.e_rabs_to_modify}}
        for item in message.e_rabs_to_modify:
            self._downlink_nas(connection, item.nas)

    def bearer_modify_response(self, message: S1apMessage, association: S1Association) -> None:
        connection = self.leg(message, association)
        found = []
        for bearer in _known(connection.ue, message.e_rabs_modified):
            item = connection.modifying.get(bearer.e_rab_id)
            qci = bearer.qci if item is None else item.qci
            found.append(BearerContext(bearer.e_rab_id, qci, bearer.uplink, bearer.downlink))
        connection.modifying = NOTHING
        self._modified(connection.ue, found)

    def modification_indication(self, message: S1apMessage, association: S1Association) -> None:
        """The eNodeB moves its ends, as for EN-DC (TS 36.413 8.2.4); it holds once the MME has confirmed."""
        connection = self.leg(message, association)
        connection.moving = {item.e_rab_id: item for item in message.e_rabs_moved}

    def modification_confirm(self, message: S1apMessage, association: S1Association) -> None:
        connection = self.leg(message, association)
        found = []
        for bearer in _known(connection.ue, message.e_rabs_modified):
            moved = connection.moving.get(bearer.e_rab_id)
            downlink = bearer.downlink if moved is None else values.tunnel(moved.tunnel)
            found.append(BearerContext(bearer.e_rab_id, bearer.qci, bearer.uplink, downlink))
        connection.moving = NOTHING
        self._modified(connection.ue, found)

    def bearer_release_command(self, message: S1apMessage, association: S1Association) -> None:
        self._downlink_nas(self.leg(message, association), message.nas)

    def bearer_release_response(self, message: S1apMessage, association: S1Association) -> None:
        self._released(self.leg(message, association).ue, message.e_rabs_released)

    def bearer_release_indication(self, message: S1apMessage, association: S1Association) -> None:
        numbers = tuple(item.e_rab_id for item in message.e_rabs_to_release)
        self._released(self.leg(message, association).ue, numbers)

    def _modified(self, ue: Ue, found: list[BearerContext]) -> None:
        if found:
            ue.bearers = changed(ue.bearers, found)
            self._facts.about(ue, BearerModified, bearers=ordered(found))

    def _released(self, ue: Ue, numbers: tuple[int, ...]) -> None:
        if numbers:
            gone = _known(ue, numbers)
            ue.bearers = tuple(bearer for bearer in ue.bearers if bearer.e_rab_id not in numbers)
            self._facts.about(ue, BearerReleased, bearers=ordered(gone))

    # --- NAS ---------------------------------------------------------------------------------------------------------

    def downlink_nas(self, message: S1apMessage, association: S1Association) -> None:
        self._downlink_nas(self.leg(message, association), message.nas)

    def uplink_nas(self, message: S1apMessage, association: S1Association) -> None:
        connection = self._registry.find(association, message)
        if connection is None:
            if association.complete:
                return
            connection = self._overheard(message, association)
        self.at_work(connection)
        self._place(connection, message)
        told = self._read(message.nas, uplink=True, readable=self._readable(connection))
        if told is None:
            return
        if told.type is NasType.ATTACH_REQUEST:
            self._attaching(connection)
        elif told.type is NasType.TAU_REQUEST:
            connection.updated = False
        elif told.type is NasType.DETACH_REQUEST:
            self._detaching(connection, told)
        elif told.type is NasType.ATTACH_COMPLETE:
            connection.ue.registered = True
        elif told.type is NasType.DETACH_ACCEPT:
            self._detach_accepted(connection)
        if told.imsi is not None:
            self._registry.name(connection, told.imsi)

    def _downlink_nas(self, connection: S1Connection, pdu: bytes | None) -> None:
        told = self._read(pdu, uplink=False, readable=self._readable(connection))
        if told is None:
            return
        ue = connection.ue
        if told.guti is not None:
            self._registry.own_s_tmsi(ue, connection.association.mme, told.guti[5:])
        if told.type is NasType.SECURITY_MODE_COMMAND:
            ue.ciphering = told.ciphering
        elif told.type is NasType.ATTACH_ACCEPT:
            if told.addresses and not ue.sessions:
                ue.ue_ip = tuple(map(values.address, told.addresses))
                ue.pdns = ()
        elif told.type is NasType.TAU_ACCEPT:
            if not connection.updated:
                connection.updated = True
                end = connection.end
                self._facts.about(ue, TrackingAreaUpdated, ecgi=end.ecgi, tai=end.tai)
        elif told.type is NasType.DETACH_REQUEST:
            connection.cs_detaching = told.cs_only
        elif told.type is NasType.DETACH_ACCEPT:
            self._detach_accepted(connection)

    @staticmethod
    def _readable(connection: S1Connection) -> bool | None:
        ciphering = connection.ue.ciphering
        return None if ciphering is None else ciphering == _EEA0

    def _read(self, pdu: bytes | None, *, uplink: bool, readable: bool | None) -> NasMessage | None:
        """Read a NAS message; what is malformed is counted and does no harm to the message around it."""
        if pdu is None:
            return None
        try:
            return nas.decode(pdu, uplink=uplink, readable=readable)
        except DecodeError:
            self.malformed += 1
            return None


def _without_downlink(bearers: Iterable[BearerContext]) -> tuple[BearerContext, ...]:
    """Bearers whose end at an eNodeB is gone, or not known."""
    return tuple(BearerContext(bearer.e_rab_id, bearer.qci, bearer.uplink) for bearer in bearers)


def _known(ue: Ue, numbers: Iterable[int]) -> list[BearerContext]:
    """What is known of these bearers, each once."""
    known = by_number(ue.bearers)
    return [known.get(number) or BearerContext(values.e_rab_id(number)) for number in dict.fromkeys(numbers)]
