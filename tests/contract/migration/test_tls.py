"""Hosts that talk over TLS: nothing of a guest can be read on the way, and a stranger gets none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from migration.errors import MigrationError
from migration.verdict import Whereabouts
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId
from testbed.spawn import spawn

pytestmark = pytest.mark.system

PVM = Pvm(PvmId("pvm-1"), "10.91.0.50", "52:54:00:00:00:32", image="with-disk")

OpenSite = Callable[..., AbstractAsyncContextManager[Any]]
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.mark.parametrize(("authorities", "readable"), [((), True), (("ca", "ca"), False)])
async def test_memory_that_migrates_can_be_read_on_the_wire_unless_it_is_over_tls(
    open_real_site: OpenSite, eventually: Eventually, tmp_path: Path, authorities: tuple[str, ...], readable: bool
) -> None:
    diskless = replace(PVM, image=None)
    async with open_real_site(2, authorities=authorities) as site:
        here, there = site.cloudlets
        await here.vms.start(diskless)
        boot_id = await site.boot_id(diskless)
        capture = tmp_path / "wire.pcap"
        tcpdump = ("tcpdump", "-i", "mgmt", "-B", "65536", "-U", "-w", str(capture), "tcp")
        reading = await spawn("tcpdump", *tcpdump, log=tmp_path / "tcpdump.log", namespace=site.client_namespace)
        try:

            async def begins() -> bool:
                return "listening on" in (tmp_path / "tcpdump.log").read_text()

            await eventually(begins)
            await here.vms.migrate(diskless.id, there.migration_uri)
        finally:
            await reading.stop()
        assert capture.stat().st_size > 1 << 20
        assert (boot_id.encode() in capture.read_bytes()) is readable
        assert await site.boot_id(diskless) == boot_id


async def test_a_disk_goes_along_over_tls(open_real_site: OpenSite) -> None:
    async with open_real_site(2, authorities=("ca", "ca")) as site:
        here, there = site.cloudlets
        await here.vms.start(PVM)
        await site.write_disk(PVM, 3)
        written = await site.disk(PVM)
        await there.vms.expect(PVM)
        await here.vms.migrate(PVM.id, there.migration_uri)
        assert await site.disk(PVM) == written


async def test_a_host_with_a_certificate_of_another_authority_gets_no_guest(open_real_site: OpenSite) -> None:
    async with open_real_site(2, authorities=("ca", "other")) as site:
        for source, target in (site.cloudlets, reversed(site.cloudlets)):
            await source.vms.start(replace(PVM, image=None))
            with pytest.raises(MigrationError, match="certificate") as caught:
                await source.vms.migrate(PVM.id, target.migration_uri)
            assert caught.value.whereabouts is Whereabouts.SOURCE
            assert await target.vms.running() == ()
            await source.vms.stop(PVM.id)
