"""The emulated MME: eNodeBs on S1-MME, subscribers, and the way from each message to the UE it concerns.

The procedures of a UE are in :mod:`testbed.mme_ue`; each UE has a task of its own that works off its mailbox, so that
one UE is served in order and many at once.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import FTeid, Imsi, Tai, Teid
from testbed import nas_build as nas
from testbed import s1ap_build as s1ap
from testbed.lte_config import EpcConfig
from testbed.mme_ue import Arrival, DataWaits, EnbLost, EnbPeer, Leg, MmeUe
from testbed.s1ap_build import S1apMessage
from testbed.s11 import S11Client
from testbed.sctp_association import CloseReason
from testbed.sctp_transport import SctpConnection


@dataclass(slots=True)
class Mme:
    """One MME. ``tasks`` owns the tasks of the UEs."""

    config: EpcConfig
    s11: S11Client
    tasks: asyncio.TaskGroup
    enbs: dict[int, EnbPeer] = field(default_factory=dict)
    """By macro eNB id."""
    legs: dict[int, Leg] = field(default_factory=dict)
    """Live S1 connections by MME UE S1AP ID."""
    _ues: dict[Imsi, MmeUe] = field(default_factory=dict)
    _by_m_tmsi: dict[int, MmeUe] = field(default_factory=dict)
    _next_mme_ue_id: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.s11.on_downlink_data = self._data_for_idle

    # -- eNodeBs -----------------------------------------------------------------------------------------------------

    def accept(self, connection: SctpConnection) -> None:
        """Take an association that an eNodeB has opened."""
        peer = EnbPeer(connection)
        connection.on_message = lambda payload: self._on_message(peer, payload)
        connection.on_closed = lambda reason: self._on_closed(peer, reason)

    async def close(self) -> None:
        """Stop serving, and shut every association down."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*(peer.connection.close() for peer in list(self.enbs.values())))

    def _on_closed(self, peer: EnbPeer, reason: CloseReason) -> None:
        if self.enbs.get(peer.enb_id) is peer:
            del self.enbs[peer.enb_id]
        for leg in [leg for leg in self.legs.values() if leg.peer is peer]:
            self.drop(leg)
            leg.ue.mailbox.put(EnbLost(leg))

    def _on_message(self, peer: EnbPeer, payload: bytes) -> None:
        try:
            message = s1ap.decode(payload)
            if message.name == "S1SetupRequest":
                self._set_up(peer, message)
            elif message.name == "InitialUEMessage":
                self._initial(peer, message)
            else:
                self._for_leg(peer, message)
        except DecodeError:
            peer.send("ErrorIndication", Cause=("protocol", "semantic-error"))

    def _set_up(self, peer: EnbPeer, message: S1apMessage) -> None:
        identity = message.ies["Global_ENB_ID"]["eNB-ID"]
        peer.enb_id = identity[1][0]
        plmn = self.config.plmn.plmn
        tacs = [entry["tAC"] for entry in message.ies["SupportedTAs"]]
        peer.tais = [s1ap.tai_of({"pLMNidentity": s1ap.plmn_octets(plmn), "tAC": tac}) for tac in tacs]
        self.enbs[peer.enb_id] = peer
        peer.send(
            "S1SetupResponse",
            MMEname=self.config.mme.name,
            ServedGUMMEIs=[
                {
                    "servedPLMNs": [s1ap.plmn_octets(plmn)],
                    "servedGroupIDs": [self.config.mme.group_id.to_bytes(2, "big")],
                    "servedMMECs": [self.config.mme.code.to_bytes(1, "big")],
                }
            ],
            RelativeMMECapacity=255,
        )

    # -- to the UE ---------------------------------------------------------------------------------------------------

    def _initial(self, peer: EnbPeer, message: S1apMessage) -> None:
        nas_message = nas.read(message.ies["NAS_PDU"])
        ue = self._whose(nas_message, message)
        leg = self.new_leg(ue, peer)
        leg.enb_ue_id = message.ies["eNB_UE_S1AP_ID"]
        ue.mailbox.put(Arrival(leg, message))

    def _whose(self, nas_message: nas.Nas, message: S1apMessage) -> MmeUe:
        if nas_message.type is nas.EmmType.ATTACH_REQUEST:
            imsi = nas.imsi_of(nas_message)
            if imsi not in self.config.subscribers:
                raise DecodeError("unknown subscriber")
            if imsi not in self._ues:
                self._ues[imsi] = self._new_ue(imsi)
            return self._ues[imsi]
        s_tmsi = message.ies.get("S_TMSI")
        ue = self._by_m_tmsi.get(int.from_bytes(s_tmsi["m-TMSI"], "big")) if s_tmsi else None
        if ue is None:
            raise DecodeError("unknown UE")
        return ue

    def _new_ue(self, imsi: Imsi) -> MmeUe:
        plmn = self.config.plmn.plmn
        guti = nas.Guti(plmn, self.config.mme.group_id, self.config.mme.code, 0xC000_0000 | secrets.randbits(24))
        ue = MmeUe(self, imsi, guti)
        self._by_m_tmsi[guti.m_tmsi] = ue
        self._running.append(self.tasks.create_task(ue.run(), name=f"mme-ue-{guti.m_tmsi:08x}"))
        return ue

    def _for_leg(self, peer: EnbPeer, message: S1apMessage) -> None:
        """Hand a message on by its MME UE S1AP ID; in a Path Switch Request it is the source's."""
        mme_ue_id = message.ies.get("MME_UE_S1AP_ID", message.ies.get("SourceMME_UE_S1AP_ID"))
        leg = self.legs.get(mme_ue_id) if mme_ue_id is not None else None
        if leg is None:
            if message.name != "ErrorIndication":
                peer.send("ErrorIndication", Cause=("radioNetwork", "unknown-mme-ue-s1ap-id"))
            return
        leg.ue.mailbox.put(Arrival(leg, message, peer))

    def _data_for_idle(self, mme_teid: int) -> None:
        for ue in self._ues.values():
            if ue.mme_teid == mme_teid:
                ue.mailbox.put(DataWaits())

    # -- what the UEs' procedures use ----------------------------------------------------------------------------------

    def sgw_for(self, peer: EnbPeer) -> FTeid:
        """The S-GW in whose area an eNodeB is, as a Create Session Request calls it."""
        other = self.config.other_sgw
        sgw = other if other is not None and peer.enb_id in self.config.other_sgw_enbs else self.config.sgw
        return FTeid(str(sgw.s11_address), Teid(0))

    def new_leg(self, ue: MmeUe, peer: EnbPeer) -> Leg:
        """Open an S1 connection with a new MME UE S1AP ID."""
        leg = Leg(next(self._next_mme_ue_id), peer, ue)
        self.legs[leg.mme_ue_id] = leg
        return leg

    def drop(self, leg: Leg) -> None:
        """Forget an S1 connection."""
        self.legs.pop(leg.mme_ue_id, None)

    def page(self, ue: MmeUe, tai: Tai) -> None:
        """Page in every eNodeB of the tracking area."""
        ies: dict[str, Any] = {
            "UEIdentityIndexValue": (int(ue.imsi) % 1024, 10),
            "UEPagingID": (
                "s-TMSI",
                {
                    "mMEC": ue.guti.mme_code.to_bytes(1, "big"),
                    "m-TMSI": ue.guti.m_tmsi.to_bytes(4, "big"),
                },
            ),
            "CNDomain": "ps",
            "TAIList": [{"tAI": s1ap.tai_value(tai)}],
        }
        for peer in self.enbs.values():
            if tai in peer.tais:
                peer.send("Paging", **ies)
