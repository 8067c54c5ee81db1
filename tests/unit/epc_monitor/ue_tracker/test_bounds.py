"""The tracker in a bad year: floods, leaks, nodes that come and go; it stays small, and counts what it forgets."""

from __future__ import annotations

import gc
import tracemalloc
from ipaddress import IPv4Address
from typing import Any

from epc_monitor.frames import LINKTYPE_ETHERNET, Frame
from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from epc_monitor.pipeline import Monitor
from epc_monitor.ue_tracker.registry import Registry
from mobiscud.core.events import BearerEstablished, Event, UeEvent
from testbed.bench.ue_life import UeLives
from testbed.scripted_epc import NORMAL, PLMN, Enb, Nas, Network, guti_identity, imsi_identity

IMSI, OTHER = "999700000000001", "999700000000002"
S = 1_000_000_000


def types(events: list[Event]) -> list[str]:
    return [event.TYPE for event in events]


def registry_of(network: Network) -> Registry:
    return network.tracker._registry


def legs(enb: Enb) -> dict[int, Any]:
    association = enb.network.tracker._registry.association(enb.association)
    return {} if association is None else dict(association.connections)


def test_legs_that_were_replaced_and_never_released_are_bounded() -> None:
    """Each release of this UE is lost."""
    network = Network(Limits(half_open=10))
    enb = network.enb(11)
    for number in range(1, 200):
        network.attach(enb, IMSI, (number, number), 0x100 + number)
    assert len(legs(enb)) <= 12
    assert network.tracker.evicted >= 180
    assert types(enb.release(199, 199)) == ["ue.idle"]


def test_legs_that_serve_nobody_expire() -> None:
    network = Network(Limits(half_open_age_s=100))
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.initial(2, Nas.attach(guti_identity(0xFFFF)))
    assert len(legs(enb)) == 2
    network.now += 101 * S
    network.enb(12)
    assert len(legs(enb)) == 1
    assert network.tracker.expired == 1
    assert types(enb.release(1, 1)) == ["ue.idle"]


def test_a_ue_that_is_never_heard_of_again_expires_unless_it_is_connected() -> None:
    network = Network(Limits(ue_age_s=1000))
    enb = network.enb(11)
    network.attach(enb, IMSI, (1, 1), 0x100)
    network.attach(enb, OTHER, (2, 2), 0x200, s_tmsi=0xC002)
    enb.release(2, 2)
    network.now += 1001 * S
    network.enb(12)
    registry = registry_of(network)
    assert [ue.imsi for ue in registry._ues] == [IMSI]
    assert network.tracker.expired == 1
    assert len(registry._by_tunnel) == 1
    assert types(enb.release(1, 1)) == ["ue.idle"]


def test_who_was_heard_of_last_stays_longest() -> None:
    network = Network(Limits(ues=10))
    enb = network.enb(11)
    network.attach(enb, IMSI)
    enb.release(1, 1)
    for number in range(2, 40):
        enb.initial(1000 + number, Nas.SERVICE_REQUEST, 0xC001)
        enb.context(1000 + number, 1000 + number, 0x100)
        enb.release(1000 + number, 1000 + number)
        imsi = f"9997000000001{number:02}"
        network.attach(enb, imsi, (number, number), 0x1000 + number, s_tmsi=0xD000 + number)
        enb.release(number, number)
    assert IMSI in registry_of(network)._by_imsi
    assert len(registry_of(network)._ues) == 10


def test_gummeis_without_number_are_cut() -> None:
    network = Network()
    enb = network.enb(11, setup=False)
    enb.says(
        "S1SetupRequest",
        Global_ENB_ID={"pLMNidentity": PLMN, "eNB-ID": ("macroENB-ID", (11, 20))},
        SupportedTAs=[{"tAC": b"\0\1", "broadcastPLMNs": [PLMN]}],
        DefaultPagingDRX="v64",
    )
    everything = {
        "servedPLMNs": [bytes((number, 0xF9, 0x07)) for number in range(32)],
        "servedGroupIDs": [number.to_bytes(2, "big") for number in range(100)],
        "servedMMECs": [bytes((number,)) for number in range(256)],
    }
    [connected] = enb.hears("S1SetupResponse", ServedGUMMEIs=[everything] * 8, RelativeMMECapacity=255)
    assert connected.TYPE == "enb.connected"
    assert len(registry_of(network)._mmes_by_gummei) == 256


def test_mmes_that_are_gone_are_forgotten() -> None:
    network = Network()
    for number in range(500):
        mme = IPv4Address(0x0A020000 + number).packed
        enb = network.enb(11, mme)
        if number % 2:
            network.attach(enb, f"9997000000{number:05}", (1, 1), 0x100 + number)
        enb.shuts_down()
    registry = registry_of(network)
    assert len(registry._mmes) <= 64
    assert len(registry._mmes_by_gummei) <= 64
    assert (registry._associations, registry._enbs) == ({}, {})
    assert all(len(ue.s_tmsis) <= 1 for ue in registry._ues)


def test_an_enb_that_changes_its_name_leaves_no_trace_of_the_old_one() -> None:
    network = Network()
    enb = network.enb(11, setup=False)
    for number in range(1, 50):
        enb.number = number
        enb.setup()
    assert [identity.enb_id for identity in registry_of(network)._enbs] == [49]
    enb.shuts_down()
    assert registry_of(network)._enbs == {}


def test_a_request_from_long_ago_is_not_answered_by_chance(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    network.sequence += 1
    mme, sgw = (IPv4Address(f"10.1.0.{last}").packed for last in (2, 3))
    assert network.gtp(mme, sgw, 36, 0x601, bytes.fromhex("4900010005")) == []
    network.now += 61 * S
    assert network.gtp(sgw, mme, 37, 0x501, bytes.fromhex("020002001000")) == []
    assert types(enb.release(1, 1)) == ["ue.idle"]


def test_what_waits_for_a_stranger_who_was_lost_waits_only_for_so_long(network: Network) -> None:
    enb, other = network.enb(11), network.enb(12)
    network.attach(enb, IMSI)
    enb.initial(9, Nas.attach(guti_identity(0xFFFF)))
    assert enb.release(1, 1, NORMAL) == []
    released_at = network.now
    network.now += 31 * S
    [idle] = other.initial(1, Nas.attach(imsi_identity(OTHER)))
    assert isinstance(idle, UeEvent)
    assert (idle.TYPE, idle.imsi, idle.at) == ("ue.idle", IMSI, released_at)


def test_a_ue_takes_less_than_four_kib() -> None:
    """With IMSI, GUTI, S11 session, a PDN connection and a bearer; and what is kept to know its datagrams again."""
    first, ues = 500, 2000
    lives, monitor = UeLives(10), Monitor(UeKeys(bytes(32)))
    frames = [Frame(0, LINKTYPE_ETHERNET, data) for data in lives.setups()]
    frames += [Frame(0, LINKTYPE_ETHERNET, data) for number in range(first) for data in lives.attach(number)]
    attached = [sum(event.TYPE == "ue.attached" for event in monitor.receive(frame)) for frame in frames]
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(first, first + ues):
            for data in lives.attach(number):
                attached.append(len(monitor.receive(Frame(0, LINKTYPE_ETHERNET, data))))
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(attached) == first + ues
    assert grown / ues < 3600


def test_bearers_beyond_all_numbers_are_not_kept(network: Network) -> None:
    """An E-RAB ID can be extended; a UE has 256 bearers at most all the same."""
    enb = network.enb(11)
    network.attach(enb, IMSI)
    for first in range(5, 1005, 200):
        numbers = range(first, first + 200)
        tunnels = [{"e-RAB-ID": n, "transportLayerAddress": (1, 32), "gTP-TEID": bytes(4)} for n in numbers]
        [established] = enb.says(
            "E-RABSetupResponse", MME_UE_S1AP_ID=1, eNB_UE_S1AP_ID=1, E_RABSetupListBearerSURes=tunnels
        )
        assert isinstance(established, BearerEstablished)
        assert len(established.bearers) == 200
    [ue] = registry_of(network)._ues
    assert len(ue.bearers) == 256
