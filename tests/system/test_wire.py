"""The bump in the wire leaves alone what is not its business, and nothing of itself behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from scapy.packet import Packet

from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import FTeid, PvmId, Teid, UeKey
from testbed import netns
from testbed.s1u_packets import crafted, from_core, from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import HERE, SwitchBench

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, BPF and Open vSwitch need root"),
    pytest.mark.asyncio(loop_scope="module"),
]

ENB, SGW, UE_IP, UPLINK = "10.0.0.11", "10.0.0.1", "45.45.0.2", 0x1001
PVM = Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10")
UE = UeKey("ue-0000000000000001")
PATH = PathSpec(
    ue_ip=UE_IP,
    pvm=PVM,
    pvm_at=HERE,
    ue_at=HERE,
    uplinks=(UplinkTunnel(ENB, FTeid(SGW, Teid(UPLINK))),),
    downlink=DownlinkTunnel(SGW, FTeid(ENB, Teid(0x2001))),
)
OUTER = ("enb", "core", "pvm")
CRAFTED = crafted(ENB, SGW, UPLINK, UE_IP, PVM.address)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SwitchBench]:
    run_dir: Path = tmp_path_factory.mktemp("wire") / "ovs"
    async with SwitchBench(f"tw{os.getpid() % 10000}", run_dir) as bench:
        await bench.switch.apply(UE, PATH)
        yield bench


@pytest.mark.parametrize("name", CRAFTED)
async def test_what_is_not_offloaded_crosses_unchanged(bench: SwitchBench, name: str) -> None:
    for packet in CRAFTED[name]:
        assert await bench.emerges("enb", from_enb(packet), at="core") == [("core", from_enb(packet))]
        assert await bench.emerges("core", from_core(packet), at="enb") == [("enb", from_core(packet))]


async def test_every_hop_limit_crosses_unchanged(bench: SwitchBench) -> None:
    sent = []
    for ttl in range(1, 256):
        for inner, outer in ((ttl, 61), (64, ttl)):
            packet = s1u_packet(ENB, SGW, gtpu(UPLINK, udp(UE_IP, "8.8.8.8", ttl=inner)), ttl=outer)
            sent.append(from_enb(packet))
            bench.send("enb", sent[-1])
    assert await bench.so_far("enb") == [("core", frame) for frame in sent]


async def test_jumbo_frames_cross_unchanged(bench: SwitchBench) -> None:
    """Where the transport carries 9000 octets, G-PDUs of that size pass."""
    for namespace, ports in ((bench.namespace, ("enb", "core", "pvm")), (bench.outside, OUTER)):
        await netns.ip_batch((f"link set {port} mtu 9000" for port in ports), namespace)
    for to, size in (("8.8.8.8", 9000), ("8.8.8.8", 4000)):
        frame = from_enb(s1u_packet(ENB, SGW, gtpu(UPLINK, udp(UE_IP, to, b"x" * (size - 36 - 28)))))
        assert len(frame) == 14 + size
        assert await bench.emerges("enb", frame, at="core") == [("core", frame)]
        down = from_core(s1u_packet(SGW, ENB, gtpu(0x2001, udp(to, UE_IP, b"x" * (size - 36 - 28)))))
        assert await bench.emerges("core", down, at="enb") == [("enb", down)]


async def test_even_what_would_be_offloaded_crosses_from_the_core(bench: SwitchBench) -> None:
    packet: Packet = s1u_packet(ENB, SGW, gtpu(UPLINK, udp(UE_IP, PVM.address)))
    assert await bench.emerges("core", from_core(packet), at="enb") == [("enb", from_core(packet))]
