"""Tells what bypassed the P-GW, again and again, and at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NoReturn

from mobiscud.controller.usage import UsagePort, UsageReports
from mobiscud.core.events import Event
from mobiscud.core.usage import Usage

LOOK_S: Final = 5.0
"""How often is looked for what has ended."""


TOGETHER: Final = 200
"""Accounts that are looked at in one go: it takes about a millisecond."""


class UsageReporter:
    """Reads the switch, publishes records, and lets the switch forget what has safely been told."""

    def __init__(self, reports: UsageReports, publish: Callable[[Event], None], flush: Callable[[], Awaitable[bool]]):
        """``flush``: waits until the broker has what was published; whether it has."""
        self._reports = reports
        self._publish = publish
        self._flush = flush
        self._port: UsagePort | None = None
        self.interval_s = 60.0

    def attach(self, port: UsagePort | None) -> None:
        """Read this from now on."""
        self._port = port
        if port is not None:
            self._reports.found(port.usage(port.accounts()))

    async def run(self) -> NoReturn:
        """Tell what has ended soon after it has, and all else every ``interval_s``."""
        told = time.monotonic()
        while True:
            await asyncio.sleep(min(LOOK_S, self.interval_s))
            interim = time.monotonic() - told >= self.interval_s
            if interim:
                told = time.monotonic()
            await self.report(interim=interim)

    async def report(self, *, interim: bool) -> None:
        """Tell once. At the end all has ended, and is told."""
        if self._port is None:
            return
        over: list[Usage] = []
        for numbers in _some_at_a_time(self._port.accounts()):
            usage = self._port.usage(numbers)
            for event in self._reports.events(usage, time.time_ns(), interim=interim):
                self._publish(event)
            over += (one for one in usage if one.ended)
            await asyncio.sleep(0)  # paths are more urgent
        if over and await self._flush():
            self._port.settle(self._reports.settled(over))


def _some_at_a_time(numbers: list[int]) -> Iterator[list[int]]:
    return (numbers[start : start + TOGETHER] for start in range(0, len(numbers), TOGETHER))
