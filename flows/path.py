"""From the desired path of a UE to the rules that make it. Pure."""

from __future__ import annotations

from flows.pipeline import DOWNLINK, LINK, NORMAL, UPLINK, Layout, link_mac
from flows.rules import (
    Action,
    DecapRule,
    DecrementTtl,
    EncapRule,
    EtherType,
    FlowRule,
    Goto,
    Match,
    Output,
    Rule,
    SetEthernet,
    ue_cookie,
)
from mobiscud.core.edge import PathSpec
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, UeKey


def path_rules(ue: UeKey, path: PathSpec | None, layout: Layout) -> frozenset[Rule]:
    """The rules that ``path`` asks for at the cloudlet of ``layout``; none for no path.

    :raises AdapterError: the path names a cloudlet that no port leads to
    """
    if path is None:
        return frozenset()
    cookie = ue_cookie(ue)
    ue_ip, pvm = path.ue_ip, path.pvm

    if path.pvm_at == layout.cloudlet:
        to_pvm: tuple[Action, ...] = (SetEthernet(layout.gateway_mac, pvm.mac), Output(layout.pvm_port))
    else:
        to_pvm = _to_peer(path.pvm_at, layout)
    up = Match(eth_type=EtherType.IPV4, ip_src=ue_ip, ip_dst=pvm.address)
    rules: list[Rule] = [FlowRule(cookie, "uplink", UPLINK, NORMAL, up, to_pvm)]

    to_ue: tuple[Action, ...] = ()
    if path.ue_at == layout.cloudlet:
        if path.downlink is not None:
            to_ue = (Output(layout.gi_port),)
    elif path.ue_at is not None:
        to_ue = _to_peer(path.ue_at, layout)
    if to_ue:
        down = Match(eth_type=EtherType.IPV4, ip_src=pvm.address, ip_dst=ue_ip)
        rules.append(FlowRule(cookie, "downlink", DOWNLINK, NORMAL, down, to_ue))

    rules += (DecapRule(cookie, tunnel, pvm.address, ue_ip) for tunnel in path.uplinks)
    if path.downlink is not None:
        rules.append(EncapRule(cookie, ue_ip, pvm.address, path.downlink))
    return frozenset(rules)


def _to_peer(peer: CloudletId, layout: Layout) -> tuple[Action, ...]:
    if peer not in layout.peers:
        raise AdapterError(f"cloudlet {layout.cloudlet!r} has no link towards {peer!r}: add it to the switch's peers")
    return SetEthernet(link_mac(layout.cloudlet), link_mac(peer)), DecrementTtl(), Goto(LINK)
