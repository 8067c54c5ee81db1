"""Our rules as OpenFlow 1.3 messages: the only place that knows the os-ken codec's names for matches and actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser

from flows.rules import (
    OURS,
    OURS_MASK,
    Action,
    AnswerArp,
    DecrementTtl,
    FlowRule,
    Goto,
    Match,
    Output,
    OutputBack,
    SetEthernet,
)
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PortNo

ARP_REQUEST, ARP_REPLY = 1, 2  # RFC 826
EXACT = (1 << 64) - 1

Ports = Mapping[str, PortNo]


@dataclass(frozen=True, slots=True)
class AddFlow:
    """Install the rule; whatever occupies its slot goes at the same moment."""

    rule: FlowRule


@dataclass(frozen=True, slots=True)
class DeleteFlow:
    """Remove the rule, if it is this one (by cookie) that occupies its slot."""

    rule: FlowRule


@dataclass(frozen=True, slots=True)
class DeleteOurs:
    """Remove every flow that carries our mark, from all tables."""


Change = AddFlow | DeleteFlow | DeleteOurs


def flow_mod(switch: Any, change: Change, ports: Ports) -> Any:
    """The message for one change; ``switch`` stands for the protocol version, as the codec wants it.

    :raises AdapterError: the rule names a port that the switch does not have
    """
    anywhere = {"out_port": of.OFPP_ANY, "out_group": of.OFPG_ANY}
    match change:
        case AddFlow(rule):
            return parser.OFPFlowMod(
                switch, command=of.OFPFC_ADD, **_head(rule, ports), instructions=_instructions(rule.actions, ports)
            )
        case DeleteFlow(rule):
            return parser.OFPFlowMod(
                switch, command=of.OFPFC_DELETE_STRICT, cookie_mask=EXACT, **_head(rule, ports), **anywhere
            )
        case DeleteOurs():
            return parser.OFPFlowMod(
                switch,
                command=of.OFPFC_DELETE,
                table_id=of.OFPTT_ALL,
                cookie=OURS,
                cookie_mask=OURS_MASK,
                **anywhere,
            )
        case _ as never:
            assert_never(never)


def _head(rule: FlowRule, ports: Ports) -> dict[str, Any]:
    return {
        "cookie": rule.cookie,
        "table_id": rule.table,
        "priority": rule.priority,
        "match": parser.OFPMatch(**_fields(rule.match, ports)),
    }


def _number(port: str, ports: Ports) -> PortNo:
    if port not in ports:
        raise AdapterError(f"the switch has no port {port!r}; it has {', '.join(sorted(ports)) or 'none'}")
    return ports[port]


def _fields(match: Match, ports: Ports) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if match.in_port:
        fields["in_port"] = _number(match.in_port, ports)
    for name in ("eth_type", "eth_dst", "ipv4_src", "ipv4_dst"):
        if value := getattr(match, name):
            fields[name] = value
    if match.arp_target:
        fields |= {"arp_op": ARP_REQUEST, "arp_tpa": match.arp_target}
    return fields


def _instructions(actions: tuple[Action, ...], ports: Ports) -> list[Any]:
    encoded = [step for action in actions for step in _steps(action, ports)]
    instructions = [parser.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, encoded)] if encoded else []
    instructions += [parser.OFPInstructionGotoTable(action.table) for action in actions if isinstance(action, Goto)]
    return instructions


def _steps(action: Action, ports: Ports) -> list[Any]:
    """The codec's actions for one of ours; ``Goto`` is an instruction instead."""
    match action:
        case SetEthernet(source, destination):
            return [parser.OFPActionSetField(eth_src=source), parser.OFPActionSetField(eth_dst=destination)]
        case DecrementTtl():
            return [parser.OFPActionDecNwTtl()]
        case Output(port):
            return [parser.OFPActionOutput(_number(port, ports))]
        case OutputBack():
            return [parser.OFPActionOutput(of.OFPP_IN_PORT)]
        case AnswerArp(address, mac):
            return [
                parser.NXActionRegMove("eth_src", "eth_dst", 48),
                parser.OFPActionSetField(eth_src=mac),
                parser.OFPActionSetField(arp_op=ARP_REPLY),
                parser.NXActionRegMove("arp_sha", "arp_tha", 48),
                parser.NXActionRegMove("arp_spa", "arp_tpa", 32),
                parser.OFPActionSetField(arp_sha=mac),
                parser.OFPActionSetField(arp_spa=address),
            ]
        case Goto():
            return []
        case _ as never:
            assert_never(never)
