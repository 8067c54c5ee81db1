"""Ten thousand UEs on one switch, and more at once than can be done: nothing is lost, no queue grows without bound."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.core.config import BusConfig
from mobiscud.core.ids import Teid
from testbed import population
from testbed.bench.rate import Walkers, flood
from testbed.controller_process import finish, prepare, started
from testbed.mosquitto import Mosquitto
from testbed.s1u_packets import from_enb, gtpu, s1u_packet, udp
from testbed.switch_bench import CANARY, CANARY_PATH, SwitchBench

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, BPF and Open vSwitch need root"),
]

ECHO_REQUEST = 1
UES = 10_000
MOVING = 1_500
ROUNDS = 3


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SwitchBench]:
    async with SwitchBench(f"ts{os.getpid() % 10000}", tmp_path / "ovs") as bench:
        yield bench


async def reaches_its_vm(bench: SwitchBench, number: int, enb: str) -> bool:
    """Whether the UE's packets at that eNodeB come out at its personal VM."""
    path = population.path(number)
    sgw = population.uplink(number)
    up = udp(path.ue_ip, path.pvm.address, b"up")
    emerged = await bench.emerges("enb", from_enb(s1u_packet(enb, sgw.address, gtpu(sgw.teid, up))))
    return [port for port, _ in emerged] == ["pvm"]


async def show_enb(bench: SwitchBench, enb: str) -> None:
    """Let an eNodeB be seen on the wire: to one that never was, no packet is sent."""
    await bench.emerges("enb", from_enb(s1u_packet(enb, population.SGW, gtpu(Teid(1), b"", kind=ECHO_REQUEST))))


async def reaches_its_ue(bench: SwitchBench, number: int, enb: str) -> bool:
    """Whether its personal VM's packets come out in the UE's tunnel to that eNodeB."""
    path = population.path(number)
    down = IP(udp(path.pvm.address, path.ue_ip, b"down"))
    emerged = await bench.emerges("pvm", bytes(Ether(src=path.pvm.mac, dst=bench.offload.gateway_mac) / down))
    tunnel = Teid(0x20000 + number).to_bytes(4)
    return [(port, Ether(frame)[IP].dst, tunnel in frame) for port, frame in emerged] == [("enb", enb, True)]


async def test_ten_thousand_ues_a_kill_and_a_flood_of_handovers(bench: SwitchBench, tmp_path: Path) -> None:
    """What the wire has shown before the kill is known after it: no eNodeB sends until the downlink is looked at."""
    here, there = population.ENBS
    await bench.switch.close(leave=True)
    records = {**population.records(UES), CANARY: population.record(CANARY_PATH)}
    async with Mosquitto(tmp_path / "mosquitto") as broker:
        job = prepare(bench.config, tmp_path, broker.unix_url, records)
        url = Broker.from_config(BusConfig(), broker.unix_url)
        async with started(job) as (first, _):
            for enb in (here, there):
                await show_enb(bench, enb)
            first.kill()
            await first.wait()
        flows = await bench.ovs.dump_flows("br0")
        async with started(job) as (process, ready), MqttBus(url) as speaker, MqttBus(url) as listener:
            assert ready.swept == 0
            assert (await bench.ovs.dump_flows("br0")).count("\n") == flows.count("\n") > 3 * UES
            walkers = Walkers(speaker, UES)
            await walkers.listen(listener)
            for _ in range(ROUNDS):
                flood(walkers, range(MOVING))
            await walkers.all_moved(ROUNDS * MOVING)
            assert (await bench.ovs.dump_flows("br0")).count("\n") == flows.count("\n")
            for number, enb in ((0, there), (MOVING - 1, there), (MOVING, here), (UES - 1, here)):
                assert await reaches_its_ue(bench, number, enb)
                assert await reaches_its_vm(bench, number, enb)
            backlog = (await finish(process)).backlog
    assert 0 < backlog.highest <= backlog.limit


async def test_what_a_full_table_refuses_it_refuses_to_few(bench: SwitchBench) -> None:
    """Twenty ask at one moment, and share a bundle; there is room for ten."""
    await show_enb(bench, population.ENBS[0])
    there = len([line for line in (await bench.ovs.dump_flows("br0")).splitlines() if "table=10," in line])
    full = ("--id=@full", "create", "flow_table", f"flow_limit={there + 10}", "overflow_policy=refuse")
    await bench.ovs.vsctl("--", *full, "--", "set", "bridge", "br0", "flow_tables:10=@full")
    asked = (bench.switch.apply(population.key(number), population.path(number)) for number in range(20))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    refused = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
    assert len(refused) == 10
    assert all("refused" in str(outcomes[number]) and "uplink" in str(outcomes[number]) for number in refused)
    for number in sorted({*range(20)} - {*refused}):
        assert await reaches_its_vm(bench, number, population.ENBS[0])
