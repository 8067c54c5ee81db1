"""A user leaves, and comes back at another cell: the personal VM that was kept goes on, follows, and is held back by
a host that is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.topology import Delays

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LIMIT_S = 90.0


async def test_a_kept_vm_goes_on_where_it_is_and_follows(tmp_path: Path) -> None:
    hypervisor = {"on_stop": "save", "saved_images": str(tmp_path / "saved"), "max_pvms": 1}
    migration = {"policy": "follow", "dwell_s": 0.0, "absence_s": 0.2}
    setting = Setting(delays=Delays(), dwell_s=0.0, cloudlets=2, ues=2, migration=migration, hypervisor=hypervisor)
    async with RunningTestbed(setting, tmp_path, lambda said: None) as bed:
        first, second = bed.subscribers
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        guest = GuestClient(bed.network.namespace("ue"), PVM_ADDRESS)
        before = await guest.wait_until_up(LIMIT_S)

        await bed.ran.attach(second.ue, 1)
        full = "c1 has no room: at most 1 personal VMs"
        await bed.event(
            "pvm.stopped", after=0, within_s=LIMIT_S, ue=bed.key_of(second), from_cloudlet="c1", reason=full
        )
        await bed.ran.detach(second.ue)

        mark = len(bed.events)
        await bed.ran.detach(UE)
        kept = await bed.event("pvm.stopped", after=mark, within_s=LIMIT_S, ue=bed.key_of(first), to_cloudlet="c1")
        await bed.ran.attach(UE, 2)
        started = await bed.event("pvm.started", after=kept, within_s=LIMIT_S, to_cloudlet="c1")
        await bed.event("pvm.migrated", after=started, within_s=LIMIT_S, to_cloudlet="c2")
        assert (await guest.wait_until_up(LIMIT_S)).boot_id == before.boot_id
