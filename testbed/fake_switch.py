"""A simulated switch that behaves: ask it where a packet emerges.

It obeys the same rules as Open vSwitch and the datapath program, in a simulation written from the documents (OpenFlow
1.3, TS 29.281, RFC 826) and not from the program, so that the two can be held against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any, Final, assert_never

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from flows.path import path_rules
from flows.pipeline import CLASSIFY, Layout, core_rules, link_mac, static_rules
from flows.plan import diff
from flows.rules import (
    ANY_DSCP,
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
    Tell,
)
from mobiscud.core.config import OffloadConfig
from mobiscud.core.edge import FlowAction, FlowFilter, PathSpec, Pvm
from mobiscud.core.ids import CloudletId, TableId, UeKey
from testbed.switch_bench import HERE, MTU, NEXT_HOP, NEXT_HOP_MAC, PEERS, Emerged

G_PDU: Final = 255


class FakeSwitch:
    """A cloudlet with the ports of ``switch_bench``."""

    def __init__(self) -> None:
        offload = OffloadConfig()
        gateway = str(offload.gateway.ip), offload.gateway_mac
        self._layout = Layout(HERE, "gi1", "pvm", PEERS, *gateway, "sgi", NEXT_HOP)
        static = static_rules(self._layout) | core_rules(self._layout, NEXT_HOP_MAC)
        self._flows: dict[Slot, FlowRule] = {rule.slot: rule for rule in static}
        self._entries: dict[Slot, MapRule] = {}
        self._installed: dict[UeKey, frozenset[Rule]] = {}
        self._neighbours: dict[str, tuple[str, str, int | None]] = {}
        self._counts: dict[str, int] = {}
        self._kept: dict[str, list[bytes]] = {}
        self._leaving: dict[str, CloudletId] = {}

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

    def keep_packets(self, pvm: Pvm) -> None:
        """Keep what the personal VM is sent from now on; here nothing grows old."""
        self._kept[pvm.mac] = []

    async def resent(self, pvm: Pvm, to: CloudletId) -> Emerged:
        """Send it once more, and what still comes by; where it came out, and as what."""
        frames, self._kept[pvm.mac] = self._kept.get(pvm.mac, []), []
        self._leaving[pvm.mac] = to
        return [self._sent_on(Ether(frame), to) for frame in frames]

    def _sent_on(self, packet: Ether, to: CloudletId) -> tuple[str, bytes]:
        return PEERS[to], bytes(Ether(src=link_mac(HERE), dst=link_mac(to), type=packet.type) / packet.payload)

    def forget_packets(self, pvm: Pvm) -> None:
        """Keep no more of it."""
        self._kept.pop(pvm.mac, None)
        self._leaving.pop(pvm.mac, None)

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
                if (outer := _ip(packet)) is not None:
                    self._neighbours[outer.dst] = packet.dst, packet.src, _tag(packet)
                return [("enb", frame)]
            case _:
                return self._bridge(port, frame)

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1

    def _from_enb(self, frame: bytes) -> Emerged:
        packet = Ether(frame)
        outer = _ip(packet)
        if outer is not None and outer.src not in self._neighbours:
            self._neighbours[outer.src] = packet.src, packet.dst, _tag(packet)
        action, inner = (FlowAction.PASSTHROUGH, None) if outer is None else self._decapsulated(outer)
        if action is FlowAction.PASSTHROUGH:
            return [("core", frame)]
        if action is FlowAction.DROP:
            self._count("discarded")
            return []
        return self._bridge("gi1", bytes(Ether() / inner))

    def _decapsulated(self, outer: Packet) -> tuple[FlowAction, Packet | None]:
        untouched = FlowAction.PASSTHROUGH, None
        if UDP not in outer or outer[UDP].dport != 2152:
            return untouched
        message = bytes(outer[UDP].payload)
        flags, kind, _, teid = struct.unpack_from("!BBHI", message)
        if kind != G_PDU:
            return untouched
        offset = 12 if flags & 7 else 8
        more = message[11] if flags & 4 else 0
        while more:
            end = offset + 4 * message[offset]
            offset, more = end, message[end - 1]
        inner = IP(message[offset:]) if message[offset] >> 4 == 4 else IPv6(message[offset:])
        for rule in self._entries.values():
            if isinstance(rule, DecapRule):
                tunnel = rule.tunnel.enb_address, rule.tunnel.sgw.address, rule.tunnel.sgw.teid, rule.pvm_address
                if tunnel == (outer.src, outer.dst, teid, inner.dst):
                    if _of_ue(inner.src) == rule.ue_address:
                        return _action(rule.flows, inner, inner.sport, inner.dport), _clamped(inner, outer)
                    self._count("forged")
        return untouched

    def _from_gi(self, packet: Ether) -> Emerged:
        inner = _ip(packet)
        assert inner is not None
        rule = self._entries.get((_of_ue(inner.dst), inner.src))
        if not isinstance(rule, EncapRule):
            self._count("no_tunnel")
            return []
        action = _action(rule.flows, inner, inner.dport, inner.sport)
        if action is not FlowAction.FORWARD_DECAPSULATED:
            self._count("discarded" if action is FlowAction.DROP else "not_offloaded")
            return []
        if rule.tunnel.enb.address not in self._neighbours:
            self._count("no_neighbour")
            return []
        ends = {"src": rule.tunnel.sgw_address, "dst": rule.tunnel.enb.address}
        traffic_class = inner.tos if inner.version == 4 else inner.tc
        outer = IP(**ends, tos=traffic_class) if "." in ends["dst"] else IPv6(**ends, tc=traffic_class)
        room = MTU - len(outer) - 16
        if len(inner) > room:
            self._count("too_big")
            return self._bridge("gi1", bytes(Ether() / _too_big(inner, room)))
        payload = bytes(_clamped(inner, outer))
        header = struct.pack("!BBHI", 0x30, G_PDU, len(payload), rule.tunnel.enb.teid)
        udp = UDP(sport=2152, dport=2152, chksum=0 if outer.version == 4 else None)
        destination, source, tag = self._neighbours[rule.tunnel.enb.address]
        ethernet = Ether(dst=destination, src=source)
        if tag is not None:
            ethernet /= Dot1Q(vlan=tag)
        return [("enb", bytes(ethernet / outer / udp / Raw(header + payload)))]

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
                        packet.src, packet.dst = source or packet.src, destination
                    case DecrementTtl():
                        hops = "ttl" if packet.payload.version == 4 else "hlim"
                        if getattr(packet.payload, hops) <= 1:
                            return emerged
                        setattr(packet.payload, hops, getattr(packet.payload, hops) - 1)
                        if IP in packet:
                            packet[IP].chksum = None
                        packet = Ether(bytes(packet))
                    case Output(to):
                        emerged += self._output(to, port, packet)
                    case OutputBack():
                        emerged.append((port, bytes(packet)))
                    case Tell():
                        pass  # the next hop is known here
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
        if to == self._layout.pvm_port and packet.dst in self._leaving:
            return [(to, bytes(packet)), self._sent_on(packet, self._leaving[packet.dst])]
        if to == self._layout.pvm_port and packet.dst in self._kept:
            self._kept[packet.dst].append(bytes(packet))
        return self._from_gi(packet) if to == "gi1" else [(to, bytes(packet))]


def _ip(packet: Packet) -> Packet | None:
    """The IP packet in a frame with one tag at most."""
    payload = packet.payload.payload if isinstance(packet.payload, Dot1Q) else packet.payload
    return payload if isinstance(payload, (IP, IPv6)) else None


def _tag(packet: Packet) -> int | None:
    return packet[Dot1Q].vlan if Dot1Q in packet else None


def _of_ue(address: str) -> str:
    """The address by which a UE is known: of an IPv6 one the first 64 bits."""
    if ":" not in address:
        return address
    return str(IPv6Network((address, 64), strict=False).network_address)


def _action(flows: Iterable[FlowFilter], inner: Packet, ue_port: int, pvm_port: int) -> FlowAction:
    """What becomes of an unfragmented packet."""
    if not flows:
        return FlowAction.FORWARD_DECAPSULATED
    protocol, dscp = (inner.proto, inner.tos >> 2) if inner.version == 4 else (inner.nh, inner.tc >> 2)
    seen = protocol, ue_port, pvm_port, dscp
    for f in flows:
        asked = f.protocol, f.ue_port, f.pvm_port, f.dscp
        if all(one in (None, value) for one, value in zip(asked, seen, strict=True)):
            return f.action
    return FlowAction.PASSTHROUGH


def _clamped(inner: Packet, outer: Packet) -> Packet:
    """The packet, with the segment size that a SYN announces lowered to what fits the tunnel (RFC 9293 3.7.1)."""
    if TCP in inner and inner[TCP].flags.S:
        headers = (20 if outer.version == 4 else 40) + 16 + (20 if inner.version == 4 else 40) + 20
        options = inner[TCP].options
        inner[TCP].options = [(k, min(v, MTU - headers) if k == "MSS" else v) for k, v in options]
        inner[TCP].chksum = None
    return inner


def _too_big(packet: Packet, mtu: int) -> Packet:
    """What a router says of a packet that is too big for the next hop, in the name of whom it was sent to."""
    quote = Raw(bytes(packet)[:68])
    if packet.version == 4:  # RFC 1191 4
        return IP(src=packet.dst, dst=packet.src, id=0) / ICMP(type=3, code=4, nexthopmtu=mtu) / quote
    return IPv6(src=packet.dst, dst=packet.src) / ICMPv6PacketTooBig(mtu=mtu) / quote


def _matches_above(match: Match, ip: Packet) -> bool:
    """Whether what an IP packet carries is what a match asks for."""
    protocol, traffic_class = (ip.proto, ip.tos) if ip.version == 4 else (ip.nh, ip.tc)
    ports = (ip.payload.sport, ip.payload.dport) if match.l4_src or match.l4_dst else (0, 0)
    return (
        match.ip_proto in (0, protocol)
        and match.dscp in (ANY_DSCP, traffic_class >> 2)
        and match.l4_src in (0, ports[0])
        and match.l4_dst in (0, ports[1])
    )


def _matches(match: Match, port: str, packet: Ether) -> bool:
    if (
        match.in_port not in ("", port)
        or match.eth_dst not in ("", packet.dst)
        or match.eth_src not in ("", packet.src)
    ):
        return False
    if match.eth_type not in (0, packet.type):
        return False
    if match.eth_type in (EtherType.IPV4, EtherType.IPV6):
        ip = packet.payload
        here = all(
            not asked or ip_address(address) in ip_network(asked)
            for asked, address in ((match.ip_src, ip.src), (match.ip_dst, ip.dst))
        )
        return here and _matches_above(match, ip)
    if match.eth_type == EtherType.ARP:
        asked = packet[ARP].op == 1 and packet[ARP].pdst == match.arp_target
        return bool(asked or (packet[ARP].op == 2 and packet[ARP].psrc == match.arp_sender))
    return True
