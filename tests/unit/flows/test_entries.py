"""The bytes of the map entries are those that gtp.bpf.c declares."""

from __future__ import annotations

import sys

from flows.gtp_datapath import entries
from flows.gtp_datapath.build import SOURCE
from flows.gtp_datapath.entries import Counter, Statistic
from flows.rules import DecapRule, EncapRule, ue_cookie
from mobiscud.core.edge import DownlinkTunnel, UplinkTunnel
from mobiscud.core.ids import FTeid, Teid, UeKey

COOKIE = ue_cookie(UeKey("ue-0000000000000001"))
COOKIE_OCTETS = COOKIE.to_bytes(8, sys.byteorder)
DECAP = DecapRule(COOKIE, UplinkTunnel("10.0.0.11", FTeid("10.0.0.1", Teid(0x1001))), "172.16.1.10", "45.45.0.2")
ENCAP = EncapRule(COOKIE, "45.45.0.2", "172.16.1.10", DownlinkTunnel("10.0.0.1", FTeid("10.0.0.11", Teid(0x2001))))


def test_uplink_entry() -> None:
    assert entries.key(DECAP) == bytes.fromhex("0a00000b 0a000001 00001001 ac10010a")
    assert entries.value(DECAP) == bytes.fromhex("2d2d0002 00000000") + COOKIE_OCTETS + bytes(16)
    assert entries.decap_rule(entries.key(DECAP), entries.value(DECAP)) == DECAP


def test_downlink_entry() -> None:
    assert entries.key(ENCAP) == bytes.fromhex("2d2d0002 ac10010a")
    assert entries.value(ENCAP) == bytes.fromhex("0a000001 0a00000b 00002001 00000000") + COOKIE_OCTETS + bytes(16)
    assert entries.encap_rule(entries.key(ENCAP), entries.value(ENCAP)) == ENCAP


def test_counters_end_a_value() -> None:
    for rule in (DECAP, ENCAP):
        carried = entries.value(rule)[:-16] + (7).to_bytes(8, sys.byteorder) + (900).to_bytes(8, sys.byteorder)
        assert entries.counter(carried) == Counter(packets=7, bytes=900)


def test_settings() -> None:
    packed = entries.settings(1, 2, 3, gi_destination="02:00:00:00:00:01", gi_source="02:00:00:00:00:02")
    assert len(packed) == entries.SETTINGS.size == 24
    assert packed[12:] == bytes.fromhex("020000000001 020000000002")


def test_statistics_add_up_over_processors() -> None:
    assert entries.statistic((5).to_bytes(8, sys.byteorder) + (8).to_bytes(8, sys.byteorder)) == 13
    assert entries.statistic_key(Statistic.FORGED) == (4).to_bytes(4, sys.byteorder)


def test_statistics_are_those_of_the_program() -> None:
    source = SOURCE.read_text()
    body = source[source.index("enum statistic {") : source.index("STATISTICS,")]
    declared = [line.split(",")[0].strip() for line in body.splitlines()[1:] if "," in line]
    assert [which.name for which in Statistic] == declared
