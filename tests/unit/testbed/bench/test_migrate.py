"""What a stream says of migrations."""

from __future__ import annotations

import pytest

from migration.verdict import MigrationMode
from testbed.bench.migrate import Run, Series, quantiles, row, run_of
from testbed.results import Migration, Ping

MS = 1_000_000


def a_migration(switched_ms: int, total_ms: float = 700.0) -> Migration:
    switched = switched_ms * MS
    return Migration(
        source="c1",
        target="c2",
        begun=switched - 500 * MS,
        switched=switched,
        completed=switched + 200 * MS,
        total_ms=total_ms,
        downtime_ms=20.0,
    )


def a_stream(length: int, *, lost: set[int] = frozenset(), held: range = range(0)) -> list[Ping]:  # type: ignore[assignment]
    """One packet a millisecond, each back in 4 ms; those ``held`` come back together when the last of them does."""
    return [
        Ping(seq, seq * MS, None if seq in lost else ((held.stop if seq in held else seq) + 4) * MS + seq)
        for seq in range(length)
    ]


def test_a_stream_that_flows_has_an_outage_of_its_own_interval() -> None:
    run = run_of(a_stream(2000), a_migration(1000))
    assert (run.total_ms, run.lost) == (700.0, 0)
    assert run.outage_ms == pytest.approx(1.0, abs=0.01)


def test_packets_that_wait_for_the_guest_are_an_outage_but_no_loss() -> None:
    run = run_of(a_stream(2000, held=range(990, 1040)), a_migration(1000))
    assert run.outage_ms == pytest.approx(51.0, abs=0.01)
    assert run.lost == 0


def test_loss_counts_to_the_migration_that_it_surrounds() -> None:
    stream = a_stream(3000, lost={100, 998, 999, 1001, 2000})
    assert run_of(stream, a_migration(1000)).lost == 3
    assert run_of(stream, a_migration(2000)).lost == 1


def test_an_outage_far_from_the_switch_over_is_none_of_its() -> None:
    assert run_of(a_stream(3000, held=range(100, 300)), a_migration(1000)).outage_ms < 2


def test_a_lost_guest_counts_as_a_run_without_figures() -> None:
    series = Series((Run(700.0, 40.0, 0),), 5000, 1) + Series((Run(900.0, 60.0, 2),), 4000, 0)
    assert row(MigrationMode.PRE_COPY, "idle", series) == {
        "mode": "pre_copy",
        "guest": "idle",
        "runs": 3,
        "total_ms": {"p50": 700.0, "p95": 900.0},
        "outage_ms": {"p50": 40.0, "p95": 60.0},
        "sent": 9000,
        "lost_per_run": {"p50": 0, "p95": 2},
        "guests_lost": 1,
    }


def test_quantiles_are_values_that_occurred() -> None:
    assert quantiles([float(value) for value in range(1, 101)]) == {"p50": 50.0, "p95": 95.0}
    assert quantiles([]) == {"p50": None, "p95": None}
