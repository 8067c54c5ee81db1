"""Garbage collection that does not halt a monitor, or a controller.

Python looks through all its objects whenever their number has grown by a quarter. With ten thousand UEs that halts
everything for a tenth of a second, right in a flood of attaches, and takes half the time of a controller's restart;
and there is nothing to find, since what they forget they mostly free at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Final

FULL_EVERY_S: Final = 600.0
"""How often all objects are looked through all the same, for what hangs together in circles."""

_NEVER: Final = 1 << 30


@contextlib.contextmanager
def rarely_full() -> Iterator[None]:
    """Inside of this only young objects are looked through, and all of them now and then. Needs a running loop."""
    usual = gc.get_threshold()
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def collect() -> None:
        nonlocal timer
        gc.collect()
        timer = loop.call_later(FULL_EVERY_S, collect)

    timer = loop.call_later(FULL_EVERY_S, collect)
    gc.set_threshold(usual[0], usual[1], _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        timer.cancel()
