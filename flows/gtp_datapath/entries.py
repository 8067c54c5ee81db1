"""The bytes of the map entries; the mirror of the structures in gtp.bpf.c. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from flows.rules import DecapRule, EncapRule, MapRule
from mobiscud.core.edge import DownlinkTunnel, UplinkTunnel
from mobiscud.core.ids import Cookie, FTeid, Teid

# Addresses and TEIDs are in network order, everything else is in the machine's.
COUNTERS = struct.Struct("=QQ")
SETTINGS = struct.Struct("=III6s6s")
UPLINK_KEY = struct.Struct("!4s4sI4s")
UPLINK_VALUE = struct.Struct("=4s4xQ16x")
DOWNLINK_KEY = struct.Struct("!4s4s")
DOWNLINK_VALUE = struct.Struct("=4s4s4s4xQ16x")
ONLY_KEY = struct.pack("=I", 0)


class Statistic(IntEnum):
    """``enum statistic``: what became of the packets."""

    WIRE_FROM_ENB = 0
    WIRE_FROM_CORE = 1
    DECAPSULATED = 2
    ENCAPSULATED = 3
    FORGED = 4
    NO_TUNNEL = 5
    NO_NEIGHBOUR = 6
    TOO_BIG = 7
    FAILED = 8


@dataclass(frozen=True, slots=True)
class Counter:
    """What one rule has carried; ``bytes`` are those of the inner packets."""

    packets: int
    bytes: int


def _address(text: str) -> bytes:
    return IPv4Address(text).packed


def _text(address: bytes) -> str:
    return str(IPv4Address(address))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def settings(enb: int, core: int, gi: int, gi_destination: str, gi_source: str) -> bytes:
    """``struct settings``: interface indexes, and the addresses of frames towards Open vSwitch."""
    return SETTINGS.pack(enb, core, gi, _mac(gi_destination), _mac(gi_source))


def key(rule: MapRule) -> bytes:
    """``struct uplink_key`` or ``struct downlink_key``."""
    pvm = _address(rule.pvm_address)
    if isinstance(rule, EncapRule):
        return DOWNLINK_KEY.pack(_address(rule.ue_address), pvm)
    sgw = rule.tunnel.sgw
    return UPLINK_KEY.pack(_address(rule.tunnel.enb_address), _address(sgw.address), sgw.teid, pvm)


def value(rule: MapRule) -> bytes:
    """``struct uplink_value`` or ``struct downlink_value``, with nothing carried yet."""
    if isinstance(rule, EncapRule):
        enb = rule.tunnel.enb
        teid = enb.teid.to_bytes(4)
        return DOWNLINK_VALUE.pack(_address(rule.tunnel.sgw_address), _address(enb.address), teid, rule.cookie)
    return UPLINK_VALUE.pack(_address(rule.ue_address), rule.cookie)


def decap_rule(key: bytes, value: bytes) -> DecapRule:
    """The rule behind an entry of the map ``uplink``."""
    enb, sgw, teid, pvm = UPLINK_KEY.unpack(key)
    ue, cookie = UPLINK_VALUE.unpack(value)
    tunnel = UplinkTunnel(_text(enb), FTeid(_text(sgw), Teid(teid)))
    return DecapRule(Cookie(cookie), tunnel, _text(pvm), _text(ue))


def encap_rule(key: bytes, value: bytes) -> EncapRule:
    """The rule behind an entry of the map ``downlink``."""
    ue, pvm = DOWNLINK_KEY.unpack(key)
    sgw, enb, teid, cookie = DOWNLINK_VALUE.unpack(value)
    tunnel = DownlinkTunnel(_text(sgw), FTeid(_text(enb), Teid(int.from_bytes(teid))))
    return EncapRule(Cookie(cookie), _text(ue), _text(pvm), tunnel)


def counter(value: bytes) -> Counter:
    """The counters at the end of an uplink or downlink value."""
    return Counter(*COUNTERS.unpack(value[-COUNTERS.size :]))


def statistic_key(which: Statistic) -> bytes:
    """The key of one counter of the program as a whole."""
    return struct.pack("=I", which)


def statistic(per_cpu: bytes) -> int:
    """The sum over all processors of one counter."""
    values: Iterable[tuple[int]] = struct.iter_unpack("=Q", per_cpu)
    return sum(value for (value,) in values)
