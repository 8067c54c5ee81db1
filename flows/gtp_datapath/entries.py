"""The bytes of the map entries; the mirror of the structures in maps.h. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from flows.gtp_datapath.addresses import packed, shown
from flows.rules import DecapRule, EncapRule, MapRule
from mobiscud.core.edge import MAX_FLOWS, DownlinkTunnel, FlowAction, FlowFilter, UplinkTunnel
from mobiscud.core.ids import Cookie, FTeid, Teid

# Addresses, ports and TEIDs are in network order, everything else is in the machine's.
SETTINGS = struct.Struct("=III6s6s")
FLOW = struct.Struct("=BB2s2sBxQQI4x")
UPLINK_KEY = struct.Struct("=16s16s16s4s")
UPLINK_HEAD = struct.Struct("=16sQQ")
UPLINK_VALUE_SIZE = UPLINK_HEAD.size + MAX_FLOWS * FLOW.size
DOWNLINK_KEY = struct.Struct("=16s16s")
DOWNLINK_HEAD = struct.Struct("=16s16s4s4sQQ")
DOWNLINK_VALUE_SIZE = DOWNLINK_HEAD.size + MAX_FLOWS * FLOW.size
ANY_DSCP = 0xFF
ANYTHING = FlowFilter()
ACTIONS = (FlowAction.FORWARD_DECAPSULATED, FlowAction.PASSTHROUGH, FlowAction.DROP)  # enum action
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
    NOT_OFFLOADED = 9
    DISCARDED = 10


@dataclass(frozen=True, slots=True)
class Counter:
    """What one rule has carried; ``bytes`` are those of the inner packets."""

    packets: int
    bytes: int


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def settings(enb: int, core: int, gi: int, gi_destination: str, gi_source: str) -> bytes:
    """``struct settings``: interface indexes, and the addresses of frames towards Open vSwitch."""
    return SETTINGS.pack(enb, core, gi, _mac(gi_destination), _mac(gi_source))


def key(rule: MapRule) -> bytes:
    """``struct uplink_key`` or ``struct downlink_key``."""
    pvm = packed(rule.pvm_address)
    if isinstance(rule, EncapRule):
        return DOWNLINK_KEY.pack(packed(rule.ue_address), pvm)
    sgw = rule.tunnel.sgw
    return UPLINK_KEY.pack(packed(rule.tunnel.enb_address), packed(sgw.address), pvm, sgw.teid.to_bytes(4))


def value(rule: MapRule, accounts: Sequence[int] = ()) -> bytes:
    """``struct uplink_value`` or ``struct downlink_value``, with nothing carried yet.

    ``accounts``: that of each flow, by number; none: of none.
    """
    flows = rule.flows or (ANYTHING,)
    if isinstance(rule, EncapRule):
        sgw, enb = packed(rule.tunnel.sgw_address), rule.tunnel.enb
        bearer = rule.tunnel.bearer.to_bytes(4)
        head = DOWNLINK_HEAD.pack(sgw, packed(enb.address), enb.teid.to_bytes(4), bearer, rule.cookie, len(flows))
    else:
        head = UPLINK_HEAD.pack(packed(rule.ue_address), rule.cookie, len(flows))
    numbers = accounts or (0,) * len(flows)
    return head + b"".join(map(_flow, flows, numbers)).ljust(MAX_FLOWS * FLOW.size, b"\0")


def _flow(flow: FlowFilter, account: int) -> bytes:
    dscp = ANY_DSCP if flow.dscp is None else flow.dscp
    ports = (flow.ue_port or 0).to_bytes(2), (flow.pvm_port or 0).to_bytes(2)
    return FLOW.pack(flow.protocol or 0, dscp, *ports, ACTIONS.index(flow.action), 0, 0, account)


NameOf = Callable[[int], str]
"""The traffic rule that an account is of, by its number."""


def decap_rule(key: bytes, value: bytes, name_of: NameOf = lambda number: "") -> DecapRule:
    """The rule behind an entry of the map ``uplink``."""
    enb, sgw, pvm, teid = UPLINK_KEY.unpack(key)
    ue, cookie, number = UPLINK_HEAD.unpack_from(value)
    tunnel = UplinkTunnel(shown(enb), FTeid(shown(sgw), Teid(int.from_bytes(teid))))
    names = _names(value, number, name_of)
    return DecapRule(Cookie(cookie), tunnel, shown(pvm), shown(ue), _flows(value, number), names)


def encap_rule(key: bytes, value: bytes, name_of: NameOf = lambda number: "") -> EncapRule:
    """The rule behind an entry of the map ``downlink``."""
    ue, pvm = DOWNLINK_KEY.unpack(key)
    sgw, enb, teid, bearer, cookie, number = DOWNLINK_HEAD.unpack_from(value)
    end = FTeid(shown(enb), Teid(int.from_bytes(teid)))
    tunnel = DownlinkTunnel(shown(sgw), end, Teid(int.from_bytes(bearer)))
    names = _names(value, number, name_of)
    return EncapRule(Cookie(cookie), shown(ue), shown(pvm), tunnel, _flows(value, number), names)


def _flows(value: bytes, number: int) -> tuple[FlowFilter, ...]:
    """What ``_flow`` has packed; a single one that takes anything is none."""
    found = []
    for protocol, dscp, ue_port, pvm_port, action, *_ in _flow_entries(value, number):
        ports = int.from_bytes(ue_port) or None, int.from_bytes(pvm_port) or None
        found.append(FlowFilter(protocol or None, *ports, None if dscp == ANY_DSCP else dscp, ACTIONS[action]))
    return () if found == [ANYTHING] else tuple(found)


def accounts(rule: MapRule, value: bytes) -> tuple[int, ...]:
    """The account of each flow of a rule's entry, by number."""
    return _accounts(value, len(rule.flows) or 1)


def _accounts(value: bytes, number: int) -> tuple[int, ...]:
    return tuple(account for *_, account in _flow_entries(value, number))


def _names(value: bytes, number: int, name_of: NameOf) -> tuple[str, ...]:
    """The traffic rules that the flows are of, as ``path_rules`` gives them."""
    names = tuple(map(name_of, _accounts(value, number)))
    return names if any(names) else ()


def _flow_entries(value: bytes, number: int) -> Iterable[tuple[Any, ...]]:
    flows = value[-MAX_FLOWS * FLOW.size :]
    return FLOW.iter_unpack(flows[: number * FLOW.size])


def counters(rule: MapRule, value: bytes) -> dict[str, Counter]:
    """What the entry of a rule has carried, by the rule's id; where it names flows, by each of them too."""
    flows = rule.flows or (ANYTHING,)
    each = [Counter(packets, octets) for *_, packets, octets, _ in _flow_entries(value, len(flows))]
    found = {rule.id: Counter(sum(c.packets for c in each), sum(c.bytes for c in each))}
    if rule.flows:
        found |= {f"{rule.id}/{flow}": counter for flow, counter in zip(rule.flows, each, strict=True)}
    return found


def statistic_key(which: Statistic) -> bytes:
    """The key of one counter of the program as a whole."""
    return struct.pack("=I", which)


def statistic(per_cpu: bytes) -> int:
    """The sum over all processors of one counter."""
    values: Iterable[tuple[int]] = struct.iter_unpack("=Q", per_cpu)
    return sum(value for (value,) in values)
