"""A personal VM that sets out as soon as its user's handover is prepared, on real parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.topology import Delays

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LIMIT_S = 60.0
BETWEEN_CELLS_S = 0.6
"""Long enough that nobody can mistake what came first."""


async def test_a_vm_sets_out_before_its_user_and_stays_when_the_handover_is_called_off(tmp_path: Path) -> None:
    early = {"policy": "follow", "start": "at_preparing"}
    setting = Setting(delays=Delays(), dwell_s=0, migration=early, cloudlets=2, interruption_s=BETWEEN_CELLS_S)
    said: list[str] = []
    async with RunningTestbed(setting, tmp_path, said.append) as bed:
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        guest = GuestClient(bed.network.namespace("ue"), PVM_ADDRESS)
        born = await guest.wait_until_up(LIMIT_S)

        mark = len(bed.events)
        handover = asyncio.create_task(bed.ran.handover(UE, 2))
        moving = await bed.event("pvm.migrating", after=mark, within_s=LIMIT_S, to_cloudlet="c2")
        there = await bed.event("handover.completed", after=mark, within_s=LIMIT_S)
        assert moving < there, "the VM sets out while its user is between the cells"
        await handover
        await bed.event("pvm.migrated", after=moving, within_s=LIMIT_S, to_cloudlet="c2")
        assert (await guest.wait_until_up(LIMIT_S)).boot_id == born.boot_id

        mark = len(bed.events)
        await bed.ran.handover(UE, 1, outcome="cancel")
        off = await bed.event("handover.cancelled", after=mark, within_s=LIMIT_S)
        assert (await guest.wait_until_up(LIMIT_S)).boot_id == born.boot_id, "it is reached as if nothing had been"
        await bed.ran.handover(UE, 1)
        await bed.event("pvm.migrated", after=off, within_s=LIMIT_S, to_cloudlet="c1")
        assert (await guest.wait_until_up(LIMIT_S)).boot_id == born.boot_id
