"""A short soak: enough to see that it judges, and that what it judges is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.soak import soak

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


async def test_a_few_migrations_with_mishaps_leave_one_whole_guest_and_nothing_else(tmp_path: Path) -> None:
    report = await soak(4, 3, tmp_path)
    assert report["faults"] == []
    assert report["migrations"] >= 4
    assert report["guests_lost"] == report["corrupt_pages"] == report["corrupt_disks"] == 0
    assert report["observations"] > 0
