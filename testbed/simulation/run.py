"""A simulation from its scenario to its files: ``mobiscud simulate``."""

from __future__ import annotations

import csv
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import ConfigError
from testbed.report import machine
from testbed.simulation import migrations
from testbed.simulation.mobility import Walk, walks
from testbed.simulation.scenario import RunConfig, Scenario
from testbed.simulation.tally import figures
from testbed.simulation.world import World

EVERY_S: Final = 5.0
"""Between two words of progress."""

Say = Callable[[str], None]


def say(message: str) -> None:
    """Progress, for whoever waits."""
    print(f"simulate: {message}", file=sys.stderr, flush=True)


def run(scenario: Scenario, out: Path, say: Say = say) -> dict[str, Any]:
    """Try each policy on the same walks, and write what came of it below ``out``.

    :raises ConfigError: the trace or the measured migrations cannot be read, or the trace is empty
    """
    from testbed.simulation import curves  # matplotlib: let its lack be said before the day, not after it

    commit = machine.commit()  # of the code that is loaded, whatever becomes of the checkout meanwhile
    out.mkdir(parents=True, exist_ok=True)
    result = compute(scenario, say)
    result["commit"] = commit
    result["machine"] = machine.describe()
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    runs = result["runs"]
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    _table(out / "policies.csv", _rows(runs))
    _table(out / "hours.csv", ({**_name(run), **hour} for run in runs for hour in run["hours"]))
    curves.draw(result, out)
    return result


def compute(scenario: Scenario, say: Say) -> dict[str, Any]:
    """What comes of each policy. ``digest`` is over the scenario and its results: equal where these are.

    :raises ConfigError: the trace or the measured migrations cannot be read, or the trace is empty
    """
    measured = migrations.load(scenario.vm.guest, scenario.vm.measured)
    began = time.monotonic()
    paths = list(walks(scenario))
    if not any(path.times for path in paths):
        raise ConfigError("mobility.file: nobody is anywhere in that time")
    say(f"{len(paths):,} users' walks of {scenario.hours:g} h, in {time.monotonic() - began:.0f} s")
    runs = []
    seconds: list[dict[str, float]] = []
    for number, policy in enumerate(scenario.policies, start=1):
        name = " ".join(part for part in (policy.curve, policy.label) if part)
        began, worked = time.monotonic(), time.process_time()
        runs.append(_one(scenario, policy, paths, measured, _progress(say, name, scenario.hours * 3600)))
        took = {"clock": round(time.monotonic() - began, 1), "processor": round(time.process_time() - worked, 1)}
        seconds.append(took)
        say(f"{number} of {len(scenario.policies)}: {name}, in {took['clock']:.0f} s")
    _gains(runs)
    result: dict[str, Any] = {"scenario": scenario.model_dump(mode="json"), "measured": measured.source, "runs": runs}
    result["digest"] = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
    result["seconds"] = seconds
    return result


def _one(
    scenario: Scenario,
    policy: RunConfig,
    paths: list[Walk],
    measured: migrations.Measured,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    world = World(scenario, policy, paths, measured)
    tally = world.run(progress)
    about = {"curve": policy.curve, "label": policy.label, "policy": policy.policy, "start": policy.start}
    return {**about, **figures(tally, len(paths), scenario.hours, world.rtt_ms)}


def _progress(say: Say, name: str, until: float) -> Callable[[float], None]:
    told = time.monotonic()

    def tell(now: float) -> None:
        nonlocal told
        if time.monotonic() - told >= EVERY_S:
            told = time.monotonic()
            say(f"{name}: {now / until:.0%} of the time")

    return tell


def _gains(runs: Iterable[dict[str, Any]]) -> None:
    """How much shorter the mean round trip is than if VMs stayed; null where that was not tried."""
    means = {run["policy"]: run["rtt_ms"]["mean"] for run in runs}
    for run in runs:
        stayed, mean = means.get("stay"), run["rtt_ms"]["mean"]
        run["rtt_gained_ms"] = round(stayed - mean, 4) if stayed is not None and mean is not None else None


def _name(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: run[key] for key in ("curve", "label", "policy", "start")}


def _rows(runs: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """A run in one flat row, without its hours."""
    for run in runs:
        row: dict[str, Any] = {}
        for key, value in run.items():
            if isinstance(value, Mapping):
                row |= {f"{key}_{part}": each for part, each in value.items()}
            elif key != "hours":
                row[key] = value
        yield row


def _table(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    found = list(rows)
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, found[0])
        writer.writeheader()
        writer.writerows(found)


def describe(result: Mapping[str, Any]) -> str:
    """A table for people."""
    lines = [
        f"{'policy':34} {'RTT ms':>8} {'gained':>8} {'moves/day':>10} {'MiB/day':>9} {'outage s/day':>13} {'beside':>7}"
    ]
    for run in result["runs"]:
        name = " ".join(part for part in (run["curve"], run["label"]) if part)
        gained = "" if run["rtt_gained_ms"] is None else f"{run['rtt_gained_ms']:.2f}"
        lines.append(
            f"{name:34} {run['rtt_ms']['mean'] or 0:8.2f} {gained:>8} {run['migrations_a_day']:10.2f}"
            f" {run['moved_mib_a_day']:9.0f} {run['outage_s_a_day']:13.3f} {run['beside_share'] or 0:7.1%}"
        )
    return "\n".join(lines)
