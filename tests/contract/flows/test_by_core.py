"""No cloudlet has the UE: it and its PVM reach each other through the core."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from flows.arp import announcement
from flows.pipeline import link_mac
from mobiscud.core.edge import PathSpec
from testbed.s1u_packets import udp
from testbed.switch_bench import HERE, NEXT_HOP_MAC
from tests.contract.flows.switches import (
    BOTH,
    C2,
    LOCAL,
    OTHER_PVM,
    OTHER_UE,
    OTHER_UE_IP,
    PVM,
    TO_PVM,
    TO_UE,
    UE,
    UE_IP,
    UE_IPV6,
    Bench,
    ethernet,
    from_pvm,
    from_pvm6,
    hear_enb,
    hop,
    link,
    to_pvm,
    to_pvm6,
    uplink,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_path_may_begin_again_as_soon_as_it_has_ended(bench: Bench) -> None:
    for path in (LOCAL, None, LOCAL):
        await bench.apply(UE, path)
    assert [port for port, _ in await bench.emerges("enb", uplink(), at="pvm")] == ["pvm"]


async def test_no_path_is_the_wire_again(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    assert await bench.apply(UE, None) == ()
    assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
    assert await bench.emerges("pvm", from_pvm(TO_UE)) == []


async def test_a_ue_that_no_cloudlet_has_can_still_speak(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, ue_at=None))
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]


BY_CORE = replace(BOTH, ue_at=None, uplinks=(), downlink=None)


def from_core_side(packet: bytes | Packet, mac: str = PVM.mac) -> bytes:
    """A frame of the core's next hop to a personal VM."""
    frame = Ether(src=NEXT_HOP_MAC, dst=mac, type=0x86DD if packet[0] >> 4 == 6 else 0x800) / packet
    return bytes(frame)


async def test_what_a_vm_sends_to_an_idle_ue_leaves_by_the_core(bench: Bench) -> None:
    await bench.apply(UE, BY_CORE)
    expected = [("sgi", ethernet(PVM.mac, NEXT_HOP_MAC, hop(TO_UE)))]
    assert await bench.emerges("pvm", from_pvm(TO_UE), at="sgi") == expected
    down = IPv6(src=PVM.ipv6, dst=UE_IPV6) / UDP() / b"down"
    ((port, frame),) = await bench.emerges("pvm", from_pvm6(bytes(down)), at="sgi")
    down.hlim -= 1
    assert (port, frame) == ("sgi", bytes(Ether(src=PVM.mac, dst=NEXT_HOP_MAC) / down))


@pytest.mark.parametrize("path", [BY_CORE, BOTH, replace(BOTH, ue_at=C2)], ids=["idle", "here", "elsewhere"])
async def test_the_core_reaches_a_vm_that_is_here_wherever_its_ue_is(bench: Bench, path: PathSpec) -> None:
    await bench.apply(UE, path)
    assert await bench.emerges("sgi", from_core_side(TO_PVM), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    up = bytes(IPv6(src=UE_IPV6, dst=PVM.ipv6) / UDP() / b"up")
    assert await bench.emerges("sgi", from_core_side(up), at="pvm") == [("pvm", to_pvm6(up))]


@pytest.mark.parametrize(
    "frame",
    [
        from_core_side(TO_PVM, OTHER_PVM.mac),
        from_core_side(udp("8.8.8.8", PVM.address)),
        from_core_side(TO_UE),
        from_core_side(udp(UE_IP, OTHER_PVM.address)),
    ],
    ids=["another card", "not from its ue", "as the vm", "to another vm"],
)
async def test_the_core_reaches_a_vm_with_its_ues_packets_alone(bench: Bench, frame: bytes) -> None:
    await bench.apply(UE, LOCAL)
    await bench.apply(OTHER_UE, replace(LOCAL, ue_ip=OTHER_UE_IP, pvm=OTHER_PVM))
    await hear_enb(bench)
    assert await bench.emerges("sgi", frame) == []


async def test_a_vm_that_is_elsewhere_is_not_taken_in_from_the_core(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C2))
    assert await bench.emerges("sgi", from_core_side(TO_PVM)) == []
    question = ethernet(NEXT_HOP_MAC, "ff:ff:ff:ff:ff:ff", ARP(hwsrc=NEXT_HOP_MAC, psrc="172.16.9.9", pdst=PVM.address))
    assert await bench.emerges("sgi", question) == []


async def test_the_core_is_told_where_a_vm_is(bench: Bench) -> None:
    await bench.apply(UE, BY_CORE)
    question = ARP(hwsrc=NEXT_HOP_MAC, psrc="172.16.255.254", pdst=PVM.address)
    answer = ARP(op=2, hwsrc=PVM.mac, psrc=PVM.address, hwdst=NEXT_HOP_MAC, pdst="172.16.255.254")
    asked = ethernet(NEXT_HOP_MAC, "ff:ff:ff:ff:ff:ff", question)
    ((port, frame),) = await bench.emerges("sgi", asked, at="sgi")
    assert (port, frame[:42]) == ("sgi", ethernet(PVM.mac, NEXT_HOP_MAC, answer)[:42])


async def test_who_is_just_losing_a_vm_is_silent_where_another_announces_it(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    assert await bench.emerges("sgi", announcement(PVM.address, PVM.mac)) == []


async def test_what_still_comes_over_a_link_leaves_by_the_core_in_our_name(bench: Bench) -> None:
    await bench.apply(UE, replace(BY_CORE, pvm_at=C2))
    expected = [("sgi", ethernet(link_mac(HERE), NEXT_HOP_MAC, hop(TO_UE)))]
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_UE), at="sgi") == expected
