"""Rules of a path, as data; where packets go with them is the contract suite's to ask."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.path import path_rules
from flows.pipeline import CLASSIFY, CORE, DOWNLINK, LINK, SOURCE, UPLINK, Layout, link_mac, static_rules
from flows.rules import (
    OURS,
    OURS_MASK,
    DecapRule,
    DecrementTtl,
    EncapRule,
    FlowRule,
    Goto,
    Output,
    OutputBack,
    SetEthernet,
    ue_cookie,
)
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.errors import AdapterError, ConfigError
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey

HERE, C2 = CloudletId("c1"), CloudletId("c2")
LAYOUT = Layout(HERE, "gi1", "pvm", {C2: "isl-c2"}, "172.16.0.1", "02:4d:53:ff:ff:01")
UE = UeKey("ue-0000000000000001")
PATH = PathSpec(
    ue_ip="45.45.0.2",
    pvm=Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10"),
    pvm_at=HERE,
    ue_at=HERE,
    uplinks=(
        UplinkTunnel("10.0.0.11", FTeid("10.0.0.1", Teid(0x1001))),
        UplinkTunnel("10.0.0.11", FTeid("10.0.0.1", Teid(0x1002))),
    ),
    downlink=DownlinkTunnel("10.0.0.1", FTeid("10.0.0.11", Teid(0x2001))),
)


def flow(path: PathSpec, name: str) -> FlowRule | None:
    flows = {rule.name: rule for rule in path_rules(UE, path, LAYOUT) if isinstance(rule, FlowRule)}
    return flows.get(name)


def test_no_path_has_no_rules() -> None:
    assert path_rules(UE, None, LAYOUT) == frozenset()


def test_a_local_path_has_three_flows_and_its_tunnels() -> None:
    rules = path_rules(UE, PATH, LAYOUT)
    assert sum(isinstance(rule, FlowRule) for rule in rules) == 3
    assert {r.tunnel for r in rules if isinstance(r, DecapRule)} == set(PATH.uplinks)
    assert [r.tunnel for r in rules if isinstance(r, EncapRule)] == [PATH.downlink]
    assert {rule.cookie for rule in rules} == {ue_cookie(UE)}


def test_the_vm_here_sees_the_gateway() -> None:
    up = flow(PATH, "uplink")
    assert up is not None
    assert (up.table, up.actions) == (UPLINK, (SetEthernet(LAYOUT.gateway_mac, PATH.pvm.mac), Output("pvm")))


def test_a_vm_elsewhere_is_a_hop_away() -> None:
    up = flow(replace(PATH, pvm_at=C2), "uplink")
    assert up is not None
    assert up.actions == (SetEthernet(link_mac(HERE), link_mac(C2)), DecrementTtl(), Goto(LINK))


@pytest.mark.parametrize(
    ("change", "actions"),
    [
        ({}, (Output("gi1"),)),
        ({"ue_at": C2}, (SetEthernet(link_mac(HERE), link_mac(C2)), DecrementTtl(), Goto(LINK))),
        ({"ue_at": None}, None),
        ({"downlink": None}, None),
    ],
)
def test_downlink_goes_where_the_ue_is(change: dict[str, object], actions: tuple[object, ...] | None) -> None:
    down = flow(replace(PATH, **change), "downlink")  # type: ignore[arg-type]
    assert (down and (down.table, down.actions)) == (actions and (DOWNLINK, actions))


def test_moving_the_ue_or_the_vm_replaces_flows_in_their_slots() -> None:
    there = path_rules(UE, replace(PATH, pvm_at=C2, ue_at=C2), LAYOUT)
    assert {r.slot for r in there} == {r.slot for r in path_rules(UE, PATH, LAYOUT)}


def test_tunnels_stand_ready_wherever_the_ue_is() -> None:
    entries = {r for r in path_rules(UE, PATH, LAYOUT) if not isinstance(r, FlowRule)}
    assert entries <= path_rules(UE, replace(PATH, ue_at=C2), LAYOUT)


def test_a_ue_that_comes_needs_no_more_than_its_tunnel() -> None:
    there = replace(PATH, pvm_at=C2)
    standing = path_rules(UE, replace(there, downlink=None), LAYOUT)
    (missing,) = path_rules(UE, there, LAYOUT) - standing
    assert isinstance(missing, EncapRule)
    assert flow(there, "downlink") is None


def test_a_vm_that_arrives_speaks_to_its_ue_at_once() -> None:
    down = flow(replace(PATH, pvm_at=C2, arriving_from=C2), "downlink")
    assert down is not None
    assert down.actions == (Output("gi1"),)


@pytest.mark.parametrize("change", [{"pvm_at": CloudletId("c9")}, {"ue_at": CloudletId("c9")}])
def test_a_cloudlet_without_link_is_named(change: dict[str, CloudletId]) -> None:
    with pytest.raises(AdapterError, match="'c9'"):
        path_rules(UE, replace(PATH, **change), LAYOUT)  # type: ignore[arg-type]


def test_rule_ids_differ_and_lead_to_the_cookie() -> None:
    rules = path_rules(UE, PATH, LAYOUT)
    ids = {rule.id for rule in rules}
    assert len(ids) == len(rules)
    assert all(name.startswith(f"{ue_cookie(UE):016x}/") for name in ids)


def test_cookies_are_ours_and_not_the_static_one() -> None:
    for number in range(1000):
        cookie = ue_cookie(UeKey(f"ue-{number:016x}"))
        assert cookie & OURS_MASK == OURS
        assert cookie != OURS


def test_link_addresses_are_unicast_local_and_stable() -> None:
    assert link_mac(HERE) == "02:4d:53:d0:f6:31"
    assert int(link_mac(C2).split(":")[0], 16) & 0b11 == 0b10


def test_equal_link_addresses_are_a_wrong_configuration() -> None:
    with pytest.raises(ConfigError, match="the gateway"):
        replace(LAYOUT, gateway_mac=link_mac(C2))


def test_without_peers_no_link_leads_anywhere() -> None:
    assert replace(LAYOUT, peers={}).link_ports == []
    assert not [r for r in static_rules(replace(LAYOUT, peers={})) if r.table == LINK and r.actions]


def test_every_static_slot_is_taken_once() -> None:
    peers = {C2: "isl-c2", CloudletId("c3"): "isl-c3", CloudletId("c4"): "isl-c2"}
    rules = static_rules(replace(LAYOUT, peers=peers))
    assert len({rule.slot for rule in rules}) == len(rules)
    assert {rule.cookie for rule in rules} == {OURS}


def test_every_table_says_what_becomes_of_the_unknown() -> None:
    misses = {rule.table for rule in static_rules(LAYOUT) if rule.priority == 0}
    assert misses == {CLASSIFY, SOURCE, UPLINK, DOWNLINK, LINK, CORE}


def test_a_frame_for_a_peer_may_go_back_by_the_port_it_came() -> None:
    back = [rule for rule in static_rules(LAYOUT) if rule.table == LINK and OutputBack() in rule.actions]
    assert [(rule.match.in_port, rule.match.eth_dst) for rule in back] == [("isl-c2", link_mac(C2))]
