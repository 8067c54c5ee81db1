"""Flow-mods are those of a general codec, octet by octet, and what the switch tells of them is understood."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

from flows.encode import FLOW_STATS, AddFlow, DeleteFlow, DeleteOurs, flow_mod, read_flows, understand
from flows.oxm import instructions, match_fields
from flows.path import path_rules
from flows.pipeline import DOWNLINK, Layout, core_rules, static_rules
from flows.rules import OURS, FlowRule, Output
from mobiscud.core.edge import DownlinkTunnel, FlowAction, FlowFilter, PathSpec, Pvm
from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import CloudletId, FTeid, PortNo, PvmId, Teid, UeKey

PORTS = {"gi1": PortNo(1), "pvm": PortNo(2), "isl-c2": PortNo(3), "sgi": PortNo(4)}
NAMES: dict[int, str] = {number: name for name, number in PORTS.items()}
HERE, C2 = CloudletId("c1"), CloudletId("c2")
GATEWAY = "172.16.0.1", "02:4d:53:ff:ff:01"
LAYOUT = Layout(HERE, "gi1", "pvm", {C2: "isl-c2"}, *GATEWAY, "sgi", "172.16.255.254")
UE = UeKey("ue-0000000000000001")
PATH = PathSpec(
    "45.45.0.2",
    Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10"),
    HERE,
    HERE,
    downlink=DownlinkTunnel("10.0.0.1", FTeid("10.0.0.11", Teid(0x2001))),
)


def flows_of(path: PathSpec) -> list[FlowRule]:
    return [rule for rule in path_rules(UE, path, LAYOUT) if isinstance(rule, FlowRule)]


CHOSEN = (
    FlowFilter(6, 1024, 443),
    FlowFilter(17, dscp=46),
    FlowFilter(132, pvm_port=7, action=FlowAction.PASSTHROUGH),
    FlowFilter(1, action=FlowAction.DROP),
    FlowFilter(dscp=0),
)
UE_FLOWS = [
    rule for at in ({}, {"pvm_at": C2}, {"ue_at": C2}, {"ue_at": None}) for rule in flows_of(replace(PATH, **at))
] + [rule for rule in flows_of(replace(PATH, flows=CHOSEN)) if rule.table == DOWNLINK]
STATIC = sorted(static_rules(LAYOUT) | core_rules(LAYOUT, "02:00:00:00:00:fe"), key=lambda rule: rule.id)


def told(rule: FlowRule) -> bytes:
    """The flow as a switch tells it (OpenFlow 1.3, 7.3.5.2)."""
    fields = match_fields(rule.match, PORTS)
    match = (1).to_bytes(2) + (4 + len(fields)).to_bytes(2) + fields + bytes(-(4 + len(fields)) % 8)
    body = match + instructions(rule.actions, PORTS)
    head = (FLOW_STATS.size + len(body), rule.table, 9, 9, rule.priority, 0, 0, 0, rule.cookie, 7, 700)
    return FLOW_STATS.pack(*head) + body


@pytest.mark.parametrize("rule", [*STATIC, *UE_FLOWS], ids=lambda rule: rule.id)
def test_an_add_reads_as_it_was_meant(rule: FlowRule) -> None:
    octets = flow_mod(AddFlow(rule), PORTS, xid=77)
    _, _, length, _ = parser.ofproto_parser.header(octets)
    assert length == len(octets)
    read = parser.OFPFlowMod.parser(ProtocolDesc(version=4), 4, of.OFPT_FLOW_MOD, length, 77, octets)
    assert (read.cookie, read.table_id, read.priority) == (rule.cookie, rule.table, rule.priority)
    read.serialize()
    assert bytes(read.buf) == octets


def test_deletes_say_whose_flow() -> None:
    rule = UE_FLOWS[0]
    strict = flow_mod(DeleteFlow(rule), PORTS, xid=1)
    assert strict[8:24] == rule.cookie.to_bytes(8) + b"\xff" * 8
    assert strict[25] == of.OFPFC_DELETE_STRICT
    ours = flow_mod(DeleteOurs(), PORTS, xid=1)
    assert ours[8:24] == OURS.to_bytes(8) + b"\xff\xff" + bytes(6)
    assert ours[25] == of.OFPFC_DELETE


@pytest.mark.parametrize("rule", [*UE_FLOWS, *STATIC], ids=lambda rule: rule.id)
def test_what_is_told_is_understood(rule: FlowRule) -> None:
    (found,) = read_flows(told(rule))
    assert understand(found, NAMES) == rule


def test_flows_are_told_one_after_the_other() -> None:
    assert len(list(read_flows(b"".join(map(told, UE_FLOWS))))) == len(UE_FLOWS)


def test_what_does_something_else_is_not_taken_for_ours() -> None:
    (arp,) = [rule for rule in STATIC if rule.name == "arp"]
    (found,) = read_flows(told(arp))
    answer = found.instructions[:8] + found.instructions[32:]  # without its first action
    shorter = len(answer).to_bytes(2)
    with pytest.raises(DecodeError, match="change"):
        understand(replace(found, instructions=answer[:2] + shorter + answer[4:]), NAMES)


def test_a_port_that_is_gone_is_not_guessed_at() -> None:
    with_port = next(rule for rule in UE_FLOWS if any(isinstance(action, Output) for action in rule.actions))
    (found,) = read_flows(told(with_port))
    with pytest.raises(DecodeError, match="no more"):
        understand(found, {})


@given(st.sampled_from(UE_FLOWS), st.binary(max_size=160), st.integers(0, 200))
def test_any_octets_are_flows_or_an_error(rule: FlowRule, noise: bytes, at: int) -> None:
    whole = told(rule)
    for octets in (noise, whole[:at], whole[:at] + noise, whole[:at] + noise[:1] + whole[at + 1 :]):
        try:
            for found in read_flows(octets):
                understand(found, NAMES)
        except DecodeError:
            pass
