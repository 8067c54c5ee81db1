"""``offload.mode: observe`` on the whole testbed: it tells what it would do, and does nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import netns
from testbed.experiment import RunningTestbed
from testbed.setting import UE, Setting
from testbed.topology import INTERNET_SERVER, Delays

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(300),
]

LIMIT_S = 90.0


async def test_nothing_is_done_and_everything_is_told(tmp_path: Path) -> None:
    setting = Setting(delays=Delays(), dwell_s=0.0, cloudlets=2, offload="observe")
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:

        async def would(kind: str, after: int = 0, **expected: str) -> int:
            observed = f"{kind.split('.')[0]}.observed"
            return await bed.event(observed, after=after, within_s=LIMIT_S, would=kind, **expected)

        await bed.ran.attach(UE, 1)
        await would("pvm.started", to_cloudlet="c1")
        activated = bed.events[await would("offload.activated", cloudlet="c1")]
        assert any("decap" in rule for rule in activated["data"]["rule_ids"]), "down to the single rule"
        await bed.ran.handover(UE, 2)
        await would("offload.prepared", cloudlet="c2")
        await would("pvm.migrating", to_cloudlet="c2")
        moved = await would("pvm.migrated", to_cloudlet="c2")
        await netns.run_in(bed.network.namespace("ue"), "ping", "-c1", "-W5", INTERNET_SERVER)

        for number in (1, 2):
            flows = await bed.switches[number].dump_flows(f"br-c{number}")
            assert "cookie=0x4d53" not in flows
            assert (await netns.command("virsh", "-q", "-c", bed.hosts[number].uri, "list", "--all")).strip() == ""
        await bed.ran.detach(UE)
        await would("pvm.stopped", after=moved)
        done = {e["type"] for e in bed.events if "/controller" in e["source"]}
        assert done == {"org.mobiscud.offload.observed", "org.mobiscud.pvm.observed"}
