"""A personal VM's own disk: there for ever, and with it wherever it goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from migration.errors import MigrationError
from migration.verdict import Whereabouts
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId

PVM = Pvm(PvmId("pvm-1"), "10.91.0.50", "52:54:00:00:00:32", image="with-disk")
OTHER = replace(PVM, id=PvmId("pvm-2"), address="10.91.0.51", mac="52:54:00:00:00:33")

OpenSite = Callable[..., AbstractAsyncContextManager[Any]]


async def test_what_a_pvm_wrote_outlives_it_and_is_its_own(open_site: OpenSite) -> None:
    async with open_site(1) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        await site.write_disk(PVM, 7)
        written = await site.disk(PVM)
        await here.vms.stop(PVM.id)

        await here.vms.start(PVM)
        assert await site.disk(PVM) == written
        await here.vms.start(OTHER)
        assert await site.disk(OTHER) != written


@pytest.mark.parametrize("shared", [False, True])
async def test_the_disk_goes_along_and_comes_back(open_site: OpenSite, shared: bool) -> None:
    async with open_site(2, shared_disks=shared) as site:
        first, second = site.cloudlets
        await first.vms.start(PVM)
        boot_id = await site.boot_id(PVM)
        for seed, (source, target) in enumerate(pairwise((first, second, first)), start=1):
            await site.write_disk(PVM, seed)
            written = await site.disk(PVM)
            await target.vms.expect(PVM)
            await source.vms.migrate(PVM.id, target.migration_uri)
            assert await site.boot_id(PVM) == boot_id
            assert await site.disk(PVM) == written


async def test_without_a_disk_that_waits_for_it_a_pvm_stays(open_site: OpenSite) -> None:
    async with open_site(2) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        await site.boot_id(PVM)
        with pytest.raises(MigrationError) as caught:
            await here.vms.migrate(PVM.id, there.migration_uri)
        assert caught.value.whereabouts is Whereabouts.SOURCE
        assert await here.vms.running() == (PVM.id,)
