"""A whole site of controllers, in virtual time: wherever a UE walks, its packets find its VM, and its VM finds it.

Switches and hypervisors are simple fakes, the bus and the requests between controllers take their time; a UE does
what it likes, at any moment. When all has come to rest: one VM runs, where the UE is; what the UE sends arrives
there, what it sends arrives at the UE's eNodeB; and where the UE is not connected, no rule of it is left. A policy
may say that the VM stays: then one runs, and both find their way all the same.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiscud.core.config import CostConfig, MigrationConfig
from mobiscud.core.events import OffloadRemoved
from tests.property.site import CLOUDLETS, PVM, UNCOVERED, Site
from tests.property.virtual_time import run

DEEDS = (
    "attach",
    "service",
    "idle",
    "detach",
    "handover",
    "handover",
    "handover",
    "prepare",
    "order",
    "complete",
    "cancel",
    "restart",
    "break",
    "unplug",
    "die",
)
steps = st.tuples(st.sampled_from(DEEDS), st.integers(1, UNCOVERED), st.sampled_from((0.0, 0.003, 0.05, 0.4, 5.0)))
MIGRATIONS = (
    MigrationConfig(),
    MigrationConfig(start="at_executing"),
    MigrationConfig(start="at_preparing"),
    MigrationConfig(dwell_s=0.3),
    MigrationConfig(policy="stay"),
    MigrationConfig(policy="hysteresis", dwell_s=0.3, ping_pong_s=5.0),
    MigrationConfig(policy="cost", cost=CostConfig(wait_ms_per_mib=2.0, usual_stay_s=1.0)),
    MigrationConfig(policy="cost", start="at_preparing"),
)
"""Each policy, each moment at which a move may start; where it pays to wait, the waiting is over before the check."""
NO_DWELL = MigrationConfig(dwell_s=0.0)
EARLY = MigrationConfig(start="at_preparing")
EXECUTING = MigrationConfig(start="at_executing")
STAY = MigrationConfig(policy="stay")
COSTS_EARLY = MigrationConfig(policy="cost", start="at_preparing")


async def walk(
    way: list[tuple[str, int, float]], seed: int, migration: MigrationConfig, loss: float = 0.0, *, keeps: bool = True
) -> None:
    async with Site(random.Random(seed), migration, loss, keeps=keeps) as site:
        for deed, enb, pause_s in way:
            await site.do(deed, enb)
            await asyncio.sleep(pause_s)
        await site.do("complete", 0)
        await asyncio.sleep(120.0)
        site.check()


FOUND: tuple[tuple[list[tuple[str, int, float]], int, float, MigrationConfig], ...] = (
    # who answers dies before it has answered
    ([("prepare", 1, 5.0), ("handover", 3, 0.003), ("restart", 3, 0.0)], 495, 0.0, COSTS_EARLY),
    # another target is ready, and then not taken
    ([("handover", 3, 0.0), ("prepare", 2, 0.0), ("cancel", 4, 0.0)], 639, 0.0, STAY),
    # the answer to who asked for the VM is lost, and so is the word that it has come
    ([("prepare", 2, 0.0), ("order", 3, 0.4), ("order", 1, 0.4), ("restart", 3, 0.0)], 673, 0.1, EXECUTING),
    # both sides believe that the other one has it
    ([("handover", 2, 5.0), ("handover", 1, 5.0), ("handover", 2, 0.0), ("restart", 1, 0.0)], 882, 0.1, NO_DWELL),
    # the VM stops while its user is at another cloudlet already, and is expected at a third
    ([("detach", 2, 0.0), ("attach", 3, 0.0), ("handover", 2, 0.0)], 250, 0.0, STAY),
    # the UE is back elsewhere before who has its VM has heard that it left
    ([("detach", 2, 0.0), ("attach", 3, 0.0)], 567, 0.0, STAY.model_copy(update={"absence_s": 0.1})),
    # the same after a handover that was called off
    (
        [
            ("prepare", 4, 0.0),
            ("order", 1, 0.0),
            ("order", 4, 0.0),
            ("cancel", 2, 0.0),
            ("idle", 3, 0.0),
            ("service", 3, 0.003),
        ],
        826,
        0.0,
        STAY.model_copy(update={"absence_s": 0.1}),
    ),
    # a switch is away
    ([("unplug", 1, 0.0), ("handover", 2, 0.0)], 120, 0.0, COSTS_EARLY),
    ([("unplug", 2, 0.0), ("handover", 3, 0.0)], 949, 0.0, EXECUTING),
    ([("unplug", 3, 0.0), ("handover", 2, 0.0), ("restart", 3, 0.0)], 93, 0.0, COSTS_EARLY),
    ([("detach", 2, 0.0), ("unplug", 3, 0.0), ("attach", 3, 0.0)], 226, 0.0, NO_DWELL),
    ([("detach", 1, 0.0), ("attach", 2, 0.0), ("unplug", 3, 0.003), ("restart", 3, 0.0)], 89, 0.0, EXECUTING),
    # a controller that restarts while its move is under way
    (
        [("handover", 2, 0.0), ("break", 1, 0.4), ("detach", 2, 0.4), ("restart", 3, 0.0), ("restart", 4, 0.0)],
        135,
        0.1,
        EXECUTING.model_copy(update={"absence_s": 0.0}),
    ),
    ([("handover", 3, 0.0), ("restart", 3, 0.0)], 870, 0.0, EARLY),
    ([("handover", 2, 0.0), ("break", 2, 5.0), ("unplug", 3, 0.0)], 0, 0.1, NO_DWELL),
    ([("handover", 4, 0.0), ("prepare", 1, 0.05), ("complete", 1, 0.0), ("handover", 2, 0.0)], 253, 0.0, STAY),
    ([("handover", 3, 0.0), ("break", 2, 0.05), ("die", 2, 0.0)], 376, 0.0, NO_DWELL),
    ([("handover", 2, 0.05), ("idle", 1, 0.0), ("restart", 1, 0.0)], 0, 0.0, NO_DWELL),
    ([("prepare", 3, 0.4), ("restart", 3, 0.0)], 3, 0.1, EARLY),
    ([("handover", 2, 0.0), ("handover", 1, 0.05), ("restart", 3, 0.0)], 74, 0.1, NO_DWELL),
)


@pytest.mark.parametrize(("way", "seed", "loss", "migration"), FOUND)
def test_what_was_found_once_holds(
    way: list[tuple[str, int, float]], seed: int, loss: float, migration: MigrationConfig
) -> None:
    run(walk([("attach", 1, 1.0), *way], seed, migration, loss))


@settings(deadline=None)
@given(
    way=st.lists(steps, max_size=12),
    seed=st.integers(0, 1000),
    migration=st.sampled_from(MIGRATIONS),
    loss=st.sampled_from((0.0, 0.1)),
    absence_s=st.sampled_from((None, 0.0, 0.1, 2.0)),
    keeps=st.booleans(),
)
def test_wherever_a_ue_walks_its_vm_is_there(
    way: list[tuple[str, int, float]],
    seed: int,
    migration: MigrationConfig,
    loss: float,
    absence_s: float | None,
    keeps: bool,
) -> None:
    migration = migration.model_copy(update={"absence_s": absence_s})
    run(walk([("attach", 1, 1.0), *way], seed, migration, loss, keeps=keeps))


def test_a_vm_that_was_kept_is_fetched_from_where_it_is() -> None:
    async def work() -> None:
        async with Site(random.Random(1), MigrationConfig(dwell_s=0.3, absence_s=0.1), 0.0) as site:
            await site.do("attach", 1)
            await asyncio.sleep(5.0)
            (guest,) = site.fakes.running_copies(PVM.id)
            await site.do("detach", 0)
            await asyncio.sleep(5.0)
            assert site.runs_at() == []
            await site.do("attach", 3)
            await asyncio.sleep(5.0)
            site.check()
            assert [found.boot_id for found in site.fakes.running_copies(PVM.id)] == [guest.boot_id]

    run(work())


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "running"])
def test_a_vm_whose_host_is_gone_is_waited_for_by_the_core_and_started_nowhere_else(is_kept: bool) -> None:
    """For an hour its user is at other cells; then the host is back after all."""

    async def work() -> None:
        async with Site(random.Random(1), MigrationConfig(dwell_s=0.3, absence_s=0.1 if is_kept else None)) as site:
            await site.do("attach", 1)
            await asyncio.sleep(5.0)
            (guest,) = site.fakes.running_copies(PVM.id)
            if is_kept:
                await site.do("detach", 0)
                await asyncio.sleep(5.0)
            await site.kill(CLOUDLETS[0])
            await site.do("attach" if is_kept else "handover", 3)
            await asyncio.sleep(3600.0)
            assert site.uplink(3) == "core"
            assert CLOUDLETS[2] not in site.runs_at()
            said = [event for event in site.published if isinstance(event, OffloadRemoved) and event.reason]
            assert [event.reason for event in said] == ["c1 does not grant the detour"]
            await site.do("handover", 2)
            await asyncio.sleep(60.0)
            assert site.uplink(2) == "core"
            assert site.runs_at() == ([] if is_kept else [CLOUDLETS[0]])
            await site.restart(CLOUDLETS[0])
            await asyncio.sleep(60.0)
            site.check()
            assert [found.boot_id for found in site.fakes.running_copies(PVM.id)] == [guest.boot_id]

    run(work())


def test_a_policy_that_changes_is_in_force_for_who_is_served_over_a_detour() -> None:
    async def work() -> None:
        async with Site(random.Random(1), MigrationConfig(policy="stay"), 0.0) as site:
            await site.do("attach", 1)
            await asyncio.sleep(5.0)
            await site.do("handover", 2)
            await asyncio.sleep(60.0)
            assert site.runs_at() == [CLOUDLETS[0]]
            site.change(MigrationConfig(dwell_s=90.0))
            await asyncio.sleep(25.0)
            assert site.runs_at() == [CLOUDLETS[0]], "the UE has been there for 85 s"
            await asyncio.sleep(20.0)
            assert site.runs_at() == [CLOUDLETS[1]]
            site.check()

    run(work())


def test_a_source_that_dies_before_it_tells_that_the_vm_stays_is_asked() -> None:
    way = [("handover", 2, 0.003), ("handover", 1, 0.0), ("handover", 4, 0.003), ("restart", 3, 0.0)]
    run(walk([("attach", 1, 1.0), *way], 0, MigrationConfig()))


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize(
    "back", [("service", 2, 0.0), ("service", 1, 0.0), ("detach", 1, 0.0)], ids=lambda back: back[0]
)
def test_a_vm_that_was_to_stop_when_its_controller_died_has_one_owner(
    back: tuple[str, int, float], keeps: bool
) -> None:
    """It dies when it has written down that the VM stops, and before it does; the UE is elsewhere by then."""
    way = [("attach", 1, 1.0), ("idle", 1, 0.05), ("die", 3, 0.4), back]
    run(walk(way, 0, STAY.model_copy(update={"absence_s": 0.1}), keeps=keeps))


def test_the_walk_of_the_paper() -> None:
    run(
        walk(
            [("attach", 1, 5.0), ("handover", 2, 5.0), ("handover", 3, 5.0), ("detach", 0, 1.0)],
            1,
            MigrationConfig(dwell_s=0.3),
        )
    )
