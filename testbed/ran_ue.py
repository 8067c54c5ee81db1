"""An emulated UE with the eNodeBs' part in its procedures, each written down from its beginning to end.

The radio is its route: camping on a cell is sending through that cell's device. RRC messages are not sent; each costs
one Uu delay.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from mobiscud.core.ids import FTeid, Imsi
from testbed import nas_build as nas
from testbed import s1ap_build as s1ap
from testbed.enb import Downward, Enodeb, S1Connection
from testbed.lte_config import UeConfig
from testbed.mailbox import Mailbox, ProcedureError
from testbed.rrc_samples import UE_RADIO_CAPABILITY, source_to_target, target_to_source
from testbed.s1ap_build import S1apMessage
from testbed.tft import NUMBERS, Protocol, Template
from testbed.ue_routes import UeRoutes

E_RAB_ID: Final = nas.DEFAULT_BEARER


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioAccess:
    """One-way delays of the radio link and between eNodeBs, the UE's silence between two cells, and the forwarding."""

    uu_s: float
    x2_s: float
    interruption_s: float
    forwarding: Literal["direct", "indirect", "none"]


@dataclass(slots=True)
class _Handover:
    """An S1 handover under way."""

    target: Enodeb
    refuse: bool
    connection: S1Connection | None = None


class RanUe:
    """One UE. One procedure at a time; the caller sees to that with :attr:`lock`."""

    def __init__(self, config: UeConfig, index: int, routes: UeRoutes, access: RadioAccess) -> None:
        self.name = config.name
        self.lock = asyncio.Lock()
        self.mailbox: Mailbox[Downward] = Mailbox()
        self.serving: Enodeb | None = None
        """The cell the UE camps on; it stays when the UE goes idle."""
        self._imsi = Imsi(config.imsi)
        self._index = index
        self._routes = routes
        self._access = access
        self._connection: S1Connection | None = None
        self._last: S1Connection | None = None
        self._guti: nas.Guti | None = None
        self._address: str | None = None
        self._nas_count = 0
        self._handover: _Handover | None = None
        self._dedicated: dict[int, Template] = {}
        """What each bearer beside the default one carries, by E-RAB identity."""

    @property
    def state(self) -> str:
        """``detached``, ``idle`` or ``connected``."""
        if self._address is None:
            return "detached"
        return "idle" if self._connection is None else "connected"

    @property
    def m_tmsi(self) -> int | None:
        """By which the network pages the UE."""
        return self._guti.m_tmsi if self._guti is not None else None

    def truth(self) -> dict[str, Any]:
        """What is true of the UE now; ids and tunnels are the last S1 connection's when there is none."""
        facts: dict[str, Any] = {"imsi": str(self._imsi), "ue_ip": self._address, "state": self.state}
        facts["m_tmsi"] = self.m_tmsi
        if self.serving is not None:
            facts |= _facts_of_cell(self.serving)
        connection = self._connection or self._last
        if connection is not None:
            facts |= {"mme_ue_s1ap_id": connection.mme_ue_id, "enb_ue_s1ap_id": connection.enb_ue_id}
            facts["sgw_s1u_teid"] = connection.sgw and int(connection.sgw.teid)
            facts["enb_s1u_teid"] = connection.bearer and connection.bearer.downlink_teid
        facts["dedicated"] = sorted(self._dedicated)
        return facts

    # -- attach, service request, detach -------------------------------------------------------------------------------

    async def attach(self, enb: Enodeb) -> None:
        """Attach by IMSI at a cell.

        :raises ProcedureError: as all procedures, when the network does not play its part
        """
        self.mailbox.clear()
        self._nas_count = 0
        connection = self._open(enb)
        await self._uu()
        connection.send_first(
            "InitialUEMessage",
            NAS_PDU=nas.attach_request(self._imsi),
            RRC_Establishment_Cause="mo-Signalling",
            **connection.place(),
        )
        request = await self._expect_nas(connection, nas.EmmType.AUTHENTICATION_REQUEST)
        await self._send_nas(connection, nas.authentication_response(nas.response_to(nas.challenge_of(request))))
        await self._expect_nas(connection, nas.EmmType.SECURITY_MODE_COMMAND)
        await self._send_nas(connection, nas.security_mode_complete())
        setup = await self._expect(connection, "InitialContextSetupRequest")
        accept = nas.read(setup.ies["E_RABToBeSetupListCtxtSUReq"][0]["nAS-PDU"])
        self._guti = nas.guti_of(accept)
        self._take_address(nas.ue_address_of(accept))
        self._camp_on(enb)
        connection.send("UECapabilityInfoIndication", UERadioCapability=UE_RADIO_CAPABILITY)
        self._answer_context(connection, setup)
        self._nas_count += 1
        await self._send_nas(connection, nas.attach_complete(self._nas_count))

    async def service(self, enb: Enodeb | None = None) -> None:
        """Wake up, at the cell the UE camps on or at another it has moved to while idle."""
        self.mailbox.clear()
        enb = enb or self.serving
        if enb is None or self._guti is None or self._connection is not None:
            raise ProcedureError(f"service request of a UE that is {self.state}")
        self._camp_on(enb)
        connection = self._open(enb)
        await self._uu()
        self._nas_count += 1
        connection.send_first(
            "InitialUEMessage",
            NAS_PDU=nas.service_request(self._nas_count),
            RRC_Establishment_Cause="mo-Data",
            S_TMSI=_s_tmsi(self._guti),
            **connection.place(),
        )
        setup = await self._expect(connection, "InitialContextSetupRequest")
        await self._uu()
        self._answer_context(connection, setup)

    async def detach(self, *, switch_off: bool = False) -> None:
        """Leave the network; an idle UE opens a connection for it."""
        self.mailbox.clear()
        if self._guti is None or self._address is None or self.serving is None:
            raise ProcedureError("detach of a UE that is not attached")
        connection = self._connection
        self._nas_count += 1
        request = nas.detach_request(self._guti, self._nas_count, switch_off=switch_off)
        if connection is not None:
            await self._send_nas(connection, request)
        else:
            connection = self._open(self.serving)
            connection.send_first(
                "InitialUEMessage",
                NAS_PDU=request,
                RRC_Establishment_Cause="mo-Signalling",
                S_TMSI=_s_tmsi(self._guti),
                **connection.place(),
            )
        if not switch_off:
            await self._expect_nas(connection, nas.EmmType.DETACH_ACCEPT)
        await self._expect(connection, "UEContextReleaseCommand")
        self._take_address(None)
        self._guti = None

    async def tau(self, *, active: bool = False) -> None:
        """Tell the tracking area. ``active``: a UE that was idle stays connected."""
        self.mailbox.clear()
        if self._guti is None or self._address is None or self.serving is None:
            raise ProcedureError("tracking area update of a UE that is not attached")
        connection = self._connection
        self._nas_count += 1
        request = nas.tau_request(self._guti, self._nas_count, active=active)
        if connection is not None:
            await self._send_nas(connection, request)
            await self._expect_nas(connection, nas.EmmType.TAU_ACCEPT)
            return
        connection = self._open(self.serving)
        await self._uu()
        connection.send_first(
            "InitialUEMessage",
            NAS_PDU=request,
            RRC_Establishment_Cause="mo-Signalling",
            S_TMSI=_s_tmsi(self._guti),
            **connection.place(),
        )
        if active:
            setup = await self._expect(connection, "InitialContextSetupRequest")
            await self._uu()
            self._answer_context(connection, setup)
        else:
            await self._expect_nas(connection, nas.EmmType.TAU_ACCEPT)
            await self._expect(connection, "UEContextReleaseCommand")

    async def request_bearer(self, qci: int, protocol: Protocol) -> None:
        """Have a dedicated bearer set up for all traffic of a protocol that no earlier one carries."""
        self.mailbox.clear()
        connection = self._connected()
        self._nas_count += 1
        precedence = 1 + max((traffic.precedence for traffic in self._dedicated.values()), default=-1)
        wanted = Template(NUMBERS[protocol], precedence)
        await self._send_nas(connection, nas.bearer_request(qci, wanted, self._nas_count))
        setup = await self._expect(connection, "E-RABSetupRequest")
        (e_rab,) = setup.ies["E_RABToBeSetupListBearerSUReq"]
        activation = nas.read(e_rab["nAS-PDU"])
        await self._uu()
        self._dedicated[e_rab["e-RAB-ID"]] = nas.traffic_granted_of(activation)
        downlink = self._open_dedicated(connection, e_rab)
        item = {"e-RAB-ID": e_rab["e-RAB-ID"], **s1ap.tunnel_value(downlink)}
        connection.send("E-RABSetupResponse", E_RABSetupListBearerSURes=[item])
        self._nas_count += 1
        await self._send_nas(connection, nas.bearer_accept(activation.bearer, self._nas_count))

    async def release_bearer(self) -> None:
        """Have the newest dedicated bearer taken down."""
        self.mailbox.clear()
        connection = self._connected()
        if not self._dedicated:
            raise ProcedureError("the UE has no dedicated bearer")
        number = max(self._dedicated)
        self._nas_count += 1
        await self._send_nas(connection, nas.bearer_release_request(number, self._nas_count))
        await self._expect(connection, "E-RABReleaseCommand")
        await self._uu()
        del self._dedicated[number]
        connection.close_dedicated(number)
        connection.send("E-RABReleaseResponse", E_RABReleaseListBearerRelComp=[{"e-RAB-ID": number}])
        self._nas_count += 1
        await self._send_nas(connection, nas.bearer_released(number, self._nas_count))

    def _open_dedicated(self, connection: S1Connection, e_rab: Mapping[str, Any]) -> FTeid:
        """The eNodeB's end of a dedicated bearer, which carries what the UE keeps its template for."""
        number = e_rab["e-RAB-ID"]
        if number not in self._dedicated:
            raise ProcedureError(f"the UE knows no bearer {number}")
        traffic = self._dedicated[number]
        return connection.open_dedicated(number, s1ap.tunnel_of(e_rab), self._packed_address(), traffic)

    async def idle(self) -> None:
        """Release the connection, as after inactivity."""
        self.mailbox.clear()
        connection = self._connected()
        connection.send("UEContextReleaseRequest", Cause=("radioNetwork", "user-inactivity"))
        await self._expect(connection, "UEContextReleaseCommand")

    # -- handover ------------------------------------------------------------------------------------------------------

    async def s1_handover(self, target: Enodeb, outcome: str) -> None:
        """Hand over by the MME. ``outcome``: ``ok``, ``failure`` (the target refuses) or ``cancel`` (the source)."""
        self.mailbox.clear()
        source = self._connected_elsewhere(target)
        self._handover = handover = _Handover(target, refuse=outcome == "failure")
        try:
            source.send(
                "HandoverRequired",
                HandoverType="intralte",
                Cause=("radioNetwork", "time-critical-handover"),
                TargetID=_target(target),
                **self._forwarding_path(),
                Source_ToTarget_TransparentContainer=source_to_target(source.enb.ecgi, target.ecgi, E_RAB_ID),
            )
            answer = await self._expect(source, "HandoverCommand", "HandoverPreparationFailure")
            if answer.name == "HandoverPreparationFailure":
                if outcome != "failure":
                    raise ProcedureError("handover preparation failed")
                return
            if outcome == "cancel":
                source.send("HandoverCancel", Cause=("radioNetwork", "tS1relocprep-expiry"))
                await self._expect(source, "HandoverCancelAcknowledge")
                return
            if handover.connection is None:
                raise ProcedureError("the target was not asked")
            forward_to = s1ap.forwarding_of(*answer.ies.get("E_RABSubjecttoDataForwardingList", [{}]))
            self._send_away(source, forward_to)
            source.send("ENBStatusTransfer", eNB_StatusTransfer_TransparentContainer=_status(E_RAB_ID))
            await self._arrive(handover.connection)
            handover.connection.send("HandoverNotify", **handover.connection.place())
        finally:
            self._handover = None

    def prepare_target(self, enb: Enodeb, request: S1apMessage) -> bool:
        """Answer a Handover Request at the target if it is for this UE: the S-GW's F-TEID tells, nothing else does."""
        handover, source = self._handover, self._connection
        e_rab, *dedicated = request.ies["E_RABToBeSetupListHOReq"]
        if handover is None or source is None or enb is not handover.target or s1ap.tunnel_of(e_rab) != source.sgw:
            return False
        mme_ue_id = request.ies["MME_UE_S1AP_ID"]
        connection = enb.connect(self)
        connection.mme_ue_id = mme_ue_id
        if handover.refuse:
            enb.send("HandoverFailure", MME_UE_S1AP_ID=mme_ue_id, Cause=("radioNetwork", "unspecified"))
            return True
        handover.connection = connection
        forwarding = self._access.forwarding != "none"
        downlink = connection.expect_bearer(source.sgw, self._packed_address(), forwarding=forwarding)
        tunnels = s1ap.tunnel_value(downlink) | s1ap.forwarding_value(connection.forwarding)
        connection.send(
            "HandoverRequestAcknowledge",
            E_RABAdmittedList=[{"e-RAB-ID": E_RAB_ID, **tunnels}],
            **_not_admitted(dedicated),
            Target_ToSource_TransparentContainer=target_to_source(),
        )
        return True

    async def x2_handover(self, target: Enodeb) -> None:
        """Hand over between the eNodeBs; X2AP is not on the wire, only its delay is."""
        self.mailbox.clear()
        source = self._connected_elsewhere(target)
        if source.sgw is None:
            raise ProcedureError("the UE has no bearer")
        await asyncio.sleep(2 * self._access.x2_s)  # Handover Request and its Acknowledge
        connection = target.connect(self)
        connection.mme_ue_id = source.mme_ue_id
        connection.expect_bearer(source.sgw, self._packed_address(), forwarding=self._access.forwarding != "none")
        self._send_away(source, connection.forwarding)
        await self._arrive(connection)
        self._switch_path(connection)
        answer = await self._expect(connection, "PathSwitchRequestAcknowledge")
        for e_rab in answer.ies.get("E_RABToBeSwitchedULList", ()):
            connection.switch_uplink(s1ap.tunnel_of(e_rab))
        await asyncio.sleep(self._access.x2_s)  # UE Context Release
        source.enb.forget(source)

    def _forwarding_path(self) -> dict[str, str]:
        """Whether the source reaches the target without the S-GW (TS 36.413 9.2.3.15)."""
        if self._access.forwarding != "direct":
            return {}
        return {"Direct_Forwarding_Path_Availability": "directPathAvailable"}

    @staticmethod
    def _send_away(source: S1Connection, forward_to: FTeid | None) -> None:
        """Command the UE to leave; what still comes for it follows it."""
        if source.bearer is None:
            raise ProcedureError("the UE has no bearer")
        source.enb.user_plane.leave(source.bearer, forward_to)
        for bearer in source.dedicated.values():  # the target has not admitted them
            source.enb.user_plane.leave(bearer, None)

    async def _arrive(self, target: S1Connection) -> None:
        """From the command on the radio link to the UE's confirmation at the target."""
        if target.bearer is None:
            raise ProcedureError("the UE has no bearer")
        await self._uu()
        self._camp_on(target.enb)
        await asyncio.sleep(self._access.interruption_s)
        await self._uu()
        target.enb.user_plane.arrive(target.bearer)
        self._connection = self._last = target
        self._dedicated = {}  # targets admit the default bearer alone

    @staticmethod
    def _switch_path(target: S1Connection) -> None:
        target.send_first(
            "PathSwitchRequest",
            E_RABToBeSwitchedDLList=[{"e-RAB-ID": E_RAB_ID, **s1ap.tunnel_value(target.downlink)}],
            SourceMME_UE_S1AP_ID=target.mme_ue_id,
            UESecurityCapabilities={
                "encryptionAlgorithms": (0xE000, 16),
                "integrityProtectionAlgorithms": (0xE000, 16),
            },
            **target.place(),
        )

    def released(self, connection: S1Connection) -> None:
        """The network has released a connection; if it was the current one, the UE is idle now."""
        if connection is self._connection:
            self._connection = None

    def close(self) -> None:
        """Take the UE's address and routes out of its namespace, whatever the network believes."""
        self._take_address(None)

    # -- parts of procedures -------------------------------------------------------------------------------------------

    def _open(self, enb: Enodeb) -> S1Connection:
        self.serving = enb
        self._connection = self._last = enb.connect(self)
        return self._connection

    def _take_address(self, address: str | None) -> None:
        """Have this address and no other; ``None`` for none at all."""
        if self._address is not None:
            self._routes.remove_address(self._address, self._index)
        if address is not None:
            self._routes.add_address(address, self._index)
        self._address = address
        self._dedicated = {}

    def _camp_on(self, enb: Enodeb) -> None:
        self.serving = enb
        if self._address is not None:
            self._routes.camp_on(enb.config.ue_device, self._address, self._index)

    def _answer_context(self, connection: S1Connection, setup: S1apMessage) -> None:
        e_rab, *dedicated = setup.ies["E_RABToBeSetupListCtxtSUReq"]
        downlink = connection.open_bearer(s1ap.tunnel_of(e_rab), self._packed_address())
        ends = {E_RAB_ID: downlink} | {item["e-RAB-ID"]: self._open_dedicated(connection, item) for item in dedicated}
        connection.send(
            "InitialContextSetupResponse",
            E_RABSetupListCtxtSURes=[{"e-RAB-ID": number, **s1ap.tunnel_value(end)} for number, end in ends.items()],
        )

    async def _send_nas(self, connection: S1Connection, octets: bytes) -> None:
        await self._uu()
        connection.send("UplinkNASTransport", NAS_PDU=octets, **connection.place())

    async def _expect(self, connection: S1Connection, *names: str) -> S1apMessage:
        item = await self.mailbox.expect(
            lambda item: item.connection is connection and item.message.name in names, " or ".join(names)
        )
        return item.message

    async def _expect_nas(self, connection: S1Connection, kind: nas.EmmType) -> nas.Nas:
        message = await self._expect(connection, "DownlinkNASTransport")
        read = nas.read(message.ies["NAS_PDU"])
        if read.type is not kind:
            raise ProcedureError(f"{read.type.name} instead of {kind.name}")
        await self._uu()
        return read

    async def _uu(self) -> None:
        await asyncio.sleep(self._access.uu_s)

    def _connected(self) -> S1Connection:
        if self._connection is None:
            raise ProcedureError(f"the UE is {self.state}")
        return self._connection

    def _connected_elsewhere(self, target: Enodeb) -> S1Connection:
        connection = self._connected()
        if connection.enb is target:
            raise ProcedureError("the UE is at the target already")
        return connection

    def _packed_address(self) -> bytes:
        if self._address is None:
            raise ProcedureError("the UE has no address")
        return ipaddress.IPv4Address(self._address).packed


def _facts_of_cell(enb: Enodeb) -> dict[str, Any]:
    return {"enb": enb.address, "enb_id": enb.config.enb_id, "cell": int(enb.ecgi.cell_id)}


def _target(enb: Enodeb) -> tuple[str, Mapping[str, Any]]:
    return "targeteNB-ID", {
        "global-ENB-ID": s1ap.macro_enb_value(enb.plmn, enb.config.enb_id),
        "selected-TAI": s1ap.tai_value(enb.tai),
    }


def _s_tmsi(guti: nas.Guti) -> dict[str, bytes]:
    return {"mMEC": guti.mme_code.to_bytes(1, "big"), "m-TMSI": guti.m_tmsi.to_bytes(4, "big")}


def _not_admitted(e_rabs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A target with room for the default bearer alone."""
    cause = ("radioNetwork", "no-radio-resources-available-in-target-cell")
    failed = [{"e-RAB-ID": e_rab["e-RAB-ID"], "cause": cause} for e_rab in e_rabs]
    return {"E_RABFailedToSetupListHOReqAck": failed} if failed else {}


def _status(e_rab_id: int) -> dict[str, Any]:
    """PDCP counts (TS 36.413 9.2.1.31); the emulated radio has no PDCP, so they only have their form."""
    count = {"pDCP-SN": 0, "hFN": 0}
    item = {"e-RAB-ID": e_rab_id, "uL-COUNTvalue": count, "dL-COUNTvalue": count}
    wrapped = {"id": 89, "criticality": "ignore", "value": ("Bearers-SubjectToStatusTransfer-Item", item)}
    return {"bearers-SubjectToStatusTransferList": [wrapped]}
