"""UEs that no cloudlet has, idle or at a cell without one: their PVMs reach them by the core, and they their PVMs."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from testbed import results
from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.netns_socket import socket_in
from testbed.spawn import PYTHON
from testbed.topology import Delays

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(240),
]

LIMIT_S = 90.0
PORT = 4000
CALLS = 40
SOME = 40
BARE = 3
"""The cell without cloudlet."""


async def heard(listener: socket.socket, count: int) -> list[int]:
    """The numbers of so many datagrams, as they come."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LIMIT_S):
        return [int.from_bytes(await loop.sock_recv(listener, 64)) for _ in range(count)]


def answers(file: Path) -> int:
    return sum(ping.received_ns is not None for ping in results.load_pings(file)) if file.exists() else 0


async def more_answers(file: Path) -> None:
    enough = answers(file) + SOME
    async with asyncio.timeout(LIMIT_S):
        while answers(file) < enough:  # noqa: ASYNC110  # a file tells nobody when it grows
            await asyncio.sleep(0.05)


async def paged(bed: RunningTestbed, guest: GuestClient) -> None:
    """The UE falls idle; then its PVM calls."""
    with socket_in(bed.network.namespace("ue"), socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("0.0.0.0", PORT))
        await guest.call(PORT, CALLS, interval_ms=20, delay_ms=2000)
        mark = len(bed.events)
        await bed.ran.idle(UE)
        await bed.event("offload.removed", after=mark, within_s=LIMIT_S, cloudlet="c1", via="core")
        numbers = await heard(listener, CALLS)
        idle = await bed.event("ue.idle", after=mark, within_s=LIMIT_S)
        await bed.event("ue.connected", after=idle, within_s=LIMIT_S)
        await bed.event("offload.moved", after=idle, within_s=LIMIT_S, cloudlet="c1", via="local")
    assert sorted(numbers) == list(range(CALLS)), "no call is lost: the S-GW keeps them while it pages"


async def test_a_ue_that_no_cloudlet_has_and_its_pvm_find_each_other(tmp_path: Path) -> None:
    setting = Setting(delays=Delays(), dwell_s=0.5, cloudlets=2, bare_cells=1, preferred=True)
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:
        space = bed.network.namespace("ue")
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        guest = GuestClient(space, PVM_ADDRESS)
        boot = await guest.wait_until_up(LIMIT_S)
        await paged(bed, guest)

        file = tmp_path / "pings.csv"
        pinger = await bed.start(
            "pinger", *PYTHON, "testbed.pinger", PVM_ADDRESS, str(file), "--interval", "0.01", namespace=space
        )
        await more_answers(file)
        for target, kind, cloudlet in ((BARE, "x2", "c1"), (1, "s1", "c1"), (BARE, "s1", "c1"), (2, "x2", "c2")):
            mark = len(bed.events)
            await bed.ran.handover(UE, target, kind=kind)
            expected = "offload.removed" if target == BARE else "offload.moved" if target == 1 else "offload.activated"
            await bed.event(expected, after=mark, within_s=LIMIT_S, cloudlet=cloudlet)
            await more_answers(file)
        moved = await bed.event("pvm.migrated", after=mark, within_s=LIMIT_S, to_cloudlet="c2")
        await more_answers(file)
        await bed.ran.handover(UE, BARE, kind="s1")
        await bed.event("offload.removed", after=moved, within_s=LIMIT_S, cloudlet="c2")
        await more_answers(file)
        await pinger.stop()
        assert (await guest.info()).boot_id == boot.boot_id
    pings = results.load_pings(file)
    [migration] = results.tell(bed.events).migrations
    lost = [p for p in pings if p.received_ns is None and not migration.begun <= p.sent_ns <= migration.completed]
    assert lost == []
