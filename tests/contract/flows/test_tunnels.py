"""Into the tunnel and out of it, at the cloudlet where UE and PVM are: what emerges, and as what?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from flows.pipeline import link_mac
from mobiscud.core.edge import DownlinkTunnel
from mobiscud.core.ids import FTeid, Teid
from testbed.s1u_packets import ENB_MAC, OPTIONS, SGW_MAC, gtpu, s1u_packet, udp
from testbed.switch_bench import HERE, MTU
from tests.contract.flows.switches import (
    C2,
    DOWNLINK,
    ENB,
    LOCAL,
    PVM,
    SGW,
    TO_PVM,
    TO_UE,
    UE,
    UE_IP,
    Bench,
    ethernet,
    from_pvm,
    hear_enb,
    link,
    to_pvm,
    uplink,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_uplink_leaves_the_tunnel_towards_the_vm(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    assert await bench.emerges("enb", uplink(), at="pvm") == [("pvm", to_pvm(TO_PVM))]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_optional_fields_leave_with_the_tunnel(bench: Bench, options: tuple[int, bytes]) -> None:
    await bench.apply(UE, LOCAL)
    assert await bench.emerges("enb", uplink(options=options), at="pvm") == [("pvm", to_pvm(TO_PVM))]


@pytest.mark.parametrize("ttl", [1, 63, 64, 79, 80, 128, 255])
async def test_any_ttl_reaches_a_vm_here_as_it_was(bench: Bench, ttl: int) -> None:
    await bench.apply(UE, LOCAL)
    inner = udp(UE_IP, PVM.address, ttl=ttl)
    assert await bench.emerges("enb", uplink(inner), at="pvm") == [("pvm", to_pvm(inner))]


async def test_other_traffic_of_the_ue_stays_on_the_wire(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    frame = uplink(udp(UE_IP, "8.8.8.8"))
    assert await bench.emerges("enb", frame, at="core") == [("core", frame)]


@pytest.mark.parametrize(("enb", "sgw"), [("10.0.0.66", SGW), (ENB, "10.0.0.67")])
async def test_a_teid_is_known_only_between_its_addresses(bench: Bench, enb: str, sgw: str) -> None:
    await bench.apply(UE, LOCAL)
    frame = uplink(enb=enb, sgw=sgw)
    assert await bench.emerges("enb", frame, at="core") == [("core", frame)]


async def test_a_forged_inner_source_is_counted_and_left_to_the_core(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    before = await bench.count("forged")
    frame = uplink(udp("9.9.9.9", PVM.address))
    assert await bench.emerges("enb", frame, at="core") == [("core", frame)]
    assert await bench.count("forged") == before + 1


@pytest.mark.parametrize("tos", [0, 0xB8, 0xBB])
async def test_downlink_enters_the_tunnel_as_if_from_the_core(bench: Bench, tos: int) -> None:
    await bench.apply(UE, LOCAL)
    await hear_enb(bench)
    inner = udp(PVM.address, UE_IP, tos=tos)
    ((port, frame),) = await bench.emerges("pvm", from_pvm(inner), at="enb")
    packet = Ether(frame)
    assert port == "enb"
    assert (packet.src, packet.dst) == (SGW_MAC, ENB_MAC)
    assert (packet[IP].src, packet[IP].dst, packet[IP].tos) == (SGW, ENB, tos)
    assert (packet[UDP].sport, packet[UDP].dport, packet[UDP].chksum) == (2152, 2152, 0)
    assert bytes(packet[UDP].payload) == gtpu(DOWNLINK, inner)
    assert packet[IP].len == len(frame) - 14
    assert packet[UDP].len == len(frame) - 34
    assert IP(bytes(packet[IP])[:20]).chksum == checksum(packet[IP])


def checksum(packet: IP) -> int:
    """What the IPv4 header checksum should be."""
    header = packet.copy()
    del header.chksum
    return int(IP(bytes(header)).chksum)


async def test_the_core_shows_how_an_enodeb_is_addressed(bench: Bench) -> None:
    enb, router, enb_mac = "10.0.0.12", "02:00:00:00:00:99", "02:00:00:00:00:12"
    await bench.apply(UE, replace(LOCAL, downlink=DownlinkTunnel(SGW, FTeid(enb, DOWNLINK))))
    frame = ethernet(router, enb_mac, s1u_packet(SGW, enb, gtpu(Teid(0), b"", 1)))
    assert await bench.emerges("core", frame, at="enb") == [("enb", frame)]
    ((_, emerged),) = await bench.emerges("pvm", from_pvm(TO_UE), at="enb")
    assert (Ether(emerged).src, Ether(emerged).dst) == (router, enb_mac)


async def test_an_enodeb_never_seen_is_not_guessed_at(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, downlink=DownlinkTunnel(SGW, FTeid("10.0.0.13", DOWNLINK))))
    before = await bench.count("no_neighbour")
    assert await bench.emerges("pvm", from_pvm(TO_UE)) == []
    assert await bench.count("no_neighbour") == before + 1


async def test_downlink_fills_the_mtu_and_no_more(bench: Bench) -> None:
    await bench.apply(UE, LOCAL)
    await hear_enb(bench)
    largest = udp(PVM.address, UE_IP, b"x" * (MTU - 36 - 28))
    ((_, frame),) = await bench.emerges("pvm", from_pvm(largest), at="enb")
    assert len(frame) == 14 + MTU
    before = await bench.count("too_big")
    too_big = udp(PVM.address, UE_IP, b"x" * (MTU - 36 - 28 + 1))
    answer = IP(src=UE_IP, dst=PVM.address, id=0) / ICMP(type=3, code=4, nexthopmtu=MTU - 36) / too_big[:68]
    assert await bench.emerges("pvm", from_pvm(too_big), at="pvm") == [("pvm", to_pvm(bytes(answer)))]
    assert await bench.count("too_big") == before + 1


async def test_a_vm_elsewhere_is_told_too_that_its_packet_is_too_big(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C2))
    await hear_enb(bench)
    too_big = link(C2, HERE, udp(PVM.address, UE_IP, b"x" * (MTU - 36)))
    ((_, frame),) = await bench.emerges("isl-c2", too_big, at="isl-c2")
    answer = Ether(frame)
    assert (answer.src, answer.dst) == (link_mac(HERE), link_mac(C2))
    assert (answer[IP].dst, answer[ICMP].type, answer[ICMP].nexthopmtu) == (PVM.address, 3, MTU - 36)


def syn(source: str, destination: str, options: list[tuple[str, Any]], flags: str = "S") -> bytes:
    ip = IPv6 if ":" in source else IP
    return bytes(ip(src=source, dst=destination) / TCP(sport=40000, dport=443, flags=flags, options=options))


@pytest.mark.parametrize(
    ("options", "flags", "clamped"),
    [
        ([("MSS", 1460)], "S", [("MSS", MTU - 76)]),
        ([("MSS", 1460), ("WScale", 7)], "SA", [("MSS", MTU - 76), ("WScale", 7)]),
        ([("NOP", None), ("MSS", 9000), ("SAckOK", b"")], "S", [("NOP", None), ("MSS", MTU - 76), ("SAckOK", b"")]),
        ([("Timestamp", (1, 2)), ("MSS", 1460)], "S", [("Timestamp", (1, 2)), ("MSS", MTU - 76)]),
        ([("MSS", MTU - 76)], "S", [("MSS", MTU - 76)]),
        ([("MSS", 536)], "S", [("MSS", 536)]),
        ([], "S", []),
        ([("MSS", 1460)], "A", [("MSS", 1460)]),
    ],
)
async def test_tcp_learns_both_ways_what_fits_the_tunnel(
    bench: Bench, options: list[tuple[str, Any]], flags: str, clamped: list[tuple[str, Any]]
) -> None:
    await bench.apply(UE, LOCAL)
    await hear_enb(bench)
    up = uplink(syn(UE_IP, PVM.address, options, flags))
    assert await bench.emerges("enb", up, at="pvm") == [("pvm", to_pvm(syn(UE_IP, PVM.address, clamped, flags)))]
    ((_, frame),) = await bench.emerges("pvm", from_pvm(syn(PVM.address, UE_IP, options, flags)), at="enb")
    assert bytes(Ether(frame)[UDP].payload) == gtpu(DOWNLINK, syn(PVM.address, UE_IP, clamped, flags))
