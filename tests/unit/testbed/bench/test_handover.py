"""What a stream says of handovers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Set
from typing import Any

import pytest

from testbed.bench import handover
from testbed.bench.handover import crossings, figures
from testbed.results import Handover, Ping, quantiles, reordered

MS = 1_000_000
NONE: Mapping[int, int] = {}


def a_handover(completed_ms: float, **times: float | None) -> Handover:
    at: dict[str, Any] = {name: None if ms is None else round(ms * MS) for name, ms in times.items()}
    known = {"prepared": None, "rules_ready": None, "executing": None, "flipped": None} | at
    completed = round(completed_ms * MS)
    return Handover(source="eNB1", target="eNB2", begun=completed - 20 * MS, completed=completed, **known)


def a_stream(length: int, *, lost: Set[int] = frozenset(), late: Mapping[int, int] = NONE) -> list[Ping]:
    """One packet a millisecond, each back in 8 ms; ``late``: by how many milliseconds more."""
    return [
        Ping(seq, seq * MS, None if seq in lost else (seq + 8 + late.get(seq, 0)) * MS + seq) for seq in range(length)
    ]


def test_a_stream_in_order_has_nothing_reordered() -> None:
    assert reordered(a_stream(100, lost={3, 4})) == set()


def test_a_packet_is_late_when_a_newer_one_came_before() -> None:
    assert reordered(a_stream(100, late={10: 5, 50: 1, 99: 9})) == {10}
    assert reordered(a_stream(100, late={10: 5, 11: 5})) == {10, 11}


def test_each_handover_answers_for_its_part_of_the_stream() -> None:
    stream = a_stream(300, lost={98, 99, 201}, late={205: 3})
    made = crossings(stream, ["s1", "x2"], [a_handover(100), a_handover(200)])
    assert [(c.kind, c.lost, c.reordered) for c in made] == [("s1", 2, 0), ("x2", 1, 1)]


def test_figures_are_those_of_all_handovers_and_of_each_kind() -> None:
    stream = a_stream(300, lost={98, 99, 201})
    first = a_handover(100, prepared=80, rules_ready=82, flipped=103)
    second = a_handover(200, prepared=199, rules_ready=203, flipped=207)
    found = figures(stream, crossings(stream, ["s1", "x2"], [first, second]))
    assert found["handovers"] == 2
    assert (found["sent"], found["lost"], found["reordered"]) == (300, 3, 0)
    assert found["prepare_ms"] == {"p50": 2.0, "p99": 4.0}
    assert found["path_ms"] == {"p50": 3.0, "p99": 7.0}
    assert (found["s1"]["lost"], found["x2"]["lost"]) == (2, 1)
    assert found["x2"]["path_ms"] == {"p50": 7.0, "p99": 7.0}


def test_a_handover_that_was_not_seen_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="zip"):
        crossings(a_stream(300), ["s1", "x2"], [a_handover(100)])


def test_what_is_unknown_has_no_figure() -> None:
    assert quantiles([None, None]) == {"p50": None, "p99": None}
    assert quantiles([None, 3.0, 1.0]) == {"p50": 1.0, "p99": 3.0}


def test_both_kinds_cross_every_border_in_both_directions() -> None:
    path = [1, *handover.WALK * 2]
    steps = {(kind, *pair) for kind, pair in zip(handover.KINDS, itertools.pairwise(path), strict=True)}
    assert steps == {(kind, a, b) for kind in ("s1", "x2") for a, b in ((1, 2), (2, 3), (3, 2), (2, 1))}
