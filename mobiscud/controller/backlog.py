"""What waits to be dealt with: each UE's inputs in order, many UEs at once, one bound on all of them.

An input counts from when it comes until it has been dealt with. At the bound the inlet is held: what comes by the bus
then waits at the broker, and nothing is dropped. What a controller hears from its own parts (the outcome of what it
began, a notice of the hypervisor) is let in all the same; there are few of those for each UE.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from mobiscud.core.ids import UeKey

LIMIT: Final = 2_000
"""Inputs; about a second of work, which is less than others wait for an answer."""

log = structlog.get_logger(__name__)

Item = TypeVar("Item")


class Inlet(Protocol):
    """Where inputs come from, and can be made to wait."""

    def hold(self) -> None: ...
    def go_on(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """Inputs that wait now, the bound, the most that ever waited, and how long the inlet has been held in all."""

    waiting: int
    limit: int
    highest: int
    seconds_at_limit: float


class Queues(Generic[Item]):
    """The queues of all UEs. ``handle`` deals with one input: None, or why it was refused."""

    def __init__(
        self, handle: Callable[[UeKey, Item], Awaitable[str | None]], inlet: Inlet, *, limit: int = LIMIT
    ) -> None:
        self._handle = handle
        self._inlet = inlet
        self._limit = limit
        self._queues: dict[UeKey, deque[tuple[Item, asyncio.Future[str | None]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._highest = 0
        self._held_s = 0.0
        self._held_since: float | None = None

    @property
    def backlog(self) -> Backlog:
        """How much waits now."""
        held_s = self._held_s
        if self._held_since is not None:
            held_s += asyncio.get_running_loop().time() - self._held_since
        return Backlog(self._waiting, self._limit, self._highest, held_s)

    def submit(self, ue: UeKey, item: Item) -> asyncio.Future[str | None]:
        """Queue an input of one UE. The future: None when it has been dealt with, or why it was refused."""
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        queue = self._queues.get(ue)
        if queue is None:
            queue = self._queues[ue] = deque()
            task = asyncio.create_task(self._drain(ue, queue), name=f"ue-{ue}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue.append((item, done))
        self._waiting += 1
        self._highest = max(self._highest, self._waiting)
        if self._waiting >= self._limit and self._held_since is None:
            self._held_since = asyncio.get_running_loop().time()
            log.warning("at the limit of the backlog: what comes now waits at the broker", limit=self._limit)
            self._inlet.hold()
        return done

    async def close(self) -> None:
        """End what is being dealt with."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, ue: UeKey, queue: deque[tuple[Item, asyncio.Future[Any]]]) -> None:
        while queue:
            item, done = queue.popleft()
            outcome: str | None = "internal error"
            try:
                outcome = await self._handle(ue, item)
            except Exception:
                log.exception("handling failed", ue=ue, input=type(item).__name__)
            finally:
                self._waiting -= 1
                if not done.done():
                    done.set_result(outcome)
            if self._held_since is not None and self._waiting <= self._limit // 2:
                self._held_s += asyncio.get_running_loop().time() - self._held_since
                self._held_since = None
                self._inlet.go_on()
        del self._queues[ue]
