"""What the passage of frames says of a delay link."""

from __future__ import annotations

from typing import Any

from testbed.bench.delay import Passage, limit, row, spread


def passage(*took_ms: float, sent: int | None = None) -> Passage:
    return Passage(dict(enumerate(took_ms)), len(took_ms) if sent is None else sent, 1.0)


def test_the_error_is_what_is_more_than_was_set() -> None:
    found = row(100, passage(4.01, 4.05, 4.03, sent=5))
    assert found == {"packets_per_s": 100, "error_ms": {"p50": 0.03, "p99": 0.05}, "lost": 2}


def rates(*rows: tuple[int, float, float, int]) -> list[dict[str, Any]]:
    return [
        {"packets_per_s": rate, "error_ms": {"p50": median, "p99": worst}, "lost": lost}
        for rate, median, worst, lost in rows
    ]


def test_the_limit_is_the_last_rate_before_the_first_that_is_wrong() -> None:
    good, slow, late = (100, 0.05, 0.3, 0), (1000, 0.2, 0.4, 0), (1000, 0.05, 0.6, 0)
    assert limit(rates(good, (1000, 0.1, 0.5, 0))) == 1000
    assert limit(rates(good, slow, (5000, 0.01, 0.02, 0))) == 100
    assert limit(rates(good, late)) == 100
    assert limit(rates((100, 0.05, 0.3, 1))) is None


def test_the_spread_leaves_the_outermost_out() -> None:
    found = spread(passage(*(3 + n / 500 for n in range(1001)), 50.0))
    assert found == {"least_ms": -0.98, "median_ms": 0.002, "most_ms": 0.982}
