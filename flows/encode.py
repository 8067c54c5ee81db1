"""Changes of the switch's flows as OpenFlow 1.3 messages, and the flows it says it has. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import assert_never

from os_ken.ofproto import ofproto_v1_3 as of

from flows.oxm import PortNames, Ports, instructions, match_fields, read_instructions, read_match
from flows.pipeline import flow_name
from flows.rules import OURS, OURS_MASK, Action, FlowRule
from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import Cookie, TableId

HEADER = struct.Struct("!BBHI")
FLOW_MOD = struct.Struct("!QQBBHHHIIIHxx")  # 7.3.4.1, up to the match
MATCH = struct.Struct("!HH")  # 7.2.3.1
FLOW_STATS = struct.Struct("!HBxIIHHHHxxxxQQQ")  # 7.3.5.2
EXACT = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class FoundFlow:
    """A flow as the switch tells it: where it is, and the octets of its match and instructions."""

    cookie: Cookie
    table: int
    priority: int
    match: bytes
    instructions: bytes

    @property
    def id(self) -> str:
        """Names it in errors."""
        return f"{self.cookie:016x}/table {self.table}"


@dataclass(frozen=True, slots=True)
class AddFlow:
    """Install the rule; whatever occupies its slot goes at the same moment."""

    rule: FlowRule


@dataclass(frozen=True, slots=True)
class DeleteFlow:
    """Remove the rule, if it is this one (by cookie) that occupies its slot."""

    rule: FlowRule


@dataclass(frozen=True, slots=True)
class DeleteFound:
    """Remove a flow that the switch told us of."""

    flow: FoundFlow


@dataclass(frozen=True, slots=True)
class DeleteOurs:
    """Remove every flow that carries our mark, from all tables."""


Change = AddFlow | DeleteFlow | DeleteFound | DeleteOurs


def flow_mod(change: Change, ports: Ports, xid: int) -> bytes:
    """The message for one change.

    :raises AdapterError: the rule names a port that the switch does not have
    """
    head: tuple[int, int, int, int, int]
    match change:
        case AddFlow(rule):
            head = (rule.cookie, 0, rule.table, of.OFPFC_ADD, rule.priority)
            body = _match(match_fields(rule.match, ports)) + instructions(rule.actions, ports)
        case DeleteFlow(rule):
            head = (rule.cookie, EXACT, rule.table, of.OFPFC_DELETE_STRICT, rule.priority)
            body = _match(match_fields(rule.match, ports))
        case DeleteFound(flow):
            head = (flow.cookie, EXACT, flow.table, of.OFPFC_DELETE_STRICT, flow.priority)
            body = _match(flow.match)
        case DeleteOurs():
            head = (OURS, OURS_MASK, of.OFPTT_ALL, of.OFPFC_DELETE, 0)
            body = _match(b"")
        case _ as never:
            assert_never(never)
    cookie, mask, table, command, priority = head
    mod = FLOW_MOD.pack(cookie, mask, table, command, 0, 0, priority, of.OFP_NO_BUFFER, of.OFPP_ANY, of.OFPG_ANY, 0)
    return HEADER.pack(of.OFP_VERSION, of.OFPT_FLOW_MOD, HEADER.size + len(mod) + len(body), xid) + mod + body


def _match(fields: bytes) -> bytes:
    length = MATCH.size + len(fields)
    return MATCH.pack(of.OFPMT_OXM, length) + fields + bytes(-length % 8)


def read_flows(body: bytes) -> Iterator[FoundFlow]:
    """The flows in one part of the answer (7.3.5.2).

    :raises DecodeError: lengths that contradict each other
    """
    offset = 0
    while offset < len(body):
        if offset + FLOW_STATS.size + MATCH.size > len(body):
            raise DecodeError("half a flow", offset=offset)
        length, table, _, _, priority, _, _, _, cookie, _, _ = FLOW_STATS.unpack_from(body, offset)
        start = offset + FLOW_STATS.size
        _, match_length = MATCH.unpack_from(body, start)
        end = offset + length
        fields_end = start + match_length
        actions = start + (match_length + 7) // 8 * 8
        if match_length < MATCH.size or actions > end or end > len(body):
            raise DecodeError("a flow that contradicts its length", offset=offset)
        fields = body[start + MATCH.size : fields_end]
        yield FoundFlow(Cookie(cookie), table, priority, fields, body[actions:end])
        offset = end


def understand(
    flow: FoundFlow, names: PortNames, known: MutableMapping[bytes, tuple[Action, ...]] | None = None
) -> FlowRule:
    """The rule that a found flow is. ``known`` keeps what was understood of the instructions, for flows to come.

    :raises DecodeError: it is not like any rule of ours
    """
    try:
        match = read_match(flow.match, names)
        actions = None if known is None else known.get(flow.instructions)
        if actions is None:
            actions = read_instructions(flow.instructions, names)
            if known is not None:
                known[flow.instructions] = actions
        table = TableId(flow.table)
    except ValueError as error:  # a number outside its range, an address of another length
        raise DecodeError(str(error)) from error
    return FlowRule(flow.cookie, flow_name(table, match), table, flow.priority, match, actions)
