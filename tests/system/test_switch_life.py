"""The switch through its life: start, restart, loss of the bridge, end; and flips under traffic."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from scapy.layers.l2 import Ether

from flows.gtp_datapath import bpffs
from flows.openflow import connect
from flows.service import CloudletSwitch
from mobiscud.core.config import OffloadConfig, SwitchConfig
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.errors import AdapterError, SetupError
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey
from testbed.netns import command
from testbed.s1u_packets import crafted, from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import CANARY, CANARY_PATH, HERE, NEXT_HOP_MAC, Emerged, SwitchBench
from testbed.switch_process import Job, started

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


WIRE = crafted(ENB, SGW, 0x1001, LOCAL.ue_ip, PVM.address)


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
        + subprocess.run(["ethtool", "-k", port], capture_output=True, text=True, check=True).stdout
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


async def test_ports_are_given_back_as_the_first_found_them(bench: SwitchBench) -> None:
    await bench.switch.close(leave=False)
    await command("ethtool", "-K", "enb", "gro", "on")
    found = interfaces()
    assert "generic-receive-offload: on" in found
    async with started(job(bench, {})):
        pass  # killed; what it found is known to its note only
    assert await asyncio.to_thread(interfaces) != found
    async with CloudletSwitch(bench.config, bench.offload) as switch:
        assert "generic-receive-offload: on" not in interfaces()
        await switch.close(leave=False)
    assert interfaces() == found


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


def downlink(payload: bytes = b"down") -> bytes:
    inner = udp(PVM.address, LOCAL.ue_ip, payload)
    return bytes(Ether(src=PVM.mac, dst=OffloadConfig().gateway_mac, type=0x800) / inner)


def job(bench: SwitchBench, paths: Mapping[UeKey, PathSpec]) -> Job:
    return Job(bench.namespace, bench.config, bench.offload, {CANARY: CANARY_PATH, **paths})


async def stream(bench: SwitchBench, over: asyncio.Event) -> int:
    """Send a numbered packet each way every millisecond until it is over; how many."""
    sent = 0
    while not over.is_set():
        bench.send("enb", uplink(b"number %08d" % sent))
        bench.send("pvm", downlink(b"number %08d" % sent))
        sent += 1
        await asyncio.sleep(0.001)
    return sent


def lost(emerged: Emerged, port: str, sent: int) -> set[int]:
    """The packets of the stream that did not come out at the port just once."""
    seen = Counter(
        frame[frame.index(b"number") :][:15] for where, frame in emerged if where == port and b"number" in frame
    )
    return {number for number in range(sent) if seen[b"number %08d" % number] != 1}


async def test_killed_and_started_again_it_loses_no_packet(bench: SwitchBench) -> None:
    await bench.switch.close(leave=True)
    gone = UeKey("ue-0000000000000002")
    left = replace(LOCAL, ue_ip="45.45.0.3", uplinks=(UplinkTunnel(ENB, FTeid(SGW, Teid(0x1002))),))
    over = asyncio.Event()
    async with started(job(bench, {UE: LOCAL, gone: left})) as (first, _):
        await bench.ovs.settle()
        await bench.emerges("enb", uplink(), at="pvm")
        await bench.emerges("pvm", downlink(), at="enb")
        assert left.ue_ip in await bench.ovs.dump_flows("br0")
        streaming = asyncio.create_task(stream(bench, over))
        first.kill()
        await first.wait()
    async with started(job(bench, {UE: LOCAL})) as (_, report):
        over.set()
        sent = await streaming
        assert report.swept == 7  # five flows, two tunnels
        async with asyncio.timeout(LIMIT_S):  # what has left its tunnel still comes through first
            while left.ue_ip in await bench.ovs.dump_flows("br0"):
                pass
        assert len(list(bpffs.pin_folder(bench.config.bpffs, HERE).iterdir())) == 1
        emerged = await bench.so_far("enb") + await bench.so_far("pvm")
    assert sent > 0
    assert (lost(emerged, "pvm", sent), lost(emerged, "enb", sent)) == (set(), set())


async def test_what_is_adopted_keeps_its_counters(bench: SwitchBench) -> None:
    await bench.switch.close(leave=True)
    async with started(job(bench, {UE: LOCAL})):
        await bench.ovs.settle()
        await bench.emerges("enb", uplink(), at="pvm")
    async with CloudletSwitch(bench.config, bench.offload) as switch:
        await switch.apply(CANARY, CANARY_PATH)
        (decap,) = [rule for rule in await switch.apply(UE, LOCAL) if "/decap/" in rule]
        assert (await switch.counters()).rules[decap].packets == 1
        assert await switch.adopted({UE, CANARY}) == 0
        await bench.emerges("enb", uplink(), at="pvm")
        assert (await switch.counters()).rules[decap].packets == 2


async def test_pins_without_a_wire_are_not_adopted(bench: SwitchBench) -> None:
    await bench.switch.close(leave=True)
    async with started(job(bench, {UE: LOCAL})):
        pass
    for port in ("enb", "core", "gi0"):  # as if they were new ones of the same name
        await command("tc", "qdisc", "delete", "dev", port, "clsact")
    async with CloudletSwitch(bench.config, bench.offload) as switch:
        assert (await switch.counters()).rules == {}


async def test_a_flow_with_our_mark_that_is_none_of_ours_is_removed(bench: SwitchBench) -> None:
    await bench.switch.close(leave=True)
    odd = "cookie=0x4d53000000000001,table=10,priority=7,ip,nw_ecn=1,actions=drop"
    await command("ovs-ofctl", "-O", "OpenFlow13", "add-flow", bench.config.openflow, odd)
    async with CloudletSwitch(bench.config, bench.offload):
        assert "cookie=0x4d53000000000001" not in await bench.ovs.dump_flows("br0")


async def test_a_vm_that_comes_is_announced_to_the_core_once(bench: SwitchBench) -> None:
    bench.announced.clear()
    await bench.switch.apply(UE, replace(LOCAL, pvm_at=C2))
    await bench.switch.apply(UE, LOCAL)
    await bench.switch.apply(UE, replace(LOCAL, ue_at=None))
    await bench.emerges("pvm", downlink(), at="sgi")
    assert bench.announced == [(PVM.address, PVM.mac)]


async def test_after_a_restart_the_core_needs_no_answer_again(bench: SwitchBench) -> None:
    idle = replace(LOCAL, ue_at=None)
    await bench.switch.apply(UE, idle)
    await bench.switch.close(leave=True)

    async def next_hop_known() -> bool:
        return NEXT_HOP_MAC in await bench.ovs.dump_flows("br0")

    async with started(job(bench, {UE: idle})):
        await eventually(next_hop_known)
        await bench.ovs.settle()
        bench.answers_arp = False
        await bench.emerges("enb", uplink(), at="pvm")
        assert ports_of(await bench.emerges("pvm", downlink(), at="sgi")) == ["sgi"]
    flows = await bench.ovs.dump_flows("br0")
    async with started(job(bench, {UE: idle})) as (_, report):
        assert report.swept == 0
        assert ports_of(await bench.emerges("pvm", downlink(), at="sgi")) == ["sgi"]
        assert (await bench.ovs.dump_flows("br0")).count("cookie=") == flows.count("cookie=")


async def test_flows_of_others_are_left_alone(bench: SwitchBench) -> None:
    foreign = "cookie=0x1234,table=99,priority=7,actions=drop"
    await command("ovs-ofctl", "-O", "OpenFlow13", "add-flow", bench.config.openflow, foreign)
    await bench.switch.close(leave=True)
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


async def test_whatever_dies_the_wire_passes_on(bench: SwitchBench) -> None:
    """Fail to wire: the node killed, its pins removed, the bridge killed."""
    await bench.switch.close(leave=True)
    frames = [frame for packets in WIRE.values() for frame in map(from_enb, packets)]

    async def passes() -> bool:
        return [await bench.emerges("enb", frame, at="core") for frame in frames] == [[("core", f)] for f in frames]

    async with started(job(bench, {UE: LOCAL})) as (node, _):
        await bench.ovs.settle()
        assert ports_of(await bench.emerges("enb", uplink(), at="pvm")) == ["pvm"]
        assert await passes()
        node.kill()
        await node.wait()
        assert await passes()
        shutil.rmtree(bpffs.pin_folder(bench.config.bpffs, HERE))
        assert await passes()
    os.kill(bench.ovs.pid, signal.SIGKILL)
    for number, frame in enumerate(frames):
        bench.send("enb", frame)
        assert await bench.next_at("core") == frame, number
    await bench.ovs.start_switch()


async def test_a_second_process_is_refused_and_changes_nothing(bench: SwitchBench) -> None:
    await bench.switch.apply(UE, LOCAL)
    flows = (await bench.ovs.dump_flows("br0")).count("cookie=0x4d53")
    with pytest.raises(SetupError, match=rf"process {os.getpid()} controls cloudlet 'c1' already"):
        await CloudletSwitch(bench.config, bench.offload).__aenter__()
    assert (await bench.ovs.dump_flows("br0")).count("cookie=0x4d53") == flows
    await bench.ovs.settle()
    assert ports_of(await bench.emerges("enb", uplink(), at="pvm")) == ["pvm"]


async def test_a_later_controller_takes_the_bridge_for_good(bench: SwitchBench) -> None:
    async with connect(bench.config.openflow) as elsewhere:
        await elsewhere.lead(time.time_ns())
        with pytest.raises(AdapterError, match="IS_SLAVE"):
            await bench.switch.apply(UE, LOCAL)
        async with connect(bench.config.openflow) as again:
            with pytest.raises(AdapterError, match=r"later controller.*STALE"):
                await again.lead(1)


async def certificate(folder: Path, name: str, *signed_by: str) -> None:
    """A key and a certificate for it, its own or a CA's."""
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
    await command(*new, "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem"), *signed_by)


async def test_the_channel_may_be_encrypted(bench: SwitchBench, tmp_path: Path) -> None:
    await certificate(tmp_path, "ca")
    by_ca = ("-CA", str(tmp_path / "ca.pem"), "-CAkey", str(tmp_path / "ca.key"))
    for name, signer in (("switch", by_ca), ("controller", by_ca), ("stranger", ())):
        await certificate(tmp_path, name, *signer)
    await bench.switch.close(leave=True)
    await bench.ovs.vsctl("set-ssl", *(str(tmp_path / name) for name in ("switch.key", "switch.pem", "ca.pem")))
    await bench.ovs.vsctl("set-controller", "br0", "pssl:16653:127.0.0.1")

    def config(who: str) -> SwitchConfig:
        files = (tmp_path / "ca.pem", tmp_path / f"{who}.pem", tmp_path / f"{who}.key")
        tls = dict(zip(("ca_file", "certificate_file", "key_file"), files, strict=True))
        return SwitchConfig.model_validate({**bench.config.model_dump(), "openflow": "ssl:127.0.0.1:16653", "tls": tls})

    async def listening() -> bool:
        with suppress(SetupError):
            async with connect(bench.config.openflow):
                socket.create_connection(("127.0.0.1", 16653)).close()
                return True
        return False

    await eventually(listening)
    with pytest.raises((SetupError, AdapterError)):
        await CloudletSwitch(config("stranger"), bench.offload).__aenter__()
    async with CloudletSwitch(config("controller"), bench.offload) as switch:
        assert await switch.apply(UE, LOCAL)


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

    gone = replace(LOCAL, ue_at=C2, uplinks=(), downlink=None)
    await flips_under_traffic(bench, "pvm", downlink, gone, LOCAL)


async def test_no_uplink_packet_is_lost_when_the_vm_moves(bench: SwitchBench) -> None:
    await bench.switch.apply(UE, LOCAL)
    await bench.emerges("enb", uplink(), at="pvm")
    await flips_under_traffic(bench, "enb", uplink, replace(LOCAL, pvm_at=C2), LOCAL)


async def test_a_path_that_ends_keeps_nobody_waiting(bench: SwitchBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has just left its tunnel has all the time that it needs; others, and the same UE again, have not to wait."""
    await bench.switch.apply(UE, LOCAL)
    monkeypatch.setattr("flows.service.DRAIN_S", 3600.0)
    async with asyncio.timeout(LIMIT_S):
        await bench.switch.apply(UE, None)
        await bench.switch.apply(CANARY, replace(CANARY_PATH, downlink=None))
        assert "nw_dst=172.16.1.10" in await bench.ovs.dump_flows("br0")
        await bench.switch.apply(CANARY, CANARY_PATH)
        assert await bench.emerges("enb", uplink(), at="core") == [("core", uplink())]
        await bench.switch.apply(UE, LOCAL)
        assert [port for port, _ in await bench.emerges("enb", uplink(), at="pvm")] == ["pvm"]
        monkeypatch.setattr("flows.service.DRAIN_S", 0.0)
        await bench.switch.apply(UE, None)
        while "172.16.1.10" in await bench.ovs.dump_flows("br0"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


async def test_a_path_that_begins_again_at_once_stays(bench: SwitchBench) -> None:
    for _ in range(20):
        await bench.switch.apply(UE, LOCAL)
        await bench.switch.apply(UE, None)
    await bench.switch.apply(UE, LOCAL)
    await bench.ovs.settle()
    assert [port for port, _ in await bench.emerges("enb", uplink(), at="pvm")] == ["pvm"]
    assert [port for port, _ in await bench.emerges("pvm", downlink(b"down"), at="enb")] == ["enb"]


async def test_no_uplink_packet_is_lost_when_offload_ends(bench: SwitchBench) -> None:
    await flips_under_traffic(bench, "enb", uplink, LOCAL, replace(LOCAL, uplinks=()))
