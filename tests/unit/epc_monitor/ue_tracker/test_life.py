"""Attach, service, idle, TAU, detach, bearers: each fact once, from the message that completes it."""

from __future__ import annotations

from typing import Any

from pycrate_asn1dir import S1AP

from epc_monitor.ue_tracker import Limits
from mobiscud.core.events import (
    BearerEstablished,
    BearerModified,
    BearerReleased,
    EnbConnected,
    EnbDisconnected,
    Event,
    MonitorDesynchronised,
    TrackingAreaUpdated,
    UeAttached,
    UeConnected,
    UeDetached,
    UeEvent,
    UeIdle,
)
from mobiscud.core.ids import ERabId
from mobiscud.core.ue import Pdn
from testbed.scripted_epc import DETACH, NORMAL, QOS, SGW_U, Nas, Network, end, guti_identity, imsi_identity

IMSI, OTHER = "999700000000001", "999700000000002"
SECOND_SGW = bytes((10, 1, 0, 33))


def types(events: list[Event]) -> list[str]:
    return [event.TYPE for event in events]


def test_an_idle_ue_keeps_its_uplinks(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    [idle] = enb.release(1, 1)
    assert isinstance(idle, UeIdle)
    assert idle.enb is not None
    assert idle.enb.enb_id == 11
    assert idle.cause is not None
    assert idle.cause.name == "user-inactivity"
    enb.initial(2, Nas.SERVICE_REQUEST, 0xC001)
    lost_request, connected = enb.context_response(2, 2, 0x77)
    assert isinstance(lost_request, MonitorDesynchronised)
    assert isinstance(connected, UeConnected)
    [bearer] = connected.bearers
    assert bearer.uplink is not None
    assert bearer.downlink is not None
    assert (bearer.uplink.teid, bearer.downlink.teid) == (0x100, 0x77)


def test_a_replaced_context_is_not_idle(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    assert enb.initial(2, Nas.SERVICE_REQUEST, 0xC001) == []
    assert enb.release(1, 1, NORMAL) == []
    assert types(enb.context(2, 2, 0x100)) == ["ue.connected"]


def test_a_signalling_connection_of_an_idle_ue_is_no_connection(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    enb.initial(2, Nas.TAU_REQUEST, 0xC001)
    [updated] = enb.hears("DownlinkNASTransport", MME_UE_S1AP_ID=2, eNB_UE_S1AP_ID=2, NAS_PDU=Nas.TAU_ACCEPT)
    assert isinstance(updated, TrackingAreaUpdated)
    assert updated.ecgi is not None
    assert updated.ecgi.cell_id == enb.cell
    assert enb.release(2, 2, NORMAL) == []


def test_a_repeated_tau_accept_is_one_fact(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    accept = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1, "NAS_PDU": Nas.TAU_ACCEPT}
    request = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1, "NAS_PDU": Nas.TAU_REQUEST, **enb.where}
    for _ in range(2):
        enb.says("UplinkNASTransport", **request)
        assert types(enb.hears("DownlinkNASTransport", **accept)) == ["tracking_area.updated"]
        assert enb.hears("DownlinkNASTransport", **accept) == []


def test_tau_with_active_flag(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    enb.initial(2, Nas.TAU_REQUEST, 0xC001)
    assert types(enb.context(2, 2, 0x100, Nas.TAU_ACCEPT)) == ["tracking_area.updated", "ue.connected"]


def test_detach_is_said_once_wherever_it_is_heard_first(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    [detached] = network.delete_session(0x501, 0x601)
    assert isinstance(detached, UeDetached)
    assert detached.ue_ip == ("10.45.0.2",)
    ids = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1}
    assert enb.hears("DownlinkNASTransport", NAS_PDU=Nas.DETACH_ACCEPT, **ids) == []
    assert enb.release(1, 1, DETACH) == []


def test_detach_without_s11_and_without_nas(network: Network) -> None:
    enb = network.enb(11)
    enb.initial(1, Nas.attach(imsi_identity(IMSI)))
    enb.context(1, 1, 0x100)
    [detached] = enb.release(1, 1, DETACH)
    assert isinstance(detached, UeDetached)
    assert detached.cause is not None
    assert detached.cause.name == "detach"


def test_implicit_detach_of_an_idle_ue(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    assert types(network.delete_session(0x501, 0x601)) == ["ue.detached"]


def test_deletion_inside_a_new_attach_is_no_detach(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.initial(2, Nas.attach(guti_identity(0xC001)))
    assert network.delete_session(0x501, 0x601) == []
    network.session(IMSI, 0x501, 0x702, 0x200, "10.45.0.9")
    [attached] = enb.context(2, 2, 0x200)
    assert isinstance(attached, UeAttached)
    assert attached.ue_ip == ("10.45.0.9",)


def test_a_new_attach_that_fails_was_a_detach(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.initial(2, Nas.attach(guti_identity(0xC001)))
    assert network.delete_session(0x501, 0x601) == []
    deleted_at = network.now
    [detached] = enb.release(2, 2, NORMAL)
    assert isinstance(detached, UeDetached)
    assert detached.at == deleted_at


def test_a_first_attach_that_fails_was_nothing(network: Network) -> None:
    enb = network.enb(11)
    enb.initial(1, Nas.attach(imsi_identity(IMSI)))
    assert network.session(IMSI, 0x501, 0x601, 0x100) == []
    assert network.delete_session(0x501, 0x601) == []
    assert enb.release(1, 1, NORMAL) == []


def test_the_second_session_of_a_ue(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    network.session(IMSI, 0x501, 0x601, 0x200, "10.46.0.2", ebi=6, header=0x601)
    [idle] = enb.release(1, 1)
    assert isinstance(idle, UeEvent)
    assert idle.ue_ip == ("10.45.0.2", "10.46.0.2")
    assert network.delete_session(0x501, 0x601, 6) == []
    [detached] = network.delete_session(0x501, 0x601, 5)
    assert isinstance(detached, UeDetached)


def test_the_pdn_connections_are_told_with_the_place(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    network.session(IMSI, 0x501, 0x601, 0x200, "10.46.0.2", ebi=6, header=0x601, apn=b"\x03ims")
    enb.release(1, 1)
    enb.initial(2, Nas.SERVICE_REQUEST, 0xC001)
    [connected] = enb.context(2, 2, 0x100)
    assert isinstance(connected, UeConnected)
    assert connected.pdns == (
        Pdn(ERabId(5), "internet", ("10.45.0.2",)),
        Pdn(ERabId(6), "ims", ("10.46.0.2",)),
    )


def test_a_refused_deletion_and_a_refused_creation_change_nothing(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    assert network.delete_session(0x501, 0x601, cause=73) == []
    assert network.session(IMSI, 0x501, 0x601, 0x200, "10.46.0.2", ebi=6, header=0x601, cause=73) == []
    [idle] = enb.release(1, 1)
    assert isinstance(idle, UeEvent)
    assert idle.ue_ip == ("10.45.0.2",)


def test_the_old_s_gw_of_a_moved_ue_deletes_no_ue(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    network.session(IMSI, 0x501, 0x801, 0x300, sgw=SECOND_SGW)
    assert network.delete_session(0x501, 0x601) == []
    assert types(network.delete_session(0x501, 0x801, sgw=SECOND_SGW)) == ["ue.detached"]


def test_s5_on_the_same_addresses_is_another_interface(network: Network) -> None:
    """A Delete Session from the S-GW to the P-GW hits a TEID that exists on S11 too."""
    enb = network.enb(11)
    network.attach(enb, IMSI)
    sgw, pgw = bytes((10, 1, 0, 3)), bytes((10, 1, 0, 4))
    network.sequence += 1
    ebi = bytes.fromhex("4900010005")
    assert network.gtp(pgw, sgw, 36, 0x601, ebi) == []
    assert network.gtp(sgw, pgw, 37, 0x501, bytes.fromhex("020002001000")) == []
    assert types(enb.release(1, 1)) == ["ue.idle"]


# --- bearers ----------------------------------------------------------------------------------------------------------

IDS = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1}


def test_a_bearer_comes_changes_and_goes(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    item = {"e-RAB-ID": 6, "e-RABlevelQoSParameters": {**QOS, "qCI": 5}, **end(SGW_U, 0x200), "nAS-PDU": b"\x27"}
    assert enb.hears("E-RABSetupRequest", E_RABToBeSetupListBearerSUReq=[item], **IDS) == []
    response = [{"e-RAB-ID": 6, **end(enb.address, 0x66)}]
    [established] = enb.says("E-RABSetupResponse", E_RABSetupListBearerSURes=response, **IDS)
    assert isinstance(established, BearerEstablished)
    [bearer] = established.bearers
    assert (bearer.e_rab_id, bearer.qci) == (6, 5)

    change = {"e-RAB-ID": 6, "e-RABLevelQoSParameters": {**QOS, "qCI": 7}, "nAS-PDU": b"\x27"}
    assert enb.hears("E-RABModifyRequest", E_RABToBeModifiedListBearerModReq=[change], **IDS) == []
    [modified] = enb.says("E-RABModifyResponse", E_RABModifyListBearerModRes=[{"e-RAB-ID": 6}], **IDS)
    assert isinstance(modified, BearerModified)
    assert [(found.qci, found.uplink) for found in modified.bearers] == [(7, bearer.uplink)]

    release = [{"e-RAB-ID": 6, "cause": NORMAL}]
    assert enb.hears("E-RABReleaseCommand", E_RABToBeReleasedList=release, **IDS) == []
    [released] = enb.says("E-RABReleaseResponse", E_RABReleaseListBearerRelComp=[{"e-RAB-ID": 6}], **IDS)
    assert isinstance(released, BearerReleased)
    assert released.bearers == modified.bearers


def test_the_enb_releases_a_bearer_by_itself(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    [released] = enb.says("E-RABReleaseIndication", E_RABReleasedList=[{"e-RAB-ID": 5, "cause": NORMAL}], **IDS)
    assert isinstance(released, BearerReleased)
    assert [bearer.e_rab_id for bearer in released.bearers] == [5]


def test_en_dc_moves_a_bearer_without_any_handover(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    address = end("10.0.0.99", 0x99)
    item = {
        "e-RAB-ID": 5,
        "transportLayerAddress": address["transportLayerAddress"],
        "dL-GTP-TEID": address["gTP-TEID"],
    }
    indication = modification("initiatingMessage", "E-RABModificationIndication", 199, "E-RABToBeModified", "Ind", item)
    assert network.carry(enb, 0, indication) == []
    confirm = modification("successfulOutcome", "E-RABModificationConfirm", 203, "E-RABModify", "Conf", {"e-RAB-ID": 5})
    [modified] = network.carry(enb, 1, confirm)
    assert isinstance(modified, BearerModified)
    [bearer] = modified.bearers
    assert bearer.downlink is not None
    assert bearer.uplink is not None
    assert (bearer.downlink.address, bearer.downlink.teid, bearer.uplink.teid) == ("10.0.0.99", 0x99, 0x100)


def modification(outcome: str, name: str, number: int, what: str, suffix: str, item: dict[str, Any]) -> bytes:
    """A message of E-RAB Modification Indication (TS 36.413 9.1.3.8, 9.1.3.9) about one E-RAB of connection 1, 1."""
    member = {"id": number + 1, "criticality": "ignore", "value": (f"{what}ItemBearerMod{suffix}", item)}
    elements = [
        {"id": 0, "criticality": "reject", "value": ("MME-UE-S1AP-ID", 1)},
        {"id": 8, "criticality": "reject", "value": ("ENB-UE-S1AP-ID", 1)},
        {"id": number, "criticality": "reject", "value": (f"{what}ListBearerMod{suffix}", [member])},
    ]
    body = {"procedureCode": 50, "criticality": "reject", "value": (name, {"protocolIEs": elements})}
    S1AP.S1AP_PDU_Descriptions.S1AP_PDU.set_val((outcome, body))
    encoded: bytes = S1AP.S1AP_PDU_Descriptions.S1AP_PDU.to_aper()
    return encoded


# --- associations -----------------------------------------------------------------------------------------------------


def test_s1_setup_tells_who_the_enb_is(network: Network) -> None:
    enb = network.enb(234, setup=False)
    [connected] = enb.setup()
    assert isinstance(connected, EnbConnected)
    assert connected.enb.enb_id == 234
    assert connected.enb.plmn is not None
    assert str(connected.enb.plmn) == "999-70"
    assert [tai.tac for tai in connected.tais] == [1]
    assert connected.mme is not None
    assert [(gummei.mme_group_id, gummei.mme_code) for gummei in connected.mme.gummeis] == [(2, 1)]


def test_a_lost_enb_leaves_its_ues_idle(network: Network) -> None:
    enb, other = network.enb(11), network.enb(12)
    network.attach(enb, IMSI, (1, 1), 0x100)
    network.attach(other, OTHER, (2, 1), 0x200, s_tmsi=0xC002)
    events = enb.shuts_down()
    assert types(events) == ["enb.disconnected", "ue.idle"]
    assert isinstance(events[0], EnbDisconnected)
    assert isinstance(events[1], UeIdle)
    assert (events[1].imsi, events[1].cause) == (IMSI, None)
    assert enb.shuts_down() == []


def test_a_failed_setup_was_no_enb(network: Network) -> None:
    enb = network.enb(11, setup=False)
    enb.says(
        "S1SetupRequest",
        Global_ENB_ID={"pLMNidentity": b"\0\xf1\x10", "eNB-ID": ("macroENB-ID", (11, 20))},
        SupportedTAs=[{"tAC": b"\0\1", "broadcastPLMNs": [b"\0\xf1\x10"]}],
        DefaultPagingDRX="v64",
    )
    assert enb.hears("S1SetupFailure", Cause=("misc", "unknown-PLMN")) == []
    assert enb.shuts_down() == []


def test_reset_of_all_and_of_some(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI, (1, 1), 0x100)
    network.attach(enb, OTHER, (2, 2), 0x200, s_tmsi=0xC002)
    some = ("partOfS1-Interface", [{"id": 91, "criticality": "reject", "value": CONNECTION_1}])
    assert enb.says("Reset", Cause=NORMAL, ResetType=some) == []
    [idle] = enb.hears("ResetAcknowledge")
    assert isinstance(idle, UeIdle)
    assert (idle.imsi, idle.cause) == (IMSI, None)
    assert enb.hears("Reset", Cause=NORMAL, ResetType=("s1-Interface", "reset-all")) == []
    events = enb.says("ResetAcknowledge")
    assert types(events) == ["enb.disconnected", "ue.idle"]
    assert isinstance(events[1], UeIdle)
    assert events[1].imsi == OTHER


CONNECTION_1 = ("UE-associatedLogicalS1-ConnectionItem", {"mME-UE-S1AP-ID": 1})


def test_facts_of_one_message_have_origins_of_their_own(network: Network) -> None:
    enb = network.enb(11)
    for number in range(1, 6):
        network.attach(enb, f"99970000000010{number}", (number, number), 0x100 * number, s_tmsi=0xC000 + number)
    events = enb.shuts_down()
    assert types(events).count("ue.idle") == 5
    assert len({(event.TYPE, event.origin) for event in events}) == len(events) == 6


# --- out of step ------------------------------------------------------------------------------------------------------


def test_joining_in_the_middle_is_no_desynchronisation(network: Network) -> None:
    enb = network.enb(11, setup=False)
    [connected] = enb.context_response(1, 1, 0x66)
    assert connected.TYPE == "ue.connected"
    assert types(enb.release(1, 1)) == ["ue.idle"]


def test_an_impossible_message_is_told_and_the_ue_heals(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    ids = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1}
    events = enb.says("HandoverCancel", Cause=NORMAL, **ids)
    assert types(events)[0] == "monitor.desynchronised"
    assert isinstance(events[0], MonitorDesynchronised)
    assert "HANDOVER_CANCEL" in events[0].detail
    assert IMSI not in events[0].detail
    assert enb.hears("HandoverCancelAcknowledge", **ids) == []
    assert types(enb.release(1, 1)) == ["ue.idle"]


def test_a_late_message_of_a_gone_connection_is_nothing(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    ids = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1}
    assert enb.says("UEContextReleaseRequest", Cause=NORMAL, **ids) == []
    assert enb.hears("ErrorIndication", **ids) == []
    assert enb.released(1, 1) == []


# --- limits -----------------------------------------------------------------------------------------------------------


def test_half_open_attaches_are_bounded() -> None:
    network = Network(Limits(ues=300, half_open=100))
    enb = network.enb(11)
    network.attach(enb, IMSI)
    for number in range(5000):
        enb.initial(2 + number, Nas.attach(guti_identity(number)), number)
    assert network.tracker.evicted >= 4900
    registry = network.tracker._registry
    assert len(enb_legs(network)) <= 102
    assert len(registry._ues) <= 102
    assert types(enb.release(1, 1)) == ["ue.idle"]


def enb_legs(network: Network) -> dict[int, object]:
    [association] = network.tracker._registry._associations.values()
    return dict(association.connections)


def test_ues_and_sessions_are_bounded() -> None:
    network = Network(Limits(ues=50, transactions=50))
    for number in range(500):
        network.session(f"9997000000{number:05}", number, 0x1000 + number, 0x2000 + number)
    registry = network.tracker._registry
    assert len(registry._ues) == 50
    assert len(registry._by_imsi) == 50
    assert len(registry._by_tunnel) == 50
    assert len(registry._sessions) == 100
    assert network.tracker.evicted >= 450
