"""A PVM speaks to its UE alone, in its own name, and finds its gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6ND_NA, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from flows.pipeline import link_mac
from mobiscud.core.ids import CloudletId
from testbed.s1u_packets import udp
from testbed.switch_bench import HERE
from tests.contract.flows.switches import (
    BOTH,
    C2,
    GATEWAY,
    GATEWAY_MAC,
    LOCAL,
    OTHER_PVM,
    OTHER_UE,
    OTHER_UE_IP,
    PVM,
    TO_UE,
    UE,
    UE_IP,
    UE_IPV6,
    Bench,
    ethernet,
    from_pvm,
    hear_enb,
    uplink,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

RARP: Final = 0x8035


@pytest.mark.parametrize(
    "announcement",
    [
        Ether(src=PVM.mac, dst="ff:ff:ff:ff:ff:ff", type=RARP)
        / ARP(ptype=0x800, op=3, hwsrc=PVM.mac, psrc="0.0.0.0", hwdst=PVM.mac, pdst="0.0.0.0"),
        Ether(src=PVM.mac, dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=1, hwsrc=PVM.mac, psrc=PVM.address, hwdst="ff:ff:ff:ff:ff:ff", pdst=PVM.address),
        Ether(src=PVM.mac, dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=2, hwsrc=PVM.mac, psrc=PVM.address, hwdst="ff:ff:ff:ff:ff:ff", pdst=PVM.address),
        Ether(src=PVM.mac, dst="33:33:00:00:00:01")
        / IPv6(src=PVM.ipv6, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(R=0, S=0, O=1, tgt=PVM.ipv6),
    ],
    ids=["the hypervisor's rarp", "arp question", "arp answer", "neighbour advertisement"],
)
@pytest.mark.parametrize("pvm_at", [HERE, C2])
async def test_a_vm_that_announces_itself_moves_no_path(bench: Bench, announcement: Packet, pvm_at: CloudletId) -> None:
    """Neither where it runs nor where it does not: only the controller says where its packets go."""
    await bench.apply(UE, replace(BOTH, pvm_at=pvm_at))
    await bench.apply(OTHER_UE, replace(LOCAL, ue_ip=OTHER_UE_IP, pvm=OTHER_PVM, uplinks=(), downlink=None))
    where = "pvm" if pvm_at == HERE else "isl-c2"
    before = await bench.emerges("enb", uplink(), at=where)
    for port in ("pvm", "isl-c2", "isl-c3"):
        assert await bench.emerges(port, bytes(announcement)) == []
    assert await bench.emerges("enb", uplink(), at=where) == before


async def test_the_gateway_answers_arp(bench: Bench) -> None:
    broadcast = "ff:ff:ff:ff:ff:ff"
    question = ethernet(PVM.mac, broadcast, ARP(hwsrc=PVM.mac, psrc=PVM.address, pdst=GATEWAY))
    answer = ARP(op=2, hwsrc=GATEWAY_MAC, psrc=GATEWAY, hwdst=PVM.mac, pdst=PVM.address)
    ((port, frame),) = await bench.emerges("pvm", question, at="pvm")
    assert (port, frame[:42]) == ("pvm", ethernet(GATEWAY_MAC, PVM.mac, answer)[:42])


async def test_only_the_gateway_answers_arp(bench: Bench) -> None:
    question = ARP(hwsrc=PVM.mac, psrc=PVM.address, pdst=OTHER_PVM.address)
    assert await bench.emerges("pvm", ethernet(PVM.mac, "ff:ff:ff:ff:ff:ff", question)) == []


@pytest.mark.parametrize(
    "frame",
    [
        from_pvm(udp(PVM.address, "8.8.8.8")),
        ethernet(PVM.mac, "02:00:00:00:00:77", TO_UE),
        from_pvm(udp(UE_IP, OTHER_PVM.address)),
        from_pvm(udp(UE_IP, PVM.address)),
        from_pvm(udp(OTHER_PVM.address, UE_IP)),
    ],
    ids=["elsewhere", "not the gateway", "as a ue to another vm", "as a ue to itself", "as another vm"],
)
async def test_a_vm_speaks_to_its_ue_and_to_nobody_else(bench: Bench, frame: bytes) -> None:
    await bench.apply(UE, LOCAL)
    await bench.apply(OTHER_UE, replace(LOCAL, ue_ip="45.45.0.3", pvm=OTHER_PVM))
    await hear_enb(bench)
    assert await bench.emerges("pvm", frame) == []


@pytest.mark.parametrize(
    "frame",
    [
        from_pvm(udp(OTHER_PVM.address, OTHER_UE_IP)),
        from_pvm(udp(PVM.address, UE_IP), OTHER_PVM),
        from_pvm(IPv6(src=PVM.ipv6, dst=UE_IPV6) / UDP(), OTHER_PVM),
    ],
    ids=["its address", "its own address, another's card", "ipv6"],
)
async def test_a_vm_cannot_pass_for_another(bench: Bench, frame: bytes) -> None:
    await bench.apply(UE, BOTH)
    await bench.apply(OTHER_UE, replace(LOCAL, ue_ip=OTHER_UE_IP, pvm=OTHER_PVM))
    await hear_enb(bench)
    assert await bench.emerges("pvm", frame) == []


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(PVM.mac, OTHER_PVM.mac, udp(PVM.address, OTHER_PVM.address)),
        from_pvm(udp(PVM.address, OTHER_PVM.address)),
        from_pvm(udp(PVM.address, GATEWAY)),
        from_pvm(udp(PVM.address, "192.0.2.1")),
        ethernet(PVM.mac, link_mac(C2), udp(PVM.address, UE_IP)),
        ethernet(PVM.mac, "ff:ff:ff:ff:ff:ff", udp(PVM.address, "255.255.255.255")),
    ],
    ids=["to a vm's card", "to a vm", "to the gateway", "to the management network", "over the link", "to all"],
)
async def test_a_vm_reaches_no_vm_and_no_network_but_its_ue(bench: Bench, frame: bytes) -> None:
    await bench.apply(UE, LOCAL)
    await bench.apply(OTHER_UE, replace(LOCAL, ue_ip=OTHER_UE_IP, pvm=OTHER_PVM))
    await hear_enb(bench)
    assert await bench.emerges("pvm", frame) == []
