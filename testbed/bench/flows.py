"""``mobiscud bench flows``: one rule and its barrier, ten thousand rules at once, and a restart under traffic.

On a switch of one cloudlet with real parts. The yardsticks are a barrier alone (what any answer of this switch takes)
and the general codec encoding the same ten thousand messages (without a switch).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import Any, Final

from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from flows.encode import AddFlow, DeleteFlow, flow_mod
from flows.openflow import OpenFlowChannel, connect
from flows.pipeline import UPLINK
from flows.rules import EtherType, FlowRule, Match, Output, SetEthernet, ue_cookie
from mobiscud.core.config import OffloadConfig
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import FTeid, PortNo, PvmId, Teid, UeKey
from testbed.bench import common
from testbed.bench.common import say
from testbed.s1u_packets import from_enb, gtpu, s1u_packet
from testbed.switch_bench import CANARY, CANARY_PATH, HERE, SwitchBench
from testbed.switch_process import Job, Started, started

RULES: Final = 10_000
UES: Final = 10_000
ROUNDS: Final = 5
SINGLE: Final = 200
ENB, SGW = "10.0.0.11", "10.0.0.1"
INTERVAL_S: Final = 0.001
WARM_UP_S: Final = 0.2


def path(number: int) -> PathSpec:
    """The path of the UE of that number."""
    return PathSpec(
        ue_ip=str(IPv4Address("45.64.0.0") + number),
        pvm=Pvm(
            PvmId(f"pvm{number}"), str(IPv4Address("172.17.0.0") + number), f"52:54:01:{number.to_bytes(3).hex(':')}"
        ),
        pvm_at=HERE,
        ue_at=HERE,
        uplinks=(UplinkTunnel(ENB, FTeid(SGW, Teid(0x10000 + number))),),
        downlink=DownlinkTunnel(SGW, FTeid(ENB, Teid(0x20000 + number))),
    )


def key(number: int) -> UeKey:
    """The key of the UE of that number."""
    return UeKey(f"ue-{number:016x}")


def rule(number: int) -> FlowRule:
    """An uplink flow as ``path_rules`` makes it."""
    of_ue = path(number)
    match = Match(eth_type=EtherType.IPV4, ip_src=of_ue.ue_ip, ip_dst=of_ue.pvm.address)
    actions = (SetEthernet(OffloadConfig().gateway_mac, of_ue.pvm.mac), Output("pvm"))
    return FlowRule(ue_cookie(key(number)), "uplink", UPLINK, 100, match, actions)


async def single(channel: OpenFlowChannel) -> tuple[float, float]:
    """Milliseconds of one rule with its barrier, and of a barrier alone; the median."""
    with_rule, alone = [], []
    for number in range(SINGLE):
        change = AddFlow(rule(RULES + number))
        began = time.perf_counter()
        await channel.commit([change])
        between = time.perf_counter()
        await channel.barrier()
        alone.append(time.perf_counter() - between)
        with_rule.append(between - began)
    await channel.commit([DeleteFlow(rule(RULES + number)) for number in range(SINGLE)])
    return 1000 * median(with_rule), 1000 * median(alone)


async def bulk(channel: OpenFlowChannel) -> list[float]:
    """Seconds of ten thousand rules, encoded, sent, installed and confirmed, in each round."""
    rules = [rule(number) for number in range(RULES)]
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await channel.commit([AddFlow(one) for one in rules])
        taken.append(time.perf_counter() - began)
        await channel.commit([DeleteFlow(one) for one in rules])
    return taken


def codec_seconds() -> float:
    """What the general codec takes to encode as many messages."""
    switch = ProtocolDesc(version=of.OFP_VERSION)
    octets = flow_mod(AddFlow(rule(0)), {"pvm": PortNo(3)}, 1)
    length = len(octets)
    began = time.perf_counter()
    for number in range(RULES):
        of_ue = path(number)
        match = parser.OFPMatch(eth_type=0x800, ipv4_src=of_ue.ue_ip, ipv4_dst=of_ue.pvm.address)
        gateway = parser.OFPActionSetField(eth_src=OffloadConfig().gateway_mac)
        actions = [gateway, parser.OFPActionSetField(eth_dst=of_ue.pvm.mac), parser.OFPActionOutput(3)]
        apply = [parser.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, actions)]
        mod = parser.OFPFlowMod(switch, table_id=UPLINK, priority=100, match=match, instructions=apply)
        mod.set_xid(number)
        mod.serialize()
        if len(mod.buf) != length:
            raise AssertionError("the yardstick encodes another message")
    return time.perf_counter() - began


async def restart(bench: SwitchBench) -> dict[str, Any]:
    """Kill the controller of a switch with ten thousand UEs under a stream, start it again; what that cost."""
    watched = key(0)
    paths = {CANARY: CANARY_PATH, **{key(number): path(number) for number in range(UES)}}
    job = Job(bench.namespace, bench.config, bench.offload, paths)
    over = asyncio.Event()
    say(f"a switch with {UES} UEs")
    async with started(job) as (first, fresh):
        await bench.ovs.settle()
        streaming = asyncio.create_task(_stream(bench, paths[watched], over))
        await asyncio.sleep(WARM_UP_S)
        say("kill -9, and start again")
        first.kill()
        await first.wait()
        async with started(job) as (_, again):
            await asyncio.sleep(WARM_UP_S)
            over.set()
            sent = await streaming
            emerged = await bench.so_far("enb")
            numbers = Counter(f[f.index(b"number") :][:15] for where, f in emerged if where == "pvm" and b"number" in f)
            lost = sum(numbers[b"number %08d" % number] == 0 for number in range(sent))
            return {**_times(fresh, again), "ues": UES, "sent": sent, "lost": lost, "stale_rules": again.swept}


def _times(fresh: Started, again: Started) -> dict[str, float]:
    return {
        "install_s": round(fresh.seconds, 3),
        "reconcile_s": round(again.seconds, 3),
        "reconcile_cpu_s": round(again.cpu_seconds, 3),
    }


async def _stream(bench: SwitchBench, of_ue: PathSpec, over: asyncio.Event) -> int:
    (tunnel,) = of_ue.uplinks
    inner = IP(src=of_ue.ue_ip, dst=of_ue.pvm.address) / UDP(chksum=0) / Raw(b"number %08d" % 0)
    frame = from_enb(s1u_packet(ENB, SGW, gtpu(tunnel.sgw.teid, bytes(inner)), chksum=0))
    head = frame[: -len(b"%08d" % 0)]  # building each packet anew would take the time that is to be measured
    sent = 0
    while not over.is_set():
        bench.send("enb", head + b"%08d" % sent)
        sent += 1
        await asyncio.sleep(INTERVAL_S)
    return sent


async def measure() -> dict[str, Any]:
    """All figures, on a switch of their own.

    :raises SetupError: not root, or a part is missing
    """
    with tempfile.TemporaryDirectory(prefix="mobiscud-") as folder:
        async with SwitchBench("mbf", Path(folder) / "ovs") as bench:
            async with connect(bench.config.openflow) as channel:
                say("single rules")
                one_ms, barrier_ms = await single(channel)
                say(f"{RULES} rules at once, {ROUNDS} times")
                taken = await bulk(channel)
            codec_s = codec_seconds()
            await bench.switch.close(leave=True)
            return {
                "one_rule_ms": round(one_ms, 3),
                "barrier_ms": round(barrier_ms, 3),
                "bulk": {
                    "rules": RULES,
                    "seconds": round(min(taken), 3),
                    "median_seconds": round(median(taken), 3),
                    "codec_encoding_seconds": round(codec_s, 3),
                },
                "restart": await restart(bench),
            }


def run() -> dict[str, Any]:
    """The whole bench."""
    return common.report("flows", asyncio.run(measure()))
