"""The simulation: the same table and policies, a day in seconds, the same result everywhere."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mobiscud.controller.inputs import Input
from mobiscud.controller.record import UeRecord
from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import CloudletId
from testbed.simulation import migrations, mobility, run
from testbed.simulation import scenario as scenarios
from testbed.simulation.migrations import TAIL_MS, Measured
from testbed.simulation.mobility import IDLE, Grid, Walk
from testbed.simulation.scenario import MobilityConfig, RunConfig, Scenario
from testbed.simulation.tally import Tally, figures
from testbed.simulation.world import Ue, World

MEASURED = Measured("made up", ((1000.0, 50.0),), 64.0)
FOLLOW = RunConfig(policy="follow", curve="follow")
STAY = RunConfig(policy="stay", curve="stay")
SMALL = Scenario(ues=40, cloudlets=30, hours=6.0)


def walk_of(*steps: tuple[float, int]) -> Walk:
    walk = Walk()
    for at, cell in steps:
        walk.add(at, cell)
    return walk


def simulated(walk: Walk, policy: RunConfig, hours: float = 1.0) -> dict[str, Any]:
    """One UE in a row of three cells (and a fourth below the first)."""
    world = World(Scenario(ues=1, cloudlets=9, hours=hours), policy, [walk], MEASURED)
    return figures(world.run(), 1, hours, world.rtt_ms)


# One user, reckoned by hand ----------------------------------------------------------------------------------------


def test_a_vm_that_follows_is_away_for_as_long_as_its_move_takes() -> None:
    found = simulated(walk_of((0, 0), (1800, 1)), FOLLOW)
    assert (found["handovers"], found["migrations"], found["migrations_aborted"]) == (1, 1, 0)
    assert found["moved_gib"] == 64 / 1024
    assert found["outage_ms"] == {"p50": 50.0, "p95": 50.0}
    assert found["outage_s_a_day"] == pytest.approx(0.05 * 24)
    before_it_lands_s = (1000 - TAIL_MS + 50) / 1000
    assert (1 - found["beside_share"]) * 3600 == pytest.approx(before_it_lands_s, abs=0.02)
    assert found["rtt_ms"]["mean"] == pytest.approx(9.0 + 4.3 * before_it_lands_s / 3600, abs=1e-4)


def test_a_vm_that_stays_is_as_far_as_its_user_went() -> None:
    found = simulated(walk_of((0, 0), (900, 1), (1800, 2)), STAY)
    assert (found["handovers"], found["migrations"]) == (2, 0)
    assert found["rtt_ms"]["mean"] == pytest.approx((9.0 + 13.3 + 2 * 17.6) / 4, abs=1e-3)
    assert found["rtt_ms"]["p95"] == 17.6


def test_a_dwell_time_is_waited_for_and_who_leaves_before_is_not_followed() -> None:
    patient = RunConfig(policy="follow", curve="follow", dwell_s=600.0)
    assert simulated(walk_of((0, 0), (900, 1), (1400, 0)), patient)["migrations"] == 0
    found = simulated(walk_of((0, 0), (900, 1)), patient)
    assert found["migrations"] == 1
    assert (1 - found["beside_share"]) * 3600 == pytest.approx(600 + 0.75, abs=0.02)


def test_an_idle_user_costs_nothing_and_its_vm_follows_when_it_is_back() -> None:
    patient = RunConfig(policy="follow", curve="follow", dwell_s=60.0)
    found = simulated(walk_of((0, 0), (900, 1), (930, IDLE), (1800, 1)), patient)
    assert found["migrations"] == 1
    assert found["connected_share"] == pytest.approx((3600 - 870) / 3600, abs=1e-4)


def test_a_user_who_goes_on_while_its_vm_moves_ends_the_move() -> None:
    found = simulated(walk_of((0, 0), (900, 1), (900.5, 2)), FOLLOW)
    assert (found["migrations"], found["migrations_aborted"]) == (1, 1)


def test_a_move_that_starts_early_is_sooner_there() -> None:
    early = RunConfig(policy="follow", curve="early", start="at_preparing")
    ordered = RunConfig(policy="follow", curve="ordered", start="at_executing")
    walk = walk_of((0, 0), (900, 1))
    shares = [simulated(walk, policy)["beside_share"] for policy in (early, ordered, FOLLOW)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 3


def test_a_handover_that_is_called_off_ends_an_early_move() -> None:
    early = RunConfig(policy="follow", curve="early", start="at_preparing")
    found = simulated(walk_of((0, 0), (900, mobility.CANCELLED), (900.2, 1), (901.5, 0)), early)
    assert found["handovers_called_off"] == 1
    assert found["migrations_aborted"] >= 1
    assert simulated(walk_of((0, 0), (900, mobility.CANCELLED)), early)["migrations"] == 0


# Many users --------------------------------------------------------------------------------------------------------


def test_users_walk_the_same_way_however_many_there_are() -> None:
    few, many = (list(mobility.walks(SMALL.model_copy(update={"ues": ues}))) for ues in (3, 9))
    assert few == many[:3]
    other = list(mobility.walks(SMALL.model_copy(update={"ues": 3, "seed": 2})))
    assert few != other


@pytest.mark.parametrize("model", ["random_waypoint", "manhattan"])
def test_users_walk_from_cell_to_cell_some_forty_times_a_day(model: str) -> None:
    scenario = Scenario.model_validate({"ues": 200, "mobility": {"model": model}})
    grid = Grid.of(scenario.cloudlets)
    crossings = 0
    for walk in mobility.walks(scenario):
        assert list(walk.times) == sorted(walk.times)
        cells = [cell for cell in walk.cells if cell >= 0]
        for left, entered in itertools.pairwise(cells):
            assert grid.hops(left, entered) <= 2  # over a corner
            crossings += left != entered
    assert 20 < crossings / 200 < 60


def test_policies_do_what_they_are_for() -> None:
    measured = migrations.load("idle")
    walks = list(mobility.walks(SMALL))
    found = {}
    for name, policy in {
        "stay": STAY,
        "follow": FOLLOW,
        "patient": RunConfig(policy="hysteresis", curve="", dwell_s=60, ping_pong_s=600),
        "dear": RunConfig.model_validate({"policy": "cost", "curve": "", "cost": {"wait_ms_per_mib": 200}}),
    }.items():
        world = World(SMALL, policy, walks, measured)
        found[name] = figures(world.run(), SMALL.ues, SMALL.hours, world.rtt_ms)
    rtt = {name: each["rtt_ms"]["mean"] for name, each in found.items()}
    moves = {name: each["migrations"] for name, each in found.items()}
    assert len({each["handovers"] for each in found.values()}) == 1
    assert 9.0 <= rtt["follow"] < rtt["patient"] < rtt["stay"]
    assert rtt["follow"] < rtt["dear"] < rtt["stay"]
    assert moves["follow"] > moves["patient"] > moves["stay"] == 0
    assert moves["follow"] > moves["dear"] > 0


class AllHear(World):
    """Where each controller has a record of each UE, and hears everything."""

    def _keep(self, ue: Ue, here: CloudletId, record: UeRecord) -> None:
        ue.records[here] = record

    def _tell_all(self, now: float, ue: Ue, happened: Input, also: CloudletId | None = None) -> None:
        for here in self._ids:
            ue.records.setdefault(here, self._away(ue, here))
        super()._tell_all(now, ue, happened, also)


@pytest.mark.parametrize("policy", [FOLLOW, STAY, RunConfig(policy="follow", curve="early", start="at_preparing")])
def test_who_only_hears_need_not_be_told(policy: RunConfig) -> None:
    scenario = Scenario(ues=6, cloudlets=12, hours=12.0)
    walks = list(mobility.walks(scenario))
    lazy, all_hear = (kind(scenario, policy, walks, MEASURED) for kind in (World, AllHear))
    results = [figures(world.run(), 6, 12.0, world.rtt_ms) for world in (lazy, all_hear)]
    for result in results:
        del result["steps"]
        del result["paths_set"]  # who is at rest is asked to hold no path, which it does not
    assert results[0]["handovers"] > 20
    assert results[0] == results[1]


ELSEWHERE = """
from testbed.simulation import run, scenario
print(run.compute(scenario.load(None, {"ues": 20, "cloudlets": 30, "hours": 4, "seed": %d}), lambda _: None)["digest"])
"""


def test_the_same_scenario_gives_the_same_result_in_any_process() -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE % seed],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed, seed in (("0", 1), ("1", 1), ("1", 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_run_leaves_numbers_tables_and_pictures(tmp_path: Path) -> None:
    said: list[str] = []
    result = run.run(SMALL.model_copy(update={"ues": 5}), tmp_path, said.append)
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {f"{name}.{end}" for name in ("trade-off", "day") for end in ("svg", "png")}
    assert names == {"results.json", "policies.csv", "hours.csv", *pictures}
    assert json.loads((tmp_path / "results.json").read_text()) == result
    assert len((tmp_path / "policies.csv").read_text().splitlines()) == 1 + len(SMALL.policies)
    assert len((tmp_path / "hours.csv").read_text().splitlines()) == 1 + 6 * len(SMALL.policies)
    assert len(said) == 1 + len(SMALL.policies)
    assert "stay" in run.describe(result)
    gained = {each["curve"]: each["rtt_gained_ms"] for each in result["runs"]}
    assert gained["stay"] == 0.0
    assert gained["follow"] > 0.0


def test_time_is_counted_to_the_hour_in_which_it_passed() -> None:
    tally = Tally(2.5)
    tally.connected(3000.0, 8000.0, 1)
    tally.connected(8000.0, 99999.0, 0)
    assert [hour.connected_s for hour in tally.hours] == [{1: 600.0}, {1: 3600.0}, {1: 800.0, 0: 1000.0}]


# What is told ------------------------------------------------------------------------------------------------------


def test_a_trace_is_walked_as_it_is_written(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("ue,seconds,cell\n0,0,3\n1,5,4\n0,10,4\n0,11,4\n0,9999,5\n")
    (tmp_path / "s.yaml").write_text("ues: 2\ncloudlets: 9\nhours: 1\nmobility: {model: trace, file: trace.csv}\n")
    scenario = scenarios.load(tmp_path / "s.yaml", {})
    assert list(mobility.walks(scenario)) == [walk_of((0, 3), (10, 4)), walk_of((5, 4))]


def test_a_trace_in_which_nobody_is_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("0,99999,3\n")
    scenario = Scenario(ues=2, cloudlets=9, hours=1, mobility=MobilityConfig(model="trace", file=trace))
    with pytest.raises(ConfigError, match="nobody is anywhere in that time"):
        run.compute(scenario, lambda _: None)


@pytest.mark.parametrize("line", ["0,1", "2,1,1", "-1,1,1", "0,1,9", "0,-1,1", "0,nan,1", "0,x,1"])
def test_a_trace_that_is_none_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(f"0,0,3\n{line}\n")
    scenario = Scenario(ues=2, cloudlets=9, mobility=MobilityConfig(model="trace", file=trace))
    with pytest.raises(ConfigError, match=r"trace\.csv:2: not ue,seconds,cell"):
        list(mobility.walks(scenario))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("uses: 3", "uses: Extra inputs are not permitted"),
        ("mobility: {model: trace}", "mobility: file: the trace has one"),
        ("mobility: {speeds_m_s: [0]}", "mobility: speeds_m_s"),
        ("policies: []", "policies: none"),
        (
            "policies: [{policy: stay, curve: a}, {policy: follow, curve: a}]",
            "curve 'a' has two points with the label ''",
        ),
        ("policies: [{policy: stay, curve: a, overrides: [{pvm: x}]}]", "overrides and cost.links name single VMs"),
        ("- 1", "not a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        scenarios.load(tmp_path / "s.yaml", {})
    assert problem in str(caught.value)


def test_scenarios_that_come_with_the_program_are_found_by_name(tmp_path: Path) -> None:
    assert scenarios.load(scenarios.find("city"), {}).ues == 100_000
    assert len(scenarios.load(scenarios.find("trade-off"), {}).policies) > 10
    (tmp_path / "mine.yaml").write_text("ues: 3\n")
    assert scenarios.find(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match="town: no such file, and none of city, trade-off"):
        scenarios.find("town")


def test_measured_migrations_name_whence_they_come(tmp_path: Path) -> None:
    for guest in ("idle", "dirtying"):
        assert "load" in migrations.load(guest).source
    with pytest.raises(ConfigError, match=r"vm\.guest: 'busy' was not measured, but dirtying, idle"):
        migrations.load("busy")
    (tmp_path / "m.json").write_text('{"source": "", "guests": {"idle": {"runs": [[0, 1]], "moved_mib": 1}}}')
    with pytest.raises(ConfigError, match=r"vm\.measured"):
        migrations.load("idle", tmp_path / "m.json")
