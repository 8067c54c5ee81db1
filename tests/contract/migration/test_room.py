"""Who fits on a host, who gives way, and who is told to stay away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from migration.service import PersonalVmHost
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId

PVM = Pvm(PvmId("pvm-1"), "10.91.0.50", "52:54:00:00:00:32")
OTHER = replace(PVM, id=PvmId("pvm-2"), address="10.91.0.51", mac="52:54:00:00:00:33")
THIRD = replace(PVM, id=PvmId("pvm-3"), address="10.91.0.52", mac="52:54:00:00:00:34")

OpenSite = Callable[..., AbstractAsyncContextManager[Any]]


async def test_a_host_takes_no_more_than_it_has_room_for(open_site: OpenSite) -> None:
    async with open_site(1, max_memory_mib=2 * 128) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        await here.vms.start(OTHER)
        for refused in (here.vms.start, here.vms.expect):
            with pytest.raises(AdapterError, match="no room"):
                await refused(THIRD)
        await here.vms.start(PVM)
        assert await here.vms.running() == (PVM.id, OTHER.id)
        await here.vms.stop(PVM.id)
        await here.vms.start(THIRD)
        assert await here.vms.running() == (OTHER.id, THIRD.id)


async def test_the_pool_keeps_the_latest_in_memory_and_those_give_way_too(open_site: OpenSite, tmp_path: Path) -> None:
    settings = {"on_stop": "pause", "pool": 1, "max_pvms": 2, "saved_images": tmp_path / "saved"}
    async with open_site(1, **settings) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        await here.vms.start(OTHER)
        boot_ids = [await site.boot_id(pvm) for pvm in (PVM, OTHER)]
        await here.vms.stop(PVM.id)
        await here.vms.stop(OTHER.id)
        assert await here.vms.standing_still() == (OTHER.id,)

        await here.vms.start(PVM)  # from its image, beside the paused one
        await here.vms.start(THIRD)  # in place of the paused one
        assert await here.vms.running() == (PVM.id, THIRD.id)
        assert await here.vms.standing_still() == ()
        await here.vms.stop(THIRD.id)
        await here.vms.start(OTHER)
        assert [await site.boot_id(pvm) for pvm in (PVM, OTHER)] == boot_ids


async def test_a_pool_is_filled_from_saved_images_while_there_is_room(open_site: OpenSite, tmp_path: Path) -> None:
    settings = {"on_stop": "pause", "pool": 0, "saved_images": tmp_path / "saved"}
    async with open_site(1, **settings) as site:
        (here,) = site.cloudlets
        for pvm in (PVM, OTHER):
            await here.vms.start(pvm)
            await site.boot_id(pvm)
        boot_id = await site.boot_id(OTHER)
        for pvm in (PVM, OTHER):
            await here.vms.stop(pvm.id)
        assert await here.vms.standing_still() == ()
        async with again(here, pool=1) as vms:
            await vms.fill_pool((THIRD, OTHER, PVM))
            assert await vms.standing_still() == (OTHER.id,)
            assert await vms.running() == ()
            await vms.start(OTHER)
            assert await site.boot_id(OTHER) == boot_id
        async with again(here, pool=1, max_pvms=1) as vms:
            await vms.fill_pool((PVM,))
            assert await vms.standing_still() == ()


def again(cloudlet: Any, **settings: Any) -> PersonalVmHost:
    """Another node that takes the same host over, with other settings."""
    config = cloudlet.config.model_copy(update=settings)
    return PersonalVmHost(config, cloudlet.gateway, lambda notice: None, hypervisor=cloudlet.hypervisor)


async def test_a_pvm_that_comes_finds_nothing_of_its_past(open_site: OpenSite, tmp_path: Path) -> None:
    async with open_site(2, on_stop="pause", saved_images=tmp_path / "saved") as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        past = await site.boot_id(PVM)
        await here.vms.stop(PVM.id)
        await there.vms.start(PVM)
        present = await site.boot_id(PVM)
        assert present != past

        await here.vms.expect(PVM)
        assert await here.vms.standing_still() == ()
        await there.vms.migrate(PVM.id, here.migration_uri)
        assert await site.boot_id(PVM) == present
