"""The network built, used and taken down on this machine's kernel."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from mobiscud.core.errors import AdapterError
from testbed import netns
from testbed.sweep import RunDirectory
from testbed.topology import INTERNET_SERVER, PGW_S5, SGW_S1, Node, RunningTopology, enb_s1, paper_topology

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


@pytest.fixture
async def running() -> AsyncIterator[RunningTopology]:
    place = RunDirectory.create()
    yield RunningTopology(paper_topology(), run=place.run, directory=place.path)
    await place.remove()


@pytest.fixture
async def network(running: RunningTopology) -> AsyncIterator[RunningTopology]:
    await running.up()
    yield running
    await running.down()


async def median_rtt_ms(namespace: str, to: str) -> float:
    """Of 20 answers, after one that resolves addresses."""
    await netns.run_in(namespace, "ping", "-c", "1", "-W", "5", to)
    said = await netns.run_in(namespace, "ping", "-c", "20", "-i", "0.01", "-W", "5", to)
    times = sorted(float(found) for found in re.findall(r"time=([\d.]+)", said))
    assert len(times) == 20
    return times[10]


async def test_round_trips_take_the_set_delays(network: RunningTopology, record_property: Callable[..., None]) -> None:
    sgi = await median_rtt_ms(network.namespace("pgw"), INTERNET_SERVER)
    s5 = await median_rtt_ms(network.namespace("core"), PGW_S5)

    record_property("sgi_overhead_ms", round(sgi - 2 * 8, 3))
    record_property("s5_overhead_ms", round(s5 - 2 * 18, 3))
    assert sgi >= 2 * 8
    assert s5 >= 2 * 18


async def test_s1_segment_joins_through_a_cloudlet_that_bridges(network: RunningTopology) -> None:
    cloudlet = network.namespace("c2")
    await netns.ip_batch(
        [
            "link add br0 type bridge",
            "link set enb master br0",
            "link set core master br0",
            "link set br0 up",
        ],
        cloudlet,
    )

    assert await median_rtt_ms(network.namespace("enb2"), SGW_S1) >= 2 * 5
    with pytest.raises(AdapterError):
        await netns.run_in(network.namespace("enb1"), "ping", "-c", "1", "-W", "1", enb_s1(2))


async def test_whole_ue_packet_fits_in_the_transport(network: RunningTopology) -> None:
    await netns.run_in(network.namespace("core"), "ping", "-M", "do", "-s", "1600", "-c", "1", "-W", "5", PGW_S5)


async def test_wires_are_quiet_and_without_offloads(network: RunningTopology) -> None:
    features = await netns.run_in(network.namespace("c1"), "ethtool", "-k", "enb")
    for feature in ("tx-checksumming", "generic-segmentation-offload", "generic-receive-offload"):
        assert f"{feature}: off" in features
    assert (await netns.run_in(network.namespace("c1"), "ip", "-6", "address")).strip() == ""


async def test_up_twice_and_down_twice_leave_nothing(running: RunningTopology) -> None:
    await running.up()
    await running.up()
    assert running.delay_engine in ("netem", "user space")
    namespaces = await netns.existing(running.prefix)
    assert running.namespace("c3") in namespaces

    await running.down()
    await running.down()
    assert await netns.existing(running.prefix) == []
    assert running.delay_engine is None


async def test_failure_half_way_leaves_nothing(running: RunningTopology) -> None:
    broken = Node(name="broken", routes=("default via 203.0.113.1",))
    running.topology = replace(running.topology, nodes=(*running.topology.nodes, broken))

    with pytest.raises(AdapterError, match="Nexthop"):
        await running.up()

    assert await netns.existing(running.prefix) == []


async def test_what_an_earlier_run_left_is_replaced(running: RunningTopology) -> None:
    await netns.create([running.namespace("ue")])

    await running.up()

    assert "uu1" in await netns.command("ip", "-n", running.namespace("ue"), "link")
    await running.down()
