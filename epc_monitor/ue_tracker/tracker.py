"""The tracker's front: takes messages, hands each to whom it concerns, gives the events that it completed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from epc_monitor import gtpv2, s1ap, sctp
from epc_monitor.frames import Packet
from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from epc_monitor.s1ap.message import S1apMessage
from epc_monitor.s1ap.types import MessageType as M
from epc_monitor.ue_tracker.associations import Associations
from epc_monitor.ue_tracker.connections import Connections
from epc_monitor.ue_tracker.doubts import Doubts
from epc_monitor.ue_tracker.facts import Facts
from epc_monitor.ue_tracker.handovers import Handovers
from epc_monitor.ue_tracker.registry import Registry
from epc_monitor.ue_tracker.repetitions import Repetitions
from epc_monitor.ue_tracker.resumption import Resumption
from epc_monitor.ue_tracker.sessions import Sessions
from epc_monitor.ue_tracker.state import S1Association
from mobiscud.core.events import Event, MonitorDropped, Where
from mobiscud.core.ids import UeKey
from mobiscud.core.ue import EnbState, UeState

Handler = Callable[[S1apMessage, S1Association], None]

_EITHER_WAY: Final = frozenset((M.RESET, M.RESET_ACKNOWLEDGE, M.ERROR_INDICATION))

_FROM_MME: Final = frozenset(
    (
        M.HANDOVER_COMMAND,
        M.HANDOVER_PREPARATION_FAILURE,
        M.HANDOVER_REQUEST,
        M.PATH_SWITCH_REQUEST_ACKNOWLEDGE,
        M.PATH_SWITCH_REQUEST_FAILURE,
        M.HANDOVER_CANCEL_ACKNOWLEDGE,
        M.E_RAB_SETUP_REQUEST,
        M.E_RAB_MODIFY_REQUEST,
        M.E_RAB_RELEASE_COMMAND,
        M.INITIAL_CONTEXT_SETUP_REQUEST,
        M.PAGING,
        M.DOWNLINK_NAS_TRANSPORT,
        M.S1_SETUP_RESPONSE,
        M.S1_SETUP_FAILURE,
        M.UE_CONTEXT_MODIFICATION_REQUEST,
        M.UE_CONTEXT_RELEASE_COMMAND,
        M.MME_STATUS_TRANSFER,
        M.ENB_CONFIGURATION_UPDATE_ACKNOWLEDGE,
        M.ENB_CONFIGURATION_UPDATE_FAILURE,
        M.MME_CONFIGURATION_UPDATE,
        M.E_RAB_MODIFICATION_CONFIRM,
    )
)
_FROM_ENB: Final = frozenset(M) - _FROM_MME - _EITHER_WAY


class UeTracker:
    """Messages in, events out. Everything it knows it has heard."""

    def __init__(self, keys: UeKeys, limits: Limits | None = None) -> None:
        self._facts = facts = Facts()
        self._doubts = doubts = Doubts(facts)
        self._registry = registry = Registry(keys, limits or Limits(), facts, doubts)
        self._connections = connections = Connections(registry, facts, doubts)
        self._sessions = Sessions(registry, facts, connections)
        self._resumption = Resumption(registry, keys)
        self._repetitions = Repetitions(registry.limits.transactions)
        self._associations = Associations(registry, facts, connections)
        self._handlers: Mapping[int, Handler] = _handlers(
            connections, Handovers(registry, facts, connections), self._associations
        )

    @property
    def malformed(self) -> int:
        """NAS messages in clear that could not be read."""
        return self._connections.malformed

    @property
    def evicted(self) -> int:
        """What had to give way to a limit."""
        return self._registry.evicted

    @property
    def expired(self) -> int:
        """What was not heard of for too long."""
        return self._registry.expired

    def state_of(self, key: UeKey) -> UeState | None:
        """A UE as it is known now; None when it is not, or not as registered."""
        return self._resumption.state_of(key)

    def enb_state_of(self, name: str) -> EnbState | None:
        """An S1 association as it is known now, by its verification tags; None when it is no more."""
        return self._resumption.enb_state_of(name)

    def ues(self) -> list[tuple[UeKey, int]]:
        """The UEs of which something was told, with when each was last heard of; not all of them have a state."""
        return self._registry.keys()

    def enbs(self) -> list[str]:
        """The S1 associations that are known and whose eNodeBs are, by their verification tags."""
        return self._registry.names()

    def resume_enb(self, state: EnbState, association: sctp.Association) -> None:
        """Take in an association from before a restart; its end 0 is the eNodeB.

        :raises ValueError: the state cannot have been one
        """
        self._resumption.resume_enb(state, association)

    def resume(self, states: Iterable[tuple[UeState, int]], *, trusted: bool) -> int:
        """Take in UEs from before a restart, after the associations; each with when it was so. How many.

        ``trusted``: what leads to them still holds.
        """
        return self._resumption.resume(states, trusted=trusted)

    def forgotten(self) -> list[UeKey]:
        """UEs with events that were forgotten for their age or a limit, since this was last asked."""
        keys, self._registry.forgotten = self._registry.forgotten, []
        return keys

    def receive_s1ap(self, message: sctp.Message, at: int) -> list[Event]:
        """Take one S1AP PDU.

        :raises DecodeError: it cannot be read
        """
        pdu = s1ap.decode(message.payload)
        handler = self._handlers.get(pdu.type)
        if handler is None:
            return []
        association = self._registry.association(message.association)
        if association is None:
            if pdu.type in _EITHER_WAY:
                return []
            enb_sender = message.sender if pdu.type in _FROM_ENB else 1 - message.sender
            association = self._registry.open_association(message.association, enb_sender)
        elif pdu.type in (_FROM_MME if message.sender == association.enb_sender else _FROM_ENB):
            return []
        facts = self._facts
        facts.begin(at, message.place)
        self._doubts.settle()
        handler(pdu, association)
        self._registry.trim(at)
        return facts.events

    def receive_gtp(self, packet: Packet, datagram: bytes, at: int) -> tuple[list[Event], int]:
        """Take the GTPv2-C messages of a datagram; the events, and how many messages there were.

        :raises DecodeError: it cannot be read
        """
        messages = gtpv2.decode(datagram)
        events: list[Event] = []
        ends = packet.source + packet.destination
        if self._repetitions.heard(ends + datagram, at):  # for want of an answer, or by a mirror that doubles
            return events, len(messages)
        facts = self._facts
        for message in messages:
            if not self._sessions.follows(message.type):
                continue
            number = (message.teid or 0) << 32 | message.sequence << 8 | message.type
            facts.begin(at, b"gtp" + ends + number.to_bytes(8, "big"))
            self._doubts.settle()
            self._sessions.receive(message, packet)
            self._registry.trim(at)
            events += facts.events
        return events, len(messages)

    def association_down(self, down: sctp.AssociationDown, at: int) -> list[Event]:
        association = self._registry.association(down.association)
        if association is None:
            return []
        self._facts.begin(at, down.place)
        self._associations.down(association)
        return self._facts.events

    def association_forgotten(self, forgotten: sctp.AssociationForgotten, at: int) -> list[Event]:
        """SCTP had no room for an association; it goes without a word, the count says it."""
        association = self._registry.association(forgotten.association)
        if association is None:
            return []
        self._facts.begin(at, forgotten.association.place)
        self._associations.forgotten(association)
        return self._facts.events

    def dropped(self, at: int, place: bytes, count: int, interface: str | None, reason: str) -> list[Event]:
        """Something was lost on the way to us."""
        self._facts.begin(at, place)
        self._facts.add(MonitorDropped, count=count, where=Where(interface, reason))
        return self._facts.events


def _handlers(connections: Connections, handovers: Handovers, associations: Associations) -> Mapping[int, Handler]:
    return {
        M.S1_SETUP_REQUEST: associations.asked,
        M.S1_SETUP_RESPONSE: associations.setup_response,
        M.ENB_CONFIGURATION_UPDATE: associations.asked,
        M.ENB_CONFIGURATION_UPDATE_ACKNOWLEDGE: associations.enb_update_acknowledge,
        M.MME_CONFIGURATION_UPDATE: associations.mme_update,
        M.RESET: associations.reset,
        M.RESET_ACKNOWLEDGE: associations.reset_acknowledge,
        M.ERROR_INDICATION: connections.error_indication,
        M.INITIAL_UE_MESSAGE: connections.initial_ue_message,
        M.DOWNLINK_NAS_TRANSPORT: connections.downlink_nas,
        M.UPLINK_NAS_TRANSPORT: connections.uplink_nas,
        M.INITIAL_CONTEXT_SETUP_REQUEST: connections.context_setup_request,
        M.INITIAL_CONTEXT_SETUP_RESPONSE: connections.context_setup_response,
        M.INITIAL_CONTEXT_SETUP_FAILURE: connections.context_setup_failure,
        M.UE_CONTEXT_RELEASE_COMMAND: connections.release_command,
        M.UE_CONTEXT_RELEASE_COMPLETE: connections.release_complete,
        M.E_RAB_SETUP_REQUEST: connections.bearer_setup_request,
        M.E_RAB_SETUP_RESPONSE: connections.bearer_setup_response,
        M.E_RAB_MODIFY_REQUEST: connections.bearer_modify_request,
        M.E_RAB_MODIFY_RESPONSE: connections.bearer_modify_response,
        M.E_RAB_RELEASE_COMMAND: connections.bearer_release_command,
        M.E_RAB_RELEASE_RESPONSE: connections.bearer_release_response,
        M.E_RAB_RELEASE_INDICATION: connections.bearer_release_indication,
        M.E_RAB_MODIFICATION_INDICATION: connections.modification_indication,
        M.E_RAB_MODIFICATION_CONFIRM: connections.modification_confirm,
        M.HANDOVER_REQUIRED: handovers.required,
        M.HANDOVER_COMMAND: handovers.command,
        M.HANDOVER_PREPARATION_FAILURE: handovers.preparation_failure,
        M.HANDOVER_REQUEST: handovers.request,
        M.HANDOVER_REQUEST_ACKNOWLEDGE: handovers.request_acknowledge,
        M.HANDOVER_FAILURE: handovers.failure,
        M.HANDOVER_NOTIFY: handovers.notify,
        M.HANDOVER_CANCEL: handovers.cancel,
        M.HANDOVER_CANCEL_ACKNOWLEDGE: handovers.cancel_acknowledge,
        M.PATH_SWITCH_REQUEST: handovers.path_switch_request,
        M.PATH_SWITCH_REQUEST_ACKNOWLEDGE: handovers.path_switch_acknowledge,
        M.PATH_SWITCH_REQUEST_FAILURE: handovers.path_switch_failure,
    }
