"""The bytes of the map entries; the mirror of the structures in gtp.bpf.c. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from flows.rules import EncapRule, MapRule
from mobiscud.core.ids import FTeid

# Addresses and TEIDs are in network order, everything else is in the machine's.
COUNTERS = struct.Struct("=QQ")
SETTINGS = struct.Struct("=III6s6s")
UPLINK_VALUE_SIZE = 8 + COUNTERS.size
DOWNLINK_VALUE_SIZE = 16 + COUNTERS.size
NEIGHBOUR_SIZE = 12
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


def _f_teid(end: FTeid) -> bytes:
    return _address(end.address) + struct.pack("!I", end.teid)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def settings(enb: int, core: int, gi: int, gi_destination: str, gi_source: str) -> bytes:
    """``struct settings``: interface indexes, and the addresses of frames towards Open vSwitch."""
    return SETTINGS.pack(enb, core, gi, _mac(gi_destination), _mac(gi_source))


def key(rule: MapRule) -> bytes:
    """``struct uplink_key`` or ``struct downlink_key``."""
    if isinstance(rule, EncapRule):
        return _address(rule.ue_address) + _address(rule.pvm_address)
    tunnel = _address(rule.tunnel.enb_address) + _f_teid(rule.tunnel.sgw)
    return tunnel + _address(rule.pvm_address)


def value(rule: MapRule) -> bytes:
    """``struct uplink_value`` or ``struct downlink_value``, with nothing carried yet."""
    if isinstance(rule, EncapRule):
        head = _address(rule.tunnel.sgw_address) + _f_teid(rule.tunnel.enb)
    else:
        head = _address(rule.ue_address)
    return head + bytes(4) + COUNTERS.pack(0, 0)


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
