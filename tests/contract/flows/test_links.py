"""Between cloudlets: what crosses a link, and where does it emerge?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from flows.pipeline import link_mac
from testbed.s1u_packets import gtpu, udp
from testbed.switch_bench import HERE
from tests.contract.flows.switches import (
    C2,
    C3,
    C4,
    DOWNLINK,
    LOCAL,
    PVM,
    TO_PVM,
    TO_UE,
    UE,
    UE_IP,
    Bench,
    ethernet,
    from_pvm,
    hear_enb,
    hop,
    link,
    to_pvm,
    uplink,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_uplink_crosses_the_link_to_a_vm_elsewhere(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C3))
    assert await bench.emerges("enb", uplink(), at="isl-c3") == [("isl-c3", link(HERE, C3, hop(TO_PVM)))]


async def test_a_vm_behind_another_cloudlet_is_reached_over_it(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C4))
    assert await bench.emerges("enb", uplink(), at="isl-c2") == [("isl-c2", link(HERE, C4, hop(TO_PVM)))]


async def test_uplink_arrives_over_the_link(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, ue_at=C2, uplinks=(), downlink=None))
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_PVM), at="pvm") == [("pvm", to_pvm(TO_PVM))]


async def test_uplink_goes_back_where_the_vm_has_gone(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C2, ue_at=C2, uplinks=(), downlink=None))
    expected = [("isl-c2", link(HERE, C2, hop(TO_PVM)))]
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_PVM), at="isl-c2") == expected


async def test_two_cloudlets_that_disagree_do_not_loop_a_packet(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C2, ue_at=C2))
    assert await bench.emerges("isl-c2", link(C2, HERE, udp(UE_IP, PVM.address, ttl=1))) == []


async def test_downlink_crosses_the_link_to_a_ue_elsewhere(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, ue_at=C2, uplinks=(), downlink=None))
    assert await bench.emerges("pvm", from_pvm(TO_UE), at="isl-c2") == [("isl-c2", link(HERE, C2, hop(TO_UE)))]


async def test_downlink_arrives_over_the_link(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C2))
    await hear_enb(bench)
    ((_, frame),) = await bench.emerges("isl-c2", link(C2, HERE, TO_UE), at="enb")
    assert bytes(Ether(frame)[UDP].payload) == gtpu(DOWNLINK, TO_UE)


async def test_downlink_over_the_link_waits_for_nothing_but_the_tunnel(bench: Bench) -> None:
    """A UE may come: as soon as its tunnel is there, and never before; then it leaves, and is followed."""
    await hear_enb(bench)
    coming = replace(LOCAL, pvm_at=C2)
    await bench.apply(UE, None)
    await bench.apply(UE, replace(coming, downlink=None))
    unknown = await bench.count("no_tunnel")
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_UE)) == []
    assert await bench.count("no_tunnel") == unknown + 1
    await bench.apply(UE, coming)
    assert [port for port, _ in await bench.emerges("isl-c2", link(C2, HERE, TO_UE), at="enb")] == ["enb"]
    await bench.apply(UE, replace(coming, ue_at=C3, downlink=None))
    followed = [("isl-c3", link(HERE, C3, hop(TO_UE)))]
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_UE), at="isl-c3") == followed


async def test_a_vm_elsewhere_that_is_not_to_be_reached_there_still_reaches_its_ue(bench: Bench) -> None:
    """While the cloudlet that has it does not grant the detour: what the UE sends stays on the wire."""
    await hear_enb(bench)
    await bench.apply(UE, replace(LOCAL, pvm_at=C2, uplinks=()))
    assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
    emerged = await bench.emerges("isl-c2", link(C2, HERE, TO_UE), at="enb")
    assert [port for port, _ in emerged] == ["enb"]


async def test_frames_for_others_pass_on(bench: Bench) -> None:
    expected = [("isl-c3", link(C2, C3, hop(TO_PVM)))]
    assert await bench.emerges("isl-c2", link(C2, C3, TO_PVM), at="isl-c3") == expected


async def test_frames_for_others_may_leave_as_they_came(bench: Bench) -> None:
    assert await bench.emerges("isl-c2", link(C2, C4, TO_PVM), at="isl-c2") == [("isl-c2", link(C2, C4, hop(TO_PVM)))]


async def test_strange_frames_on_the_link_go_nowhere(bench: Bench) -> None:
    assert await bench.emerges("isl-c2", ethernet(link_mac(C2), "02:00:00:00:00:77", TO_PVM)) == []
