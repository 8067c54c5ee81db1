"""An emulated eNodeB: its association with the MME, its S1 connections, and its user plane.

What a UE does is in :mod:`testbed.ran_ue`; the eNodeB itself only sets S1 up, hands messages to the UEs they concern,
and obeys a release at once.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import Ecgi, FTeid, Plmn, Tai, Teid
from testbed import netns_socket
from testbed import s1ap_build as s1ap
from testbed.enb_user_plane import EnbUserPlane, RadioBearer, Stage
from testbed.gtpu_socket import GTPU_PORT
from testbed.lte_config import EnbConfig
from testbed.mailbox import PATIENCE_S, ProcedureError
from testbed.s1ap_build import S1apMessage
from testbed.sctp_association import STREAMS, CloseReason
from testbed.sctp_link import open_endpoint
from testbed.sctp_transport import SctpConnection, SctpEndpoint
from testbed.tft import Template

if TYPE_CHECKING:
    from testbed.ran_ue import RanUe

_NON_UE_STREAM = 0
_ETH_P_IP = 0x0800


@dataclass(eq=False, slots=True)
class S1Connection:
    """One S1 connection of a UE, with the E-RAB it carries once there is one."""

    enb: Enodeb
    ue: RanUe
    enb_ue_id: int
    mme_ue_id: int | None = None
    sgw: FTeid | None = None
    bearer: RadioBearer | None = None
    dedicated: dict[int, RadioBearer] = field(default_factory=dict)
    """Those beside ``bearer``, by E-RAB identity."""

    def send(self, name: str, **ies: Any) -> None:
        """Send a UE-associated message with both ids."""
        self.send_first(name, MME_UE_S1AP_ID=self.mme_ue_id, **ies)

    def send_first(self, name: str, **ies: Any) -> None:
        """Send a message in which the MME's id is missing, or goes by another name."""
        self.enb.send(name, self.enb_ue_id % (STREAMS - 1) + 1, eNB_UE_S1AP_ID=self.enb_ue_id, **ies)

    def place(self) -> dict[str, Any]:
        """The IEs that say where the UE is."""
        return {"EUTRAN_CGI": s1ap.ecgi_value(self.enb.ecgi), "TAI": s1ap.tai_value(self.enb.tai)}

    def open_bearer(self, sgw: FTeid, ue_address: bytes) -> FTeid:
        """Open the E-RAB towards the S-GW for a UE that is here, and give the eNodeB's end."""
        return self._open_bearer(sgw, ue_address, Stage.PRESENT, None)

    def expect_bearer(self, sgw: FTeid, ue_address: bytes, *, forwarding: bool) -> FTeid:
        """Open the E-RAB for a UE that is to come, and a tunnel for what the source forwards."""
        return self._open_bearer(sgw, ue_address, Stage.EXPECTED, self.enb.new_teid() if forwarding else None)

    def open_dedicated(self, number: int, sgw: FTeid, ue_address: bytes, traffic: Template) -> FTeid:
        """Open an E-RAB beside the default one, for the traffic that its template holds; gives the eNodeB's end."""
        bearer = self.dedicated[number] = RadioBearer(
            ue_address=ue_address,
            uplink_teid=sgw.teid,
            uplink_to=(sgw.address, GTPU_PORT),
            downlink_teid=self.enb.new_teid(),
            traffic=traffic,
        )
        self.enb.user_plane.add(bearer)
        return FTeid(self.enb.address, Teid(bearer.downlink_teid))

    def close_dedicated(self, number: int) -> None:
        """Close one."""
        self.enb.user_plane.remove(self.dedicated.pop(number))

    def _open_bearer(self, sgw: FTeid, ue_address: bytes, stage: Stage, forwarding_teid: int | None) -> FTeid:
        self.sgw = sgw
        self.bearer = RadioBearer(
            ue_address=ue_address,
            uplink_teid=sgw.teid,
            uplink_to=(sgw.address, GTPU_PORT),
            downlink_teid=self.enb.new_teid(),
            stage=stage,
            forwarding_teid=forwarding_teid,
        )
        self.enb.user_plane.add(self.bearer)
        return self.downlink

    def switch_uplink(self, sgw: FTeid) -> None:
        """Send uplink to another S-GW's end from now on."""
        if self.bearer is not None:
            self.sgw = sgw
            self.bearer.uplink_teid, self.bearer.uplink_to = sgw.teid, (sgw.address, GTPU_PORT)

    @property
    def downlink(self) -> FTeid:
        """The eNodeB's end of the E-RAB.

        :raises ProcedureError: when there is no E-RAB
        """
        if self.bearer is None:
            raise ProcedureError("the UE has no bearer")
        return FTeid(self.enb.address, Teid(self.bearer.downlink_teid))

    @property
    def forwarding(self) -> FTeid | None:
        """Where the target of a handover takes forwarded downlink; ``None`` where it does not."""
        if self.bearer is None or self.bearer.forwarding_teid is None:
            return None
        return FTeid(self.enb.address, Teid(self.bearer.forwarding_teid))


@dataclass(frozen=True, slots=True)
class Downward:
    """A message that the MME sent on an S1 connection."""

    connection: S1Connection
    message: S1apMessage


class Enodeb:
    """One eNodeB. The two callbacks bring what concerns a UE that has no S1 connection here yet."""

    def __init__(self, config: EnbConfig, plmn: Plmn, ue_namespace: str) -> None:
        self.config = config
        self.number = config.number
        self.address = str(config.address)
        self.plmn = plmn
        self.ecgi: Ecgi = config.ecgi(plmn)
        self.tai: Tai = config.tai(plmn)
        self.on_handover_request: Callable[[Enodeb, S1apMessage], None] = lambda enb, message: None
        self.on_paging: Callable[[Enodeb, S1apMessage], None] = lambda enb, message: None
        self.user_plane = EnbUserPlane(
            _radio_socket(config),
            config.radio_device,
            netns_socket.mac_address(ue_namespace, config.ue_device),
            netns_socket.udp_socket(config.namespace, self.address, GTPU_PORT),
        )
        self._endpoint: SctpEndpoint | None = None
        self._association: SctpConnection | None = None
        self._setup_answer: asyncio.Future[S1apMessage] | None = None
        self._connections: dict[int, S1Connection] = {}
        self._next_id: Iterator[int] = itertools.count(1)

    # -- S1 ------------------------------------------------------------------------------------------------------------

    async def set_up(self, mme_address: str, within_s: float) -> None:
        """Connect to the MME and set S1 up.

        :raises ConnectionError: when the MME does not answer
        :raises ProcedureError: when it refuses
        """
        self._endpoint = open_endpoint(self.config.namespace, self.address)
        self._association = await self._endpoint.connect(mme_address, within=within_s)
        self._association.on_message = self._on_message
        self._association.on_closed = self._on_closed
        self._setup_answer = asyncio.get_running_loop().create_future()
        self.send(
            "S1SetupRequest",
            Global_ENB_ID=s1ap.macro_enb_value(self.plmn, self.config.enb_id),
            eNBname=f"enb{self.number}",
            SupportedTAs=[{"tAC": self.config.tac.to_bytes(2, "big"), "broadcastPLMNs": [s1ap.plmn_octets(self.plmn)]}],
            DefaultPagingDRX="v64",
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._setup_answer
        except TimeoutError as error:
            raise ProcedureError("no S1 Setup Response") from error
        if answer.name != "S1SetupResponse":
            raise ProcedureError("S1 Setup refused")

    def send(self, name: str, stream: int = _NON_UE_STREAM, **ies: Any) -> None:
        """Send one S1AP message to the MME."""
        if self._association is None:
            raise ProcedureError(f"eNodeB {self.number} has no MME")
        self._association.send(s1ap.encode(name, **ies), stream=stream)

    async def close(self) -> None:
        """Shut the association down and close all sockets."""
        if self._association is not None:
            await self._association.close()
        if self._endpoint is not None:
            self._endpoint.close()
        self.user_plane.close()

    def _on_closed(self, reason: CloseReason) -> None:
        """Without its MME an eNodeB serves nobody."""
        self._association = None
        for connection in list(self._connections.values()):
            self.forget(connection)
            connection.ue.released(connection)

    def _on_message(self, payload: bytes) -> None:
        try:
            message = s1ap.decode(payload)
        except DecodeError:
            self.send("ErrorIndication", Cause=("protocol", "transfer-syntax-error"))
            return
        match message.name:
            case "S1SetupResponse" | "S1SetupFailure":
                if self._setup_answer is not None and not self._setup_answer.done():
                    self._setup_answer.set_result(message)
            case "HandoverRequest":
                self.on_handover_request(self, message)
            case "Paging":
                self.on_paging(self, message)
            case _:
                self._for_connection(message)

    def _for_connection(self, message: S1apMessage) -> None:
        connection = self._find(message)
        if connection is None:
            return
        if message.name == "UEContextReleaseCommand":
            self.forget(connection)
            connection.mme_ue_id = _released_mme_id(message)
            connection.send("UEContextReleaseComplete")
            connection.ue.released(connection)
        else:
            connection.mme_ue_id = message.ies["MME_UE_S1AP_ID"]
        connection.ue.mailbox.put(Downward(connection, message))

    def _find(self, message: S1apMessage) -> S1Connection | None:
        if message.name == "UEContextReleaseCommand":
            kind, ids = message.ies["UE_S1AP_IDs"]
            if kind == "uE-S1AP-ID-pair":
                return self._connections.get(ids["eNB-UE-S1AP-ID"])
            return next((known for known in self._connections.values() if known.mme_ue_id == ids), None)
        return self._connections.get(message.ies.get("eNB_UE_S1AP_ID", -1))

    @property
    def connections(self) -> int:
        """How many S1 connections there are."""
        return len(self._connections)

    # -- S1 connections ------------------------------------------------------------------------------------------------

    def connect(self, ue: RanUe) -> S1Connection:
        """Open an S1 connection for a UE, with a new eNB UE S1AP ID."""
        connection = S1Connection(self, ue, next(self._next_id))
        self._connections[connection.enb_ue_id] = connection
        return connection

    def forget(self, connection: S1Connection) -> None:
        """Drop an S1 connection and its bearers."""
        self._connections.pop(connection.enb_ue_id, None)
        for number in list(connection.dedicated):
            connection.close_dedicated(number)
        if connection.bearer is not None:
            self.user_plane.remove(connection.bearer)

    @staticmethod
    def new_teid() -> int:
        """A TEID for a new bearer."""
        return secrets.randbits(32) | 1


def _radio_socket(config: EnbConfig) -> socket.socket:
    """Whole IPv4 packets from and to the radio device, without their Ethernet headers."""
    radio = netns_socket.socket_in(config.namespace, socket.AF_PACKET, socket.SOCK_DGRAM)
    radio.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    radio.bind((config.radio_device, _ETH_P_IP))
    return radio


def _released_mme_id(message: S1apMessage) -> int:
    kind, ids = message.ies["UE_S1AP_IDs"]
    number: int = ids["mME-UE-S1AP-ID"] if kind == "uE-S1AP-ID-pair" else ids
    return number
