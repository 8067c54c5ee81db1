"""Who and what is offloaded changes under traffic; another UE's traffic, rules and counters do not notice."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from testbed import netns, results
from testbed.experiment import RunningTestbed
from testbed.guest.client import GuestClient
from testbed.node_configs import GATEWAY
from testbed.setting import Setting
from testbed.spawn import PYTHON
from testbed.topology import Delays

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(300),
]

LIMIT_S = 90.0
COUNTS = re.compile(r"duration=([\d.]+)s|n_packets=(\d+)|n_bytes=\d+,? ?|idle_age=\d+,? ?|hard_age=\d+,? ?")


async def flows_of(bed: RunningTestbed, address: str) -> dict[str, tuple[float, int]]:
    """The flows of the switch that have an address: how long each has been there, and what it has carried."""
    found = {}
    for line in (await bed.switches[1].dump_flows("br-c1")).splitlines():
        if address in line:
            duration, packets = re.search(r"duration=([\d.]+)s", line), re.search(r"n_packets=(\d+)", line)
            assert duration
            assert packets
            found[COUNTS.sub("", line)] = float(duration[1]), int(packets[1])
    return found


async def test_a_policy_changes_under_traffic(tmp_path: Path) -> None:
    setting = Setting(delays=Delays(), dwell_s=0.0, policy="stay", cloudlets=1, ues=2, preferred=True)
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:
        one, other = bed.subscribers
        keys = {"ue": bed.key_of(other)}

        async def happens(kind: str, after: int) -> int:
            return await bed.event(kind, after=after, within_s=LIMIT_S, **keys)

        def offload(*who: Any, **more: Any) -> int:
            bed.reload_node("c1", offload={"gateway": GATEWAY, "subscribers": [s.offload() for s in who], **more})
            return len(bed.events)

        for subscriber in (one, other):
            await bed.ran.attach(subscriber.ue, 1)
            await bed.event("offload.activated", after=0, within_s=LIMIT_S, ue=bed.key_of(subscriber))
        space = bed.network.namespace("ue")
        await GuestClient(space, one.pvm_address).wait_until_up(LIMIT_S)
        bed.prefer_guests()
        file = tmp_path / "stream.csv"
        stream = await bed.start("stream", *PYTHON, "testbed.bench.stream", one.pvm_address, str(file), namespace=space)
        before = await flows_of(bed, one.pvm_address)
        assert before
        seen = json.loads(await netns.command(*PYTHON, "mobiscud", "status", "--json", "-c", str(bed.config_of("c1"))))
        assert {ue["ue"]: (ue["ue_at"], ue["pvm_at"]) for ue in seen["ues"]} == {
            bed.key_of(one): ("c1", ["c1"]),
            bed.key_of(other): ("c1", ["c1"]),
        }
        assert {vm["id"] for vm in seen["personal_vms"]} == {one.pvm_id, other.pvm_id}

        rules = [
            {"traffic_rule_id": "all", "subscribers": {"imsi": one.imsi}, "action": "FORWARD_DECAPSULATED"},
            {
                "traffic_rule_id": "web",
                "subscribers": {"imsi": other.imsi},
                "traffic_filter": [{"protocol": "tcp", "dst_port": [80, 443]}],
                "action": "FORWARD_DECAPSULATED",
            },
        ]
        changed = await happens("offload.changed", offload(one, other, rules=rules))
        removed = await happens("offload.removed", offload(one))
        await happens("pvm.stopped", removed)
        assert await flows_of(bed, other.pvm_address) == {}
        activated = await happens("offload.activated", offload(one, other))
        assert activated > removed > changed

        broken = [one.offload(), one.offload()]
        bed.reload_node("c1", offload={"gateway": GATEWAY, "subscribers": broken})
        async with asyncio.timeout(LIMIT_S):
            while "the running one stays" not in bed.nodes["c1"].log.read_text():  # noqa: ASYNC110  # a log tells nobody
                await asyncio.sleep(0.05)
        await stream.stop()
        after = await flows_of(bed, one.pvm_address)
        of_one = [event for event in bed.events[changed:] if event["data"].get("ue") == bed.key_of(one)]
        about_one = [event for event in of_one if not event["type"].endswith(".usage.reported")]

    assert before.keys() == after.keys()
    for flow, (age, packets) in before.items():
        assert after[flow][0] > age, f"{flow} was made anew"
        assert after[flow][1] >= packets
    pings = results.load_pings(file)
    assert len(pings) > 100
    assert [ping.seq for ping in pings if ping.received_ns is None] == []
    assert about_one == [], "nothing is said of the other UE either"
