"""An event loop in which nobody waits, so that minutes of a site pass in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop that never waits: when there is nothing to do, it is later."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        return self._now

    def skip(self, seconds: float) -> None:
        self._now += seconds


class _Impatient(selectors.SelectSelector):
    def __init__(self, loop: VirtualTime) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._loop.skip(timeout)
        return ready


def run(work: Awaitable[None]) -> None:
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(work)  # type: ignore[arg-type]
