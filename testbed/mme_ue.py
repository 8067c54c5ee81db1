"""One UE as the MME knows it, and its procedures (TS 23.401 5.3 to 5.5), each written down from its beginning to end.

Order and content of the messages are Open5GS's: a new MME UE S1AP ID at each Initial UE Message and at the target of
each S1 handover; the release at the source some 300 ms after Handover Notify; the release of the target before
Handover Cancel Acknowledge; the release by the MME's id alone after Handover Failure.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import Ecgi, FTeid, Imsi, Tai, Teid
from testbed import gtpv2_build as gtp
from testbed import nas_build as nas
from testbed import s1ap_build as s1ap
from testbed.gtpv2_build import Gtpv2Message, Ie, IeType, Interface, MessageType
from testbed.mailbox import Mailbox, ProcedureError
from testbed.mme_session import DedicatedBearer, PdnSession, created, moved, to_be_moved
from testbed.s1ap_build import S1apMessage
from testbed.sctp_association import STREAMS
from testbed.sctp_transport import SctpConnection
from testbed.tft import Template

if TYPE_CHECKING:
    from testbed.mme import Mme

E_RAB_ID: Final = nas.DEFAULT_BEARER
_QOS: Final = {
    "qCI": 9,
    "allocationRetentionPriority": {
        "priorityLevel": 8,
        "pre-emptionCapability": "shall-not-trigger-pre-emption",
        "pre-emptionVulnerability": "not-pre-emptable",
    },
}
_GUARANTEES: Final = (
    "e-RAB-MaximumBitrateDL",
    "e-RAB-MaximumBitrateUL",
    "e-RAB-GuaranteedBitrateDL",
    "e-RAB-GuaranteedBitrateUL",
)
_BIT_RATE: Final = {"uEaggregateMaximumBitRateDL": 1_000_000_000, "uEaggregateMaximumBitRateUL": 1_000_000_000}
_SECURITY_CAPABILITIES: Final = {
    "encryptionAlgorithms": (0xE000, 16),
    "integrityProtectionAlgorithms": (0xE000, 16),
}

NON_UE_STREAM: Final = 0

Cause = tuple[str, str]


@dataclass(eq=False, slots=True)
class EnbPeer:
    """An eNodeB at the far end of an association; ``enb_id`` -1 before S1 Setup."""

    connection: SctpConnection
    enb_id: int = -1
    tais: list[Tai] = field(default_factory=list)

    def send(self, name: str, stream: int = NON_UE_STREAM, **ies: Any) -> None:
        """Send one S1AP message."""
        self.connection.send(s1ap.encode(name, **ies), stream=stream)


@dataclass(eq=False, slots=True)
class Leg:
    """One S1 connection of a UE. ``enb_ue_id`` is ``None`` until the eNodeB has named its own."""

    mme_ue_id: int
    peer: EnbPeer
    ue: MmeUe
    enb_ue_id: int | None = None

    def send(self, name: str, **ies: Any) -> None:
        """Send a UE-associated message with both ids, on a stream of the UE's."""
        self.peer.send(name, self._stream, MME_UE_S1AP_ID=self.mme_ue_id, eNB_UE_S1AP_ID=self.enb_ue_id, **ies)

    def send_first(self, name: str, **ies: Any) -> None:
        """Send the first message of a connection, which only the MME's id names."""
        self.peer.send(name, self._stream, MME_UE_S1AP_ID=self.mme_ue_id, **ies)

    def send_nas(self, octets: bytes) -> None:
        """Send a NAS message down."""
        self.send("DownlinkNASTransport", NAS_PDU=octets)

    def release(self, cause: Cause) -> None:
        """Command the release."""
        ids: tuple[str, Any] = ("mME-UE-S1AP-ID", self.mme_ue_id)
        if self.enb_ue_id is not None:
            ids = ("uE-S1AP-ID-pair", {"mME-UE-S1AP-ID": self.mme_ue_id, "eNB-UE-S1AP-ID": self.enb_ue_id})
        self.peer.send("UEContextReleaseCommand", self._stream, UE_S1AP_IDs=ids, Cause=cause)

    @property
    def _stream(self) -> int:
        return self.mme_ue_id % (STREAMS - 1) + 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that came on a connection; ``peer`` differs from the connection's in a Path Switch Request."""

    leg: Leg
    message: S1apMessage
    peer: EnbPeer | None = None


@dataclass(frozen=True, slots=True)
class EnbLost:
    """The association under a connection is gone."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class DataWaits:
    """The S-GW holds downlink data for the UE."""


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """The session at an S-GW that the UE has left some time ago."""

    session: PdnSession


Item = Arrival | EnbLost | DataWaits | LeftBehind


class MmeUe:
    """A subscriber that has attached at least once."""

    def __init__(self, mme: Mme, imsi: Imsi, guti: nas.Guti) -> None:
        self.imsi = imsi
        self.guti = guti
        self.mailbox: Mailbox[Item] = Mailbox()
        self.mme_teid = secrets.randbits(31) | 1
        """Our end on S11."""
        self._mme = mme
        self._leg: Leg | None = None
        self._session: PdnSession | None = None
        self._tai: Tai | None = None
        self._ecgi: Ecgi | None = None
        self._nas_count = 0
        self._dedicated: dict[int, DedicatedBearer] = {}
        """By E-RAB identity."""
        self._forwarding_from: Leg | None = None
        """The source for which the S-GW has an indirect tunnel."""

    async def run(self) -> None:
        """Serve the UE for ever, one procedure after the other."""
        while True:
            item = await self.mailbox.next()
            try:
                await self._handle(item)
            except (ProcedureError, DecodeError):
                continue  # the procedure is given up; what the UE does next begins anew

    async def _handle(self, item: Item) -> None:
        match item:
            case Arrival():
                await self._on_message(item)
            case EnbLost():
                if item.leg is self._leg:
                    self._leg = None
                    await self._release_access_bearers()
            case DataWaits():
                if self._leg is None and self._tai is not None:
                    self._mme.page(self, self._tai)
            case LeftBehind():  # without OI: the P-GW has nothing to do with it
                kind, sgw = MessageType.DELETE_SESSION_REQUEST, item.session.sgw_s11
                await self._mme.s11.request(kind, sgw, gtp.ebi(E_RAB_ID), self._location())

    async def _on_message(self, arrival: Arrival) -> None:
        leg, message = arrival.leg, arrival.message
        match message.name:
            case "InitialUEMessage":
                await self._begin(leg, message)
            case "UplinkNASTransport":
                await self._uplink_nas(leg, nas.read(message.ies["NAS_PDU"]))
            case "UEContextReleaseRequest":
                await self._go_idle(leg, message.ies["Cause"])
            case "UEContextReleaseComplete":
                self._mme.drop(leg)
                await self._stop_forwarding(leg)
            case "HandoverRequired":
                await self._s1_handover(leg, message)
            case "PathSwitchRequest":
                await self._path_switch(arrival)
            case _:
                pass  # information that changes nothing here, such as UE Capability Info Indication

    # -- attach, service request, detach -----------------------------------------------------------------------------

    async def _begin(self, leg: Leg, message: S1apMessage) -> None:
        stale, self._leg = self._leg, leg
        if stale is not None:
            stale.release(("nas", "normal-release"))
        self._place(message)
        nas_message = nas.read(message.ies["NAS_PDU"])
        if nas_message.type is nas.EmmType.ATTACH_REQUEST:
            await self._attach(leg)
        elif nas_message.type is nas.EmmType.SERVICE_REQUEST and self._session is not None:
            await self._service(leg)
        elif nas_message.type is nas.EmmType.DETACH_REQUEST:
            await self._detach(leg, nas_message)
        elif nas_message.type is nas.EmmType.TAU_REQUEST and self._session is not None:
            await self._update_area(leg, nas_message)
        else:
            self._leg = None
            leg.release(("nas", "unspecified"))

    async def _attach(self, leg: Leg) -> None:
        if self._session is not None:
            await self._delete_session()
        self._nas_count = 0
        challenge = secrets.token_bytes(16)
        leg.send_nas(nas.authentication_request(challenge, secrets.token_bytes(16)))
        response = await self._expect_nas(leg, nas.EmmType.AUTHENTICATION_RESPONSE)
        if nas.res_of(response) != nas.response_to(challenge):
            raise ProcedureError("wrong RES")
        leg.send_nas(nas.security_mode_command())
        await self._expect_nas(leg, nas.EmmType.SECURITY_MODE_COMPLETE)
        session = await self._create_session(leg.peer)
        self._nas_count += 1
        tai, _ = self._whereabouts()
        accept = nas.attach_accept(self.guti, tai, self._mme.config.apn, session.ue_address, self._nas_count)
        self._set_up_context(leg, session, accept)
        ends = await self._expect_context(leg)
        await self._expect_nas(leg, nas.EmmType.ATTACH_COMPLETE)
        await self._modify_bearers(ends)

    async def _service(self, leg: Leg) -> None:
        await self._connect(leg, None)

    async def _connect(self, leg: Leg, nas_pdu: bytes | None) -> None:
        self._set_up_context(leg, self._connected_session(), nas_pdu)
        ends = await self._expect_context(leg)
        await self._modify_bearers(ends, self._location(), Ie(IeType.DELAY_VALUE, b"\0"))

    async def _update_area(self, leg: Leg, request: nas.Nas) -> None:
        """A tracking area update of an idle UE: with the active flag it stays connected, else it is let go."""
        self._nas_count += 1
        accept = nas.tau_accept(self._nas_count)
        if nas.is_active(request):
            await self._connect(leg, accept)
            return
        leg.send_nas(accept)
        leg.release(("nas", "normal-release"))
        await self._expect(leg, "UEContextReleaseComplete")
        self._mme.drop(leg)
        self._leg = None

    async def _uplink_nas(self, leg: Leg, message: nas.Nas) -> None:
        match message.type:
            case nas.EmmType.DETACH_REQUEST:
                await self._detach(leg, message)
            case nas.EmmType.TAU_REQUEST:
                self._nas_count += 1
                leg.send_nas(nas.tau_accept(self._nas_count))
            case nas.EsmType.RESOURCE_ALLOCATION_REQUEST:
                await self._grant_bearer(leg, nas.qci_of(message), nas.traffic_asked_of(message))
            case nas.EsmType.RESOURCE_MODIFICATION_REQUEST:
                await self._end_bearer(leg, nas.released_bearer_of(message))
            case _:
                pass  # nothing that changes anything here

    # -- dedicated bearers (TS 23.401 5.4.5) ---------------------------------------------------------------------------

    async def _grant_bearer(self, leg: Leg, qci: int, traffic: Template) -> None:
        sgw = self._connected_session().sgw_s11
        request = await self._mme.s11.command(
            MessageType.BEARER_RESOURCE_COMMAND,
            sgw,
            gtp.ebi(E_RAB_ID),
            Ie(IeType.PTI, b"\x02"),
            gtp.flow_qos(qci),
            Ie(IeType.TAD, traffic.encode()),
        )
        own = gtp.f_teid_of(gtp.find(request.bearers()[0], IeType.F_TEID))
        number = next(free for free in range(E_RAB_ID + 1, 16) if free not in self._dedicated)
        bearer = self._dedicated[number] = DedicatedBearer(qci, own)
        self._nas_count += 1
        activation = nas.activate_dedicated(number, qci, traffic, self._nas_count)
        leg.send("E-RABSetupRequest", E_RABToBeSetupListBearerSUReq=[_e_rab(number, bearer) | {"nAS-PDU": activation}])
        answer = await self._expect(leg, "E-RABSetupResponse")
        enb = s1ap.tunnel_of(answer.ies["E_RABSetupListBearerSURes"][0])
        await self._expect_nas(leg, nas.EsmType.ACTIVATE_DEDICATED_ACCEPT)
        ends = (gtp.f_teid(Interface.S1U_ENB, enb), gtp.f_teid(Interface.S1U_SGW, own, instance=1))
        self._mme.s11.respond(request, sgw, gtp.cause(), gtp.bearer_context(gtp.ebi(number), gtp.cause(), *ends))

    async def _end_bearer(self, leg: Leg, number: int) -> None:
        if self._dedicated.pop(number, None) is None:
            return
        sgw = self._connected_session().sgw_s11
        request = await self._mme.s11.command(
            MessageType.BEARER_RESOURCE_COMMAND,
            sgw,
            gtp.ebi(E_RAB_ID),
            Ie(IeType.PTI, b"\x02"),
            Ie(IeType.TAD, b"\x40"),
            Ie(IeType.EBI, bytes((number,)), 1),
        )
        self._nas_count += 1
        leg.send(
            "E-RABReleaseCommand",
            E_RABToBeReleasedList=[{"e-RAB-ID": number, "cause": ("nas", "normal-release")}],
            NAS_PDU=nas.deactivate(number, self._nas_count),
        )
        await self._expect(leg, "E-RABReleaseResponse")
        await self._expect_nas(leg, nas.EsmType.DEACTIVATE_ACCEPT)
        context = gtp.bearer_context(gtp.ebi(number), gtp.cause())
        self._mme.s11.respond(request, sgw, gtp.cause(), context)

    async def _drop_dedicated(self) -> None:
        """End the dedicated bearers, of which a target has admitted none (TS 23.401 5.4.4.2)."""
        numbers, self._dedicated = list(self._dedicated), {}
        if numbers:
            sgw = self._connected_session().sgw_s11
            contexts = [gtp.bearer_context(gtp.ebi(number)) for number in numbers]
            request = await self._mme.s11.command(MessageType.DELETE_BEARER_COMMAND, sgw, *contexts)
            answers = [gtp.bearer_context(gtp.ebi(number), gtp.cause()) for number in numbers]
            self._mme.s11.respond(request, sgw, gtp.cause(), *answers)

    async def _detach(self, leg: Leg, request: nas.Nas) -> None:
        if self._session is not None:
            await self._delete_session()
        if not nas.is_switch_off(request):
            self._nas_count += 1
            leg.send_nas(nas.detach_accept(self._nas_count))
        self._leg = None
        leg.release(("nas", "detach"))

    def _set_up_context(self, leg: Leg, session: PdnSession, nas_pdu: bytes | None) -> None:
        e_rab = {"e-RAB-ID": E_RAB_ID, "e-RABlevelQoSParameters": _QOS, **s1ap.tunnel_value(session.sgw_s1u)}
        if nas_pdu is not None:
            e_rab["nAS-PDU"] = nas_pdu
        dedicated = [_e_rab(number, bearer) for number, bearer in self._dedicated.items()]
        leg.send(
            "InitialContextSetupRequest",
            uEaggregateMaximumBitrate=_BIT_RATE,
            E_RABToBeSetupListCtxtSUReq=[e_rab, *dedicated],
            UESecurityCapabilities=_SECURITY_CAPABILITIES,
            SecurityKey=(secrets.randbits(256), 256),
        )

    async def _expect_context(self, leg: Leg) -> dict[int, FTeid]:
        response = await self._expect(leg, "InitialContextSetupResponse")
        return {item["e-RAB-ID"]: s1ap.tunnel_of(item) for item in response.ies["E_RABSetupListCtxtSURes"]}

    # -- idle --------------------------------------------------------------------------------------------------------

    async def _go_idle(self, leg: Leg, cause: Cause) -> None:
        if leg is not self._leg:
            return
        await self._release_access_bearers()
        leg.release(cause)
        await self._expect(leg, "UEContextReleaseComplete")
        self._mme.drop(leg)
        self._leg = None

    # -- handover ----------------------------------------------------------------------------------------------------

    async def _s1_handover(self, source: Leg, required: S1apMessage) -> None:
        session = self._connected_session()
        if source is not self._leg:
            return
        _, target_id = required.ies["TargetID"]
        peer = self._mme.enbs.get(target_id["global-ENB-ID"]["eNB-ID"][1][0])
        if peer is None:
            source.send("HandoverPreparationFailure", Cause=("radioNetwork", "unknown-targetID"))
            return
        target = self._mme.new_leg(self, peer)
        target.send_first(
            "HandoverRequest",
            HandoverType=required.ies["HandoverType"],
            Cause=required.ies["Cause"],
            uEaggregateMaximumBitrate=_BIT_RATE,
            E_RABToBeSetupListHOReq=[
                {"e-RAB-ID": E_RAB_ID, "e-RABlevelQosParameters": _QOS, **s1ap.tunnel_value(session.sgw_s1u)},
                *(_e_rab(number, bearer, qos="e-RABlevelQosParameters") for number, bearer in self._dedicated.items()),
            ],
            Source_ToTarget_TransparentContainer=required.ies["Source_ToTarget_TransparentContainer"],
            UESecurityCapabilities=_SECURITY_CAPABILITIES,
            SecurityContext=_next_hop(),
        )
        answer = await self._expect(target, "HandoverRequestAcknowledge", "HandoverFailure")
        if answer.name == "HandoverFailure":
            source.send("HandoverPreparationFailure", Cause=answer.ies["Cause"])
            target.release(("radioNetwork", "ho-failure-in-target-EPC-eNB-or-target-system"))
            return
        target.enb_ue_id = answer.ies["eNB_UE_S1AP_ID"]
        (admitted,) = answer.ies["E_RABAdmittedList"]
        enb = s1ap.tunnel_of(admitted)
        forward_to = await self._forwarding(source, s1ap.forwarding_of(admitted), required)
        source.send(
            "HandoverCommand",
            HandoverType=required.ies["HandoverType"],
            **_forwarding_list(forward_to),
            **_release_list(answer),
            Target_ToSource_TransparentContainer=answer.ies["Target_ToSource_TransparentContainer"],
        )
        try:
            arrived = await self._follow_handover(source, target)
        except ProcedureError:
            target.release(("radioNetwork", "tS1relocoverall-expiry"))
            raise
        if arrived is not None:
            self._leg = target
            self._place(arrived)
            delay_s = self._mme.config.mme.source_release_delay_s
            asyncio.get_running_loop().call_later(delay_s, self._release_source, source)
            await self._modify_bearers({E_RAB_ID: enb}, self._location())
            await self._drop_dedicated()

    async def _follow_handover(self, source: Leg, target: Leg) -> S1apMessage | None:
        """From Handover Command to the Handover Notify, which is returned, or to the end of a cancelled one."""
        while True:
            arrival = await self._expect_any(
                {(source, "ENBStatusTransfer"), (source, "HandoverCancel"), (target, "HandoverNotify")}
            )
            match arrival.message.name:
                case "ENBStatusTransfer":
                    container = arrival.message.ies["eNB_StatusTransfer_TransparentContainer"]
                    target.send("MMEStatusTransfer", eNB_StatusTransfer_TransparentContainer=container)
                case "HandoverCancel":
                    target.release(("radioNetwork", "handover-cancelled"))
                    await self._expect(target, "UEContextReleaseComplete")
                    self._mme.drop(target)
                    await self._stop_forwarding(source)
                    source.send("HandoverCancelAcknowledge")
                    return None
                case _:
                    return arrival.message

    async def _forwarding(self, source: Leg, target: FTeid | None, required: S1apMessage) -> FTeid | None:
        """Where the source is to forward downlink: the target's end point, or one of the S-GW's on the way there."""
        if target is None or "Direct_Forwarding_Path_Availability" in required.ies:
            return target
        f_teid = gtp.f_teid(Interface.ENB_DOWNLINK_FORWARDING, target)
        response = await self._ask_sgw(
            MessageType.CREATE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST,
            gtp.bearer_context(gtp.ebi(E_RAB_ID), f_teid),
        )
        bearer = gtp.decode_ies(response.find(IeType.BEARER_CONTEXT))
        self._forwarding_from = source
        return gtp.f_teid_of(gtp.find(bearer, IeType.F_TEID))

    async def _stop_forwarding(self, source: Leg) -> None:
        if source is self._forwarding_from and self._session is not None:
            self._forwarding_from = None
            await self._ask_sgw(MessageType.DELETE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST)

    def _release_source(self, source: Leg) -> None:
        if self._mme.legs.get(source.mme_ue_id) is source:
            source.release(("radioNetwork", "successful-handover"))

    async def _path_switch(self, arrival: Arrival) -> None:
        leg, request, peer = arrival.leg, arrival.message, arrival.peer
        if leg is not self._leg or peer is None:
            return
        leg.peer = peer
        leg.enb_ue_id = request.ies["eNB_UE_S1AP_ID"]
        self._place(request)
        enb = s1ap.tunnel_of(request.ies["E_RABToBeSwitchedDLList"][0])
        if self._mme.sgw_for(peer).address != self._connected_session().sgw_s11.address:
            await self._change_sgw(leg, enb)
            return
        await self._modify_bearers({E_RAB_ID: enb}, self._location())
        leg.send("PathSwitchRequestAcknowledge", SecurityContext=_next_hop())
        await self._drop_dedicated()

    async def _change_sgw(self, leg: Leg, enb: FTeid) -> None:
        """X2 handover with S-GW relocation (TS 23.401 5.5.1.1.3): the eNodeB learns the new uplink with the answer."""
        await self._drop_dedicated()
        before = self._connected_session()
        request = (*self._session_identity(), *to_be_moved(before, enb))
        response = await self._mme.s11.request(
            MessageType.CREATE_SESSION_REQUEST, self._mme.sgw_for(leg.peer), *request
        )
        self._session = now = moved(before, response)
        leg.send(
            "PathSwitchRequestAcknowledge",
            E_RABToBeSwitchedULList=[{"e-RAB-ID": E_RAB_ID, **s1ap.tunnel_value(now.sgw_s1u)}],
            SecurityContext=_next_hop(),
        )
        delay_s = self._mme.config.mme.source_release_delay_s
        asyncio.get_running_loop().call_later(delay_s, self.mailbox.put, LeftBehind(before))

    # -- S11 -----------------------------------------------------------------------------------------------------------

    async def _create_session(self, peer: EnbPeer) -> PdnSession:
        response = await self._mme.s11.request(
            MessageType.CREATE_SESSION_REQUEST,
            self._mme.sgw_for(peer),
            *self._session_identity(),
            gtp.f_teid(Interface.S5C_PGW, FTeid(str(self._mme.config.pgw.s5_address), Teid(0)), instance=1),
            gtp.bearer_context(gtp.ebi(E_RAB_ID), gtp.default_bearer_qos()),
        )
        self._session = created(response)
        return self._session

    def _session_identity(self) -> tuple[Ie, ...]:
        config = self._mme.config
        return (
            *gtp.session_identity(self.imsi, config.plmn.plmn, config.apn),
            self._location(),
            gtp.f_teid(Interface.S11_MME, FTeid(str(config.mme.s11_address), Teid(self.mme_teid))),
        )

    async def _modify_bearers(self, ends: dict[int, FTeid], *ies: Ie) -> None:
        """Tell the S-GW the eNodeB's end of each E-RAB."""
        bearers = [
            gtp.bearer_context(gtp.ebi(number), gtp.f_teid(Interface.S1U_ENB, enb)) for number, enb in ends.items()
        ]
        await self._ask_sgw(MessageType.MODIFY_BEARER_REQUEST, *ies, *bearers)

    async def _release_access_bearers(self) -> None:
        if self._session is not None:
            await self._ask_sgw(MessageType.RELEASE_ACCESS_BEARERS_REQUEST, Ie(IeType.NODE_TYPE, b"\0"))

    async def _delete_session(self) -> None:
        await self._ask_sgw(
            MessageType.DELETE_SESSION_REQUEST, gtp.ebi(E_RAB_ID), self._location(), gtp.operation_indication()
        )
        self._session = None
        self._dedicated = {}

    async def _ask_sgw(self, kind: MessageType, *ies: Ie) -> Gtpv2Message:
        return await self._mme.s11.request(kind, self._connected_session().sgw_s11, *ies)

    def _connected_session(self) -> PdnSession:
        if self._session is None:
            raise ProcedureError("the UE has no PDN connection")
        return self._session

    # -- where the UE is, and what it says -----------------------------------------------------------------------------

    def _place(self, message: S1apMessage) -> None:
        self._tai = s1ap.tai_of(message.ies["TAI"])
        self._ecgi = s1ap.ecgi_of(message.ies["EUTRAN_CGI"])

    def _whereabouts(self) -> tuple[Tai, Ecgi]:
        if self._tai is None or self._ecgi is None:
            raise ProcedureError("the UE is nowhere")
        return self._tai, self._ecgi

    def _location(self) -> Ie:
        return gtp.user_location(*self._whereabouts())

    async def _expect(self, leg: Leg, *names: str) -> S1apMessage:
        return (await self._expect_any({(leg, name) for name in names})).message

    async def _expect_any(self, wanted: set[tuple[Leg, str]]) -> Arrival:
        item = await self.mailbox.expect(
            lambda item: isinstance(item, Arrival) and (item.leg, item.message.name) in wanted,
            " or ".join(sorted(name for _, name in wanted)),
        )
        if not isinstance(item, Arrival):
            raise TypeError(item)
        return item

    async def _expect_nas(self, leg: Leg, kind: nas.EmmType | nas.EsmType) -> nas.Nas:
        while True:
            message = await self._expect(leg, "UplinkNASTransport")
            read = nas.read(message.ies["NAS_PDU"])
            if read.type is kind:
                return read


def _next_hop() -> dict[str, Any]:
    """The security context that a target gets (TS 36.413 9.2.1.26); nobody derives a key from it here."""
    return {"nextHopChainingCount": 2, "nextHopParameter": (secrets.randbits(256), 256)}


def _forwarding_list(to: FTeid | None) -> dict[str, Any]:
    """Tell the source where to forward downlink."""
    if to is None:
        return {}
    return {"E_RABSubjecttoDataForwardingList": [{"e-RAB-ID": E_RAB_ID, **s1ap.forwarding_value(to)}]}


def _e_rab(number: int, bearer: DedicatedBearer, *, qos: str = "e-RABlevelQoSParameters") -> dict[str, Any]:
    """A dedicated E-RAB to be set up; a Handover Request spells its quality of service in another way."""
    level: dict[str, Any] = {**_QOS, "qCI": bearer.qci}
    if bearer.qci <= nas.LAST_GUARANTEED_QCI:
        level["gbrQosInformation"] = dict.fromkeys(_GUARANTEES, 64_000)
    return {"e-RAB-ID": number, qos: level, **s1ap.tunnel_value(bearer.sgw_s1u)}


def _release_list(acknowledge: S1apMessage) -> dict[str, Any]:
    """Tell the source which E-RABs the target has not admitted."""
    failed = acknowledge.ies.get("E_RABFailedToSetupListHOReqAck")
    return {} if not failed else {"E_RABtoReleaseListHOCmd": failed}
