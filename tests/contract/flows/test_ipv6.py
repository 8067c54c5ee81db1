"""IPv6 inside the tunnels and outside, and tags on the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Dot1Q, Ether

from flows.pipeline import link_mac
from mobiscud.core.edge import DownlinkTunnel, UplinkTunnel
from mobiscud.core.ids import FTeid
from testbed.s1u_packets import ENB_MAC, SGW_MAC, from_enb, gtpu, s1u_packet
from testbed.switch_bench import HERE, MTU
from tests.contract.flows.switches import (
    BOTH,
    C3,
    DOWNLINK,
    LOCAL,
    PVM,
    SGW,
    TO_PVM,
    TO_UE,
    UE,
    UE_IP,
    UE_IPV6,
    UPLINK,
    Bench,
    from_pvm,
    from_pvm6,
    hear_enb,
    to_pvm,
    to_pvm6,
    uplink,
)
from tests.contract.flows.test_tunnels import syn

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("ue_ip", [UE_IPV6, "2001:db8:45::dead:beef"])
async def test_ipv6_takes_the_same_way(bench: Bench, ue_ip: str) -> None:
    await bench.apply(UE, BOTH)
    await hear_enb(bench)
    up = bytes(IPv6(src=ue_ip, dst=PVM.ipv6, hlim=1) / UDP(sport=1, dport=2) / b"up")
    assert await bench.emerges("enb", uplink(up), at="pvm") == [("pvm", to_pvm6(up))]
    down = bytes(IPv6(src=PVM.ipv6, dst=ue_ip, tc=0xB8) / UDP(sport=1, dport=2) / b"down")
    ((_, frame),) = await bench.emerges("pvm", from_pvm6(down), at="enb")
    assert Ether(frame)[IP].tos == 0xB8
    assert bytes(Ether(frame)[UDP].payload) == gtpu(DOWNLINK, down)
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]


async def test_ipv6_crosses_the_links(bench: Bench) -> None:
    await bench.apply(UE, replace(BOTH, pvm_at=C3))
    up = IPv6(src=UE_IPV6, dst=PVM.ipv6) / UDP() / b"up"
    ((port, frame),) = await bench.emerges("enb", uplink(bytes(up)), at="isl-c3")
    up.hlim -= 1
    assert (port, frame) == ("isl-c3", bytes(Ether(src=link_mac(HERE), dst=link_mac(C3)) / up))


async def test_ipv6_of_another_network_is_forged(bench: Bench) -> None:
    await bench.apply(UE, BOTH)
    before = await bench.count("forged")
    frame = uplink(bytes(IPv6(src="2001:db8:46::2", dst=PVM.ipv6) / UDP()))
    assert await bench.emerges("enb", frame, at="core") == [("core", frame)]
    assert await bench.count("forged") == before + 1


async def test_ipv6_that_is_too_big_is_answered(bench: Bench) -> None:
    await bench.apply(UE, BOTH)
    await hear_enb(bench)
    too_big = bytes(IPv6(src=PVM.ipv6, dst=UE_IPV6) / UDP() / (b"x" * (MTU - 36 - 47)))
    answer = IPv6(src=UE_IPV6, dst=PVM.ipv6) / ICMPv6PacketTooBig(mtu=MTU - 36) / too_big[:68]
    assert await bench.emerges("pvm", from_pvm6(too_big), at="pvm") == [("pvm", to_pvm6(bytes(answer)))]


@pytest.mark.parametrize("inner", [TO_UE, bytes(IPv6(src=PVM.ipv6, dst=UE_IPV6) / UDP() / (b"y" * 301))])
async def test_a_tunnel_over_ipv6(bench: Bench, inner: bytes) -> None:
    enb, sgw = "2001:db8::11", "2001:db8::1"
    uplinks = (UplinkTunnel(enb, FTeid(sgw, UPLINK)),)
    await bench.apply(UE, replace(BOTH, uplinks=uplinks, downlink=DownlinkTunnel(sgw, FTeid(enb, DOWNLINK))))
    outer = IPv6(src=enb, dst=sgw) / UDP(sport=2152, dport=2152)
    syn_up = syn(UE_IP, PVM.address, [("MSS", 1460)])
    expected = [("pvm", to_pvm(syn(UE_IP, PVM.address, [("MSS", MTU - 96)])))]
    assert await bench.emerges("enb", from_enb(outer / gtpu(UPLINK, syn_up)), at="pvm") == expected
    frame = from_pvm(inner) if inner is TO_UE else from_pvm6(inner)
    ((_, emerged),) = await bench.emerges("pvm", frame, at="enb")
    packet = IPv6(src=sgw, dst=enb, hlim=64) / UDP(sport=2152, dport=2152) / gtpu(DOWNLINK, inner)
    assert emerged == bytes(Ether(src=SGW_MAC, dst=ENB_MAC) / packet)  # the UDP checksum too


async def test_a_tagged_wire_stays_tagged(bench: Bench) -> None:
    enb = "10.0.0.14"
    path = replace(
        LOCAL, uplinks=(UplinkTunnel(enb, FTeid(SGW, UPLINK)),), downlink=DownlinkTunnel(SGW, FTeid(enb, DOWNLINK))
    )
    await bench.apply(UE, path)
    up = Ether(src=ENB_MAC, dst=SGW_MAC) / Dot1Q(vlan=7) / s1u_packet(enb, SGW, gtpu(UPLINK, TO_PVM))
    assert await bench.emerges("enb", bytes(up), at="pvm") == [("pvm", to_pvm(TO_PVM))]
    ((_, frame),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
    assert Ether(frame)[Dot1Q].vlan == 7
    assert bytes(Ether(frame)[UDP].payload) == gtpu(DOWNLINK, TO_UE)
