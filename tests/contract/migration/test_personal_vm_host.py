"""What every hypervisor owes to ``PersonalVmHost``, and that to its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from migration.errors import MigrationError
from migration.lifecycle import PvmResumed, PvmStopped, PvmSuspended, StopReason
from migration.verdict import MigrationProgress, Phase, Whereabouts
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId

PVM = Pvm(PvmId("pvm-1"), "10.91.0.50", "52:54:00:00:00:32")

OpenSite = Callable[..., AbstractAsyncContextManager[Any]]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

SLOW = {"mode": "pre_copy", "bandwidth_mib_s": 1}
"""Some fifty seconds a migration: time to do something else meanwhile."""


async def test_a_started_pvm_runs_and_a_second_start_leaves_it_alone(open_site: OpenSite) -> None:
    async with open_site(1) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        assert await here.vms.running() == (PVM.id,)
        boot_id = await site.boot_id(PVM)

        await here.vms.start(PVM)
        assert await site.boot_id(PVM) == boot_id
        (resumed,) = here.notices
        assert resumed == PvmResumed(PVM.id, resumed.at_ns, migrated=False)


async def test_a_stopped_pvm_is_gone_and_can_start_anew(open_site: OpenSite, eventually: Eventually) -> None:
    async with open_site(1) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        first = await site.boot_id(PVM)
        await here.vms.stop(PVM.id)
        await here.vms.stop(PVM.id)
        assert await here.vms.running() == ()

        async def said_so() -> bool:
            return [notice.reason for notice in here.heard(PvmStopped)] == [StopReason.DESTROYED]

        await eventually(said_so)
        await here.vms.start(PVM)
        assert await site.boot_id(PVM) != first


@pytest.mark.parametrize(("on_stop", "reason"), [("save", StopReason.SAVED), ("pause", None)])
async def test_a_kept_pvm_goes_on_where_it_was(
    open_site: OpenSite, eventually: Eventually, tmp_path: Path, on_stop: str, reason: StopReason | None
) -> None:
    async with open_site(1, on_stop=on_stop, saved_images=tmp_path / "saved") as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        await here.vms.stop(PVM.id)
        await here.vms.stop(PVM.id)
        assert await here.vms.running() == ()

        assert await here.vms.start(PVM, kept=True) is None
        assert await here.vms.running() == (PVM.id,)
        assert await site.boot_id(PVM) == boot_id
        assert list((tmp_path / "saved").glob("*")) == []

        async def said_so() -> bool:
            return [type(notice) for notice in here.notices][-1] is PvmResumed

        await eventually(said_so)
        assert [notice.reason for notice in here.heard(PvmStopped)] == ([] if reason is None else [reason])


async def test_an_image_of_another_description_is_not_used(open_site: OpenSite, tmp_path: Path) -> None:
    async with open_site(1, on_stop="save", saved_images=tmp_path / "saved") as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        await here.vms.stop(PVM.id)

        moved = replace(PVM, address="10.91.0.51")
        assert "of another description" in await here.vms.start(moved, kept=True)
        assert await site.boot_id(moved) != boot_id
        assert list((tmp_path / "saved").glob("*")) == []


async def test_a_host_that_makes_ready_leaves_alone_what_another_keeps(open_site: OpenSite, tmp_path: Path) -> None:
    """Both in one directory, as hosts that share their disks may have it."""
    async with open_site(2, on_stop="save", saved_images=tmp_path / "saved") as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        await here.vms.stop(PVM.id)

        await there.vms.expect(PVM)
        await here.vms.start(PVM)
        assert await site.boot_id(PVM) == boot_id


async def test_a_pvm_migrates_along_a_chain_and_stays_itself(open_site: OpenSite, eventually: Eventually) -> None:
    async with open_site(3) as site:
        await site.cloudlets[0].vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        for source, target in pairwise(site.cloudlets):
            samples: list[MigrationProgress] = []
            outcome = await source.vms.migrate(PVM.id, target.migration_uri, progress=samples.append)
            assert outcome.mode is source.vms.mode
            assert outcome.total_ms > 0
            assert outcome.iterations >= 1
            assert outcome.bytes_moved > 1 << 20
            assert samples[-1].phase is Phase.DONE
            assert await source.vms.running() == ()
            assert await target.vms.running() == (PVM.id,)
            assert await site.boot_id(PVM) == boot_id

            async def left_and_arrived(source: Any = source, target: Any = target) -> bool:
                return bool(source.heard(PvmStopped) and target.heard(PvmResumed))

            await eventually(left_and_arrived)
            *_, suspended, stopped = source.notices
            (resumed,) = target.notices
            assert suspended == PvmSuspended(PVM.id, suspended.at_ns, migrating=True)
            assert resumed == PvmResumed(PVM.id, resumed.at_ns, migrated=True)
            assert stopped == PvmStopped(PVM.id, stopped.at_ns, StopReason.MIGRATED)
            assert suspended.at_ns < resumed.at_ns < stopped.at_ns


async def test_an_unreachable_target_leaves_the_pvm_where_it_is(open_site: OpenSite) -> None:
    async with open_site(2) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        with pytest.raises(MigrationError) as caught:
            await here.vms.migrate(PVM.id, site.nowhere)
        assert caught.value.whereabouts is Whereabouts.SOURCE
        assert not caught.value.aborted
        assert await here.vms.running() == (PVM.id,)
        assert here.heard(PvmSuspended) == []

        await here.vms.migrate(PVM.id, there.migration_uri)
        assert await site.boot_id(PVM) == boot_id


async def test_a_target_that_has_the_pvm_already_refuses_it(open_site: OpenSite) -> None:
    async with open_site(2) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        await there.vms.start(PVM)
        with pytest.raises(MigrationError) as caught:
            await here.vms.migrate(PVM.id, there.migration_uri)
        assert caught.value.whereabouts is Whereabouts.SOURCE
        assert await here.vms.running() == (PVM.id,)


async def test_a_pvm_that_is_not_here_cannot_migrate(open_site: OpenSite) -> None:
    async with open_site(2) as site:
        here, there = site.cloudlets
        with pytest.raises(MigrationError) as caught:
            await here.vms.migrate(PVM.id, there.migration_uri)
        assert caught.value.whereabouts is Whereabouts.UNKNOWN


async def test_an_aborted_migration_leaves_the_pvm_at_the_source(open_site: OpenSite) -> None:
    async with open_site(2, **SLOW) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        is_copying = asyncio.Event()

        def watch(sample: MigrationProgress) -> None:
            if sample.iteration:
                is_copying.set()

        moving = asyncio.create_task(here.vms.migrate(PVM.id, there.migration_uri, progress=watch))
        await is_copying.wait()
        await here.vms.abort(PVM.id)
        with pytest.raises(MigrationError) as caught:
            await moving
        assert caught.value.aborted
        assert caught.value.whereabouts is Whereabouts.SOURCE
        assert await here.vms.running() == (PVM.id,)
        assert await there.vms.running() == ()
        assert there.notices == []
        assert here.heard(PvmSuspended) == []
        assert await site.boot_id(PVM) == boot_id


async def test_a_user_who_moves_on_is_followed_at_once_and_home_without_a_copy_left(open_site: OpenSite) -> None:
    async with open_site(3, **SLOW) as site:
        here, there, beyond = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        for target in (there, beyond, there):
            is_copying = asyncio.Event()

            def watch(sample: MigrationProgress, seen: asyncio.Event = is_copying) -> None:
                if sample.iteration:
                    seen.set()

            moving = asyncio.create_task(here.vms.migrate(PVM.id, target.migration_uri, progress=watch))
            await is_copying.wait()
            await here.vms.abort(PVM.id)
            with pytest.raises(MigrationError) as caught:
                await moving
            assert caught.value.stayed
            assert [await cloudlet.vms.running() for cloudlet in site.cloudlets] == [(PVM.id,), (), ()]
        assert here.heard(PvmSuspended) == []
        assert await site.boot_id(PVM) == boot_id


async def test_an_abort_that_comes_too_early_is_not_forgotten(open_site: OpenSite, eventually: Eventually) -> None:
    async with open_site(2, **SLOW) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        moving = asyncio.create_task(here.vms.migrate(PVM.id, there.migration_uri))

        async def begins() -> bool:
            return bool(here.vms.is_migrating(PVM.id))

        await eventually(begins)
        await here.vms.abort(PVM.id)
        with pytest.raises(MigrationError) as caught:
            await moving
        assert caught.value.aborted
        assert await here.vms.running() == (PVM.id,)


async def test_nobody_waits_for_a_cancelled_migration_and_it_ends(open_site: OpenSite) -> None:
    async with open_site(2, **SLOW) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        is_copying = asyncio.Event()
        moving = asyncio.create_task(here.vms.migrate(PVM.id, there.migration_uri, progress=lambda _: is_copying.set()))
        await is_copying.wait()
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        assert not here.vms.is_migrating(PVM.id)
        assert await here.vms.running() == (PVM.id,)
        assert await there.vms.running() == ()


async def test_nothing_to_abort_is_fine(open_site: OpenSite) -> None:
    async with open_site(1) as site:
        (here,) = site.cloudlets
        await here.vms.abort(PVM.id)
        await here.vms.start(PVM)
        await here.vms.abort(PVM.id)
        assert await here.vms.running() == (PVM.id,)


async def test_a_hypervisor_that_restarts_is_found_again_with_its_pvm(
    open_site: OpenSite, eventually: Eventually
) -> None:
    async with open_site(1) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        await site.restart_daemon(here)

        async def has_it() -> bool:
            return bool(await here.vms.running() == (PVM.id,))

        await eventually(has_it)
        assert await site.boot_id(PVM) == boot_id
        assert here.heard(PvmStopped) == []
        await here.vms.stop(PVM.id)

        async def said_so() -> bool:
            return len(here.heard(PvmStopped)) == 1

        await eventually(said_so)
