"""The table of captures in docs/monitor.md says what the monitor says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from epc_monitor.pipeline import Monitor
from mobiscud.core.events import Event, MonitorDesynchronised

ROOT = Path(__file__).parents[3]
CAPTURES = sorted(path.stem for path in (ROOT / "tests" / "vectors" / "captures").glob("*.pcap"))


def table() -> dict[str, list[int]]:
    text = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith(("| epc-", "| s1-"))]
    return {row[0].strip(): [int(cell) for cell in row[1:7]] for row in rows}


def test_every_capture_is_in_the_table() -> None:
    assert sorted(table()) == CAPTURES


@pytest.mark.parametrize("name", CAPTURES)
def test_the_row_is_so(name: str, watch: Callable[[str], tuple[list[Event], Monitor]]) -> None:
    events, monitor = watch(name)
    stats = monitor.stats
    out_of_step = sum(isinstance(event, MonitorDesynchronised) for event in events)
    measured = [stats.frames, stats.messages, len(events), stats.decode_errors, stats.gaps, out_of_step]
    assert table()[name] == measured
    assert measured[3:] == [0, 0, 0]
