"""The paper's network as data."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest

from testbed.topology import Delays, Topology, enb_s1, namespace_prefix, paper_topology

DEVICE_NAME_LIMIT = 15


@pytest.fixture
def topology() -> Topology:
    return paper_topology()


def delay_between(topology: Topology, node: str, other: str) -> float:
    (delay,) = {link.delay_ms for link in topology.links if {link.a.node, link.b.node} == {node, other}}
    return delay


def test_delays_are_those_of_the_paper(topology: Topology) -> None:
    assert delay_between(topology, "ue", "enb2") == 4
    assert delay_between(topology, "enb2", "c2") == 0
    assert delay_between(topology, "c2", "mtso") == 5
    assert delay_between(topology, "c1", "c2") == delay_between(topology, "c2", "c3") == 2
    assert delay_between(topology, "core", "pgw") == 18
    assert delay_between(topology, "pgw", "inet") == 8


def test_delays_can_be_set() -> None:
    assert delay_between(paper_topology(Delays(ue_enb=1.5)), "ue", "enb1") == 1.5


def test_device_names_fit_and_are_unique_in_their_node(topology: Topology) -> None:
    devices = Counter((port.node, port.device) for link in topology.links for port in (link.a, link.b))
    devices.update(("delay", f"{link.name}-{end}") for link in topology.links if link.delay_ms for end in "ab")
    assert set(devices.values()) == {1}
    assert max(len(device) for _, device in devices) <= DEVICE_NAME_LIMIT


def test_links_end_in_nodes_and_bridges_have_their_ports(topology: Topology) -> None:
    names = {node.name for node in topology.nodes}
    assert all({link.a.node, link.b.node} <= names for link in topology.links)
    for node in topology.nodes:
        for _, ports in node.bridges:
            assert set(ports) <= set(topology.devices(node.name))


def test_no_address_is_given_twice(topology: Topology) -> None:
    addresses = [address for link in topology.links for port in (link.a, link.b) for address in port.addresses]
    addresses += [address for node in topology.nodes for _, address in node.addresses]
    assert len({ipaddress.ip_interface(address).ip for address in addresses}) == len(addresses)


def test_cloudlets_form_a_chain() -> None:
    topology = paper_topology(cloudlets=5)
    assert [d for d in topology.devices("c3") if d.startswith("isl")] == ["isl-c2", "isl-c4"]
    assert enb_s1(5) == "10.0.0.15"


def test_namespaces_carry_the_run() -> None:
    assert namespace_prefix("3fa2") == "ms-3fa2-"


def test_cells_that_share_the_first_cloudlet_meet_before_it() -> None:
    topology = paper_topology(cloudlets=2, bare_cells=1, sharing_cells=1)
    [aggregation] = [node for node in topology.nodes if node.name == "agg"]
    assert aggregation.bridges == (("br-s1", ("c1", "enb1", "enb4")),)
    ends = {link.name: (link.a.node, link.b.node) for link in topology.links if link.name.startswith("s1-")}
    assert ends["s1-1"] == ("enb1", "agg")
    assert ends["s1-4"] == ("enb4", "agg")
    assert ends["s1-agg"] == ("agg", "c1")
    assert (ends["s1-2"], ends["s1-3"]) == (("enb2", "c2"), ("enb3", "mtso"))
