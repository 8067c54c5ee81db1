"""Traffic that is not offloaded passes a cloudlet's switch byte for byte: before, during and after a handover."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from epc_monitor.capture import read_capture
from testbed import results
from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.spawn import PYTHON, Child
from testbed.topology import INTERNET_SERVER, Delays

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LIMIT_S = 90.0
PORTS = ("enb", "core")
INTERNET = bytes(int(part) for part in INTERNET_SERVER.split("."))
ENOUGH = 20


async def capture(bed: RunningTestbed, cloudlet: str, port: str) -> Child:
    """Everything in GTP-U on one port of a cloudlet's switch."""
    file = bed.out / f"{cloudlet}-{port}.pcap"
    command = ("tcpdump", "-Z", "root", "-n", "-p", "-U", "-s0", "-i", port, "-w", str(file), "udp port 2152")
    child = await bed.start(f"tcpdump-{cloudlet}-{port}", *command, namespace=bed.network.namespace(cloudlet))
    await until(lambda: "listening on" in child.log.read_text())
    return child


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110  # a file tells nobody when it grows
            await asyncio.sleep(0.05)


def frames(file: Path) -> Counter[bytes]:
    """The frames that carry a packet from or to the Internet server."""
    return Counter(frame.data for frame in read_capture(file) if INTERNET in frame.data[50:])


async def test_other_traffic_is_not_touched(tmp_path: Path) -> None:
    said: list[str] = []
    async with RunningTestbed(Setting(delays=Delays(), dwell_s=0.5, cloudlets=2), tmp_path, said.append) as bed:
        space = bed.network.namespace("ue")
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        guest = GuestClient(space, PVM_ADDRESS)
        await guest.wait_until_up(LIMIT_S)
        tcpdumps = [await capture(bed, cloudlet, port) for cloudlet in ("c1", "c2") for port in PORTS]
        pings = tmp_path / "internet.csv"
        pinger = await bed.start(
            "pinger", *PYTHON, "testbed.pinger", INTERNET_SERVER, str(pings), "--interval", "0.02", namespace=space
        )
        await until(lambda: answered(pings) >= ENOUGH)
        await bed.ran.handover(UE, 2)
        moving = await bed.event("pvm.migrating", after=0, within_s=LIMIT_S, to_cloudlet="c2")
        during = answered(pings)
        await bed.event("pvm.migrated", after=moving, within_s=LIMIT_S, to_cloudlet="c2")
        after = answered(pings)
        assert after > during, "the Internet answers while the VM migrates"
        await until(lambda: answered(pings) >= after + ENOUGH)
        await pinger.stop()
        await guest.info()
        for tcpdump in tcpdumps:
            await tcpdump.stop()
    for cloudlet in ("c1", "c2"):
        outside, inside = (frames(tmp_path / f"{cloudlet}-{port}.pcap") for port in PORTS)
        assert outside.total() >= 2 * ENOUGH
        assert outside == inside, f"{cloudlet}: what is on one side of the switch is on the other"


def answered(file: Path) -> int:
    if not file.exists():
        return 0
    return sum(ping.received_ns is not None for ping in results.load_pings(file))
