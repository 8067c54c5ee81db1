"""The MME's procedures as playbooks: what arrives, and exactly what leaves on S1 and S11, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from mobiscud.core.ids import CellId, Ecgi, FTeid, Imsi, Plmn, Tac, Tai, Teid
from testbed import gtpv2_build as gtp
from testbed import nas_build as nas
from testbed import s1ap_build as s1ap
from testbed.gtpv2_build import Gtpv2Message, Ie, Interface, MessageType
from testbed.lte_config import EpcConfig
from testbed.mme import Mme
from testbed.s1ap_build import S1apMessage
from testbed.s11 import S11Client
from testbed.sctp_association import CloseReason

PLMN = Plmn("999", "70")
IMSI = "999700000000001"
SGW_S1U = FTeid("10.0.0.2", Teid(0xA5C4))
SGW_FORWARDING = FTeid("10.0.0.2", Teid(0xF00D))
FORWARDING = FTeid("10.0.0.12", Teid(0xFADE))
"""Where eNodeB 2 takes forwarded packets."""
CONFIG = EpcConfig.model_validate(
    {
        "namespace": "core",
        "mme": {"s1_address": "10.0.0.1", "s11_address": "10.1.0.1", "source_release_delay_s": 0},
        "sgw": {"s1u_address": "10.0.0.2", "s11_address": "10.1.0.2", "s5_address": "10.0.1.1"},
        "pgw": {"namespace": "pgw", "s5_address": "10.0.1.2"},
        "subscribers": [IMSI],
    }
)


class Log:
    """What the MME has sent, and the wait for it."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self._grown = asyncio.Event()

    def add(self, entry: str) -> None:
        self.entries.append(entry)
        self._grown.set()

    async def take(self, count: int) -> list[str]:
        """Give all entries once there are so many, with some turns of the loop for too many."""
        async with asyncio.timeout(5):
            while len(self.entries) < count:
                self._grown.clear()
                await self._grown.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        taken, self.entries = self.entries, []
        return taken


def _no_message(payload: bytes) -> None: ...


def _no_end(reason: CloseReason) -> None: ...


def _no_data(teid: int) -> None: ...


@dataclass
class FakeS11:
    """An S-GW that accepts everything, and writes down what it was asked."""

    log: Log
    on_downlink_data: Callable[[int], None] = field(default=_no_data)
    mme_teid: int = 0
    enb: FTeid | None = None

    async def request(self, kind: MessageType, sgw: FTeid, *ies: Ie) -> Gtpv2Message:
        self.log.add(kind.name)
        answer: tuple[Ie, ...] = (gtp.cause(),)
        if kind is MessageType.CREATE_SESSION_REQUEST:
            assert gtp.find(ies, gtp.IeType.IMSI) == nas.tbcd(IMSI)
            self.mme_teid = gtp.f_teid_of(gtp.find(ies, gtp.IeType.F_TEID)).teid
            answer = (
                gtp.cause(),
                gtp.f_teid(Interface.S11_SGW, FTeid("10.1.0.2", Teid(0x77))),
                gtp.f_teid(Interface.S5C_PGW, FTeid("10.0.1.2", Teid(0x66)), instance=1),
                gtp.pdn_address("45.45.0.2"),
                gtp.bearer_context(gtp.ebi(5), gtp.f_teid(Interface.S1U_SGW, SGW_S1U)),
            )
        else:
            assert sgw == FTeid("10.1.0.2", Teid(0x77))
        if kind is MessageType.MODIFY_BEARER_REQUEST:
            bearer = gtp.decode_ies(gtp.find(ies, gtp.IeType.BEARER_CONTEXT))
            self.enb = gtp.f_teid_of(gtp.find(bearer, gtp.IeType.F_TEID))
        elif kind is MessageType.CREATE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST:
            bearer = gtp.decode_ies(gtp.find(ies, gtp.IeType.BEARER_CONTEXT))
            self.forwarding = gtp.f_teid_of(gtp.find(bearer, gtp.IeType.F_TEID))
            end = gtp.f_teid(Interface.SGW_DOWNLINK_FORWARDING, SGW_FORWARDING)
            answer = (gtp.bearer_context(gtp.ebi(5), gtp.cause(), end),)
        return Gtpv2Message(kind, 1, 1, answer)


class FakeEnb:
    """An eNodeB at the far end of a fake association."""

    def __init__(self, number: int, log: Log) -> None:
        self.number = number
        self.log = log
        self.peer_address = ""
        self.on_message: Callable[[bytes], None] = _no_message
        self.on_closed: Callable[[CloseReason], None] = _no_end
        self.received: list[tuple[int, S1apMessage]] = []

    @property
    def tunnel(self) -> FTeid:
        return FTeid(f"10.0.0.1{self.number}", Teid(self.number))

    @property
    def place(self) -> dict[str, Any]:
        ecgi = Ecgi(PLMN, CellId(self.number))
        return {"EUTRAN_CGI": s1ap.ecgi_value(ecgi), "TAI": s1ap.tai_value(Tai(PLMN, Tac(1)))}

    def send(self, payload: bytes, *, stream: int) -> None:
        message = s1ap.decode(payload)
        self.received.append((stream, message))
        self.log.add(f"{self.number}:{message.name}")

    async def close(self) -> None:
        self.on_closed(CloseReason.SHUTDOWN)

    def says(self, name: str, **ies: Any) -> None:
        self.on_message(s1ap.encode(name, **ies))

    def last(self, name: str) -> S1apMessage:
        return next(message for _, message in reversed(self.received) if message.name == name)


class Network:
    """An MME between two eNodeBs and an S-GW; the log holds all that the MME sent."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.log = Log()
        self.s11 = FakeS11(self.log)
        self.mme = Mme(CONFIG, cast(S11Client, self.s11), tasks)
        self.enb1, self.enb2 = (FakeEnb(number, self.log) for number in (1, 2))
        for enb in (self.enb1, self.enb2):
            self.mme.accept(enb)
            enb.says(
                "S1SetupRequest",
                Global_ENB_ID=s1ap.macro_enb_value(PLMN, enb.number),
                SupportedTAs=[{"tAC": b"\0\1", "broadcastPLMNs": [s1ap.plmn_octets(PLMN)]}],
                DefaultPagingDRX="v64",
            )

    async def sends(self, *expected: str) -> None:
        """Wait until the MME has sent as much as expected, and hold it to that; the log is empty afterwards."""
        assert await self.log.take(len(expected)) == list(expected)

    async def attach(self, enb_ue_id: int = 1) -> int:
        """Attach at eNodeB 1, and give the MME UE S1AP ID."""
        enb = self.enb1
        enb.says(
            "InitialUEMessage",
            eNB_UE_S1AP_ID=enb_ue_id,
            NAS_PDU=nas.attach_request(Imsi(IMSI)),
            RRC_Establishment_Cause="mo-Signalling",
            **enb.place,
        )
        await self.sends("1:DownlinkNASTransport")
        ies = enb.last("DownlinkNASTransport").ies
        ids = {"MME_UE_S1AP_ID": ies["MME_UE_S1AP_ID"], "eNB_UE_S1AP_ID": enb_ue_id}
        res = nas.response_to(nas.challenge_of(nas.read(ies["NAS_PDU"])))
        enb.says("UplinkNASTransport", NAS_PDU=nas.authentication_response(res), **ids, **enb.place)
        await self.sends("1:DownlinkNASTransport")
        enb.says("UplinkNASTransport", NAS_PDU=nas.security_mode_complete(), **ids, **enb.place)
        await self.sends("CREATE_SESSION_REQUEST", "1:InitialContextSetupRequest")
        self.context_set_up(enb, ids)
        enb.says("UplinkNASTransport", NAS_PDU=nas.attach_complete(1), **ids, **enb.place)
        await self.sends("MODIFY_BEARER_REQUEST")
        mme_ue_id: int = ids["MME_UE_S1AP_ID"]
        return mme_ue_id

    @staticmethod
    def context_set_up(enb: FakeEnb, ids: dict[str, int]) -> None:
        e_rab = {"e-RAB-ID": 5, **s1ap.tunnel_value(enb.tunnel)}
        enb.says("InitialContextSetupResponse", E_RABSetupListCtxtSURes=[e_rab], **ids)

    async def prepare_handover(self, mme_ue_id: int) -> int:
        """From Handover Required at eNodeB 1 to Handover Command; gives the target's MME UE S1AP ID."""
        self.require_handover(mme_ue_id, target=2)
        target_id = await self.admit_handover(None)
        await self.sends("1:HandoverCommand")
        return target_id

    async def admit_handover(self, forwarding: FTeid | None) -> int:
        """Handover Request at eNodeB 2 and its acknowledge, with an end for forwarded packets or without."""
        await self.sends("2:HandoverRequest")
        tunnels = s1ap.tunnel_value(self.enb2.tunnel) | s1ap.forwarding_value(forwarding)
        target_id: int = self.enb2.last("HandoverRequest").ies["MME_UE_S1AP_ID"]
        self.enb2.says(
            "HandoverRequestAcknowledge",
            MME_UE_S1AP_ID=target_id,
            eNB_UE_S1AP_ID=9,
            E_RABAdmittedList=[{"e-RAB-ID": 5, **tunnels}],
            Target_ToSource_TransparentContainer=b"back",
        )
        return target_id

    def require_handover(self, mme_ue_id: int, target: int, **ies: Any) -> None:
        target_id = {
            "global-ENB-ID": s1ap.macro_enb_value(PLMN, target),
            "selected-TAI": s1ap.tai_value(Tai(PLMN, Tac(1))),
        }
        self.enb1.says(
            "HandoverRequired",
            MME_UE_S1AP_ID=mme_ue_id,
            eNB_UE_S1AP_ID=1,
            HandoverType="intralte",
            Cause=("radioNetwork", "time-critical-handover"),
            TargetID=("targeteNB-ID", target_id),
            Source_ToTarget_TransparentContainer=b"forth",
            **ies,
        )

    async def go_idle(self, mme_ue_id: int) -> None:
        ids = {"MME_UE_S1AP_ID": mme_ue_id, "eNB_UE_S1AP_ID": 1}
        self.enb1.says("UEContextReleaseRequest", Cause=("radioNetwork", "user-inactivity"), **ids)
        await self.sends("RELEASE_ACCESS_BEARERS_REQUEST", "1:UEContextReleaseCommand")
        self.enb1.says("UEContextReleaseComplete", **ids)

    def s_tmsi(self) -> dict[str, bytes]:
        setup = self.enb1.last("InitialContextSetupRequest")
        accept = nas.read(setup.ies["E_RABToBeSetupListCtxtSUReq"][0]["nAS-PDU"])
        return {"mMEC": b"\1", "m-TMSI": nas.guti_of(accept).m_tmsi.to_bytes(4, "big")}


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with asyncio.TaskGroup() as tasks:
        made = Network(tasks)
        await made.sends("1:S1SetupResponse", "2:S1SetupResponse")
        yield made
        await made.mme.close()


async def test_attach_gives_address_and_tunnel(network: Network) -> None:
    await network.attach()
    setup = network.enb1.last("InitialContextSetupRequest")
    (e_rab,) = setup.ies["E_RABToBeSetupListCtxtSUReq"]
    assert s1ap.tunnel_of(e_rab) == SGW_S1U
    assert nas.ue_address_of(nas.read(e_rab["nAS-PDU"])) == "45.45.0.2"
    assert network.s11.enb == network.enb1.tunnel


async def test_ue_messages_leave_stream_0_to_others(network: Network) -> None:
    await network.attach()
    streams = {message.name: stream for stream, message in network.enb1.received}
    assert streams.pop("S1SetupResponse") == 0
    assert set(streams.values()).isdisjoint({0})


async def test_wrong_answer_to_the_challenge_ends_the_attach(network: Network) -> None:
    enb = network.enb1
    enb.says(
        "InitialUEMessage",
        eNB_UE_S1AP_ID=1,
        NAS_PDU=nas.attach_request(Imsi(IMSI)),
        RRC_Establishment_Cause="mo-Signalling",
        **enb.place,
    )
    await network.sends("1:DownlinkNASTransport")
    ids = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1}
    enb.says("UplinkNASTransport", NAS_PDU=nas.authentication_response(bytes(8)), **ids, **enb.place)
    await network.sends()


async def test_stranger_is_not_served(network: Network) -> None:
    network.enb1.says(
        "InitialUEMessage",
        eNB_UE_S1AP_ID=1,
        NAS_PDU=nas.attach_request(Imsi("999700000000009")),
        RRC_Establishment_Cause="mo-Signalling",
        **network.enb1.place,
    )
    await network.sends("1:ErrorIndication")


async def test_s1_handover(network: Network) -> None:
    source_id = await network.attach()
    target_id = await network.prepare_handover(source_id)
    assert target_id != source_id
    request = network.enb2.last("HandoverRequest").ies
    assert "eNB_UE_S1AP_ID" not in request
    assert s1ap.tunnel_of(request["E_RABToBeSetupListHOReq"][0]) == SGW_S1U
    assert request["Source_ToTarget_TransparentContainer"] == b"forth"
    assert network.enb1.last("HandoverCommand").ies["Target_ToSource_TransparentContainer"] == b"back"

    network.enb1.says(
        "ENBStatusTransfer",
        MME_UE_S1AP_ID=source_id,
        eNB_UE_S1AP_ID=1,
        eNB_StatusTransfer_TransparentContainer=_status(),
    )
    await network.sends("2:MMEStatusTransfer")
    network.enb2.says("HandoverNotify", MME_UE_S1AP_ID=target_id, eNB_UE_S1AP_ID=9, **network.enb2.place)
    await network.sends("MODIFY_BEARER_REQUEST", "1:UEContextReleaseCommand")
    assert network.s11.enb == network.enb2.tunnel
    release = network.enb1.last("UEContextReleaseCommand").ies
    assert release["Cause"] == ("radioNetwork", "successful-handover")
    assert release["UE_S1AP_IDs"] == ("uE-S1AP-ID-pair", {"mME-UE-S1AP-ID": source_id, "eNB-UE-S1AP-ID": 1})


def forwarding_in(command: S1apMessage) -> FTeid | None:
    (item,) = command.ies["E_RABSubjecttoDataForwardingList"]
    assert item["e-RAB-ID"] == 5
    return s1ap.forwarding_of(item)


async def test_source_with_a_way_to_the_target_forwards_directly(network: Network) -> None:
    source_id = await network.attach()
    network.require_handover(source_id, 2, Direct_Forwarding_Path_Availability="directPathAvailable")
    await network.admit_handover(FORWARDING)
    await network.sends("1:HandoverCommand")
    assert forwarding_in(network.enb1.last("HandoverCommand")) == FORWARDING


async def test_source_without_one_forwards_over_the_sgw(network: Network) -> None:
    source_id = await network.attach()
    network.require_handover(source_id, 2)
    target_id = await network.admit_handover(FORWARDING)
    await network.sends("CREATE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST", "1:HandoverCommand")
    assert network.s11.forwarding == FORWARDING
    assert forwarding_in(network.enb1.last("HandoverCommand")) == SGW_FORWARDING

    network.enb2.says("HandoverNotify", MME_UE_S1AP_ID=target_id, eNB_UE_S1AP_ID=9, **network.enb2.place)
    await network.sends("MODIFY_BEARER_REQUEST", "1:UEContextReleaseCommand")
    network.enb1.says("UEContextReleaseComplete", MME_UE_S1AP_ID=source_id, eNB_UE_S1AP_ID=1)
    await network.sends("DELETE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST")


async def test_cancelled_handover_closes_the_indirect_tunnel(network: Network) -> None:
    source_id = await network.attach()
    network.require_handover(source_id, 2)
    target_id = await network.admit_handover(FORWARDING)
    await network.sends("CREATE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST", "1:HandoverCommand")
    ids = {"MME_UE_S1AP_ID": source_id, "eNB_UE_S1AP_ID": 1}
    network.enb1.says("HandoverCancel", Cause=("radioNetwork", "tS1relocprep-expiry"), **ids)
    await network.sends("2:UEContextReleaseCommand")
    network.enb2.says("UEContextReleaseComplete", MME_UE_S1AP_ID=target_id, eNB_UE_S1AP_ID=9)
    await network.sends("DELETE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST", "1:HandoverCancelAcknowledge")


async def test_cancelled_handover_releases_the_target_first(network: Network) -> None:
    source_id = await network.attach()
    target_id = await network.prepare_handover(source_id)
    ids = {"MME_UE_S1AP_ID": source_id, "eNB_UE_S1AP_ID": 1}
    network.enb1.says("HandoverCancel", Cause=("radioNetwork", "tS1relocprep-expiry"), **ids)
    await network.sends("2:UEContextReleaseCommand")
    network.enb2.says("UEContextReleaseComplete", MME_UE_S1AP_ID=target_id, eNB_UE_S1AP_ID=9)
    await network.sends("1:HandoverCancelAcknowledge")
    assert network.s11.enb == network.enb1.tunnel
    assert await network.prepare_handover(source_id) > target_id


async def test_failed_handover_releases_by_the_mme_id_alone(network: Network) -> None:
    source_id = await network.attach()
    network.require_handover(source_id, target=2)
    await network.sends("2:HandoverRequest")
    target_id = network.enb2.last("HandoverRequest").ies["MME_UE_S1AP_ID"]
    network.enb2.says("HandoverFailure", MME_UE_S1AP_ID=target_id, Cause=("radioNetwork", "unspecified"))
    await network.sends("1:HandoverPreparationFailure", "2:UEContextReleaseCommand")
    assert network.enb2.last("UEContextReleaseCommand").ies["UE_S1AP_IDs"] == ("mME-UE-S1AP-ID", target_id)


async def test_unknown_target_is_refused(network: Network) -> None:
    source_id = await network.attach()
    network.require_handover(source_id, target=77)
    await network.sends("1:HandoverPreparationFailure")


async def test_x2_handover_keeps_the_mme_id(network: Network) -> None:
    mme_ue_id = await network.attach()
    network.enb2.says(
        "PathSwitchRequest",
        eNB_UE_S1AP_ID=4,
        E_RABToBeSwitchedDLList=[{"e-RAB-ID": 5, **s1ap.tunnel_value(network.enb2.tunnel)}],
        SourceMME_UE_S1AP_ID=mme_ue_id,
        UESecurityCapabilities={
            "encryptionAlgorithms": (0xE000, 16),
            "integrityProtectionAlgorithms": (0xE000, 16),
        },
        **network.enb2.place,
    )
    await network.sends("MODIFY_BEARER_REQUEST", "2:PathSwitchRequestAcknowledge")
    assert network.s11.enb == network.enb2.tunnel
    acknowledged = network.enb2.last("PathSwitchRequestAcknowledge").ies
    assert (acknowledged["MME_UE_S1AP_ID"], acknowledged["eNB_UE_S1AP_ID"]) == (mme_ue_id, 4)


async def test_idle_and_service_with_a_new_id(network: Network) -> None:
    mme_ue_id = await network.attach()
    await network.go_idle(mme_ue_id)
    network.enb2.says(
        "InitialUEMessage",
        eNB_UE_S1AP_ID=2,
        NAS_PDU=nas.service_request(2),
        RRC_Establishment_Cause="mo-Data",
        S_TMSI=network.s_tmsi(),
        **network.enb2.place,
    )
    await network.sends("2:InitialContextSetupRequest")
    setup = network.enb2.last("InitialContextSetupRequest").ies
    assert setup["MME_UE_S1AP_ID"] > mme_ue_id
    assert "nAS-PDU" not in setup["E_RABToBeSetupListCtxtSUReq"][0]
    network.context_set_up(network.enb2, {"MME_UE_S1AP_ID": setup["MME_UE_S1AP_ID"], "eNB_UE_S1AP_ID": 2})
    await network.sends("MODIFY_BEARER_REQUEST")
    assert network.s11.enb == network.enb2.tunnel


async def test_data_for_an_idle_ue_pages_in_its_tracking_area(network: Network) -> None:
    mme_ue_id = await network.attach()
    await network.go_idle(mme_ue_id)
    network.s11.on_downlink_data(network.s11.mme_teid)
    await network.sends("1:Paging", "2:Paging")
    kind, identity = network.enb1.last("Paging").ies["UEPagingID"]
    assert (kind, identity) == ("s-TMSI", network.s_tmsi())


async def test_second_attach_releases_the_stale_context(network: Network) -> None:
    first = await network.attach()
    network.enb1.says(
        "InitialUEMessage",
        eNB_UE_S1AP_ID=2,
        NAS_PDU=nas.attach_request(Imsi(IMSI)),
        RRC_Establishment_Cause="mo-Signalling",
        **network.enb1.place,
    )
    await network.sends("1:UEContextReleaseCommand", "DELETE_SESSION_REQUEST", "1:DownlinkNASTransport")
    release = network.enb1.last("UEContextReleaseCommand").ies
    assert release["Cause"] == ("nas", "normal-release")
    assert release["UE_S1AP_IDs"][1] == {"mME-UE-S1AP-ID": first, "eNB-UE-S1AP-ID": 1}


@pytest.mark.parametrize("switch_off", [True, False])
async def test_detach(network: Network, switch_off: bool) -> None:
    mme_ue_id = await network.attach()
    guti = nas.Guti(PLMN, 2, 1, int.from_bytes(network.s_tmsi()["m-TMSI"], "big"))
    network.enb1.says(
        "UplinkNASTransport",
        MME_UE_S1AP_ID=mme_ue_id,
        eNB_UE_S1AP_ID=1,
        NAS_PDU=nas.detach_request(guti, 2, switch_off=switch_off),
        **network.enb1.place,
    )
    accept = () if switch_off else ("1:DownlinkNASTransport",)
    await network.sends("DELETE_SESSION_REQUEST", *accept, "1:UEContextReleaseCommand")
    assert network.enb1.last("UEContextReleaseCommand").ies["Cause"] == ("nas", "detach")


async def test_lost_enb_releases_access_bearers_only(network: Network) -> None:
    await network.attach()
    network.enb1.on_closed(CloseReason.ABORT)
    await network.sends("RELEASE_ACCESS_BEARERS_REQUEST")
    assert not network.mme.legs


async def test_message_of_no_connection_is_an_error(network: Network) -> None:
    network.enb1.says("UEContextReleaseComplete", MME_UE_S1AP_ID=77, eNB_UE_S1AP_ID=1)
    await network.sends("1:ErrorIndication")


def _status() -> dict[str, Any]:
    count = {"pDCP-SN": 0, "hFN": 0}
    item = {"e-RAB-ID": 5, "uL-COUNTvalue": count, "dL-COUNTvalue": count}
    wrapped = {"id": 89, "criticality": "ignore", "value": ("Bearers-SubjectToStatusTransfer-Item", item)}
    return {"bearers-SubjectToStatusTransferList": [wrapped]}
