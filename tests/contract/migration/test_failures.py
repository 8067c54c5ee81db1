"""Real parts die during a migration; whoever asks all hosts and does what ``settle`` says is left with one guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migration.errors import MigrationError
from migration.fencing import end_by_force
from migration.lifecycle import PvmResumed, PvmState
from migration.service import NOTHING_KEPT
from migration.verdict import MigrationMode, MigrationProgress
from mobiscud.controller.settling import Settler
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, PvmId, UeKey
from mobiscud.core.ownership import Claim, Settlement, Standing, Statement
from testbed import netns

pytestmark = pytest.mark.system

PVM = Pvm(PvmId("pvm-1"), "10.91.0.50", "52:54:00:00:00:32")
UE = UeKey("ue-0000000000000001")
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


@dataclass(frozen=True)
class Controller:
    """A host's controller, as far as a settlement concerns it."""

    host: Any
    cloudlet: Any

    async def state(self, pvm_id: PvmId) -> PvmState:
        statement = await ask(self.cloudlet)
        if statement is None:
            raise AdapterError("the hypervisor is silent")
        return statement

    async def fence(self, pvm_id: PvmId) -> None:
        if await ask(self.cloudlet) is None:
            await asyncio.to_thread(end_by_force, pvm_id, network_of(self.host))
        else:
            await self.cloudlet.vms.fence(pvm_id)

    async def let_run(self, pvm_id: PvmId) -> None:
        await self.cloudlet.vms.let_run(pvm_id)


async def settled(site: Any) -> Settlement | None:
    """Have the source's controller ask and act once; None where it stays in doubt."""
    here, there = (Controller(host, cloudlet) for host, cloudlet in zip(site.hosts, site.cloudlets, strict=True))

    async def question(_: CloudletId, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name == "fence":
            await there.fence(PVM.id)
            return {}
        return {"epoch": CLAIM.epoch, "state": await there.state(PVM.id)}

    return await Settler(CloudletId("c1"), here, question).attempt(UE, PVM, CLAIM)


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
        if await settled(site) is None:  # the source has let go, and the heir is silent
            await site.hosts[1].start_daemon()

        async def found() -> bool:
            settlement = await settled(site)
            return settlement is not None and settlement.standing is Standing.SETTLED

        await eventually(found)
        assert sum(len(processes(host)) for host in site.hosts) == 1
        assert await site.boot_id(PVM) == boot_id


async def test_a_source_whose_daemon_dies_keeps_the_guest_and_says_so_when_it_is_back(
    open_real_site: OpenSite, eventually: Eventually
) -> None:
    async with open_real_site(2, **SLOW) as site:
        await site.cloudlets[0].vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        moving = await migrating(site)
        await site.hosts[0].kill_daemon()
        with pytest.raises(MigrationError) as caught:
            await moving
        assert not caught.value.stayed  # nobody can know

        async def alone() -> bool:
            return processes(site.hosts[1]) == []

        await eventually(alone)
        assert await settled(site) is None
        await site.hosts[0].start_daemon()

        async def found() -> bool:
            settlement = await settled(site)
            return settlement is not None and settlement.claim == CLAIM.stays()

        await eventually(found)
        assert [len(processes(host)) for host in site.hosts] == [1, 0]
        assert await site.boot_id(PVM) == boot_id


async def test_a_target_whose_process_dies_leaves_the_guest_at_the_source(open_real_site: OpenSite) -> None:
    async with open_real_site(2, **SLOW) as site:
        await site.cloudlets[0].vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        moving = await migrating(site)
        (process,) = processes(site.hosts[1])
        os.kill(process, signal.SIGKILL)
        with pytest.raises(MigrationError) as caught:
            await moving
        assert caught.value.stayed
        assert [len(processes(host)) for host in site.hosts] == [1, 0]
        assert await site.boot_id(PVM) == boot_id


async def test_a_link_that_is_cut_leaves_the_guest_at_the_source(
    open_real_site: OpenSite, eventually: Eventually
) -> None:
    async with open_real_site(2, **SLOW) as site:
        await site.cloudlets[0].vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        moving = await migrating(site)
        await netns.ip_batch(["link set mgmt down"], site.hosts[1].netns)
        with pytest.raises(MigrationError) as caught:
            await moving
        assert caught.value.stayed
        assert await site.boot_id(PVM) == boot_id

        async def swept() -> bool:
            return processes(site.hosts[1]) == []

        await eventually(swept)


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
            settlement = await settled(site)
            return settlement is not None and settlement.standing is Standing.LOST

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
        assert await settled(site) is None

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
        assert await here.vms.start(PVM, kept=True) == NOTHING_KEPT
        await site.boot_id(PVM)


async def test_a_saved_image_that_is_damaged_is_told_and_the_guest_begins_anew(
    open_real_site: OpenSite, tmp_path: Path
) -> None:
    async with open_real_site(1, on_stop="save", saved_images=tmp_path / "saved") as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        await here.vms.stop(PVM.id)
        (image,) = (tmp_path / "saved").iterdir()
        os.truncate(image, image.stat().st_size // 2)
        assert "its saved memory is of no use" in await here.vms.start(PVM, kept=True)
        assert await site.boot_id(PVM) != boot_id
        assert list((tmp_path / "saved").iterdir()) == []
