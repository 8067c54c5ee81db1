"""The nodes around the UEs: eNodeBs at several MMEs, restarts, updates, S-GWs and MMEs that change, TEIDs used anew."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from mobiscud.core.events import (
    EnbConnected,
    EnbDisconnected,
    Event,
    HandoverPreparing,
    UeAttached,
    UeConnected,
    UeDetached,
    UeEvent,
)
from testbed.scripted_epc import (
    MME,
    PLMN,
    SGW,
    SGW_U,
    Enb,
    Nas,
    Network,
    gtp_element,
    gtp_f_teid,
    guti_identity,
    imsi_identity,
    lv,
)

IMSI, OTHER = "999700000000001", "999700000000002"
SECOND_MME = IPv4Address("10.1.0.9").packed
OTHER_PLMN = bytes.fromhex("00f110")
IDS = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1}


def types(events: list[Event]) -> list[str]:
    return [event.TYPE for event in events]


def required(source: Enb, target: Enb, plmn: bytes = PLMN) -> HandoverPreparing:
    enb = {"pLMNidentity": plmn, "eNB-ID": ("macroENB-ID", (target.number, 20))}
    [preparing] = source.says(
        "HandoverRequired",
        HandoverType="intralte",
        Cause=("radioNetwork", "time-critical-handover"),
        TargetID=("targeteNB-ID", {"global-ENB-ID": enb, "selected-TAI": {"pLMNidentity": plmn, "tAC": b"\0\1"}}),
        Source_ToTarget_TransparentContainer=bytes(40),
        **IDS,
    )
    assert isinstance(preparing, HandoverPreparing)
    return preparing


# --- S1 ---------------------------------------------------------------------------------------------------------------


def test_an_enb_at_two_mmes_is_known_while_one_is_left(network: Network) -> None:
    source = network.enb(11)
    network.attach(source, IMSI)
    network.enb(12)
    network.enb(12, SECOND_MME).shuts_down()
    target = required(source, Enb(network, 12, MME)).target.enb
    assert target is not None
    assert target.address == "10.0.0.12"


def test_s1_flex_keeps_the_connections_of_each_mme_apart(network: Network) -> None:
    one, two = network.enb(11), network.enb(11, SECOND_MME)
    network.attach(one, IMSI, (1, 1), 0x100)
    network.attach(two, OTHER, (1, 2), 0x200)
    events = two.shuts_down()
    assert types(events) == ["enb.disconnected", "ue.idle"]
    assert isinstance(events[1], UeEvent)
    assert events[1].imsi == OTHER
    assert types(one.release(1, 1)) == ["ue.idle"]


def test_an_mme_that_restarts_loses_connections_and_no_identity(network: Network) -> None:
    before = network.enb(11)
    network.attach(before, IMSI, s_tmsi=0xC001)
    assert types(before.shuts_down()) == ["enb.disconnected", "ue.idle"]
    after = network.enb(11)
    [connected] = after.initial(1, Nas.SERVICE_REQUEST, 0xC001) + after.context(1, 1, 0x777)
    assert isinstance(connected, UeConnected)
    assert connected.imsi == IMSI


def test_an_s1_setup_on_a_living_association_drops_its_contexts(network: Network) -> None:
    """TS 36.413 8.7.3.1."""
    enb = network.enb(11)
    network.attach(enb, IMSI)
    assert sorted(types(enb.setup())) == ["enb.connected", "ue.idle"]
    assert enb.released(1, 1) == []


def test_configuration_updates_hold_once_they_are_answered(network: Network) -> None:
    enb = network.enb(11)
    assert enb.says("ENBConfigurationUpdate", SupportedTAs=[{"tAC": b"\0\7", "broadcastPLMNs": [PLMN]}]) == []
    assert enb.hears("ENBConfigurationUpdateAcknowledge") == []
    served = {"servedPLMNs": [PLMN], "servedGroupIDs": [b"\0\3"], "servedMMECs": [b"\5", b"\6"]}
    assert enb.hears("MMEConfigurationUpdate", ServedGUMMEIs=[served], MMEname="mme-b") == []
    assert enb.says("MMEConfigurationUpdateAcknowledge") == []
    [gone] = enb.shuts_down()
    assert isinstance(gone, EnbDisconnected)
    assert [tai.tac for tai in gone.tais] == [7]
    assert gone.mme is not None
    assert gone.mme.name == "mme-b"
    assert [(gummei.mme_group_id, gummei.mme_code) for gummei in gone.mme.gummeis] == [(3, 5), (3, 6)]


def test_a_refused_configuration_update_holds_not(network: Network) -> None:
    enb = network.enb(11)
    enb.says("ENBConfigurationUpdate", SupportedTAs=[{"tAC": b"\0\7", "broadcastPLMNs": [PLMN]}])
    assert enb.hears("ENBConfigurationUpdateFailure", Cause=("misc", "unspecified")) == []
    enb.says("ENBConfigurationUpdate")
    enb.hears("ENBConfigurationUpdateAcknowledge")
    [gone] = enb.shuts_down()
    assert isinstance(gone, EnbDisconnected)
    assert [tai.tac for tai in gone.tais] == [1]


def test_messages_that_tell_us_nothing_disturb_nothing(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    quiet: list[tuple[str, bool, dict[str, Any]]] = [
        ("UECapabilityInfoIndication", True, {"UERadioCapability": bytes(300), **IDS}),
        ("UEContextModificationRequest", False, IDS),
        ("UEContextModificationResponse", True, IDS),
        ("NASNonDeliveryIndication", True, {"NAS_PDU": b"\x27", "Cause": ("radioNetwork", "unspecified"), **IDS}),
        ("UEContextReleaseRequest", True, {"Cause": ("radioNetwork", "user-inactivity"), **IDS}),
    ]
    for name, from_enb, elements in quiet:
        assert (enb.says if from_enb else enb.hears)(name, **elements) == []
    assert types(enb.release(1, 1)) == ["ue.idle"]


# --- several PLMNs ----------------------------------------------------------------------------------------------------


def setup_in(enb: Enb, *plmns: bytes) -> EnbConnected:
    """The eNodeB is of the first network, and both it and its MME serve all of them."""
    enb.says(
        "S1SetupRequest",
        Global_ENB_ID={"pLMNidentity": plmns[0], "eNB-ID": ("macroENB-ID", (enb.number, 20))},
        SupportedTAs=[{"tAC": b"\0\1", "broadcastPLMNs": list(plmns)}],
        DefaultPagingDRX="v64",
    )
    served = {"servedPLMNs": list(plmns), "servedGroupIDs": [b"\0\2"], "servedMMECs": [b"\1"]}
    [connected] = enb.hears("S1SetupResponse", ServedGUMMEIs=[served], RelativeMMECapacity=255)
    assert isinstance(connected, EnbConnected)
    return connected


def test_an_enb_that_is_shared_tells_all_its_networks(network: Network) -> None:
    enb = network.enb(11, setup=False)
    connected = setup_in(enb, PLMN, OTHER_PLMN)
    assert str(connected.enb.plmn) == "999-70"
    assert [(str(tai.plmn), tai.tac) for tai in connected.tais] == [("999-70", 1), ("001-01", 1)]
    assert connected.mme is not None
    assert [str(gummei.plmn) for gummei in connected.mme.gummeis] == ["999-70", "001-01"]


def test_a_ue_of_another_network_is_told_where_that_network_calls_it(network: Network) -> None:
    enb = network.enb(11, setup=False)
    setup_in(enb, PLMN, OTHER_PLMN)
    enb.says(
        "InitialUEMessage",
        eNB_UE_S1AP_ID=1,
        NAS_PDU=Nas.attach(imsi_identity("001010000000001")),
        RRC_Establishment_Cause="mo-Signalling",
        EUTRAN_CGI={"pLMNidentity": PLMN, "cell-ID": (enb.cell, 28)},
        TAI={"pLMNidentity": OTHER_PLMN, "tAC": b"\0\1"},
    )
    [attached] = enb.context(1, 1, 0x100)
    assert isinstance(attached, UeAttached)
    assert attached.imsi == "001010000000001"
    assert attached.ecgi is not None
    assert attached.tai is not None
    assert (str(attached.ecgi.plmn), str(attached.tai.plmn)) == ("999-70", "001-01")


def test_enbs_of_two_networks_may_have_one_number(network: Network) -> None:
    source, ours, theirs = network.enb(11), network.enb(12), network.enb(13, setup=False)
    theirs.number = 12  # as ours
    setup_in(theirs, OTHER_PLMN)
    network.attach(source, IMSI)
    target = required(source, theirs, OTHER_PLMN).target.enb
    assert target is not None
    assert (str(target.plmn), target.address) == ("001-01", theirs.address)
    assert ours.address != theirs.address


def test_mmes_of_two_networks_may_have_one_code(network: Network) -> None:
    """A GUTI belongs to the network in it; the same group, code and M-TMSI of another one are somebody else."""
    ours, theirs = network.enb(11), network.enb(12, SECOND_MME, setup=False)
    setup_in(theirs, OTHER_PLMN)
    third = network.enb(13, IPv4Address("10.1.0.10").packed, setup=False)
    network.attach(ours, IMSI, (1, 1), 0x100, s_tmsi=0xC001)
    ours.release(1, 1)
    stranger = b"\x07\x48\x00" + lv(b"\xf6" + OTHER_PLMN + b"\0\2\1" + (0xC001).to_bytes(4, "big"))
    third.initial(5, stranger)
    [connected] = third.context(5, 5, 0x900)
    assert isinstance(connected, UeConnected)
    assert connected.imsi is None
    third.initial(6, b"\x07\x48\x00" + lv(guti_identity(0xC001)))
    [known] = third.context(6, 6, 0x901)
    assert isinstance(known, UeConnected)
    assert known.imsi == IMSI


# --- identity ---------------------------------------------------------------------------------------------------------


def test_guti_reallocation(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI, s_tmsi=0xC001)
    enb.hears("DownlinkNASTransport", NAS_PDU=b"\x07\x50" + lv(guti_identity(0xD00D)), **IDS)
    enb.release(1, 1)
    for number, m_tmsi in ((2, 0xD00D), (3, 0xC001)):  # the old one holds until the UE has confirmed
        [connected] = enb.initial(number, Nas.SERVICE_REQUEST, m_tmsi) + enb.context(number, number, 0x900 + number)
        assert isinstance(connected, UeConnected)
        assert connected.imsi == IMSI
        enb.release(number, number)


def test_a_ue_that_comes_to_another_mme_of_the_pool_is_known_by_its_guti(network: Network) -> None:
    here, there = network.enb(11), network.enb(12, SECOND_MME, setup=False)
    network.attach(here, IMSI, s_tmsi=0xC001)
    here.release(1, 1)
    tau = b"\x07\x48\x00" + lv(guti_identity(0xC001))
    assert there.initial(5, tau) == []
    [connected] = there.context(5, 5, 0x100)
    assert isinstance(connected, UeConnected)
    assert connected.imsi == IMSI


# --- S11 --------------------------------------------------------------------------------------------------------------


def modify_bearer(network: Network, mme: bytes, mme_teid: int, sgw_teid: int, uplink: int | None = None) -> None:
    network.sequence += 1
    f_teid = gtp_f_teid(10, mme, mme_teid)
    assert network.gtp(mme, SGW, 34, sgw_teid, f_teid, gtp_element(93, gtp_element(73, b"\5"))) == []
    bearer = gtp_element(73, b"\5") + gtp_element(2, b"\x10\0")
    if uplink is not None:
        bearer += gtp_f_teid(1, IPv4Address(SGW_U).packed, uplink)
    assert network.gtp(SGW, mme, 35, mme_teid, gtp_element(2, b"\x10\0"), gtp_element(93, bearer)) == []


def delete_from(network: Network, mme: bytes, mme_teid: int, sgw_teid: int) -> list[Event]:
    network.sequence += 1
    events = network.gtp(mme, SGW, 36, sgw_teid, gtp_element(73, b"\5"))
    return events + network.gtp(SGW, mme, 37, mme_teid, gtp_element(2, b"\x10\0"))


def test_a_session_that_moves_to_another_mme_ends_there(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    modify_bearer(network, SECOND_MME, 0x901, 0x601)
    assert delete_from(network, MME, 0x501, 0x601) == []
    [detached] = delete_from(network, SECOND_MME, 0x901, 0x601)
    assert isinstance(detached, UeDetached)
    assert detached.imsi == IMSI


@pytest.mark.parametrize("mme_teid", [0x501, 0x502], ids=["same MME TEID", "another MME TEID"])
def test_a_session_that_moves_to_another_sgw_keeps_its_address(network: Network, mme_teid: int) -> None:
    """TS 29.274 7.2.2: the address is not told anew, and the session at the first S-GW ends last."""
    enb = network.enb(11)
    network.attach(enb, IMSI)
    assert network.session(IMSI, mme_teid, 0x701, 0xABC, None, sgw=bytes((10, 1, 0, 3))) == []
    assert network.delete_session(0x501, 0x601) == []
    enb.release(1, 1)
    enb.initial(2, Nas.SERVICE_REQUEST, 0xEEEE)
    [connected] = enb.context(2, 2, 0xABC)
    assert isinstance(connected, UeConnected)
    assert connected.ue_ip == ("10.45.0.2",)
    assert [(pdn.e_rab_id, pdn.addresses) for pdn in connected.pdns] == [(5, ("10.45.0.2",))]
    [detached] = network.delete_session(mme_teid, 0x701, sgw=bytes((10, 1, 0, 3)))
    assert isinstance(detached, UeDetached)


def test_a_session_is_told_by_a_tunnel_that_its_bearer_got_later(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    modify_bearer(network, MME, 0x501, 0x601, uplink=0xABC)
    enb.initial(2, Nas.SERVICE_REQUEST, 0xEEEE)
    [connected] = enb.context(2, 2, 0xABC)
    assert isinstance(connected, UeConnected)
    assert connected.imsi == IMSI


def test_a_teid_that_is_used_anew_belongs_to_the_new_one(network: Network) -> None:
    """The end of the first session was not seen."""
    enb = network.enb(11)
    network.attach(enb, IMSI, (1, 1), 0x100)
    network.session(OTHER, 0x501, 0x601, 0x200)
    [detached] = network.delete_session(0x501, 0x601)
    assert isinstance(detached, UeDetached)
    assert detached.imsi == OTHER
    assert types(enb.release(1, 1)) == ["ue.idle"]


@pytest.mark.parametrize(("instance", "gone"), [(0, ["ue.detached"]), (1, [])])
def test_a_dedicated_bearer_that_is_deleted_is_no_session(network: Network, instance: int, gone: list[str]) -> None:
    """Linked bearer (instance 0) or dedicated bearers (instance 1), TS 29.274 7.2.9.2."""
    enb = network.enb(11)
    network.attach(enb, IMSI)
    network.sequence += 1
    ebi = gtp_element(73, b"\5", instance)
    assert network.gtp(SGW, MME, 99, 0x501, ebi) == []
    assert types(network.gtp(MME, SGW, 100, 0x601, gtp_element(2, b"\x10\0"), ebi)) == gone


def test_access_bearers_notifications_and_indirect_tunnels_are_no_facts(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    for kind, teid in ((170, 0x601), (176, 0x501), (166, 0x601), (168, 0x601), (97, 0x501)):
        network.sequence += 1
        there, back = (MME, SGW) if teid == 0x601 else (SGW, MME)
        tunnel = gtp_element(93, gtp_element(73, b"\5") + gtp_f_teid(23, IPv4Address(SGW_U).packed, 0xF0))
        assert network.gtp(there, back, kind, teid, tunnel) == []
        assert network.gtp(back, there, kind + 1, 0x1100 - teid, gtp_element(2, b"\x10\0"), tunnel) == []
    assert types(enb.release(1, 1)) == ["ue.idle"]
