"""Tells what bypassed the P-GW, again and again, and at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from mobiscud.controller.usage import UsagePort, UsageReports
from mobiscud.core.events import Event

LOOK_S: Final = 5.0
"""How often is looked for what has ended."""


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
            self._reports.found(port.usage())

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
        usage = self._port.usage()
        for event in self._reports.events(usage, time.time_ns(), interim=interim):
            self._publish(event)
        if any(one.ended for one in usage) and await self._flush():
            self._port.settle(self._reports.settled(usage))
