"""A path that changes: what emerges before, meanwhile, and after."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from mobiscud.core.edge import DownlinkTunnel, UplinkTunnel
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, FTeid, Teid
from testbed.s1u_packets import from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import HERE
from tests.contract.flows.switches import (
    C2,
    C3,
    DOWNLINK,
    ENB,
    LOCAL,
    OTHER_PVM,
    OTHER_UE,
    OTHER_UE_IP,
    PVM,
    SGW,
    TO_PVM,
    TO_UE,
    UE,
    UE_IP,
    UPLINK,
    Bench,
    from_pvm,
    hear_enb,
    hop,
    link,
    to_pvm,
    uplink,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_flip_takes_effect_when_apply_returns(bench: Bench) -> None:
    await hear_enb(bench)
    for _ in range(5):
        await bench.apply(UE, LOCAL)
        ((port, _),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
        assert port == "enb"
        await bench.apply(UE, replace(LOCAL, ue_at=C2))
        assert await bench.emerges("pvm", from_pvm(TO_UE), at="isl-c2") == [("isl-c2", link(HERE, C2, hop(TO_UE)))]


async def test_what_a_vm_was_sent_as_it_stopped_goes_after_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.keeping.KEPT_S", 60.0)
    gone_after = ("isl-c2", link(HERE, C2, TO_PVM))
    await bench.apply(UE, LOCAL)
    bench.keep_packets(PVM)
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    assert await bench.resent(PVM, C2) == [gone_after]
    assert set(await bench.emerges("enb", uplink(), at="isl-c2")) == {("pvm", to_pvm(TO_PVM)), gone_after}
    bench.forget_packets(PVM)
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    assert await bench.resent(PVM, C2) == []


async def test_a_vm_that_stays_is_sent_nothing_twice(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    bench.keep_packets(PVM)
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    bench.forget_packets(PVM)
    assert await bench.resent(PVM, C2) == []
    bench.forget_packets(PVM)


async def test_what_the_source_sends_on_waits_for_the_vm_that_arrives(bench: Bench) -> None:
    """So nothing goes to and fro between the two while only one of them knows that the guest has stopped."""
    await bench.apply(UE, replace(LOCAL, pvm_at=C2, arriving_from=C2))
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_PVM), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    assert await bench.emerges("enb", uplink(), at="isl-c2") == [("isl-c2", link(HERE, C2, hop(TO_PVM)))]
    assert await bench.emerges("isl-c3", link(C3, HERE, TO_PVM), at="isl-c2") == [
        ("isl-c2", link(HERE, C2, hop(TO_PVM)))
    ]
    await bench.apply(UE, replace(LOCAL, pvm_at=C2))
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_PVM), at="isl-c2") == [
        ("isl-c2", link(HERE, C2, hop(TO_PVM)))
    ]


async def test_equal_addresses_on_two_networks_do_not_mix(bench: Bench) -> None:
    there = DownlinkTunnel(SGW, FTeid(ENB, Teid(0x2002)))
    other = replace(LOCAL, pvm=OTHER_PVM, uplinks=(UplinkTunnel(ENB, FTeid(SGW, Teid(0x1002))),), downlink=there)
    await bench.apply(UE, LOCAL)
    await bench.apply(OTHER_UE, other)
    await hear_enb(bench)
    ((_, first),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
    ((_, second),) = await bench.emerges("pvm", from_pvm(udp(OTHER_PVM.address, UE_IP), OTHER_PVM), at="enb")
    assert bytes(Ether(first)[UDP].payload) == gtpu(DOWNLINK, TO_UE)
    assert bytes(Ether(second)[UDP].payload) == gtpu(Teid(0x2002), udp(OTHER_PVM.address, UE_IP))
    crossing = uplink(udp(UE_IP, OTHER_PVM.address))  # in the first one's tunnel
    assert await bench.emerges("enb", crossing, at="core") == [("core", crossing)]


async def test_a_teid_that_is_used_again_is_the_new_ues_alone(bench: Bench) -> None:
    """The S-GW and the eNodeB give the TEIDs of a UE that has detached to another one."""
    await bench.apply(UE, LOCAL)
    await hear_enb(bench)
    await bench.apply(UE, None)
    await bench.apply(OTHER_UE, replace(LOCAL, ue_ip=OTHER_UE_IP, pvm=OTHER_PVM))
    of_new = udp(OTHER_UE_IP, OTHER_PVM.address)
    assert await bench.emerges("enb", uplink(of_new), at="pvm") == [("pvm", to_pvm(of_new, OTHER_PVM))]
    for crossing in (TO_PVM, udp(OTHER_UE_IP, PVM.address), udp(UE_IP, OTHER_PVM.address)):
        assert await bench.emerges("enb", uplink(crossing), at="core") == [("core", uplink(crossing))]
    assert await bench.emerges("pvm", from_pvm(TO_UE)) == []
    assert await bench.emerges("pvm", from_pvm(udp(PVM.address, OTHER_UE_IP))) == []
    down = udp(OTHER_PVM.address, OTHER_UE_IP)
    ((_, frame),) = await bench.emerges("pvm", from_pvm(down, OTHER_PVM), at="enb")
    assert bytes(Ether(frame)[UDP].payload) == gtpu(DOWNLINK, down)


async def test_an_address_that_is_used_again_is_the_new_ues_alone(bench: Bench) -> None:
    """The P-GW gives a UE the address of one that has detached, in the same cell."""
    await bench.apply(UE, LOCAL)
    await hear_enb(bench)
    await bench.apply(UE, None)
    tunnels = (UplinkTunnel(ENB, FTeid(SGW, Teid(0x1009))),), DownlinkTunnel(SGW, FTeid(ENB, Teid(0x2009)))
    await bench.apply(OTHER_UE, replace(LOCAL, pvm=OTHER_PVM, uplinks=tunnels[0], downlink=tunnels[1]))
    assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
    assert await bench.emerges("pvm", from_pvm(TO_UE)) == []
    ((_, frame),) = await bench.emerges("pvm", from_pvm(udp(OTHER_PVM.address, UE_IP), OTHER_PVM), at="enb")
    assert bytes(Ether(frame)[UDP].payload)[4:8] == (0x2009).to_bytes(4)


async def test_a_change_of_sgw_changes_both_ends_of_the_tunnels(bench: Bench) -> None:
    """At a handover or a tracking area update another S-GW may take the UE over: other addresses, other TEIDs."""
    await bench.apply(UE, LOCAL)
    await hear_enb(bench)
    sgw = "10.0.0.2"
    uplinks = (UplinkTunnel(ENB, FTeid(sgw, Teid(0x1801))),)
    await bench.apply(UE, replace(LOCAL, uplinks=uplinks, downlink=DownlinkTunnel(sgw, FTeid(ENB, DOWNLINK))))
    new = from_enb(s1u_packet(ENB, sgw, gtpu(Teid(0x1801), TO_PVM)))
    assert await bench.emerges("enb", new, at="pvm") == [("pvm", to_pvm(TO_PVM))]
    assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
    ((_, frame),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
    assert (Ether(frame)[IP].src, Ether(frame)[IP].dst) == (sgw, ENB)


async def test_a_handover_between_enodebs_of_one_cloudlet_needs_rules_alone(bench: Bench) -> None:
    """Both cells' uplinks are good until it is done; then the downlink is the new one's."""
    there = "10.0.0.19"
    await bench.apply(UE, LOCAL)
    await hear_enb(bench)
    await hear_enb(bench, there)
    both = (*LOCAL.uplinks, UplinkTunnel(there, FTeid(SGW, UPLINK)))
    await bench.apply(UE, replace(LOCAL, uplinks=both))
    for enb in (ENB, there):
        assert await bench.emerges("enb", uplink(enb=enb), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    ((_, before),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
    after = replace(LOCAL, uplinks=both[1:], downlink=DownlinkTunnel(SGW, FTeid(there, Teid(0x2002))))
    await bench.apply(UE, after)
    ((_, frame),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
    assert (Ether(before)[IP].dst, Ether(frame)[IP].dst) == (ENB, there)
    assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
    assert await bench.emerges("enb", uplink(enb=there), at="pvm") == [("pvm", to_pvm(TO_PVM))]


async def test_apply_is_safe_to_repeat(bench: Bench) -> None:
    first = await bench.apply(UE, LOCAL)
    assert first
    assert await bench.apply(UE, LOCAL) == first
    assert await bench.apply(UE, None) == ()
    assert await bench.apply(UE, None) == ()


async def test_rules_follow_a_ue_that_gets_its_true_name(bench: Bench) -> None:
    await bench.apply(OTHER_UE, LOCAL)
    await bench.apply(UE, LOCAL)
    await bench.apply(OTHER_UE, None)
    await hear_enb(bench)
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    ((port, _),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
    assert port == "enb"


async def test_a_path_to_nowhere_is_refused_and_the_old_one_stands(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    with pytest.raises(AdapterError, match="c9"):
        await bench.apply(UE, replace(LOCAL, pvm_at=CloudletId("c9")))
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]
