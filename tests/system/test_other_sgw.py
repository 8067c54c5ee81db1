"""The S-GW of a UE changes: the uplink leaves its eNodeB for another address and by another TEID."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from flows.gtp_datapath.addresses import shown
from mobiscud.bus.cloudevents import TYPE_PREFIX
from testbed import results
from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.rules_in_place import Rules, rules_for_ues
from testbed.spawn import PYTHON
from testbed.topology import OTHER_SGW_S1, SGW_S1, Delays

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(180),
]

LIMIT_S = 60.0
SETTLE_S = 0.8
"""In which the session at the old S-GW is deleted, 0.3 s after the handover."""


async def test_the_path_follows_the_uplink_to_another_sgw_and_back(tmp_path: Path) -> None:
    other = frozenset({2})
    setting = Setting(delays=Delays(), dwell_s=0.0, policy="stay", cloudlets=2, other_sgw_cells=other, preferred=True)
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:
        space = bed.network.namespace("ue")
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        guest = GuestClient(space, PVM_ADDRESS)
        await guest.wait_until_up(LIMIT_S)
        bed.prefer_guests()
        begin = len(bed.events)
        first = await uplinks(bed)
        assert {sgw for sgw, _ in first} == {SGW_S1}

        file = tmp_path / "stream.csv"
        command = (*PYTHON, "testbed.bench.stream", PVM_ADDRESS, str(file), "--interval", "0.001")
        stream = await bed.start("stream", *command, namespace=space)
        await asyncio.sleep(SETTLE_S)
        before = first
        for target, sgw in ((2, OTHER_SGW_S1), (1, SGW_S1)):
            mark = len(bed.events)
            await bed.ran.handover(UE, target, kind="x2")
            place = await bed.event("handover.completed", after=mark, within_s=LIMIT_S)
            [bearer] = bed.events[place]["data"]["bearers"]
            told = (bearer["uplink"]["address"], int(bearer["uplink"]["teid"], 16))
            assert told[0] == sgw
            assert told not in before
            await bed.event("offload.moved", after=mark, within_s=LIMIT_S)
            await asyncio.sleep(SETTLE_S)
            assert await uplinks(bed) == {told}, "the new tunnel, at both cloudlets, and none of the old"
            async with asyncio.timeout(LIMIT_S):  # who the UE has left still sends what was on its way there
                while await downlink_sgws(bed) != {sgw}:  # noqa: ASYNC110 - maps tell nobody
                    await asyncio.sleep(0.1)
            before = {told}
        await stream.stop()
        await bed.ran.detach(UE)
        async with asyncio.timeout(LIMIT_S):
            while any(rules.uplink or rules.downlink or rules.flows for rules in await every(bed)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    kinds = [event["type"].removeprefix(TYPE_PREFIX) for event in bed.events[begin:]]
    assert kinds.count("handover.completed") == 2
    assert "monitor.desynchronised" not in kinds
    assert kinds.count("ue.detached") == 1
    pings = results.load_pings(file)
    assert len(pings) > 2000
    assert [ping.seq for ping in pings if ping.received_ns is None] == []


async def every(bed: RunningTestbed) -> list[Rules]:
    """What stands for UEs at each cloudlet."""
    return [await rules_for_ues(bed, number) for number in bed.switches]


async def downlink_sgws(bed: RunningTestbed) -> set[str]:
    """The S-GWs in whose name anything is sent to a UE."""
    return {shown(tunnel[:16]) for rules in await every(bed) for tunnel in rules.downlink.values()}


async def uplinks(bed: RunningTestbed) -> set[tuple[str, int]]:
    """The S-GWs' ends, address and TEID, of which traffic is taken anywhere."""
    return {(shown(key[16:32]), int.from_bytes(key[-4:])) for rules in await every(bed) for key in rules.uplink}
