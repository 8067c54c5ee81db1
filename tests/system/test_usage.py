"""Usage on the real switch: each packet counts once, over handovers, other rules, and the death of the controller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from flows.service import CloudletSwitch
from mobiscud.core.edge import DownlinkTunnel, FlowAction, FlowFilter, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import FTeid, PvmId, Teid, UeKey
from mobiscud.core.usage import Carried, UsageOf
from testbed.s1u_packets import from_core, from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import CANARY, CANARY_PATH, HERE, SwitchBench
from testbed.switch_process import Job, started

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, BPF and Open vSwitch need root"),
]

LIMIT_S = 30.0
UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10")
ENBS, BEARER = ("10.0.0.11", "10.0.0.12"), FTeid("10.0.0.1", Teid(0x1001))
WEB = UsageOf(UE, BEARER, "web")


def at(enb: str, *flows: FlowFilter) -> PathSpec:
    uplinks = tuple(UplinkTunnel(address, BEARER) for address in ENBS)
    downlink = DownlinkTunnel(BEARER.address, FTeid(enb, Teid(0x2000 + ENBS.index(enb))), BEARER.teid)
    return PathSpec("45.45.0.2", PVM, HERE, HERE, uplinks, downlink, flows=flows)


def rule(name: str, protocol: int | None = None) -> FlowFilter:
    return FlowFilter(protocol, rule=name)


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SwitchBench]:
    async with SwitchBench(f"us{os.getpid() % 10000}", tmp_path / "ovs") as bench:
        yield bench


async def carry(bench: SwitchBench, enb: str, up: int, down: int) -> tuple[int, int]:
    """Packets through that eNodeB, of growing size; what all of them have of bytes, up and down."""
    sizes = [0, 0]
    for number in range(max(up, down)):
        payload = b"." * (10 + number)
        inner = udp("45.45.0.2", PVM.address, payload)
        if number < up:
            await bench.emerges("enb", from_enb(s1u_packet(enb, BEARER.address, gtpu(BEARER.teid, inner))), at="pvm")
            sizes[0] += len(inner)
        if number < down:
            frame = from_pvm(bench, udp(PVM.address, "45.45.0.2", payload))
            await bench.emerges("pvm", frame, at="enb")
            sizes[1] += len(inner)
    return sizes[0], sizes[1]


def from_pvm(bench: SwitchBench, packet: bytes) -> bytes:
    def octets(mac: str) -> bytes:
        return bytes.fromhex(mac.replace(":", ""))

    return octets(bench.offload.gateway_mac) + octets(PVM.mac) + b"\x08\x00" + packet


async def hear(bench: SwitchBench) -> None:
    """Both eNodeBs are on the wire."""
    for enb in ENBS:
        other = gtpu(Teid(1), udp("8.8.8.8", "9.9.9.9"))
        await bench.emerges("core", from_core(s1u_packet(BEARER.address, enb, other)))


def counted(switch: CloudletSwitch) -> dict[UsageOf, tuple[Carried, Carried, bool]]:
    return {one.about: (one.uplink, one.downlink, one.ended) for one in switch.usage() if one.about.ue == UE}


async def test_each_packet_counts_once(bench: SwitchBench) -> None:
    switch = bench.switch
    await hear(bench)
    await switch.apply(UE, at(ENBS[0], rule("web")))
    one = await carry(bench, ENBS[0], 5, 3)
    await switch.apply(UE, at(ENBS[1], rule("web")))
    two = await carry(bench, ENBS[1], 2, 4)
    expected = Carried(7, one[0] + two[0]), Carried(7, one[1] + two[1]), False
    assert counted(switch) == {WEB: expected}, "over a handover inside the cloudlet"

    await switch.apply(UE, at(ENBS[1], rule("ping", 1), rule("web")))
    more = await carry(bench, ENBS[1], 1, 1)
    together = Carried(8, expected[0].bytes + more[0]), Carried(8, expected[1].bytes + more[1]), False
    assert counted(switch)[WEB] == together, "over a change of the rules"

    passes = replace(rule("not"), action=FlowAction.PASSTHROUGH)
    await switch.apply(UE, at(ENBS[1], rule("ping", 1), passes))
    frame = from_enb(s1u_packet(ENBS[1], BEARER.address, gtpu(BEARER.teid, udp("45.45.0.2", PVM.address))))
    assert [port for port, _ in await bench.emerges("enb", frame, at="core")] == ["core"]

    async with asyncio.timeout(LIMIT_S):
        while not counted(switch)[WEB][2]:  # noqa: ASYNC110  # it ends by the clock
            await asyncio.sleep(0.05)
    assert counted(switch)[WEB] == (*together[:2], True), "what passes through the core bypasses nothing"
    switch.settle(one.number for one in switch.usage() if one.ended)
    assert set(counted(switch)) == {UsageOf(UE, BEARER, "ping")}

    await switch.close(leave=True)
    assert [one.ended for one in switch.usage() if one.about.ue == UE] == [True], "the end of all is told"


async def test_the_accounts_outlive_the_controller(bench: SwitchBench) -> None:
    await bench.switch.close(leave=True)
    path = at(ENBS[0], rule("web"))
    async with started(Job(bench.namespace, bench.config, bench.offload, {UE: path, CANARY: CANARY_PATH})):
        await bench.ovs.settle()
        await hear(bench)
        before = await carry(bench, ENBS[0], 3, 2)
    between = await carry(bench, ENBS[0], 2, 2)
    async with CloudletSwitch(bench.config, bench.offload) as switch:
        await switch.apply(CANARY, CANARY_PATH)
        await switch.apply(UE, path)
        await switch.adopted({UE, CANARY})
        after = await carry(bench, ENBS[0], 1, 1)
        up, down = (before[k] + between[k] + after[k] for k in (0, 1))
        assert counted(switch) == {WEB: (Carried(6, up), Carried(5, down), False)}
