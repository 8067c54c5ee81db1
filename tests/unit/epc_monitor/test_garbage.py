"""Garbage collection while a monitor runs."""

from __future__ import annotations

import gc

from epc_monitor.garbage import rarely_full


async def test_only_young_objects_are_looked_through_while_it_lasts() -> None:
    usual = gc.get_threshold()
    with rarely_full():
        young, middle, old = gc.get_threshold()
        assert (young, middle) == usual[:2]
        assert old > 1_000_000
        assert gc.isenabled()
    assert gc.get_threshold() == usual
