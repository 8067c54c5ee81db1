"""A cloudlet of two eNodeBs: between them nothing moves but the tunnel."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from flows.gtp_datapath.addresses import packed, shown
from mobiscud.bus.cloudevents import TYPE_PREFIX
from testbed import results
from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.rules_in_place import rules_for_ues
from testbed.spawn import PYTHON
from testbed.topology import Delays, enb_s1

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(180),
]

LIMIT_S = 60.0
SHARING = 3
"""The eNodeB at the first cloudlet beside the first."""
SETTLE_S = 0.5


async def test_handovers_between_two_enodebs_of_one_cloudlet_move_the_tunnel_alone(tmp_path: Path) -> None:
    setting = Setting(delays=Delays(), dwell_s=0.0, cloudlets=2, sharing_cells=1, preferred=True)
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:
        space = bed.network.namespace("ue")
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        guest = GuestClient(space, PVM_ADDRESS)
        boot = await guest.wait_until_up(LIMIT_S)
        bed.prefer_guests()
        first, neighbour = await rules_for_ues(bed, 1), await rules_for_ues(bed, 2)
        assert {shown(key[:16]) for key in first.uplink} == {enb_s1(1), enb_s1(SHARING)}, "ready for the UE at both"
        begin = len(bed.events)

        file = tmp_path / "stream.csv"
        command = (*PYTHON, "testbed.bench.stream", PVM_ADDRESS, str(file), "--interval", "0.001")
        stream = await bed.start("stream", *command, namespace=space)
        await asyncio.sleep(SETTLE_S)
        for target, kind in ((SHARING, "s1"), (1, "x2"), (SHARING, "x2"), (1, "s1")):
            mark = len(bed.events)
            await bed.ran.handover(UE, target, kind=kind)
            await bed.event("offload.moved", after=mark, within_s=LIMIT_S, cloudlet="c1", via="local")
            await asyncio.sleep(SETTLE_S)  # the source's context is released
            now = await rules_for_ues(bed, 1)
            assert now.flows == first.flows
            assert (now.uplink.keys(), now.downlink.keys()) == (first.uplink.keys(), first.downlink.keys())
            [tunnel] = now.downlink.values()
            assert packed(enb_s1(target)) in tunnel
            assert await rules_for_ues(bed, 2) == neighbour
        await stream.stop()
        assert (await guest.info()).boot_id == boot.boot_id
    kinds = [event["type"].removeprefix(TYPE_PREFIX) for event in bed.events[begin:]]
    assert kinds.count("handover.completed") == 4
    assert [kind for kind in kinds if kind.startswith(("pvm.", "monitor.des"))] == []
    pings = results.load_pings(file)
    assert len(pings) > 2000
    assert [ping.seq for ping in pings if ping.received_ns is None] == []
