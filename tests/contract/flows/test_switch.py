"""What every switch does with a packet, whichever parts it is made of: where does it emerge, and as what?"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final, Protocol

import pytest
import pytest_asyncio
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from flows.pipeline import link_mac
from mobiscud.core.config import OffloadConfig
from mobiscud.core.edge import DownlinkTunnel, FlowAction, FlowFilter, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey
from testbed.fake_switch import FakeSwitch
from testbed.s1u_packets import ENB_MAC, OPTIONS, SGW_MAC, from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import HERE, MTU, NEXT_HOP_MAC, Emerged, SwitchBench

pytestmark = pytest.mark.asyncio(loop_scope="module")

C2, C3, C4 = CloudletId("c2"), CloudletId("c3"), CloudletId("c4")
GATEWAY, GATEWAY_MAC = str(OffloadConfig().gateway.ip), OffloadConfig().gateway_mac
ENB, SGW, UE_IP = "10.0.0.11", "10.0.0.1", "45.45.0.2"
UPLINK, DOWNLINK = Teid(0x1001), Teid(0x2001)
UE, OTHER_UE = UeKey("ue-0000000000000001"), UeKey("ue-0000000000000002")
PVM = Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10", "2001:db8:16::10")
OTHER_PVM = Pvm(PvmId("pvm2"), "172.16.1.20", "52:54:00:00:00:20")
OTHER_UE_IP = "45.45.0.3"
UE_IPV6 = "2001:db8:45::2"
LOCAL = PathSpec(
    ue_ip=UE_IP,
    pvm=PVM,
    pvm_at=HERE,
    ue_at=HERE,
    uplinks=(UplinkTunnel(ENB, FTeid(SGW, UPLINK)),),
    downlink=DownlinkTunnel(SGW, FTeid(ENB, DOWNLINK)),
)
BOTH = replace(LOCAL, ue_ipv6=UE_IPV6)
TO_PVM = udp(UE_IP, PVM.address)
TO_UE = udp(PVM.address, UE_IP)


class Bench(Protocol):
    """A switch and the far ends of its wires."""

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]: ...
    async def count(self, what: str) -> int: ...
    def keep_packets(self, pvm: Pvm) -> None: ...
    def forget_packets(self, pvm: Pvm) -> None: ...
    async def resent(self, pvm: Pvm, to: CloudletId) -> Emerged: ...
    async def emerges(self, port: str, frame: bytes, at: str | None = None) -> Emerged: ...


class RealSwitch:
    """Open vSwitch and BPF, given back as they were."""

    def __init__(self, bench: SwitchBench) -> None:
        self._bench = bench
        self._ues: set[UeKey] = set()
        self.emerges = bench.emerges
        self.keep_packets = bench.switch.keep_packets
        self.forget_packets = bench.switch.forget_packets

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        self._ues.add(ue)
        rules = await self._bench.switch.apply(ue, path)
        await self._bench.ovs.settle()
        return rules

    async def count(self, what: str) -> int:
        return (await self._bench.switch.counters()).datapath[what]

    async def resent(self, pvm: Pvm, to: CloudletId) -> Emerged:
        self._bench.switch.resend_packets(pvm, to)
        return await self._bench.so_far("isl-c2")

    async def clean(self) -> None:
        for ue in self._ues:
            await self._bench.switch.apply(ue, None)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def real_parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SwitchBench]:
    async with SwitchBench(f"tc{os.getpid() % 10000}", tmp_path_factory.mktemp("switch") / "ovs") as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def real_switch(real_parts: SwitchBench) -> AsyncIterator[Bench]:
    switch = RealSwitch(real_parts)
    yield switch
    await switch.clean()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.system)])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        return FakeSwitch()
    if os.geteuid() != 0:
        pytest.skip("namespaces, BPF and Open vSwitch need root")
    real: Bench = request.getfixturevalue("real_switch")
    return real


def uplink(inner: bytes = TO_PVM, options: tuple[int, bytes] = (0x30, b""), enb: str = ENB, sgw: str = SGW) -> bytes:
    """A packet of the UE as its eNodeB sends it."""
    return from_enb(s1u_packet(enb, sgw, gtpu(UPLINK, inner, options=options)))


def ethernet(source: str, destination: str, packet: bytes | Packet) -> bytes:
    return bytes(Ether(src=source, dst=destination, **({"type": 0x800} if isinstance(packet, bytes) else {})) / packet)


def from_pvm(packet: bytes | Packet, pvm: Pvm = PVM) -> bytes:
    return ethernet(pvm.mac, GATEWAY_MAC, packet)


def to_pvm(packet: bytes | Packet, pvm: Pvm = PVM) -> bytes:
    return ethernet(GATEWAY_MAC, pvm.mac, packet)


def from_pvm6(packet: bytes) -> bytes:
    return bytes(Ether(src=PVM.mac, dst=GATEWAY_MAC, type=0x86DD) / packet)


def to_pvm6(packet: bytes) -> bytes:
    return bytes(Ether(src=GATEWAY_MAC, dst=PVM.mac, type=0x86DD) / packet)


def link(source: CloudletId, destination: CloudletId, packet: bytes | Packet) -> bytes:
    """A frame between cloudlets."""
    return ethernet(link_mac(source), link_mac(destination), packet)


def hop(packet: bytes) -> bytes:
    """The packet after one hop more."""
    later = IP(packet)
    later.ttl -= 1
    del later.chksum
    return bytes(later)


async def hear_enb(bench: Bench, enb: str = ENB) -> None:
    """Let the eNodeB be seen on the wire."""
    frame = from_enb(s1u_packet(enb, SGW, gtpu(Teid(0), b"", 1)))
    assert await bench.emerges("enb", frame, at="core") == [("core", frame)]


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


async def test_frames_for_others_pass_on(bench: Bench) -> None:
    expected = [("isl-c3", link(C2, C3, hop(TO_PVM)))]
    assert await bench.emerges("isl-c2", link(C2, C3, TO_PVM), at="isl-c3") == expected


async def test_frames_for_others_may_leave_as_they_came(bench: Bench) -> None:
    assert await bench.emerges("isl-c2", link(C2, C4, TO_PVM), at="isl-c2") == [("isl-c2", link(C2, C4, hop(TO_PVM)))]


async def test_strange_frames_on_the_link_go_nowhere(bench: Bench) -> None:
    assert await bench.emerges("isl-c2", ethernet(link_mac(C2), "02:00:00:00:00:77", TO_PVM)) == []


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


def datagram(source: str, destination: str, sport: int, dport: int, **ip: Any) -> bytes:
    return bytes(IP(src=source, dst=destination, **ip) / UDP(sport=sport, dport=dport) / b"some")


GAME = FlowFilter(protocol=17, pvm_port=5000)
VOICE = FlowFilter(protocol=17, ue_port=5004, dscp=46)


@pytest.mark.parametrize(
    ("flows", "fields", "taken"),
    [
        ((GAME,), {"pvm": 5000}, True),
        ((GAME,), {"pvm": 5001}, False),
        ((GAME,), {"ue": 5000}, False),
        ((GAME, VOICE), {"ue": 5004, "tos": 0xB8}, True),
        ((GAME, VOICE), {"ue": 5004, "tos": 0xBB}, True),
        ((GAME, VOICE), {"ue": 5004, "tos": 0}, False),
        ((FlowFilter(protocol=6),), {"pvm": 5000}, False),
        ((FlowFilter(dscp=0),), {"tos": 0}, True),
        ((FlowFilter(dscp=0),), {"tos": 0xB8}, False),
    ],
)
async def test_only_the_flows_named_are_offloaded(
    bench: Bench, flows: tuple[FlowFilter, ...], fields: dict[str, int], taken: bool
) -> None:
    await bench.apply(UE, replace(LOCAL, flows=flows))
    await hear_enb(bench)
    ue_port, pvm_port, tos = fields.get("ue", 1), fields.get("pvm", 2), fields.get("tos", 0)
    inner = datagram(UE_IP, PVM.address, ue_port, pvm_port, tos=tos)
    expected = ("pvm", to_pvm(inner)) if taken else ("core", uplink(inner))
    assert await bench.emerges("enb", uplink(inner), at=expected[0]) == [expected]
    back = from_pvm(datagram(PVM.address, UE_IP, pvm_port, ue_port, tos=tos))
    at = "enb" if taken else "sgi"
    assert [port for port, _ in await bench.emerges("pvm", back, at=at)] == [at], "the way that it came"


DROP, PASS = FlowAction.DROP, FlowAction.PASSTHROUGH


@pytest.mark.parametrize(
    ("pvm_port", "action"), [(80, None), (22, PASS), (23, DROP)], ids=["offloaded", "passed", "dropped"]
)
async def test_the_first_flow_that_fits_says_what_becomes_of_a_packet(
    bench: Bench, pvm_port: int, action: FlowAction | None
) -> None:
    exceptions = FlowFilter(17, None, 22, action=PASS), FlowFilter(17, None, 23, action=DROP)
    await bench.apply(UE, replace(LOCAL, flows=(*exceptions, FlowFilter(protocol=17))))
    await hear_enb(bench)
    inner = datagram(UE_IP, PVM.address, 1, pvm_port)
    expected = {None: [("pvm", to_pvm(inner))], PASS: [("core", uplink(inner))], DROP: []}[action]
    at = expected[0][0] if expected else None
    dropped = await bench.count("discarded")
    assert await bench.emerges("enb", uplink(inner), at=at) == expected
    back = from_pvm(datagram(PVM.address, UE_IP, pvm_port, 1))
    ways = {None: "enb", PASS: "sgi", DROP: None}
    assert [port for port, _ in await bench.emerges("pvm", back, at=ways[action])] == [ways[action]] * (action != DROP)
    assert await bench.count("discarded") == dropped + (action is DROP)


async def test_what_is_offloaded_goes_on_to_a_ue_elsewhere_and_the_rest_by_the_core(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, ue_at=C2, flows=(GAME,)))
    game, other = datagram(PVM.address, UE_IP, 5000, 1), datagram(PVM.address, UE_IP, 80, 1)
    assert [port for port, _ in await bench.emerges("pvm", from_pvm(game), at="isl-c2")] == ["isl-c2"]
    assert [port for port, _ in await bench.emerges("pvm", from_pvm(other), at="sgi")] == ["sgi"]


async def test_what_comes_for_a_ue_over_the_link_was_chosen_where_its_vm_is(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C2, flows=(GAME,)))
    await hear_enb(bench)
    game, other = datagram(PVM.address, UE_IP, 5000, 1), datagram(PVM.address, UE_IP, 80, 1)
    assert [port for port, _ in await bench.emerges("isl-c2", link(C2, HERE, game), at="enb")] == ["enb"]
    before = await bench.count("not_offloaded")
    assert await bench.emerges("isl-c2", link(C2, HERE, other)) == []
    assert await bench.count("not_offloaded") == before + 1


async def test_flows_change_while_they_are_at_work(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, flows=(GAME,)))
    inner = uplink(datagram(UE_IP, PVM.address, 1, 80))
    assert await bench.emerges("enb", inner, at="core") == [("core", inner)]
    await bench.apply(UE, replace(LOCAL, flows=(GAME, FlowFilter(protocol=17, pvm_port=80))))
    assert [port for port, _ in await bench.emerges("enb", inner, at="pvm")] == ["pvm"]


async def test_more_flows_than_there_is_room_for_are_refused(bench: Bench) -> None:
    many = tuple(FlowFilter(protocol=17, pvm_port=port) for port in range(1, 10))
    with pytest.raises(AdapterError, match="9 flows"):
        await bench.apply(UE, replace(LOCAL, flows=many))


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


async def test_what_still_comes_over_a_link_leaves_by_the_core_in_our_name(bench: Bench) -> None:
    await bench.apply(UE, replace(BY_CORE, pvm_at=C2))
    expected = [("sgi", ethernet(link_mac(HERE), NEXT_HOP_MAC, hop(TO_UE)))]
    assert await bench.emerges("isl-c2", link(C2, HERE, TO_UE), at="sgi") == expected


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
