"""The switches that are tried, and the packets that their far ends send and see."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from flows.pipeline import link_mac
from mobiscud.core.config import OffloadConfig
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey
from testbed.s1u_packets import from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import HERE, Emerged, SwitchBench

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
