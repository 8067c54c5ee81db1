"""A simulated switch that behaves: ask it where a packet emerges.

It obeys the same rules as Open vSwitch and the datapath program, in a simulation written from the documents (OpenFlow
1.3, TS 29.281, RFC 826) and not from the program, so that the two can be held against each other.
"""

from __future__ import annotations

import struct
from typing import Any, Final, assert_never

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from flows.path import path_rules
from flows.pipeline import CLASSIFY, Layout, static_rules
from flows.plan import diff
from flows.rules import (
    AnswerArp,
    DecapRule,
    DecrementTtl,
    EncapRule,
    EtherType,
    FlowRule,
    Goto,
    MapRule,
    Match,
    Output,
    OutputBack,
    Rule,
    SetEthernet,
    Slot,
)
from mobiscud.core.config import OffloadConfig
from mobiscud.core.edge import PathSpec
from mobiscud.core.ids import TableId, UeKey
from testbed.switch_bench import HERE, MTU, PEERS, Emerged

G_PDU: Final = 255


class FakeSwitch:
    """A cloudlet with the ports of ``switch_bench``."""

    def __init__(self) -> None:
        offload = OffloadConfig()
        self._layout = Layout(HERE, "gi1", "pvm", PEERS, str(offload.gateway.ip), offload.gateway_mac)
        self._flows: dict[Slot, FlowRule] = {rule.slot: rule for rule in static_rules(self._layout)}
        self._entries: dict[Slot, MapRule] = {}
        self._installed: dict[UeKey, frozenset[Rule]] = {}
        self._neighbours: dict[str, tuple[str, str]] = {}
        self._counts: dict[str, int] = {}

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        """As ``CloudletSwitch.apply``."""
        desired = path_rules(ue, path, self._layout)
        plan = diff(desired, self._installed.get(ue, frozenset()))
        for rule in plan.adds:
            if isinstance(rule, FlowRule):
                self._flows[rule.slot] = rule
            else:
                self._entries[rule.slot] = rule
        for rule in plan.deletes:
            place: dict[Slot, Any] = self._flows if isinstance(rule, FlowRule) else self._entries
            if place.get(rule.slot) == rule:
                del place[rule.slot]
        self._installed[ue] = desired
        return tuple(sorted(rule.id for rule in desired))

    async def count(self, what: str) -> int:
        """A counter of the datapath program, by name."""
        return self._counts.get(what, 0)

    async def emerges(self, port: str, frame: bytes, at: str | None = None) -> Emerged:
        """Where a frame that is sent into ``port`` comes out, and as what."""
        match port:
            case "enb":
                return self._from_enb(frame)
            case "core":
                packet = Ether(frame)
                if IP in packet:
                    self._neighbours[packet[IP].dst] = packet.dst, packet.src
                return [("enb", frame)]
            case _:
                return self._bridge(port, frame)

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1

    def _from_enb(self, frame: bytes) -> Emerged:
        packet = Ether(frame)
        if IP in packet and packet[IP].src not in self._neighbours:
            self._neighbours[packet[IP].src] = packet.src, packet.dst
        inner = self._decapsulated(packet)
        return [("core", frame)] if inner is None else self._bridge("gi1", bytes(Ether() / inner))

    def _decapsulated(self, packet: Ether) -> IP | None:
        if IP not in packet or UDP not in packet or packet[UDP].dport != 2152:
            return None
        message = bytes(packet[UDP].payload)
        flags, kind, _, teid = struct.unpack_from("!BBHI", message)
        if kind != G_PDU:
            return None
        offset = 12 if flags & 7 else 8
        more = message[11] if flags & 4 else 0
        while more:
            end = offset + 4 * message[offset]
            offset, more = end, message[end - 1]
        inner = IP(message[offset:])
        for rule in self._entries.values():
            if isinstance(rule, DecapRule):
                tunnel = rule.tunnel.enb_address, rule.tunnel.sgw.address, rule.tunnel.sgw.teid, rule.pvm_address
                if tunnel == (packet[IP].src, packet[IP].dst, teid, inner.dst):
                    if inner.src == rule.ue_address:
                        return inner
                    self._count("forged")
        return None

    def _from_gi(self, packet: Ether) -> Emerged:
        inner = packet[IP]
        rule = self._entries.get((inner.dst, inner.src))
        if not isinstance(rule, EncapRule):
            self._count("no_tunnel")
            return []
        if rule.tunnel.enb.address not in self._neighbours:
            self._count("no_neighbour")
            return []
        if len(inner) + 36 > MTU:
            self._count("too_big")
            return []
        destination, source = self._neighbours[rule.tunnel.enb.address]
        header = struct.pack("!BBHI", 0x30, G_PDU, len(inner), rule.tunnel.enb.teid)
        outer = IP(src=rule.tunnel.sgw_address, dst=rule.tunnel.enb.address, tos=inner.tos)
        udp = UDP(sport=2152, dport=2152, chksum=0)
        return [("enb", bytes(Ether(dst=destination, src=source) / outer / udp / Raw(header + bytes(inner))))]

    def _bridge(self, port: str, frame: bytes) -> Emerged:
        """Walk the tables (OpenFlow 1.3, 5.1)."""
        packet, table, emerged = Ether(frame), CLASSIFY, Emerged()
        while True:
            found = [r for r in self._flows.values() if r.table == table and _matches(r.match, port, packet)]
            rule = max(found, key=lambda r: r.priority)
            following: TableId | None = None
            for action in rule.actions:
                match action:
                    case SetEthernet(source, destination):
                        packet.src, packet.dst = source, destination
                    case DecrementTtl():
                        if packet[IP].ttl <= 1:
                            return emerged
                        packet[IP].ttl -= 1
                        packet[IP].chksum = None
                        packet = Ether(bytes(packet))
                    case Output(to):
                        emerged += self._output(to, port, packet)
                    case OutputBack():
                        emerged.append((port, bytes(packet)))
                    case AnswerArp(address, mac):
                        arp = packet[ARP]
                        answer = ARP(op=2, hwsrc=mac, psrc=address, hwdst=arp.hwsrc, pdst=arp.psrc)
                        packet = Ether(src=mac, dst=packet.src) / answer
                    case Goto(next_table):
                        following = next_table
                    case _ as never:
                        assert_never(never)
            if following is None:
                return emerged
            table = following

    def _output(self, to: str, came_by: str, packet: Ether) -> Emerged:
        if to == came_by:
            return []
        return self._from_gi(packet) if to == "gi1" else [(to, bytes(packet))]


def _matches(match: Match, port: str, packet: Ether) -> bool:
    if match.in_port not in ("", port) or match.eth_dst not in ("", packet.dst):
        return False
    if match.eth_type not in (0, packet.type):
        return False
    if match.eth_type == EtherType.IPV4:
        return match.ip_src in ("", packet[IP].src) and match.ip_dst in ("", packet[IP].dst)
    if match.eth_type == EtherType.ARP:
        return bool(packet[ARP].op == 1 and packet[ARP].pdst == match.arp_target)
    return True
