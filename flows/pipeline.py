"""The tables of a cloudlet's bridge, and the flows that are there whoever the UEs are.

    CLASSIFY  what may come in by which port, and ARP for the personal VMs' gateway and, towards the core, for the VMs
    SOURCE    packets of personal VMs that come from whom they say (one flow a VM)
    UPLINK    packets from a UE to its personal VM     (one flow a UE)
    DOWNLINK  packets from a personal VM to its UE     (one flow a UE whose VM is here, or that has just left)
    LINK      frames for another cloudlet, by its link address: out of the inter-cloudlet port that leads there
    CORE      packets for UEs that no cloudlet has: to the core's next hop, which brings them to the P-GW

Between cloudlets every frame carries the link address of the cloudlet it is for, so that one in between passes it on
without knowing the UE. Toward the personal VMs all cloudlets are the same gateway: a VM that moves notices nothing.
Toward the core every VM is a host of one network, by its own address and MAC, wherever it runs (docs/adr/0004).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from flows.rules import (
    OURS,
    Action,
    AnswerArp,
    DecrementTtl,
    EtherType,
    FlowRule,
    Goto,
    Match,
    Output,
    OutputBack,
    SetEthernet,
    Tell,
)
from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import CloudletId, TableId

CLASSIFY: Final = TableId(0)
SOURCE: Final = TableId(5)
UPLINK: Final = TableId(10)
DOWNLINK: Final = TableId(20)
LINK: Final = TableId(30)
CORE: Final = TableId(40)

MISS: Final = 0
STANDING: Final = 50
NORMAL: Final = 100
EXCEPTION: Final = 200


FLOW_NAMES: Final[Mapping[int, str]] = {
    CLASSIFY: "from-core",
    SOURCE: "source",
    UPLINK: "uplink",
    DOWNLINK: "downlink",
}


def flow_name(table: TableId, match: Match) -> str:
    """How the flows of a table that are made for UEs are called."""
    if match.eth_type == EtherType.ARP:
        return "arp"
    name = "arriving" if table == UPLINK and match.eth_src else FLOW_NAMES.get(table, "static")
    name += "6" if match.eth_type == EtherType.IPV6 else ""
    fields = (("dscp", match.dscp + 1), ("protocol", match.ip_proto), ("from", match.l4_src), ("to", match.l4_dst))
    shown = [f"{what}={value - (what == 'dscp')}" for what, value in fields if value]
    return "/".join([name, *shown])


def link_mac(cloudlet: CloudletId) -> str:
    """The address of a cloudlet on the inter-cloudlet links: locally administered, the same wherever it is computed."""
    return "02:4d:53:" + sha256(cloudlet.encode()).digest()[:3].hex(":")


@dataclass(frozen=True, slots=True)
class Layout:
    """The ports of a cloudlet's bridge, and its surroundings.

    ``peers`` gives the port by which each other cloudlet is reached, over others if need be. ``gateway_address`` and
    ``gateway_mac`` are those of the personal VMs' gateway, the same in every cloudlet. ``sgi_port`` leads to the core's
    side of the P-GW, where ``sgi_gateway`` is the next hop towards UEs; both empty where there is no such port.
    """

    cloudlet: CloudletId
    gi_port: str
    pvm_port: str
    peers: Mapping[CloudletId, str]
    gateway_address: str
    gateway_mac: str
    sgi_port: str = ""
    sgi_gateway: str = ""

    def __post_init__(self) -> None:
        names = {self.gateway_mac: "the gateway"}
        for cloudlet in (self.cloudlet, *self.peers):
            other = names.setdefault(link_mac(cloudlet), cloudlet)
            if other != cloudlet:
                raise ConfigError(f"switches: cloudlet {cloudlet!r} and {other!r} get one link address: rename one")

    @property
    def link_ports(self) -> list[str]:
        """The inter-cloudlet ports, each once."""
        return sorted(set(self.peers.values()))


def static_rules(layout: Layout) -> frozenset[FlowRule]:
    """All flows that do not depend on any UE. What they do not let in is dropped."""
    ours = (_classify(layout), _misses(), _standing(layout), _links(layout), _next_hop_told(layout))
    return frozenset(rule for rules in ours for rule in rules)


def _static(name: str, table: TableId, priority: int, match: Match, *actions: Action) -> FlowRule:
    return FlowRule(OURS, name, table, priority, match, actions)


def _classify(layout: Layout) -> list[FlowRule]:
    """Who may say what: UEs' packets come from the datapath program, which has checked them, or from a peer."""
    arp = Match(in_port=layout.pvm_port, eth_type=EtherType.ARP, arp_target=layout.gateway_address)
    answer = AnswerArp(layout.gateway_address, layout.gateway_mac)
    rules = [_static("arp", CLASSIFY, NORMAL, arp, answer, OutputBack())]
    for ip, suffix in ((int(EtherType.IPV4), ""), (int(EtherType.IPV6), "6")):
        from_gi = Match(in_port=layout.gi_port, eth_type=ip)
        from_pvm = Match(in_port=layout.pvm_port, eth_type=ip, eth_dst=layout.gateway_mac)
        rules.append(_static(f"from-gi{suffix}", CLASSIFY, NORMAL, from_gi, Goto(UPLINK)))
        rules.append(_static(f"from-pvm{suffix}", CLASSIFY, NORMAL, from_pvm, Goto(SOURCE)))
        for port in layout.link_ports:
            to_us = Match(port, ip, link_mac(layout.cloudlet))
            transit = _static(f"transit{suffix}-{port}", CLASSIFY, NORMAL, Match(port, ip), DecrementTtl(), Goto(LINK))
            rules += [_static(f"from-{port}{suffix}", CLASSIFY, EXCEPTION, to_us, Goto(UPLINK)), transit]
    return rules


def _misses() -> list[FlowRule]:
    """What no flow of a table knows."""
    return [
        _static("unknown", CLASSIFY, MISS, Match()),
        _static("not-itself", SOURCE, MISS, Match()),
        _static("not-uplink", UPLINK, MISS, Match(), Goto(DOWNLINK)),
        _static("no-ue", DOWNLINK, MISS, Match()),
        _static("no-link", LINK, MISS, Match()),
        _static("no-next-hop", CORE, MISS, Match()),
    ]


def _standing(layout: Layout) -> list[FlowRule]:
    """What a peer sends to a UE is for the tunnel, of which the datapath program knows: no flow waits for a UE that
    comes, nor the UE for a flow."""
    rules = []
    for ip, suffix in ((int(EtherType.IPV4), ""), (int(EtherType.IPV6), "6")):
        for port in layout.link_ports:
            match = Match(in_port=port, eth_type=ip)
            rules.append(_static(f"for-a-ue{suffix}-{port}", DOWNLINK, STANDING, match, Output(layout.gi_port)))
    return rules


def _next_hop_told(layout: Layout) -> list[FlowRule]:
    """Where the core's next hop is, it says itself."""
    if not layout.sgi_port:
        return []
    answer = Match(in_port=layout.sgi_port, eth_type=EtherType.ARP, arp_sender=layout.sgi_gateway)
    return [_static("next-hop", CLASSIFY, NORMAL, answer, Tell())]


def core_rules(layout: Layout, next_hop: str) -> frozenset[FlowRule]:
    """The way to the core, once the MAC of its next hop is known.

    Only frames of a VM that runs here leave with the VM's own MAC: by them the network learns where it is.
    """
    from_vm = Match(in_port=layout.pvm_port)
    out = Output(layout.sgi_port)
    return frozenset(
        {
            _static("vm-to-core", CORE, EXCEPTION, from_vm, SetEthernet("", next_hop), out),
            _static("to-core", CORE, NORMAL, Match(), SetEthernet(link_mac(layout.cloudlet), next_hop), out),
        }
    )


def _links(layout: Layout) -> list[FlowRule]:
    """Towards each peer; back by the same port where the packet came from the side that it must go to."""
    rules = []
    for peer, port in layout.peers.items():
        to_peer = link_mac(peer)
        back = Match(in_port=port, eth_dst=to_peer)
        rules.append(_static(f"back-to-{peer}", LINK, EXCEPTION, back, OutputBack()))
        rules.append(_static(f"to-{peer}", LINK, NORMAL, Match(eth_dst=to_peer), Output(port)))
    return rules
