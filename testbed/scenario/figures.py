"""From the raw data of an experiment to its figures: what ``results.json`` holds. Pure but for reading the files.

The raw data of one run lie in a directory: ``run.json``, ``events.jsonl``, ``truths.jsonl``, and a CSV file for each
application. ``docs/experiments.md`` says what each holds and what each figure means.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import DecodeError
from testbed import results
from testbed.results import NS_PER_MS, Phase, Ping, Story
from testbed.scenario.schema import Application, Scenario
from testbed.scenario.statistics import estimate
from testbed.topology import Delays

RUN_FILE: Final = "run.json"
NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """The raw data of one run. ``about`` is the content of ``run.json``."""

    directory: Path
    about: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    truths: Sequence[Mapping[str, Any]]
    packets: Mapping[str, Sequence[Ping]]
    """By application."""

    @property
    def variant(self) -> str:
        """Which variant of the scenario it is a run of."""
        return str(self.about["variant"])

    def story(self, ue: int) -> Story:
        """What the events tell of UE number ``ue``."""
        return results.tell(self.events, self.about["ues"].get(f"ue{ue}"))


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a curve: where the UE and its personal VM stay where they are."""

    label: str
    begin: int
    end: int
    expected_ms: float | None
    """What the delays of the links alone give."""


def load_run(directory: Path, scenario: Scenario) -> Run:
    """Read a run's raw data.

    :raises DecodeError: a file is missing or is not what it should be
    """
    try:
        about = json.loads((directory / RUN_FILE).read_text())
        truths = [json.loads(line) for line in (directory / "truths.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise DecodeError(f"{directory}: no raw data of a run: {error}") from error
    packets = {
        app.name: results.load_pings(file)
        for app in scenario.applications
        if (file := directory / f"{app.name}.csv").exists()
    }
    return Run(directory, about, results.load_events(directory / "events.jsonl"), truths, packets)


def compute(scenario: Scenario, runs: Sequence[Run]) -> dict[str, Any]:
    """The figures of the whole experiment, but for what describes where it was made."""
    main = next((run for run in runs if run.variant == list(scenario.runs)[-1]), runs[-1])
    found = _as_the_demo(scenario, main)
    found["curves"] = [curve(scenario, app, name, of) for app, name, of in curves_of(scenario, runs)]
    found["variants"] = {
        name: _variant(scenario, [run for run in runs if run.variant == name]) for name in scenario.runs
    }
    return found


def _as_the_demo(scenario: Scenario, run: Run) -> dict[str, Any]:
    """The phases of the first UE's pings to its personal VM, its handovers and migrations."""
    about_pvm = [app for app in scenario.applications if app.to == "pvm" and app.name in run.packets]
    pings = run.packets[about_pvm[-1].name] if about_pvm else ()
    number = scenario.group(about_pvm[-1].ue)[1][0] if about_pvm else 1
    found = results.compute(pings, run.events, run.about["ues"].get(f"ue{number}"))
    beside = next((app for app in scenario.applications if app.to == "internet" and app.name in run.packets), None)
    if beside is not None:
        found["internet"] = _counts(run.packets[beside.name])
    return found


# Curves --------------------------------------------------------------------------------------------------------------


def curves_of(scenario: Scenario, runs: Sequence[Run]) -> list[tuple[Application, str, list[Run]]]:
    """Each application in each variant it runs in, with a name: the application's own where it runs in one alone."""
    found = []
    for app in scenario.applications:
        variants = [name for name in scenario.runs if not app.variants or name in app.variants]
        for variant in variants:
            of = [run for run in runs if run.variant == variant and app.name in run.packets]
            name = app.name if len(variants) == 1 else f"{app.name}, {variant}"
            if of:
                found.append((app, name, of))
    return found


def curve(scenario: Scenario, app: Application, name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """A curve's segments, pooled over the repetitions."""
    pooled: dict[str, dict[str, Any]] = {}
    for run in runs:
        for segment in segments(scenario, app, run):
            entry = pooled.setdefault(segment.label, {"expected": segment.expected_ms, "packets": {}})
            inside = entry["packets"].setdefault(run.directory.name, [])  # a UE may be there more than once
            inside += [p for p in run.packets[app.name] if segment.begin <= p.sent_ns < segment.end]
    return {
        "name": name,
        "application": app.name,
        "kind": app.kind,
        "variant": runs[0].variant,
        "segments": [
            {
                "label": label,
                "rtt_ms": _rtt(list(itertools.chain(*entry["packets"].values()))),
                "median_ci95": _median_interval(entry["packets"].values()),
                "expected_ms": entry["expected"],
                "paper_ms": _paper(app, number),
                **_counts(list(itertools.chain(*entry["packets"].values()))),
            }
            for number, (label, entry) in enumerate(pooled.items())
        ],
    }


def segments(scenario: Scenario, app: Application, run: Run) -> list[Segment]:
    """The segments of an application's curve. Where its packets do not go to a VM that may move, a cell is one."""
    group, numbers = scenario.group(app.ue)
    story = run.story(numbers[0])
    moving = app.to == "pvm" and group.pvm == "edge"
    if not moving:
        story = dataclasses.replace(story, migrations=())
    delays = scenario.network.delays
    return [
        Segment(
            phase.name,
            phase.begin,
            phase.end,
            None if app.kind == "tcp" else _expected_ms(delays, phase, story, app.to, moving=moving),
        )
        for phase in results.phases(story, run.packets[app.name])
    ]


def _expected_ms(delays: Delays, phase: Phase, story: Story, to: str, *, moving: bool) -> float | None:
    if to == "internet":
        return delays.internet_rtt_ms
    cloudlet = next((str(fact.data["to_cloudlet"]) for fact in story.facts if fact.kind == "pvm.started"), None)
    for migration in story.migrations if moving else ():
        if migration.switched <= phase.begin:
            cloudlet = migration.target
    cell = phase.name.split()[0].removeprefix("eNB")
    return delays.pvm_rtt_ms(int(cell), cloudlet) if cloudlet is not None and cell.isdigit() else None


def _paper(app: Application, number: int) -> float | None:
    if isinstance(app.paper_ms, tuple):
        return app.paper_ms[number] if number < len(app.paper_ms) else None
    return app.paper_ms


# Of a run, and of all repetitions ------------------------------------------------------------------------------------


def _variant(scenario: Scenario, runs: Sequence[Run]) -> dict[str, Any]:
    each = [_run(scenario, run) for run in runs]
    metrics: dict[str, list[float | None]] = {}
    for run in each:
        for name, value in run["metrics"].items():
            metrics.setdefault(name, []).append(value)
    summary = {name: found.as_dict() for name, values in metrics.items() if (found := estimate(values)) is not None}
    return {"runs": each, "summary": summary}


def _run(scenario: Scenario, run: Run) -> dict[str, Any]:
    """A run's own figures; ``metrics`` are those that are compared."""
    told = results.tell_each(run.events)
    stories = [told[key] for key in run.about["ues"].values() if key in told]
    handovers = [handover for story in stories for handover in story.handovers]
    migrations = [migration for story in stories for migration in story.migrations]
    metrics: dict[str, float | None] = {
        "handovers": len(handovers),
        "migrations": len(migrations),
        "migrations_failed": sum(fact.kind == "pvm.migration_failed" for story in stories for fact in story.facts),
        "path_ms": results.quantiles(results.between_ms(h.completed, h.flipped) for h in handovers)["p50"],
        "migration_ms": results.quantiles(m.total_ms for m in migrations)["p50"],
        "downtime_ms": results.quantiles(m.downtime_ms for m in migrations)["p50"],
    }
    applications = {}
    for app in scenario.applications:
        if app.name not in run.packets:
            continue
        figures = application(app, run.packets[app.name])
        applications[app.name] = figures
        metrics |= {
            f"{app.name}.rtt_median_ms": figures["rtt_ms"]["median"],
            f"{app.name}.rtt_mean_ms": figures["rtt_ms"]["mean"],
            f"{app.name}.rtt_p99_ms": figures["rtt_ms"]["p99"],
            f"{app.name}.lost_percent": 100 * figures["lost"] / figures["sent"] if figures["sent"] else None,
            f"{app.name}.longest_gap_ms": figures["longest_gap_ms"],
        }
        if app.kind == "tcp":
            metrics[f"{app.name}.goodput_mbit_s"] = figures["goodput_mbit_s"]
    return {
        "directory": f"runs/{run.directory.name}",
        "repetition": run.about["repetition"],
        "metrics": metrics,
        "applications": applications,
        "faults": run.about["faults"],
        "failures": run.about["failures"],
    }


def application(app: Application, packets: Sequence[Ping]) -> dict[str, Any]:
    """What became of an application's packets. A gap is the time between two answers, as the UE saw them."""
    answers = sorted(packet.received_ns for packet in packets if packet.received_ns is not None)
    gaps = [b - a for a, b in itertools.pairwise(answers)]
    span_s = (answers[-1] - answers[0]) / NS if len(answers) > 1 else None
    return {
        "kind": app.kind,
        "rtt_ms": _rtt(packets),
        **_counts(packets),
        "reordered": len(results.reordered(packets)),
        "longest_gap_ms": round(max(gaps) / NS_PER_MS, 3) if gaps else None,
        "goodput_mbit_s": round(8e-6 * app.size * len(answers) / span_s, 4) if span_s else None,
    }


def _rtt(packets: Sequence[Ping]) -> dict[str, float | None]:
    rtts = [rtt for packet in packets if (rtt := packet.rtt_ms) is not None]
    ranks = results.quantiles(rtts)
    mean = round(sum(rtts) / len(rtts), 3) if rtts else None
    return {"median": ranks["p50"], "mean": mean, "p99": ranks["p99"]}


def _counts(packets: Sequence[Ping]) -> dict[str, int]:
    return {"sent": len(packets), "lost": sum(packet.received_ns is None for packet in packets)}


def _median_interval(repetitions: Iterable[Sequence[Ping]]) -> list[float] | None:
    """Of the repetitions' medians."""
    found = estimate(_rtt(packets)["median"] for packets in repetitions)
    interval: list[float] | None = None if found is None else found.as_dict()["ci95"]
    return interval
