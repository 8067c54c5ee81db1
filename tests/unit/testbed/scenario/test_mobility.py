"""From mobility to what each UE does and when."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml

from mobiscud.core.errors import ConfigError
from testbed.scenario import mobility, schema
from testbed.scenario.schema import Scenario
from testbed.scenario.steps import HandoverStep

Move = tuple[float | None, int, str]


def scenario(group: dict[str, Any], **more: Any) -> Scenario:
    raw = {"name": "s", "title": "S", "duration_s": 60, "ues": [{"name": "w", "pvm": "none", **group}], **more}
    return schema.parse(yaml.safe_dump(raw))


def moves(found: Scenario, number: int = 1, repetition: int = 1, trace: str = "") -> list[Move]:
    steps = mobility.plan(found, repetition, lambda name: trace)[number]
    return [(step.at_s, step.to, step.kind) for step in steps if isinstance(step, HandoverStep)]


def test_a_walk_goes_from_cell_to_cell() -> None:
    found = scenario({"mobility": {"model": "walk", "cells": [1, 2, 3, 2], "first_s": 5, "stay_s": 10}})
    assert moves(found) == [(5, 2, "s1"), (15, 3, "s1"), (25, 2, "s1")]


def test_what_comes_after_the_end_does_not_come() -> None:
    found = scenario({"mobility": {"model": "ping_pong", "between": [1, 2], "times": 50, "first_s": 50, "stay_s": 4}})
    assert moves(found) == [(50, 2, "x2"), (54, 1, "x2"), (58, 2, "x2")]


def test_kinds_may_alternate() -> None:
    found = scenario({"mobility": {"model": "walk", "cells": [1, 2, 1, 2], "stay_s": 1, "kind": "alternate"}})
    assert [kind for _, _, kind in moves(found)] == ["s1", "x2", "s1"]


def test_a_highway_is_driven_there_and_back_one_behind_the_other() -> None:
    road = {"model": "highway", "speed_kmh": 36, "cell_m": 50, "headway_s": 2}
    found = scenario({"count": 2, "mobility": road})
    assert [(at, cell) for at, cell, _ in moves(found, 1)] == [(5, 2), (10, 3), (15, 2), (20, 1)]
    assert [(at, cell) for at, cell, _ in moves(found, 2)] == [(7, 2), (12, 3), (17, 2), (22, 1)]


def test_a_random_walk_follows_from_seed_and_repetition() -> None:
    found = scenario({"count": 2, "cell": 2, "mobility": {"model": "random", "mean_stay_s": 3}})
    assert moves(found) == moves(found)
    assert moves(found) != moves(found, repetition=2)
    assert moves(found) != moves(found, number=2)
    cells = [2, *(cell for _, cell, _ in moves(found))]
    assert len(cells) > 5
    assert all(abs(a - b) == 1 for a, b in itertools.pairwise(cells))


def test_a_trace_says_where_each_ue_is() -> None:
    trace = "time_s,ue,cell\n0,1,2\n0,2,1\n8.5,1,3\n9,1,3\n12,1,1\n3,2,2\n"
    found = scenario({"count": 2, "mobility": {"model": "trace", "file": "t.csv"}})
    assert moves(found, trace=trace) == [(8.5, 3, "x2"), (12, 1, "x2")]
    assert moves(found, 2, trace=trace) == [(3, 2, "x2")]
    assert mobility.start_cell(found.ues[0], 1, lambda name: trace) == 2


@pytest.mark.parametrize("trace", ["a,b\n1,2\n", "time_s,ue,cell\nsoon,1,2\n", "time_s,ue,cell\n0,1,1\n1,1,9\n"])
def test_what_is_no_trace_is_refused(trace: str) -> None:
    found = scenario({"mobility": {"model": "trace", "file": "t.csv"}})
    with pytest.raises(ConfigError):
        mobility.plan(found, 1, lambda name: trace)


def test_steps_and_mobility_are_taken_in_the_order_of_time() -> None:
    steps = [{"do": "idle", "at_s": 7}, {"do": "detach", "when": "pvm.migrated"}, {"do": "service", "at_s": 9}]
    found = scenario({"mobility": {"model": "walk", "cells": [1, 2, 1], "first_s": 5, "stay_s": 5}, "steps": steps})
    plan = mobility.plan(found, 1, lambda name: "")[1]
    assert [(step.do, step.at_s) for step in plan] == [
        ("handover", 5),
        ("idle", 7),
        ("service", 9),
        ("handover", 10),
        ("detach", None),
    ]
