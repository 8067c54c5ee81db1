"""The bytes of the map entries are those that maps.h declares."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from flows.gtp_datapath import entries
from flows.gtp_datapath.build import HEADERS
from flows.gtp_datapath.entries import Counter, Statistic
from flows.rules import DecapRule, EncapRule, ue_cookie
from mobiscud.core.edge import DownlinkTunnel, FlowAction, FlowFilter, UplinkTunnel
from mobiscud.core.ids import FTeid, Teid, UeKey

COOKIE = ue_cookie(UeKey("ue-0000000000000001"))
DECAP = DecapRule(COOKIE, UplinkTunnel("10.0.0.11", FTeid("10.0.0.1", Teid(0x1001))), "172.16.1.10", "45.45.0.2")
ENCAP = EncapRule(COOKIE, "45.45.0.2", "172.16.1.10", DownlinkTunnel("10.0.0.1", FTeid("10.0.0.11", Teid(0x2001))))


MAPPED = "00" * 10 + "ffff"
ANY = bytes.fromhex("00ff 0000 0000 0000") + bytes(24)
TCP_443 = FlowFilter(protocol=6, pvm_port=443)
VOICE = FlowFilter(protocol=17, ue_port=5004, dscp=46)
SIX = replace(DECAP, ue_address="2001:db8:45::", pvm_address="2001:db8:16::10")


def number(value: int) -> bytes:
    return value.to_bytes(8, sys.byteorder)


def test_uplink_entry() -> None:
    ends = f"{MAPPED} 0a00000b {MAPPED} 0a000001 {MAPPED} ac10010a 00001001"
    assert entries.key(DECAP) == bytes.fromhex(ends)
    assert entries.value(DECAP) == bytes.fromhex(MAPPED + "2d2d0002") + number(COOKIE) + number(1) + ANY + bytes(7 * 32)
    assert len(entries.value(DECAP)) == entries.UPLINK_VALUE_SIZE == 288


def test_downlink_entry() -> None:
    assert entries.key(ENCAP) == bytes.fromhex(f"{MAPPED} 2d2d0002 {MAPPED} ac10010a")
    head = bytes.fromhex(f"{MAPPED} 0a000001 {MAPPED} 0a00000b 00002001 00000000") + number(COOKIE) + number(1)
    assert entries.value(ENCAP) == head + ANY + bytes(7 * 32)
    assert len(entries.value(ENCAP)) == entries.DOWNLINK_VALUE_SIZE == 312


def test_accounts_and_actions_of_an_entry() -> None:
    rule = replace(DECAP, flows=(replace(TCP_443, action=FlowAction.DROP), VOICE), names=("", "voice"))
    packed = entries.value(rule, (0, 7))
    assert packed[32 + 6] == 2
    assert packed[32 + 24 : 32 + 28] == bytes(4)
    assert packed[64 + 24 : 64 + 28] == (7).to_bytes(4, sys.byteorder)
    assert entries.accounts(rule, packed) == (0, 7)
    assert entries.decap_rule(entries.key(rule), packed, {0: "", 7: "voice"}.__getitem__) == rule


def test_flows_of_an_entry() -> None:
    packed = entries.value(replace(DECAP, flows=(TCP_443, VOICE)))
    assert packed[24:] == (
        number(2)
        + bytes.fromhex("06ff 0000 01bb 0000")
        + bytes(24)
        + bytes.fromhex("112e 138c 0000 0000")
        + bytes(24 + 6 * 32)
    )


@pytest.mark.parametrize("rule", [DECAP, SIX, replace(DECAP, flows=(TCP_443, VOICE))])
def test_an_uplink_entry_leads_back_to_its_rule(rule: DecapRule) -> None:
    assert entries.decap_rule(entries.key(rule), entries.value(rule)) == rule


@pytest.mark.parametrize(
    "rule", [ENCAP, replace(ENCAP, flows=(VOICE,)), replace(ENCAP, tunnel=replace(ENCAP.tunnel, bearer=Teid(0x1001)))]
)
def test_a_downlink_entry_leads_back_to_its_rule(rule: EncapRule) -> None:
    assert entries.encap_rule(entries.key(rule), entries.value(rule)) == rule


def test_counters_of_a_rule_and_of_its_flows() -> None:
    for rule in (replace(DECAP, flows=(TCP_443, VOICE)), replace(ENCAP, flows=(TCP_443, VOICE))):
        octets = bytearray(entries.value(rule))
        flows = len(octets) - 8 * 32
        octets[flows + 8 : flows + 24] = number(7) + number(900)
        octets[flows + 40 : flows + 56] = number(1) + number(100)
        assert entries.counters(rule, bytes(octets)) == {
            rule.id: Counter(8, 1000),
            f"{rule.id}/protocol=6,pvm=443": Counter(7, 900),
            f"{rule.id}/protocol=17,ue=5004,dscp=46": Counter(1, 100),
        }


def test_counters_of_a_rule_for_everything() -> None:
    octets = entries.value(DECAP)[:40] + number(3) + number(99)
    assert entries.counters(DECAP, octets.ljust(288, b"\0")) == {DECAP.id: Counter(3, 99)}


def test_settings() -> None:
    packed = entries.settings(1, 2, 3, gi_destination="02:00:00:00:00:01", gi_source="02:00:00:00:00:02")
    assert len(packed) == entries.SETTINGS.size == 24
    assert packed[12:] == bytes.fromhex("020000000001 020000000002")


def test_statistics_add_up_over_processors() -> None:
    assert entries.statistic((5).to_bytes(8, sys.byteorder) + (8).to_bytes(8, sys.byteorder)) == 13
    assert entries.statistic_key(Statistic.FORGED) == (4).to_bytes(4, sys.byteorder)


def test_statistics_are_those_of_the_program() -> None:
    source = HEADERS[0].read_text()
    body = source[source.index("enum statistic {") : source.index("STATISTICS,")]
    declared = [line.split(",")[0].strip() for line in body.splitlines()[1:] if "," in line]
    assert [which.name for which in Statistic] == declared
