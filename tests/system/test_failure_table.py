"""One cell of the failure table for each part that can die; all of them: ``make failures``."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.failures import CELLS, Cell, Moment, Part, play, shown

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

HARDEST: tuple[Cell, ...] = (
    (Part.TARGET_DAEMON, Moment.AFTER),  # libvirt lets both run
    (Part.SOURCE_DAEMON, Moment.AT),
    (Part.TARGET_QEMU, Moment.AFTER),
    (Part.SOURCE_QEMU, Moment.AT),
    (Part.TARGET_CONTROLLER, Moment.AT),
    (Part.SOURCE_CONTROLLER, Moment.DURING),
    (Part.BROKER, Moment.AT),
    (Part.LINK, Moment.DURING),
    (Part.SOURCE_HOST, Moment.DURING),
    (Part.TARGET_HOST, Moment.DURING),
)


async def test_whatever_dies_one_guest_is_left_and_it_is_told(tmp_path: Path) -> None:
    assert {part for part, _ in HARDEST} == {part for part, _ in CELLS}
    outcomes = await play(HARDEST, tmp_path, print)
    assert [shown(outcome) for outcome in outcomes if outcome.fault is not None] == []
    assert len(outcomes) == len(HARDEST)
