"""A controller that is killed and started again: traffic flows on, and what comes next is done as ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from testbed import results
from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.spawn import PYTHON
from testbed.topology import Delays

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LIMIT_S = 90.0


def answers(file: Path) -> int:
    """The answers in a file that somebody writes."""
    return sum(ping.received_ns is not None for ping in results.load_pings(file)) if file.exists() else 0


async def answered(file: Path, count: int) -> None:
    """Wait for that many answers."""
    while answers(file) < count:  # noqa: ASYNC110  # a file tells nobody when it grows
        await asyncio.sleep(0.05)


async def test_a_killed_controller_is_not_missed(tmp_path: Path) -> None:
    said: list[str] = []
    async with RunningTestbed(Setting(delays=Delays(), dwell_s=0.5, cloudlets=2), tmp_path, said.append) as bed:
        space = bed.network.namespace("ue")
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        guest = GuestClient(space, PVM_ADDRESS)
        before = await guest.wait_until_up(LIMIT_S)
        file = tmp_path / "pings.csv"
        pinger = await bed.start(
            "pinger", *PYTHON, "testbed.pinger", PVM_ADDRESS, str(file), "--interval", "0.01", namespace=space
        )
        await asyncio.wait_for(answered(file, 20), LIMIT_S)
        await bed.restart_node("c1")
        await asyncio.wait_for(answered(file, answers(file) + 20), LIMIT_S)
        await pinger.stop()
        pings = results.load_pings(file)
        assert [p.seq for p in pings if p.received_ns is None] == [], "nobody noticed"

        mark = len(bed.events)
        await bed.ran.handover(UE, 2)
        moving = await bed.event("pvm.migrating", after=mark, within_s=LIMIT_S, to_cloudlet="c2")
        await bed.restart_node("c2")
        moved = await bed.event("pvm.migrated", after=moving, within_s=LIMIT_S, to_cloudlet="c2")
        assert (await guest.wait_until_up(LIMIT_S)).boot_id == before.boot_id
        await bed.ran.detach(UE)
        await bed.event("pvm.stopped", after=moved, within_s=LIMIT_S)
        await bed.event("offload.removed", after=moved, within_s=LIMIT_S, cloudlet="c2")
        for number in (1, 2):
            assert "cookie=0x4d53" not in "".join(
                line
                for line in (await bed.switches[number].dump_flows(f"br-c{number}")).splitlines()
                if "45.45.0" in line
            ), "no rule of the UE is left"
