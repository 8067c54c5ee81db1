"""What fits on a host, and what gives way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from migration.room import Room, refusal
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig
from testbed.fake_hypervisor import FakeSite

A, B, C = PvmId("a"), PvmId("b"), PvmId("c")


def host(**limits: Any) -> HypervisorConfig:
    return HypervisorConfig(cloudlet="c1", **limits)


def test_without_limits_everything_fits() -> None:
    assert refusal(host(), {A: 1 << 20, B: 1 << 20}, 1 << 20) is None


def test_the_limits_are_reached_and_not_passed() -> None:
    assert refusal(host(max_pvms=2), {A: 128}, 128) is None
    assert refusal(host(max_pvms=2), {A: 128, B: 128}, 1) == "c1 has no room: at most 2 personal VMs"
    assert refusal(host(max_memory_mib=256), {A: 128}, 128) is None
    assert refusal(host(max_memory_mib=256), {A: 128}, 129) == "c1 has no room: at most 256 MiB, 129 MiB are wanted"


def room(standing_still: list[PvmId] | None = None, **limits: Any) -> Room:
    """Of an empty host with guests of no interest that give way when asked."""

    async def put_aside() -> bool:
        if not standing_still:
            return False
        made.forget(standing_still.pop(0))
        return True

    made = Room(host(**limits), FakeSite().add("c1"), put_aside)
    return made


async def test_a_place_is_promised_once_even_to_those_who_ask_at_the_same_time() -> None:
    places = room(max_pvms=2)
    outcomes = await asyncio.gather(*(places.promise(pvm, 128) for pvm in (A, B, C)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), AdapterError]
    await places.promise(A, 128)  # it has one already
    places.forget(A)
    await places.promise(C, 128)


async def test_a_promise_is_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration.room.PROMISED_S", -1.0)
    places = room(max_pvms=1)
    await places.promise(A, 128)
    await places.promise(B, 128)


async def test_those_that_stand_still_give_way_and_then_nobody() -> None:
    still = [A]
    places = room(still, max_pvms=1)
    await places.promise(A, 128)
    await places.promise(B, 128)
    assert still == []
    with pytest.raises(AdapterError, match="no room"):
        await places.promise(C, 128)
