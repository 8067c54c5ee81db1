"""Who it is: IMSI, S-TMSI and GUTI, the join over S-GW tunnels, strangers, and what waits for them."""

from __future__ import annotations

from epc_monitor.identity import UeKeys
from mobiscud.core.events import Event, UeAttached, UeConnected, UeDetached, UeEvent, UeIdentified, UeIdle
from testbed.scripted_epc import DETACH, NORMAL, Enb, Nas, Network, guti_identity, imsi_identity

IMSI, OTHER = "999700000000001", "999700000000002"
KEYS = UeKeys(bytes(32))


def types(events: list[Event]) -> list[str]:
    return [event.TYPE for event in events]


def only(events: list[Event]) -> UeEvent:
    [event] = events
    assert isinstance(event, UeEvent)
    return event


def test_attach_by_imsi(network: Network) -> None:
    attached = only(network.attach(network.enb(11), IMSI))
    assert isinstance(attached, UeAttached)
    assert attached.ue == KEYS.of_imsi(IMSI)
    assert attached.imsi == IMSI
    assert attached.ue_ip == ("10.45.0.2",)
    [bearer] = attached.bearers
    assert bearer.uplink is not None
    assert bearer.downlink is not None
    assert (bearer.uplink.teid, bearer.downlink.teid, bearer.downlink.address) == (0x100, 0x1100, "10.0.0.11")


def test_service_request_by_the_s_tmsi_of_the_attach_accept(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI, s_tmsi=0xC0DE)
    enb.release(1, 1)
    network.enb(12)
    connected = only(enb.initial(2, Nas.SERVICE_REQUEST, 0xC0DE) + enb.context(2, 2, 0x999))
    assert isinstance(connected, UeConnected)
    assert connected.imsi == IMSI


def test_an_unknown_s_tmsi_is_joined_by_the_tunnel_and_then_known(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    assert only(enb.initial(2, Nas.SERVICE_REQUEST, 0xBEEF) + enb.context(2, 2, 0x100)).imsi == IMSI
    enb.release(2, 2)
    assert only(enb.initial(3, Nas.SERVICE_REQUEST, 0xBEEF) + enb.context(3, 3, 0x999)).imsi == IMSI


def test_attach_by_a_guti_nobody_has_heard_of(network: Network) -> None:
    enb = network.enb(11)
    enb.initial(1, Nas.attach(guti_identity(0xC0DE)))
    network.session(IMSI, 0x501, 0x601, 0x100)
    attached = only(enb.context(1, 1, 0x100))
    assert isinstance(attached, UeAttached)
    assert attached.imsi == IMSI


def test_without_s11_the_key_is_made_for_the_connection(network: Network) -> None:
    enb = network.enb(11)
    attached = only(enb.initial(1, Nas.attach(guti_identity(0xC0DE))) + enb.context(1, 1, 0x100))
    assert attached.imsi is None
    assert attached.ue.startswith("ue-")
    assert only(enb.release(1, 1)).ue == attached.ue
    assert only(enb.initial(2, Nas.SERVICE_REQUEST, 7) + enb.context(2, 2, 0x100)).ue == attached.ue


def test_identity_response_gives_the_lasting_key(network: Network) -> None:
    enb = network.enb(11)
    attached = only(enb.initial(1, Nas.attach(guti_identity(0xC0DE))) + enb.context(1, 1, 0x100))
    identified = only(
        enb.says("UplinkNASTransport", MME_UE_S1AP_ID=1, eNB_UE_S1AP_ID=1, NAS_PDU=Nas.identity(IMSI), **enb.where)
    )
    assert isinstance(identified, UeIdentified)
    assert identified.previous_ue == attached.ue
    assert identified.ue == KEYS.of_imsi(IMSI)
    assert only(enb.release(1, 1)).ue == identified.ue


def test_a_stranger_who_was_told_of_is_joined_to_a_known_ue(network: Network) -> None:
    enb = network.enb(11)
    stranger = only(enb.initial(1, Nas.SERVICE_REQUEST, 7) + enb.context(1, 1, 0x100))
    network.session(IMSI, 0x501, 0x601, 0x200)
    enb.initial(2, Nas.SERVICE_REQUEST, 7)
    events = enb.context(2, 2, 0x200)
    assert types(events) == ["ue.identified", "ue.connected"]
    assert isinstance(events[0], UeIdentified)
    assert events[0].previous_ue == stranger.ue


def test_an_identity_told_before_any_event_needs_no_joining(network: Network) -> None:
    enb = network.enb(11)
    enb.initial(1, Nas.attach(guti_identity(0xC0DE)))
    ids = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 1}
    assert enb.says("UplinkNASTransport", NAS_PDU=Nas.identity(IMSI), **ids, **enb.where) == []
    assert only(enb.context(1, 1, 0x100)).ue == KEYS.of_imsi(IMSI)


def test_what_the_ue_says_of_itself_weighs_more_than_a_tunnel(network: Network) -> None:
    """The S-GW has given a tunnel anew, and we have not heard of it."""
    enb = network.enb(11)
    network.attach(enb, IMSI, uplink=0x100)
    enb.initial(2, Nas.attach(imsi_identity(OTHER)))
    assert only(enb.context(2, 2, 0x100)).imsi == OTHER


def test_a_tunnel_weighs_more_than_an_s_tmsi(network: Network) -> None:
    """The S-TMSI was given to somebody else while we could not read it."""
    enb = network.enb(11)
    network.attach(enb, IMSI, (1, 1), 0x100, s_tmsi=0xC0DE)
    network.attach(enb, OTHER, (2, 2), 0x200, s_tmsi=0xBEEF)
    enb.release(1, 1)
    enb.release(2, 2)
    assert only(enb.initial(3, Nas.SERVICE_REQUEST, 0xC0DE) + enb.context(3, 3, 0x200)).imsi == OTHER


def test_ids_are_unique_only_inside_an_mme(network: Network) -> None:
    second = bytes((10, 1, 0, 9))
    one, two = network.enb(11), network.enb(11, second)
    assert only(network.attach(one, IMSI, (1, 1), 0x100)).imsi == IMSI
    assert only(network.attach(two, OTHER, (1, 1), 0x200)).imsi == OTHER
    assert only(one.release(1, 1)).imsi == IMSI
    assert only(two.release(1, 1)).imsi == OTHER


def test_ciphered_messages_are_read_only_with_eea0(network: Network) -> None:
    enb = network.enb(11)
    for enb_id, eea, seen in ((1, 0, ["tracking_area.updated"]), (2, 2, [])):
        ids = {"MME_UE_S1AP_ID": enb_id, "eNB_UE_S1AP_ID": enb_id}
        enb.initial(enb_id, Nas.attach(imsi_identity(f"99970000000000{enb_id}")))
        enb.hears("DownlinkNASTransport", NAS_PDU=Nas.security_mode(eea), **ids)
        assert enb.hears("DownlinkNASTransport", NAS_PDU=Nas.unreadable(), **ids) == []
        assert types(enb.hears("DownlinkNASTransport", NAS_PDU=Nas.ciphered(Nas.TAU_ACCEPT), **ids)) == seen


# --- doubts -----------------------------------------------------------------------------------------------------------


def stranger_attaches(network: Network, enb: Enb, enb_id: int = 9) -> None:
    assert enb.initial(enb_id, Nas.attach(guti_identity(0xFFFF))) == []


def test_clearing_up_for_a_stranger_who_is_the_ue_itself_is_no_fact(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    stranger_attaches(network, enb)
    assert enb.release(1, 1, NORMAL) == []
    assert network.delete_session(0x501, 0x601) == []
    assert network.session(IMSI, 0x501, 0x701, 0x300) == []
    events = enb.context(2, 9, 0x300)
    assert types(events) == ["ue.attached"]
    assert only(enb.release(2, 9)).TYPE == "ue.idle"


def test_it_was_a_fact_when_the_stranger_is_another(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    stranger_attaches(network, enb)
    assert enb.release(1, 1, NORMAL) == []
    released_at = network.now
    network.session(OTHER, 0x502, 0x602, 0x200)
    events = enb.context(2, 9, 0x200)
    assert types(events) == ["ue.idle", "ue.attached"]
    assert isinstance(events[0], UeIdle)
    assert (events[0].imsi, events[0].at) == (IMSI, released_at)


def test_it_was_a_fact_when_the_stranger_leaves_unknown(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    stranger_attaches(network, enb)
    assert network.delete_session(0x501, 0x601) == []
    deleted_at = network.now
    detached = only(enb.release(2, 9, NORMAL))
    assert isinstance(detached, UeDetached)
    assert detached.at == deleted_at


def test_a_ue_that_comes_back_itself_settles_it_in_order(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI, s_tmsi=0xC0DE)
    stranger_attaches(network, enb)
    assert enb.release(1, 1, NORMAL) == []
    assert types(enb.initial(2, Nas.SERVICE_REQUEST, 0xC0DE)) == ["ue.idle"]
    assert types(enb.context(2, 2, 0x100)) == ["ue.connected"]


def test_a_detach_that_was_seen_needs_no_doubt(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    stranger_attaches(network, enb)
    detach = b"\x07\x45\x01\x0b" + guti_identity(0xC001)
    enb.says("UplinkNASTransport", MME_UE_S1AP_ID=1, eNB_UE_S1AP_ID=1, NAS_PDU=detach, **enb.where)
    assert types(network.delete_session(0x501, 0x601)) == ["ue.detached"]


def test_a_lost_stranger_does_not_hold_up_facts_for_ever(network: Network) -> None:
    enb = network.enb(11)
    stranger_attaches(network, enb)
    network.now += 31_000_000_000
    network.attach(enb, IMSI)
    assert types(enb.release(1, 1, NORMAL)) == ["ue.idle"]


def test_a_detach_command_ends_the_doubt(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    stranger_attaches(network, enb)
    assert network.delete_session(0x501, 0x601) == []
    assert types(enb.release(1, 1, DETACH)) == ["ue.detached"]
    assert enb.release(2, 9, NORMAL) == []
