"""Real parts die during a migration; whoever asks all hosts and does what ``settle`` says is left with one guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from migration.errors import MigrationError
from migration.fencing import end_by_force
from migration.lifecycle import PvmResumed, PvmState
from migration.ownership import Claim, Settlement, Standing, Statement, settle
from migration.verdict import MigrationMode, MigrationProgress
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, PvmId

pytestmark = pytest.mark.system

PVM = Pvm(PvmId("pvm-1"), "10.91.0.50", "52:54:00:00:00:32")
CLAIM = Claim(CloudletId("c1")).towards(CloudletId("c2"), MigrationMode.PRE_COPY)
SLOW = {"mode": "pre_copy", "bandwidth_mib_s": 1}
ANSWER_S = 2.0

OpenSite = Callable[..., AbstractAsyncContextManager[Any]]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


async def ask(cloudlet: Any) -> Statement:
    try:
        async with asyncio.timeout(ANSWER_S):
            return PvmState(await cloudlet.vms.state(PVM.id))
    except (AdapterError, TimeoutError):
        return None


async def settled(site: Any) -> Settlement:
    """Ask all, decide, and end the losers' processes as their own hosts would."""
    said = {
        CloudletId(host.name): await ask(cloudlet) for host, cloudlet in zip(site.hosts, site.cloudlets, strict=True)
    }
    settlement = settle(CLAIM, said)
    for host, cloudlet in zip(site.hosts, site.cloudlets, strict=True):
        if host.name in settlement.destroy:
            if said[host.name] is None:
                await asyncio.to_thread(end_by_force, PVM.id, network_of(host))
            else:
                await cloudlet.vms.fence(PVM.id)
    return settlement


def network_of(host: Any) -> Path:
    return Path(f"/proc/{host.init_pid}/ns/net")


def processes(host: Any) -> list[int]:
    """The QEMUs of a host, counted by somebody who trusts nobody."""
    found = []
    home = os.readlink(network_of(host))
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or "qemu-system" not in os.readlink(entry / "exe"):
                continue
            if os.readlink(entry / "ns/net") == home:
                found.append(int(entry.name))
    return found


async def migrating(site: Any) -> asyncio.Task[Any]:
    """Begin a migration from the first host to the second; returns when memory is being copied."""
    copying = asyncio.Event()
    here, there = site.cloudlets

    def watch(sample: MigrationProgress) -> None:
        if sample.iteration:
            copying.set()

    task = asyncio.create_task(here.vms.migrate(PVM.id, there.migration_uri, progress=watch))
    await copying.wait()
    return task


async def test_a_target_whose_daemon_dies_does_not_get_the_guest(open_real_site: OpenSite) -> None:
    async with open_real_site(2, **SLOW) as site:
        await site.cloudlets[0].vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        moving = await migrating(site)
        await site.hosts[1].kill_daemon()
        with pytest.raises(MigrationError):
            await moving
        settlement = await settled(site)
        assert settlement == Settlement(Standing.SETTLED, CLAIM.stays(), frozenset({CloudletId("c2")}))
        assert [len(processes(host)) for host in site.hosts] == [1, 0]
        assert await site.boot_id(PVM) == boot_id


async def test_a_daemon_that_dies_as_the_guest_resumes_leaves_no_second_copy(
    open_real_site: OpenSite, eventually: Eventually
) -> None:
    async with open_real_site(2) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        moving = asyncio.create_task(here.vms.migrate(PVM.id, there.migration_uri))

        async def arrives() -> bool:
            return bool(there.heard(PvmResumed)) or moving.done()

        await eventually(arrives)
        await site.hosts[1].kill_daemon()
        await asyncio.gather(moving, return_exceptions=True)
        if (await settled(site)).standing is Standing.WAITING:  # the source has let go, and the heir is silent
            await site.hosts[1].start_daemon()

        async def found() -> bool:
            return (await settled(site)).standing is Standing.SETTLED

        await eventually(found)
        assert sum(len(processes(host)) for host in site.hosts) == 1
        assert await site.boot_id(PVM) == boot_id


async def test_a_guest_whose_process_dies_at_the_source_is_lost_and_can_start_anew(
    open_real_site: OpenSite, eventually: Eventually
) -> None:
    async with open_real_site(2, **SLOW) as site:
        here, _ = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        moving = await migrating(site)
        (process,) = processes(site.hosts[0])
        os.kill(process, signal.SIGKILL)
        with pytest.raises(MigrationError):
            await moving

        async def lost() -> bool:
            return (await settled(site)).standing is Standing.LOST

        await eventually(lost)
        assert [len(processes(host)) for host in site.hosts] == [0, 0]
        await here.vms.start(PVM)
        assert await site.boot_id(PVM) != boot_id


async def test_a_target_host_that_dies_leaves_the_guest_at_the_source(open_real_site: OpenSite) -> None:
    async with open_real_site(2, **SLOW) as site:
        await site.cloudlets[0].vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        moving = await migrating(site)
        await site.hosts[1].crash()
        with pytest.raises(MigrationError):
            await moving
        assert await ask(site.cloudlets[0]) is PvmState.RUNNING
        assert await site.boot_id(PVM) == boot_id


async def test_a_source_host_that_dies_leaves_no_half_of_a_guest(
    open_real_site: OpenSite, eventually: Eventually
) -> None:
    async with open_real_site(2, **SLOW) as site:
        await site.cloudlets[0].vms.start(PVM)
        await site.boot_id(PVM)
        moving = await migrating(site)
        await site.hosts[0].crash()
        with pytest.raises(MigrationError):
            await moving
        assert (await settled(site)).standing is Standing.WAITING

        async def swept() -> bool:
            return processes(site.hosts[1]) == []

        await eventually(swept)


async def test_a_paused_guest_stays_where_it_is(open_real_site: OpenSite) -> None:
    async with open_real_site(2, on_stop="pause") as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        await here.vms.stop(PVM.id)
        with pytest.raises(MigrationError):
            await here.vms.migrate(PVM.id, there.migration_uri)
        await here.vms.start(PVM)
        assert await site.boot_id(PVM) == boot_id


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on which no image has room."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_a_full_disk_costs_the_memory_but_the_guest_stops(open_real_site: OpenSite, small_disk: Path) -> None:
    async with open_real_site(1, on_stop="save", saved_images=small_disk) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        await site.boot_id(PVM)
        await here.vms.stop(PVM.id)
        assert await ask(here) is PvmState.ABSENT
        assert os.listdir(small_disk) == []
        await here.vms.start(PVM)
        await site.boot_id(PVM)
