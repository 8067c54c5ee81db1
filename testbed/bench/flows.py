"""``mobiscud bench flows``: one rule and its barrier, ten thousand rules, a restart under traffic, handovers a second.

On a switch of one cloudlet with real parts. The yardsticks are a barrier alone (what any answer of this switch takes)
and the general codec encoding the same ten thousand messages (without a switch).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
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
from mobiscud.core.edge import PathSpec
from mobiscud.core.ids import PortNo
from testbed import population
from testbed.bench import common, rate
from testbed.bench.common import say
from testbed.controller_process import prepare, started
from testbed.mosquitto import Mosquitto
from testbed.s1u_packets import from_enb, gtpu, s1u_packet
from testbed.switch_bench import CANARY, CANARY_PATH, SwitchBench

RULES: Final = 10_000
UES: Final = 10_000
ROUNDS: Final = 5
SINGLE: Final = 200
ENB, SGW = "10.0.0.11", "10.0.0.1"
INTERVAL_S: Final = 0.001
WARM_UP_S: Final = 0.2


def rule(number: int) -> FlowRule:
    """An uplink flow as ``path_rules`` makes it."""
    of_ue = population.path(number)
    match = Match(eth_type=EtherType.IPV4, ip_src=of_ue.ue_ip, ip_dst=of_ue.pvm.address)
    actions = (SetEthernet(OffloadConfig().gateway_mac, of_ue.pvm.mac), Output("pvm"))
    return FlowRule(ue_cookie(population.key(number)), "uplink", UPLINK, 100, match, actions)


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
        of_ue = population.path(number)
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


async def restart(bench: SwitchBench, folder: Path) -> dict[str, Any]:
    """Kill the controller of ten thousand UEs under a stream, start it again; what that cost."""
    records = {**population.records(UES), CANARY: population.record(CANARY_PATH)}
    async with Mosquitto(folder / "mosquitto") as broker:
        job = prepare(bench.config, folder, broker.unix_url, records)
        over = asyncio.Event()
        say(f"a controller of {UES} UEs")
        fresh_s = time.perf_counter()
        async with started(job) as (first, _):
            fresh_s = time.perf_counter() - fresh_s
            await bench.ovs.settle()
            streaming = asyncio.create_task(_stream(bench, population.path(0), over))
            await asyncio.sleep(WARM_UP_S)
            say("kill -9, and start again")
            first.kill()
            await first.wait()
            again_s = time.perf_counter()
            async with started(job) as (_, again):
                again_s = time.perf_counter() - again_s
                await asyncio.sleep(WARM_UP_S)
                over.set()
                sent = await streaming
                emerged = await bench.so_far("enb")
    numbers = Counter(f[f.index(b"number") :][:15] for where, f in emerged if where == "pvm" and b"number" in f)
    return {
        "install_s": round(fresh_s, 3),
        "reconcile_s": round(again_s, 3),
        "reconcile_cpu_s": round(again.cpu_seconds, 3),
        "ues": UES,
        "sent": sent,
        "lost": sum(numbers[b"number %08d" % number] == 0 for number in range(sent)),
        "stale_rules": again.swept,
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
            restarted = await restart(bench, Path(folder))
            return {
                "one_rule_ms": round(one_ms, 3),
                "barrier_ms": round(barrier_ms, 3),
                "bulk": {
                    "rules": RULES,
                    "seconds": round(min(taken), 3),
                    "median_seconds": round(median(taken), 3),
                    "codec_encoding_seconds": round(codec_s, 3),
                },
                "restart": restarted,
                "rate": await rate.measure(bench, Path(folder)),
            }


def run() -> dict[str, Any]:
    """The whole bench."""
    return common.report("flows", asyncio.run(measure()))
