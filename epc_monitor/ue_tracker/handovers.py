"""Handovers: over the MME (S1) and between eNodeBs with a path switch at the end (X2)."""

from __future__ import annotations

from typing import Any, Final

from epc_monitor import values
from epc_monitor.s1ap.erabs import ERabForwarding
from epc_monitor.s1ap.message import S1apMessage
from epc_monitor.s1ap.types import MessageType
from epc_monitor.ue_tracker.connections import Connections
from epc_monitor.ue_tracker.facts import Facts
from epc_monitor.ue_tracker.registry import Registry
from epc_monitor.ue_tracker.state import NOTHING, Handover, Leg, S1Association, S1Connection, Ue, joined
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import (
    HandoverCancelled,
    HandoverCompleted,
    HandoverEvent,
    HandoverExecuting,
    HandoverPrepared,
    HandoverPreparing,
    HandoverRejected,
)
from mobiscud.core.ids import FTeid
from mobiscud.core.ue import BearerContext, Enb, ForwardedBearer, Forwarding, HandoverEnd, HandoverKind

_SERVING: Final = frozenset((Leg.CONNECTED, Leg.PREPARING, Leg.LEAVING, Leg.CANCELLING, Leg.OVERHEARD))
"""Where a UE can be when it changes the eNodeB without asking the MME."""


class Handovers:
    """Follows each handover over both of its legs."""

    def __init__(self, registry: Registry, facts: Facts, connections: Connections) -> None:
        self._registry = registry
        self._facts = facts
        self._connections = connections

    # --- S1 ----------------------------------------------------------------------------------------------------------

    def required(self, message: S1apMessage, association: S1Association) -> None:
        source = self._connections.leg(message, association)
        self._connections.at_work(source)
        if source.ue.connection is not source:
            self._facts.desynchronised("HANDOVER_REQUIRED from where the UE is no longer", source.ue)
            return
        self._connections.step(source, message)
        source.handover = Handover(HandoverKind.S1, source, self._target_of(message))
        self._tell(source.ue, HandoverPreparing, source.handover, cause=message.cause)

    def request(self, message: S1apMessage, association: S1Association) -> None:
        """The target's leg begins. Its S-GW tunnels tell which UE is meant, or an MME that keeps its id."""
        if message.mme_ue_s1ap_id is None:
            raise DecodeError("Handover Request without MME UE S1AP ID")
        registry = self._registry
        tunnels = [values.tunnel(item.tunnel) for item in message.e_rabs_to_setup]
        ue = next((found for found in map(registry.by_tunnel, tunnels) if found is not None), None)
        if ue is None:
            same = association.mme.connections.get(message.mme_ue_s1ap_id)
            ue = same.ue if same is not None and same.state is Leg.PREPARING else registry.stranger()
        target = registry.open(association, ue, Leg.ADMITTING, message.mme_ue_s1ap_id, None)
        target.setting_up = {item.e_rab_id: item for item in message.e_rabs_to_setup}
        for tunnel in tunnels:
            registry.own_tunnel(ue, tunnel)
        source = ue.connection
        handover = None if source is None else source.handover
        if handover is None:
            handover = Handover(HandoverKind.S1, source, HandoverEnd(association.enb))
            if source is not None:
                source.handover = handover
                self._expect_serving(source, message)
        target.handover = handover
        handover.target = target
        handover.target_end = HandoverEnd(association.enb, None, handover.target_end.tai)

    def request_acknowledge(self, message: S1apMessage, association: S1Association) -> None:
        target = self._connections.leg(message, association)
        self._connections.step(target, message)
        handover = self._handover_of(target)
        handover.admitted = {item.e_rab_id: item for item in message.e_rabs_admitted}
        handover.bearers = joined(message.e_rabs_admitted, target.setting_up, target.ue.bearers)
        self._tell_prepared(target.ue, handover, association)

    def failure(self, message: S1apMessage, association: S1Association) -> None:
        """The target refuses; the source hears of it in a Handover Preparation Failure."""
        target = self._registry.find(association, message)
        if target is not None:
            self._connections.step(target, message)

    def preparation_failure(self, message: S1apMessage, association: S1Association) -> None:
        source = self._connections.leg(message, association)
        handover, cancelled = source.handover, source.state is Leg.CANCELLING
        self._connections.step(source, message)
        if not cancelled:
            self._tell(source.ue, HandoverRejected, handover or self._unseen(source), cause=message.cause)
            source.handover = None

    def command(self, message: S1apMessage, association: S1Association) -> None:
        source = self._connections.leg(message, association)
        handover, cancelled = source.handover or self._unseen(source), source.state is Leg.CANCELLING
        self._connections.step(source, message)
        if cancelled:
            return
        self._tell(
            source.ue,
            HandoverExecuting,
            handover,
            enb=handover.target_end.enb,
            bearers=handover.bearers,
            forwarding=_forwarding(message.e_rabs_forwarded, handover),
        )

    def notify(self, message: S1apMessage, association: S1Association) -> None:
        """The UE has arrived at the target of an S1 handover."""
        target = self._connections.leg(message, association)
        self._connections.step(target, message)
        _place(target, message)
        handover = self._handover_of(target)
        if handover.source is not None and target.ue.connection is not handover.source:
            self._facts.desynchronised("HANDOVER_NOTIFY for a UE that was elsewhere since", target.ue)
            return
        self._registry.make_current(target)
        self._completed(target, handover, association.enb)

    def cancel(self, message: S1apMessage, association: S1Association) -> None:
        source = self._connections.leg(message, association)
        handover = source.handover or self._unseen(source)
        self._connections.step(source, message)
        source.handover = None
        self._tell(source.ue, HandoverCancelled, handover, cause=message.cause)

    def cancel_acknowledge(self, message: S1apMessage, association: S1Association) -> None:
        source = self._registry.find(association, message)
        if source is not None:
            self._connections.step(source, message)

    # --- X2 ----------------------------------------------------------------------------------------------------------

    def path_switch_request(self, message: S1apMessage, association: S1Association) -> None:
        """The UE is at the target already; its leg keeps the MME's id of the source."""
        if message.enb_ue_s1ap_id is None:
            raise DecodeError("Path Switch Request without eNB UE S1AP ID")
        registry = self._registry
        mme_id = message.source_mme_ue_s1ap_id
        source = None if mme_id is None else association.mme.connections.get(mme_id)
        if source is not None:
            self._connections.at_work(source)
        ue = registry.stranger() if source is None else source.ue
        if source is not None and ue.connection is not source:
            self._facts.desynchronised("PATH_SWITCH_REQUEST from where the UE is no longer", ue)
            source = None
        elif source is not None:
            self._expect_serving(source, message)
        target = registry.open(association, ue, Leg.ARRIVING, None, message.enb_ue_s1ap_id)
        target.mme_ue_s1ap_id = mme_id
        _place(target, message)
        handover = target.handover = Handover(HandoverKind.X2, source, target.end)
        handover.target = target
        handover.bearers = joined(message.e_rabs_switched_downlink, NOTHING, ue.bearers)
        self._tell_prepared(ue, handover, association)

    def path_switch_acknowledge(self, message: S1apMessage, association: S1Association) -> None:
        target = self._connections.leg(message, association)
        self._connections.step(target, message)
        handover = self._handover_of(target, HandoverKind.X2)
        uplinks = {item.e_rab_id: values.tunnel(item.tunnel) for item in message.e_rabs_switched_uplink}
        dropped = frozenset(item.e_rab_id for item in message.e_rabs_to_release)
        bearers = []
        for bearer in handover.bearers:
            uplink = uplinks.get(bearer.e_rab_id)
            if bearer.e_rab_id in dropped:
                continue
            if uplink is None:
                bearers.append(bearer)
            else:
                bearers.append(BearerContext(bearer.e_rab_id, bearer.qci, uplink, bearer.downlink))
                self._registry.own_tunnel(target.ue, uplink)
        handover.bearers = tuple(bearers)
        mme_id = message.mme_ue_s1ap_id_2 if message.mme_ue_s1ap_id_2 is not None else message.mme_ue_s1ap_id
        if mme_id is not None:
            self._registry.take_mme_id(target, mme_id)
        if handover.source is not None and handover.source is not target:
            self._registry.close(handover.source)
        self._registry.make_current(target)
        self._completed(target, handover, association.enb)

    def path_switch_failure(self, message: S1apMessage, association: S1Association) -> None:
        target = self._connections.leg(message, association)
        self._connections.step(target, message)
        handover = self._handover_of(target, HandoverKind.X2)
        self._tell(target.ue, HandoverRejected, handover, cause=message.cause)
        self._registry.close(target)

    def _expect_serving(self, source: S1Connection, message: S1apMessage) -> None:
        if source.state not in _SERVING:
            self._facts.desynchronised(f"{MessageType(message.type).name} while {source.state}", source.ue)

    # --- both --------------------------------------------------------------------------------------------------------

    def _completed(self, target: S1Connection, handover: Handover, enb: Enb) -> None:
        ue = target.ue
        ue.bearers = handover.bearers
        ue.connected = ue.registered = True
        self._registry.established(target)
        target.handover = None
        target.setting_up = NOTHING
        if handover.source is not None:
            handover.source.handover = None
        handover.target_end = end = target.end
        self._tell(
            ue,
            HandoverCompleted,
            handover,
            enb=enb,
            ecgi=end.ecgi,
            tai=end.tai,
            bearers=handover.bearers,
            pdns=ue.pdns,
        )

    def _tell_prepared(self, ue: Ue, handover: Handover, association: S1Association) -> None:
        self._tell(ue, HandoverPrepared, handover, enb=association.enb, bearers=handover.bearers, pdns=ue.pdns)

    def _tell(self, ue: Ue, kind: type[HandoverEvent], handover: Handover, **fields: Any) -> None:
        self._facts.about(
            ue, kind, kind=handover.kind, source=handover.source_end, target=handover.target_end, **fields
        )

    def _handover_of(self, target: S1Connection, kind: HandoverKind = HandoverKind.S1) -> Handover:
        """The handover of a target's leg, or of what little is known when its beginning was not seen."""
        if target.handover is None:
            target.handover = Handover(kind, None, target.end)
            target.handover.bearers = target.ue.bearers
        return target.handover

    @staticmethod
    def _unseen(source: S1Connection) -> Handover:
        """A handover whose Handover Required was not seen."""
        return Handover(HandoverKind.S1, source, HandoverEnd())

    def _target_of(self, message: S1apMessage) -> HandoverEnd:
        """Target of a Handover Required: its address is known where its S1 Setup was seen."""
        if message.target is None:
            return HandoverEnd()
        wanted = values.enb(message.target.enb, None)
        known = self._registry.enb(wanted) or wanted
        return HandoverEnd(known, None, values.tai(message.target.tai))


def _place(target: S1Connection, message: S1apMessage) -> None:
    """A target says where the UE is; what it does not say is not known."""
    target.ecgi = None if message.ecgi is None else values.ecgi(message.ecgi)
    target.tai = None if message.tai is None else values.tai(message.tai)


def _forwarding(items: tuple[ERabForwarding, ...], handover: Handover) -> Forwarding:
    """Forwarding goes straight to the target when the source is given the target's own end points."""
    bearers = []
    direct = False
    for item in sorted(items):
        downlink: FTeid | None = None if item.downlink is None else values.tunnel(item.downlink)
        uplink: FTeid | None = None if item.uplink is None else values.tunnel(item.uplink)
        if downlink is None and uplink is None:
            continue
        bearers.append(ForwardedBearer(values.e_rab_id(item.e_rab_id), downlink, uplink))
        offered = handover.admitted.get(item.e_rab_id)
        direct = direct or (offered is not None and item[1:] == offered[2:])
    if not bearers:
        return Forwarding()
    return Forwarding("direct" if direct else "indirect", tuple(bearers))
