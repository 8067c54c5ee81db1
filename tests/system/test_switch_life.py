"""The switch through its life: start, restart, loss of the bridge, end; and flips under traffic."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from scapy.layers.l2 import Ether

from flows.gtp_datapath import bpffs
from flows.service import CloudletSwitch
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.errors import AdapterError, SetupError
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey
from testbed.netns import command
from testbed.s1u_packets import from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import HERE, SwitchBench

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, BPF and Open vSwitch need root"),
]

LIMIT_S = 20.0
ENB, SGW = "10.0.0.11", "10.0.0.1"
C2 = CloudletId("c2")
UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10")
LOCAL = PathSpec(
    ue_ip="45.45.0.2",
    pvm=PVM,
    pvm_at=HERE,
    ue_at=HERE,
    uplinks=(UplinkTunnel(ENB, FTeid(SGW, Teid(0x1001))),),
    downlink=DownlinkTunnel(SGW, FTeid(ENB, Teid(0x2001))),
)


def uplink(payload: bytes = b"up") -> bytes:
    return from_enb(s1u_packet(ENB, SGW, gtpu(Teid(0x1001), udp(LOCAL.ue_ip, PVM.address, payload))))


def ports_of(emerged: list[tuple[str, bytes]]) -> list[str]:
    return [port for port, _ in emerged]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(LIMIT_S):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SwitchBench]:
    async with SwitchBench(f"tl{os.getpid() % 10000}", tmp_path / "ovs") as bench:
        yield bench


def interfaces() -> str:
    """What can be seen of the wire's ports, but for what counts on."""
    words = [
        subprocess.run(["tc", "qdisc", "show", "dev", port], capture_output=True, text=True, check=True).stdout
        + subprocess.run(["ip", "-o", "link", "show", port], capture_output=True, text=True, check=True).stdout
        for port in ("enb", "core", "gi0")
    ]
    return "\n".join(words)


async def test_detached_ports_are_as_they_were_found(bench: SwitchBench) -> None:
    await bench.switch.close(leave=False)
    found = interfaces()
    async with CloudletSwitch(bench.config, bench.offload) as switch:
        assert await switch.apply(UE, LOCAL)
        assert interfaces() != found
        assert list(bpffs.pin_folder(bench.config.bpffs, HERE).iterdir())
        await switch.close(leave=False)
    assert interfaces() == found
    assert not bpffs.pin_folder(bench.config.bpffs, HERE).exists()
    assert "cookie=0x4d53" not in await bench.ovs.dump_flows("br0")


async def test_a_switch_that_is_left_is_a_wire(bench: SwitchBench) -> None:
    await bench.switch.apply(UE, LOCAL)
    assert ports_of(await bench.emerges("enb", uplink(), at="pvm")) == ["pvm"]
    await bench.switch.close(leave=True)
    assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
    assert not bpffs.pin_folder(bench.config.bpffs, HERE).exists()
    with pytest.raises(AdapterError):
        await bench.switch.apply(UE, LOCAL)


async def test_a_restart_opens_no_gap_in_the_wire(bench: SwitchBench) -> None:
    await bench.switch.close(leave=True)
    frames = 0
    again = CloudletSwitch(bench.config, bench.offload)
    starting = asyncio.create_task(again.__aenter__())
    while not starting.done():
        bench.send("enb", uplink(b"%08d" % frames))
        frames += 1
        await asyncio.sleep(0)
    await starting
    bench.send("core", uplink(b"last"))
    emerged = await bench.so_far("core")
    await again.close(leave=True)
    assert frames > 0
    assert Counter(ports_of(emerged))["core"] == frames


async def test_a_start_after_a_sudden_death_sweeps_what_was_left(bench: SwitchBench) -> None:
    await bench.switch.apply(UE, LOCAL)  # and it is never told to close before the next one starts
    async with CloudletSwitch(bench.config, bench.offload):
        flows = await bench.ovs.dump_flows("br0")
        assert LOCAL.ue_ip not in flows
        assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
        pins = bpffs.pin_folder(bench.config.bpffs, HERE)
        assert len(list(pins.iterdir())) == 1


async def test_flows_of_others_are_left_alone(bench: SwitchBench) -> None:
    foreign = "cookie=0x1234,table=99,priority=7,actions=drop"
    await command("ovs-ofctl", "-O", "OpenFlow13", "add-flow", bench.config.openflow, foreign)
    async with CloudletSwitch(bench.config, bench.offload):
        pass
    assert "cookie=0x1234" in await bench.ovs.dump_flows("br0")


async def test_a_bridge_that_comes_back_gets_everything_anew(bench: SwitchBench, tmp_path: Path) -> None:
    await bench.switch.apply(UE, LOCAL)
    before = await bench.ovs.dump_flows("br0")
    os.kill(int((tmp_path / "ovs" / "ovs-vswitchd.pid").read_text()), signal.SIGKILL)

    async def refused() -> bool:
        with suppress(AdapterError):
            await bench.switch.apply(UE, replace(LOCAL, downlink=None))
            await bench.switch.apply(UE, LOCAL)
            return False
        return True

    await eventually(refused)
    wire = from_enb(s1u_packet(ENB, SGW, gtpu(Teid(0x1001), udp(LOCAL.ue_ip, "8.8.8.8"))))
    bench.send("enb", wire)  # needs no bridge
    await bench.ovs.start_switch()

    async def restored() -> bool:
        with suppress(AdapterError):
            await bench.switch.apply(UE, LOCAL)
            return True
        return False

    await eventually(restored)
    assert (await bench.ovs.dump_flows("br0")).count("cookie=0x4d53") == before.count("cookie=0x4d53")
    await bench.ovs.settle()
    assert ports_of(await bench.emerges("enb", uplink(), at="pvm")) == ["pvm"]


async def test_what_is_missing_is_named(bench: SwitchBench) -> None:
    await bench.switch.close(leave=False)
    nobody = bench.config.model_copy(update={"openflow": "unix:/nonexistent/br0.mgmt"})
    with pytest.raises(SetupError, match="no switch answers at unix:/nonexistent"):
        await CloudletSwitch(nobody, bench.offload).__aenter__()
    no_port = bench.config.model_copy(update={"enb_port": "nowhere0"})
    with pytest.raises(SetupError, match="no interface 'nowhere0'"):
        await CloudletSwitch(no_port, bench.offload).__aenter__()
    no_bridge_port = bench.config.model_copy(update={"pvm_port": "nowhere1"})
    with pytest.raises(AdapterError, match="no port 'nowhere1'"):
        await CloudletSwitch(no_bridge_port, bench.offload).__aenter__()
    assert not bpffs.pin_folder(bench.config.bpffs, HERE).exists()


async def test_a_failed_start_leaves_a_wire_that_was_there(bench: SwitchBench) -> None:
    await bench.switch.close(leave=True)
    nobody = bench.config.model_copy(update={"openflow": "unix:/nonexistent/br0.mgmt"})
    with pytest.raises(SetupError):
        await CloudletSwitch(nobody, bench.offload).__aenter__()
    assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]


async def flips_under_traffic(bench: SwitchBench, port: str, frame: Callable[[bytes], bytes], *paths: PathSpec) -> None:
    """Send numbered packets without pause while the path changes; each must come out once."""
    sent = 0
    for path in paths * 20:
        change = asyncio.create_task(bench.switch.apply(UE, path))
        while not change.done():
            bench.send(port, frame(b"number %08d" % sent))
            sent += 1
            await asyncio.sleep(0)
        await change
    emerged = await bench.so_far(port)
    seen = Counter(what[what.index(b"number") :][:15] for _, what in emerged if b"number" in what)
    assert sent > len(paths) * 20
    assert {number for number in range(sent) if seen[b"number %08d" % number] != 1} == set()


async def test_no_downlink_packet_is_lost_when_the_ue_moves(bench: SwitchBench) -> None:
    await bench.switch.apply(UE, LOCAL)
    await bench.emerges("enb", uplink(), at="pvm")

    def downlink(payload: bytes) -> bytes:
        inner = udp(PVM.address, LOCAL.ue_ip, payload)
        return bytes(Ether(src=PVM.mac, dst=bench.offload.gateway_mac, type=0x800) / inner)

    gone = replace(LOCAL, ue_at=C2, uplinks=(), downlink=None)
    await flips_under_traffic(bench, "pvm", downlink, gone, LOCAL)


async def test_no_uplink_packet_is_lost_when_the_vm_moves(bench: SwitchBench) -> None:
    await bench.switch.apply(UE, LOCAL)
    await bench.emerges("enb", uplink(), at="pvm")
    await flips_under_traffic(bench, "enb", uplink, replace(LOCAL, pvm_at=C2), LOCAL)


async def test_no_uplink_packet_is_lost_when_offload_ends(bench: SwitchBench) -> None:
    await flips_under_traffic(bench, "enb", uplink, LOCAL, replace(LOCAL, uplinks=()))
