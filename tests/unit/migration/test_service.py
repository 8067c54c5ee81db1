"""The service on hypervisors that behave, for what real ones cannot be made to do at will."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from migration.errors import HypervisorLostError, MigrationError
from migration.lifecycle import Notice, PvmResumed, PvmState, PvmStopped, PvmSuspended, StopReason
from migration.service import PersonalVmHost
from migration.verdict import MigrationMode, Whereabouts
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig
from testbed.fake_hypervisor import FakeHypervisor, FakeSite

PVM = Pvm(PvmId("pvm-1"), "172.16.0.10", "52:54:00:00:00:10")


def host(hypervisor: FakeHypervisor, notices: list[Notice], *, limit_s: float = 60, **settings: Any) -> PersonalVmHost:
    config = HypervisorConfig(cloudlet="c1", kernel=Path("/k"), initrd=Path("/i"), **settings)
    return PersonalVmHost(
        config, IPv4Interface("172.16.0.1/16"), notices.append, hypervisor=hypervisor, limit_s=limit_s
    )


@pytest.mark.parametrize("mode", list(MigrationMode))
async def test_either_mode_moves_the_guest_and_leaves_no_copy(mode: MigrationMode) -> None:
    site = FakeSite()
    source = site.add("c1")
    site.add("c2")
    notices: list[Notice] = []
    async with host(source, notices, mode=mode.value) as vms:
        await vms.start(PVM)
        outcome = await vms.migrate(PVM.id, "c2")
    assert outcome.mode is mode
    assert (outcome.downtime_ms is None) == (mode is MigrationMode.POST_COPY)
    assert source.guests == {}
    assert len(site.running_copies(PVM.id)) == 1
    assert [type(notice) for notice in notices] == [PvmResumed, PvmSuspended, PvmStopped]


async def test_a_migration_that_takes_too_long_is_aborted() -> None:
    site = FakeSite()
    source = site.add("c1")
    site.add("c2")
    async with host(source, [], limit_s=0.05, bandwidth_mib_s=1) as vms:
        await vms.start(PVM)
        with pytest.raises(MigrationError) as caught:
            await vms.migrate(PVM.id, "c2")
        assert caught.value.aborted
        assert caught.value.whereabouts is Whereabouts.SOURCE
        assert await vms.running() == (PVM.id,)


async def test_an_abort_that_the_hypervisor_loses_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration.verdict.ABORT_LIMIT_MS", 50.0)
    site = FakeSite()
    source = site.add("c1")
    site.add("c2")
    source.loses_aborts = True
    async with host(source, [], limit_s=0.05, bandwidth_mib_s=1) as vms:
        await vms.start(PVM)
        with pytest.raises(MigrationError, match="lost sight") as caught:
            await vms.migrate(PVM.id, "c2")
        assert caught.value.whereabouts is Whereabouts.SOURCE
        assert await vms.running() == (PVM.id,)


async def test_no_more_leave_at_once_than_may() -> None:
    site = FakeSite()
    source, target = site.add("c1"), site.add("c2")
    pvms = [replace(PVM, id=PvmId(f"pvm-{number}")) for number in range(4)]
    async with host(source, [], migrations=2, bandwidth_mib_s=1000) as vms:
        for pvm in pvms:
            await vms.start(pvm)
        moving = [asyncio.create_task(vms.migrate(pvm.id, "c2")) for pvm in pvms]
        await asyncio.sleep(0)
        assert all(vms.is_migrating(pvm.id) for pvm in pvms)
        await vms.abort(pvms[3].id)  # it waits for its turn still
        with pytest.raises(MigrationError, match="before it began") as caught:
            await moving[3]
        assert caught.value.stayed
        assert caught.value.aborted
        most = 0
        while not all(task.done() for task in moving):
            most = max(most, source.copying)
            await asyncio.wait(moving, timeout=0.001)
        assert most == 2
    assert sorted(target.guests) == [pvm.id for pvm in pvms[:3]]
    assert sorted(source.guests) == [pvms[3].id]


async def test_a_pvm_that_stands_still_is_not_started_over() -> None:
    site = FakeSite()
    hypervisor = site.add("c1")
    async with host(hypervisor, []) as vms:
        await vms.start(PVM)
        hypervisor.guests[PVM.id].state = PvmState.SUSPENDED
        with pytest.raises(AdapterError, match="stands still"):
            await vms.start(PVM)
        assert await vms.running() == ()


async def test_a_notice_that_tells_nothing_new_is_kept_back() -> None:
    notices: list[Notice] = []
    async with host(FakeSite().add("c1"), notices) as vms:
        await vms.start(PVM)
        paused = PvmSuspended(PVM.id, time.time_ns(), migrating=False)
        vms.on_notice(paused)
        vms.on_notice(PvmSuspended(PVM.id, time.time_ns(), migrating=True))
        vms.on_notice(PvmStopped(PVM.id, time.time_ns(), StopReason.CRASHED))
        vms.on_notice(PvmStopped(PVM.id, time.time_ns(), StopReason.UNKNOWN))
    assert [type(notice) for notice in notices] == [PvmResumed, PvmSuspended, PvmStopped]
    assert notices[1] is paused


async def test_what_was_there_before_is_known() -> None:
    site = FakeSite()
    hypervisor = site.add("c1")
    async with host(hypervisor, []) as vms:
        await vms.start(PVM)
    notices: list[Notice] = []
    async with host(hypervisor, notices) as vms:
        assert await vms.running() == (PVM.id,)
        await vms.stop(PVM.id)
    assert [type(notice) for notice in notices] == [PvmStopped]


async def test_a_guest_is_fenced_with_its_hypervisor_or_without(monkeypatch: pytest.MonkeyPatch) -> None:
    hypervisor = FakeSite().add("c1")
    forced: list[PvmId] = []
    monkeypatch.setattr("migration.service.end_by_force", forced.append)
    monkeypatch.setattr("migration.service.FENCE_LIMIT_S", 0.05)

    async def refuse(_: PvmId) -> None:
        raise HypervisorLostError("it is gone")

    async def hang(_: PvmId) -> None:
        await asyncio.Event().wait()

    async with host(hypervisor, [], on_stop="pause") as vms:
        await vms.start(PVM)
        await vms.fence(PVM.id)
        assert await vms.state(PVM.id) is PvmState.ABSENT
        assert forced == []
        for destroy in (refuse, hang):
            monkeypatch.setattr(hypervisor, "destroy", destroy)
            await vms.fence(PVM.id)
        assert forced == [PVM.id] * 2


async def test_it_is_used_only_inside_async_with() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = host(FakeSite().add("c1"), []).facts
