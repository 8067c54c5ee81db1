"""Each UE in order, many UEs at once, and never more than the bound: what is too much is held, not dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from mobiscud.controller.backlog import Queues
from mobiscud.controller.commit import GroupCommit
from mobiscud.controller.record import UeRecord
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, PvmId, UeKey

UES = [UeKey(f"ue-{number:016x}") for number in range(20)]
RECORD = UeRecord(Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10"), CloudletId("c1"))


class Source:
    """Sends inputs until it is held, as the bus does; sends on when it may."""

    def __init__(self, inputs: list[tuple[UeKey, int]]) -> None:
        self._inputs = inputs[::-1]
        self._held = False
        self.holds = 0

    def hold(self) -> None:
        self._held = True
        self.holds += 1

    def go_on(self) -> None:
        self._held = False
        asyncio.get_running_loop().call_soon(self.send)

    def send(self) -> None:
        while self._inputs and not self._held:
            self.queues.submit(*self._inputs.pop())

    queues: Queues[int]


async def test_nothing_is_dropped_at_the_bound_and_the_order_stays() -> None:
    inputs = [(UES[number % len(UES)], number) for number in range(1000)]
    seen: list[tuple[UeKey, int]] = []
    all_seen = asyncio.Event()

    async def handle(ue: UeKey, number: int) -> None:
        for _ in range(number % 7):
            await asyncio.sleep(0)
        seen.append((ue, number))
        if len(seen) == len(inputs):
            all_seen.set()

    source = Source(inputs)
    queues = source.queues = Queues(handle, source, limit=50)
    source.send()
    assert queues.backlog.waiting == queues.backlog.limit == 50
    await asyncio.wait_for(all_seen.wait(), 30)
    for ue in UES:
        assert [n for of, n in seen if of == ue] == [n for of, n in inputs if of == ue]
    backlog = queues.backlog
    assert backlog.highest == 50
    assert source.holds > 1
    assert backlog.seconds_at_limit > 0
    await queues.close()


async def test_a_fault_costs_its_input_and_no_other() -> None:
    async def handle(ue: UeKey, number: int) -> str | None:
        if number == 1:
            raise ZeroDivisionError
        return "no" if number == 2 else None

    queues = Queues(handle, Source([]))
    outcomes = [queues.submit(UES[0], number) for number in range(4)]
    assert await asyncio.gather(*outcomes) == [None, "internal error", "no", None]
    assert queues.backlog.waiting == 0


class Memory:
    """Remembers what was put at once."""

    def __init__(self) -> None:
        self.commits: list[dict[UeKey, UeRecord]] = []
        self.full = False

    def load(self) -> dict[UeKey, UeRecord]:
        return {}

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        if self.full:
            raise AdapterError("the disk is full")
        self.commits.append(dict(records))


async def test_steps_of_one_moment_share_a_commit() -> None:
    memory = Memory()
    commit = GroupCommit(memory)
    await asyncio.gather(*(commit.put(ue, RECORD) for ue in UES))
    assert memory.commits == [dict.fromkeys(UES, RECORD)]
    await commit.put(UES[0], RECORD)
    assert len(memory.commits) == 2


async def test_what_cannot_be_remembered_is_told_to_all_who_wait() -> None:
    memory = Memory()
    commit = GroupCommit(memory)
    memory.full = True
    outcomes = await asyncio.gather(*(commit.put(ue, RECORD) for ue in UES), return_exceptions=True)
    assert all(isinstance(outcome, AdapterError) for outcome in outcomes)
    memory.full = False
    await commit.put(UES[0], RECORD)


async def test_who_no_longer_waits_hurts_nobody() -> None:
    commit = GroupCommit(Memory())
    gone, waiting = (asyncio.ensure_future(commit.put(ue, RECORD)) for ue in UES[:2])
    await asyncio.sleep(0)
    gone.cancel()
    await waiting
    with pytest.raises(asyncio.CancelledError):
        await gone
