"""From the desired path of a UE to the rules that make it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

from flows.pipeline import (
    CLASSIFY,
    CORE,
    DOWNLINK,
    EXCEPTION,
    LINK,
    NORMAL,
    SOURCE,
    UPLINK,
    Layout,
    flow_name,
    link_mac,
)
from flows.rules import (
    ANY_DSCP,
    Action,
    AnswerArp,
    DecapRule,
    DecrementTtl,
    EncapRule,
    EtherType,
    FlowRule,
    Goto,
    Match,
    Output,
    OutputBack,
    Rule,
    SetEthernet,
    ue_cookie,
)
from mobiscud.core.edge import MAX_FLOWS, FlowAction, FlowFilter, PathSpec
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, Cookie, TableId, UeKey

ANYTHING = FlowFilter()


def path_rules(ue: UeKey, path: PathSpec | None, layout: Layout) -> frozenset[Rule]:
    """The rules that ``path`` asks for at the cloudlet of ``layout``; none for no path.

    :raises AdapterError: the path names a cloudlet that no port leads to, or more flows than the datapath holds
    """
    if path is None:
        return frozenset()
    if len(path.flows) > MAX_FLOWS:
        raise AdapterError(f"{len(path.flows)} flows of one UE, where the datapath holds {MAX_FLOWS}")
    rules = _family_rules(ue_cookie(ue), path.ue_ip, path.pvm.address, path, layout)
    if path.ue_ipv6 and path.pvm.ipv6:
        rules += _family_rules(ue_cookie(ue), path.ue_ipv6, path.pvm.ipv6, path, layout)
    return frozenset(rules)


def _family_rules(cookie: Cookie, ue_ip: str, pvm_ip: str, path: PathSpec, layout: Layout) -> list[Rule]:
    """The rules for one version of IP."""
    if (":" in ue_ip) != (":" in pvm_ip):
        raise AdapterError(f"the UE has {ue_ip} and its personal VM {pvm_ip}: one is IPv4, the other IPv6")
    ether_type, ue, to_match, address = EtherType.IPV4, ue_ip, ue_ip, pvm_ip
    if ":" in ue_ip:
        # A UE has a whole /64 of IPv6, and makes up the rest of its address as it likes (TS 23.401 5.3.1.2.2).
        network = IPv6Network((ue_ip, 64), strict=False)
        ether_type, ue, to_match = EtherType.IPV6, str(network.network_address), str(network)
        address = str(IPv6Address(pvm_ip))

    def flow(table: TableId, match: Match, *actions: Action) -> FlowRule:
        return FlowRule(cookie, flow_name(table, match), table, NORMAL, match, actions)

    source = Match(eth_type=ether_type, eth_src=path.pvm.mac, ip_src=address)
    rules: list[Rule] = [flow(SOURCE, source, Goto(DOWNLINK))]

    up = Match(eth_type=ether_type, ip_src=to_match, ip_dst=address)
    to_pvm = SetEthernet(layout.gateway_mac, path.pvm.mac), Output(layout.pvm_port)
    if path.pvm_at == layout.cloudlet:
        rules.append(flow(UPLINK, up, *to_pvm))
        if layout.sgi_port:
            # Not by MAC alone: a frame that the network floods must not come in by two cloudlets.
            from_core = Match(layout.sgi_port, ether_type, path.pvm.mac, ip_dst=address)
            rules.append(flow(CLASSIFY, from_core, Goto(UPLINK)))
            if ether_type == EtherType.IPV4:
                asked = Match(layout.sgi_port, EtherType.ARP, arp_target=address)
                rules.append(flow(CLASSIFY, asked, AnswerArp(address, path.pvm.mac), OutputBack()))
    else:
        rules.append(flow(UPLINK, up, *_to_peer(path.pvm_at, layout)))
    if path.arriving_from is not None:
        sent_on = replace(up, eth_src=link_mac(path.arriving_from))
        rules.append(FlowRule(cookie, flow_name(UPLINK, sent_on), UPLINK, EXCEPTION, sent_on, to_pvm))

    flows = () if path.flows == (ANYTHING,) else path.flows  # the same, said in another way
    down = Match(eth_type=ether_type, ip_src=address, ip_dst=to_match)
    rules += _downlink(cookie, down, flows, path, layout)

    names = tuple(f.rule if f.action is FlowAction.FORWARD_DECAPSULATED else "" for f in path.flows)
    names = names if any(names) else ()
    rules += (DecapRule(cookie, tunnel, address, ue, flows, names) for tunnel in path.uplinks)
    if path.downlink is not None:
        rules.append(EncapRule(cookie, ue, address, path.downlink, flows, names))
    return rules


def _downlink(
    cookie: Cookie, down: Match, flows: tuple[FlowFilter, ...], path: PathSpec, layout: Layout
) -> Iterator[FlowRule]:
    """Where packets from the personal VM to the UE (``down``) go.

    What is not offloaded came by the core, and goes back that way, where there is one; it is told apart where the VM
    is. The datapath program at the tunnel would only drop it.
    """

    def flow(match: Match, actions: tuple[Action, ...], rank: int = 0) -> FlowRule:
        return FlowRule(cookie, flow_name(DOWNLINK, match), DOWNLINK, NORMAL + rank, match, actions)

    to_ue: tuple[Action, ...] = ()
    if path.ue_at == layout.cloudlet:
        if path.pvm_at != layout.cloudlet and path.arriving_from is None:
            return  # it comes over a link: a flow for all UEs stands there
        to_ue = (Output(layout.gi_port),) if path.downlink is not None else ()
    elif path.ue_at is not None:
        to_ue = _to_peer(path.ue_at, layout)
    by_core: tuple[Action, ...] = (DecrementTtl(), Goto(CORE)) if layout.sgi_port else ()
    if to_ue and by_core and flows and path.pvm_at == layout.cloudlet:
        yield flow(down, by_core)
        ways = {FlowAction.FORWARD_DECAPSULATED: to_ue, FlowAction.PASSTHROUGH: by_core, FlowAction.DROP: ()}
        for rank, each in enumerate(reversed(flows), start=1):  # the first one counts most
            yield flow(_answers(down, each), ways[each.action], rank)
    elif to_ue:
        yield flow(down, to_ue)
    elif by_core and path.ue_at is None:
        yield flow(down, by_core)


def _answers(down: Match, flow: FlowFilter) -> Match:
    """The packets of a flow on their way to the UE."""
    return replace(
        down,
        dscp=ANY_DSCP if flow.dscp is None else flow.dscp,
        ip_proto=flow.protocol or 0,
        l4_src=flow.pvm_port or 0,
        l4_dst=flow.ue_port or 0,
    )


def _to_peer(peer: CloudletId, layout: Layout) -> tuple[Action, ...]:
    if peer not in layout.peers:
        raise AdapterError(f"cloudlet {layout.cloudlet!r} has no link towards {peer!r}: add it to the switch's peers")
    return SetEthernet(link_mac(layout.cloudlet), link_mac(peer)), DecrementTtl(), Goto(LINK)
