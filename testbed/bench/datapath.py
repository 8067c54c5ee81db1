"""``mobiscud bench datapath``: what a packet costs on its way out of the tunnel and into it.

The program's own cost is the kernel's account of it (BPF run statistics). Round trips and rates are those of a UE's
packets to its personal VM and back through the program and Open vSwitch, beside the same packets over a kernel bridge
and through the tunnel port that Open vSwitch has itself, sent and caught by the same sockets: what differs is what lies
between two veth pairs.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from scapy.layers.l2 import Ether

from flows.gtp_datapath import bpffs
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import FTeid, PvmId, Teid, UeKey
from testbed import netns
from testbed.bench import common
from testbed.bench.common import say
from testbed.netns import command
from testbed.netns_socket import socket_in
from testbed.ovs import OpenVSwitch
from testbed.s1u_packets import ENB_MAC, from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import HERE, MTU, SwitchBench

ROUND_TRIPS: Final = 2_000
BURST: Final = 20_000
ROUNDS: Final = 3
PAYLOAD: Final = 100
PATIENCE_S: Final = 5.0
QUIET_S: Final = 0.2
ETH_P_ALL: Final = 3
SO_RCVBUFFORCE: Final = 33
STATISTICS: Final = Path("/proc/sys/kernel/bpf_stats_enabled")

ENB, SGW = "10.0.0.11", "10.0.0.1"
UE = UeKey("ue-0000000000000001")
PATH: Final = PathSpec(
    ue_ip="45.45.0.2",
    pvm=Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10"),
    pvm_at=HERE,
    ue_at=HERE,
    uplinks=(UplinkTunnel(ENB, FTeid(SGW, Teid(0x1001))),),
    downlink=DownlinkTunnel(SGW, FTeid(ENB, Teid(0x2001))),
)


class Wires:
    """Two ends of a path, and what is sent from each. Blocking: nothing else runs in this process meanwhile."""

    def __init__(self, ends: dict[str, tuple[str, str]], up: bytes, down: bytes) -> None:
        self._sockets = {end: _open(*where) for end, where in ends.items()}
        self._frames = {"ue": up, "pvm": down}

    def close(self) -> None:
        for end in self._sockets.values():
            end.close()

    def round_trip_us(self) -> float:
        """Microseconds from the UE's end to the PVM's and back; the median."""
        taken = []
        for _ in range(ROUND_TRIPS):
            began = time.perf_counter()
            self._cross("ue", "pvm")
            self._cross("pvm", "ue")
            taken.append(time.perf_counter() - began)
        return 1e6 * median(taken)

    def rate(self, start: str, end: str) -> tuple[float, float]:
        """Packets a second that arrive of a burst sent without pause, and the share that is lost; the best round."""
        return max(self._burst(start, end) for _ in range(ROUNDS))

    def _cross(self, start: str, end: str) -> None:
        self._sockets[start].send(self._frames[start])
        self._sockets[end].recv(2048)

    def _burst(self, start: str, end: str) -> tuple[float, float]:
        out, into, frame = self._sockets[start], self._sockets[end], self._frames[start]
        began = time.perf_counter()
        for _ in range(BURST):
            out.send(frame)
        last, arrived = began, 0
        into.settimeout(QUIET_S)
        while arrived < BURST:
            try:
                into.recv(2048)
            except TimeoutError:
                break
            arrived += 1
            last = time.perf_counter()
        into.settimeout(PATIENCE_S)
        return arrived / (last - began), 1 - arrived / BURST


def _open(namespace: str, device: str) -> socket.socket:
    end = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
    end.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
    end.bind((device, ETH_P_ALL))
    end.settimeout(PATIENCE_S)
    return end


@contextmanager
def counting() -> Iterator[None]:
    """Let the kernel keep account of its BPF programs."""
    was = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        yield
    finally:
        STATISTICS.write_text(was)


async def _account(bench: SwitchBench, program: str) -> tuple[int, int]:
    """How often a program has run, and how many nanoseconds in all."""
    (pins,) = bpffs.pin_folder(bench.config.bpffs, HERE).iterdir()
    told = json.loads(await command("bpftool", "-j", "prog", "show", "pinned", str(pins / "progs" / program)))
    return int(told.get("run_cnt", 0)), int(told.get("run_time_ns", 0))


async def _cost(bench: SwitchBench, program: str, work: Callable[[], object]) -> float:
    """Nanoseconds a run of the program while ``work`` goes on."""
    runs, nanoseconds = await _account(bench, program)
    work()
    runs_after, nanoseconds_after = await _account(bench, program)
    return (nanoseconds_after - nanoseconds) / (runs_after - runs)


@asynccontextmanager
async def bridged(prefix: str) -> AsyncIterator[str]:
    """Two veth pairs joined by a kernel bridge; the namespace of the far ends ``ue`` and ``pvm``."""
    near, far = f"{prefix}-br", f"{prefix}-brfar"
    await netns.create([near, far])
    try:
        await netns.ip_batch(netns.veth((near, end), (far, end), mtu=MTU) for end in ("ue", "pvm"))
        joined = [f"link set {end} up master br0" for end in ("ue", "pvm")]
        await netns.ip_batch(["link add br0 type bridge", "link set br0 up", *joined], near)
        await netns.ip_batch((f"link set {end} up" for end in ("ue", "pvm")), far)
        for namespace in (near, far):
            await netns.run_in(namespace, "sh", stdin=netns.offloads_off(("ue", "pvm")))
        yield far
    finally:
        await netns.delete([near, far])


@asynccontextmanager
async def tunnel_port(prefix: str, run_dir: Path) -> AsyncIterator[tuple[str, str]]:
    """Open vSwitch's own GTP-U port between two veth pairs; the namespace of the far ends, and the S-GW's MAC."""
    near, far = f"{prefix}-gt", f"{prefix}-gtfar"
    await netns.create([near, far])
    try:
        await netns.ip_batch(netns.veth((near, end), (far, end), mtu=MTU) for end in ("ue", "pvm"))
        for namespace in (near, far):
            await netns.ip_batch((f"link set {end} up" for end in ("ue", "pvm")), namespace)
            await netns.run_in(namespace, "sh", stdin=netns.offloads_off(("ue", "pvm")))
        async with OpenVSwitch(run_dir, near) as ovs:
            await ovs.add_bridge("phy", ["ue"])
            await ovs.add_bridge("int", ["pvm"])
            tunnel = ("type=gtpu", f"options:remote_ip={ENB}", "options:key=flow", "ofport_request=9")
            await ovs.vsctl("add-port", "int", "gtp0", "--", "set", "interface", "gtp0", *tunnel)
            await netns.ip_batch([f"addr add {SGW}/24 dev phy", "link set phy up"], near)
            flow = ("ovs-ofctl", "-O", "OpenFlow13", "add-flow")
            await command(*flow, ovs.management_target("phy"), "actions=normal")
            await command(*flow, ovs.management_target("int"), "in_port=gtp0,actions=output:pvm")
            await command(*flow, ovs.management_target("int"), "in_port=pvm,actions=set_field:0x2001->tun_id,gtp0")
            control = str(run_dir / "ovs-vswitchd.ctl")
            await command("ovs-appctl", "-t", control, "tnl/neigh/set", "phy", ENB, ENB_MAC)
            mac = await netns.run_in(near, "cat", "/sys/class/net/phy/address")
            yield far, mac.strip()
    finally:
        await netns.delete([near, far])


def _figures(wires: Wires) -> dict[str, Any]:
    up, up_lost = wires.rate("ue", "pvm")
    down, down_lost = wires.rate("pvm", "ue")
    return {
        "rtt_us": round(wires.round_trip_us(), 1),
        "up_pps": round(up),
        "up_lost": round(up_lost, 4),
        "down_pps": round(down),
        "down_lost": round(down_lost, 4),
    }


async def measure() -> dict[str, Any]:
    """All figures, in one run.

    :raises SetupError: not root, or a part is missing
    """
    inner_up = udp(PATH.ue_ip, PATH.pvm.address, b"x" * PAYLOAD)
    inner_down = udp(PATH.pvm.address, PATH.ue_ip, b"x" * PAYLOAD)
    with tempfile.TemporaryDirectory(prefix="mobiscud-") as folder, counting():
        async with SwitchBench("mbd", Path(folder) / "ovs") as bench:
            await bench.switch.apply(UE, PATH)
            await bench.ovs.settle()
            bench.deafen()
            up = from_enb(s1u_packet(ENB, SGW, gtpu(Teid(0x1001), inner_up)))
            down = bytes(Ether(src=PATH.pvm.mac, dst=bench.offload.gateway_mac, type=0x800) / inner_down)
            wires = Wires({"ue": (bench.outside, "enb"), "pvm": (bench.outside, "pvm")}, up, down)
            say("through the program and Open vSwitch")
            ours = _figures(wires)
            say("what the program takes")
            decap = await _cost(bench, "from_enb", lambda: wires.rate("ue", "pvm"))
            encap = await _cost(bench, "from_gi", lambda: wires.rate("pvm", "ue"))
            wires.close()
            async with bridged("mbd") as far:
                say("over a kernel bridge")
                plain = bytes(Ether(src="02:00:00:00:00:11", dst="02:00:00:00:00:12", type=0x800) / inner_up)
                back = bytes(Ether(src="02:00:00:00:00:12", dst="02:00:00:00:00:11", type=0x800) / inner_down)
                wires = Wires({"ue": (far, "ue"), "pvm": (far, "pvm")}, plain, back)
                kernel = _figures(wires)
                wires.close()
        async with tunnel_port("mbd", Path(folder) / "stock") as (far, sgw_mac):
            say("through Open vSwitch's own GTP-U port")
            up = bytes(Ether(src=ENB_MAC, dst=sgw_mac) / s1u_packet(ENB, SGW, gtpu(Teid(0x1001), inner_up)))
            wires = Wires({"ue": (far, "ue"), "pvm": (far, "pvm")}, up, down)
            stock = _figures(wires)
            wires.close()
    for one in (ours, kernel, stock):
        one["added_rtt_us"] = round(one["rtt_us"] - kernel["rtt_us"], 1)
    return {
        "decap_ns": round(decap),
        "encap_ns": round(encap),
        "offload": ours,
        "kernel_bridge": kernel,
        "ovs_gtpu_port": stock,
    }


def run() -> dict[str, Any]:
    """The whole bench."""
    return common.report("datapath", asyncio.run(measure()))
