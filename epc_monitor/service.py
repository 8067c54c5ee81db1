"""The monitor at work: live frames in, events out."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from typing import Final

import structlog

from epc_monitor.frames import Frame
from epc_monitor.garbage import rarely_full
from epc_monitor.live import LiveCapture
from epc_monitor.pipeline import Monitor
from mobiscud.core.events import Event

log = structlog.get_logger(__name__)

DROP_CHECK_S: Final = 1.0
"""How often the kernel is asked for frames that it dropped."""


async def watch(capture: LiveCapture, monitor: Monitor) -> AsyncIterator[Event]:
    """Give the events of a live capture, and what the kernel dropped of it, for as long as it is read."""
    with rarely_full():
        async for event in _watch(capture, monitor):
            yield event


async def _watch(capture: LiveCapture, monitor: Monitor) -> AsyncIterator[Event]:
    loop = asyncio.get_running_loop()
    asked = loop.time()
    async for frames in capture.batches():
        for frame in frames:
            for event in _received(monitor, frame):
                yield event
        if loop.time() - asked >= DROP_CHECK_S:
            asked = loop.time()
            for interface, count in capture.drops():
                for event in monitor.dropped(count, interface, time.time_ns()):
                    yield event


def _received(monitor: Monitor, frame: Frame) -> list[Event]:
    """The events of a frame. A fault of our own costs this frame, not the watch; nothing of the frame is logged."""
    try:
        return monitor.receive(frame)
    except Exception as fault:
        place = traceback.extract_tb(fault.__traceback__)[-1]
        log.error(
            "a frame was lost to a fault of the monitor", fault=type(fault).__name__, at=f"{place.name}:{place.lineno}"
        )
        return []
