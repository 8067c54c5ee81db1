"""Associations: S1 Setup, configuration updates, resets, and the end of it all."""

from __future__ import annotations

from epc_monitor import values
from epc_monitor.s1ap.message import S1apMessage
from epc_monitor.ue_tracker.connections import Connections
from epc_monitor.ue_tracker.facts import Facts
from epc_monitor.ue_tracker.registry import Registry
from epc_monitor.ue_tracker.state import S1Association, S1Connection
from mobiscud.core.events import EnbConnected, EnbDisconnected, Event
from mobiscud.core.ue import Mme


class Associations:
    """Which eNodeBs there are, and which MME serves them."""

    def __init__(self, registry: Registry, facts: Facts, connections: Connections) -> None:
        self._registry = registry
        self._facts = facts
        self._connections = connections

    def asked(self, message: S1apMessage, association: S1Association) -> None:
        """S1 Setup Request, or a configuration update: it holds once it is answered."""
        association.asked = message

    def setup_response(self, message: S1apMessage, association: S1Association) -> None:
        """The eNodeB is connected; contexts of an earlier S1 Setup are no more (TS 36.413 8.7.3.1)."""
        asked = association.asked
        if asked is not None and asked.global_enb_id is not None:
            address = association.sctp.ends[association.enb_sender].addresses[0]
            self._registry.know_enb(association, values.enb(asked.global_enb_id, address))
        self._drop_all(association)
        association.asked = None
        association.complete = True
        self._serve(message, association)
        if asked is not None:
            association.tais = tuple(map(values.tai, asked.supported_tais))
        self._tell(EnbConnected, association)

    def enb_update_acknowledge(self, message: S1apMessage, association: S1Association) -> None:
        asked = association.asked
        if asked is not None and asked.supported_tais:
            association.tais = tuple(map(values.tai, asked.supported_tais))
        association.asked = None

    def mme_update(self, message: S1apMessage, association: S1Association) -> None:
        self._serve(message, association)

    def reset(self, message: S1apMessage, association: S1Association) -> None:
        association.resetting = message

    def reset_acknowledge(self, message: S1apMessage, association: S1Association) -> None:
        """All legs, or those listed, are gone."""
        asked = association.resetting
        association.resetting = None
        if asked is not None and asked.reset_all:
            self._tell(EnbDisconnected, association)
            self._drop_all(association)
            return
        for ids in (asked or message).connections:
            connection: S1Connection | None = None
            if ids.enb_ue_s1ap_id is not None:
                connection = association.connections.get(ids.enb_ue_s1ap_id)
            if connection is None and ids.mme_ue_s1ap_id is not None:
                connection = association.mme.connections.get(ids.mme_ue_s1ap_id)
            if connection is not None and connection.association is association:
                self._drop(connection)

    def down(self, association: S1Association) -> None:
        """The SCTP association is gone. One that never got through its S1 Setup was no eNodeB."""
        if association.complete or association.name or association.asked is None:
            self._tell(EnbDisconnected, association)
        self._drop_all(association)
        self._registry.close_association(association)

    def forgotten(self, association: S1Association) -> None:
        """The association had to give way to a limit: what it carried may go on, unseen."""
        for connection in self._registry.legs_of(association):
            self._registry.close(connection)
        self._registry.close_association(association)

    def _drop_all(self, association: S1Association) -> None:
        for connection in self._registry.legs_of(association):
            self._drop(connection)

    def _drop(self, connection: S1Connection) -> None:
        """A leg ends without its UE or the MME having said why."""
        if connection.ue.connection is connection and connection.ue.connected:
            self._connections.idle(connection, None, connection.ids)
        self._registry.close(connection)

    def _serve(self, message: S1apMessage, association: S1Association) -> None:
        node = association.mme
        served = values.gummeis(message.served_gummeis)
        if served:
            self._registry.serve(node, served)
        known = tuple(map(values.gummei, served)) or node.mme.gummeis
        node.mme = Mme(node.mme.address, message.mme_name or node.mme.name, known)

    def _tell(self, kind: type[Event], association: S1Association) -> None:
        name = association.sctp.place.hex()
        self._facts.add(kind, enb=association.enb, tais=association.tais, mme=association.mme.mme, association=name)
