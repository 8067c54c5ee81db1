"""The report of an experiment: the page of its main run, with the figure of all curves before it and what the
variants and repetitions say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from testbed import results
from testbed.delay_node import DirectionStats
from testbed.report import curves, goodput, png
from testbed.report.page import NOTHING, RunData, table, write_page
from testbed.scenario.figures import Run, curves_of, segments
from testbed.scenario.schema import Scenario
from testbed.setting import Subscriber

Entry = Mapping[str, Any]
"""A part of ``results.json``."""

NAMES: Final = {
    "internet": "Internet server",
    "mtso": "cloud at the MTSO",
    "stay": "PVM stays",
    "follow": "PVM follows",
}
"""What the paper's curves are called in the figure."""
COLOURS: Final = {"internet": 1, "mtso": 2, "stay": 3, "follow": 4}
"""Theirs, as in the paper; other curves are numbered."""
METRICS: Final = {
    "handovers": "handovers",
    "migrations": "migrations",
    "migrations_failed": "migrations that failed",
    "path_ms": "path after handover, ms (median)",
    "migration_ms": "migration, ms (median)",
    "downtime_ms": "downtime, ms (median)",
    "rtt_median_ms": "RTT, ms (median)",
    "rtt_mean_ms": "RTT, ms (mean)",
    "rtt_p99_ms": "RTT, ms (99th percentile)",
    "lost_percent": "lost, %",
    "longest_gap_ms": "longest gap, ms",
    "goodput_mbit_s": "goodput, Mbit/s",
}


def write(out: Path, scenario: Scenario, runs: Sequence[Run], found: Mapping[str, Any]) -> Path:
    """Write the page and the plots; gives the page's path."""
    main = next((run for run in runs if run.variant == list(scenario.runs)[-1]), runs[-1])
    about_pvm = [app for app in scenario.applications if app.to == "pvm" and app.name in main.packets]
    number = scenario.group(about_pvm[-1].ue)[1][0] if about_pvm else 1
    internet = next((a for a in scenario.applications if a.to == "internet" and a.name in main.packets), None)
    key = str(main.about["ues"].get(f"ue{number}", NOTHING))
    data = RunData(
        ue=key,
        pings=main.packets[about_pvm[-1].name] if about_pvm else (),
        events=main.events,
        results=found if "phases" in found else results.compute((), main.events),
        delay_engine=str(main.about.get("delay_engine", NOTHING)),
        truths=[truth for truth in main.truths if truth.get("imsi") == Subscriber(number).imsi],
        internet=main.packets[internet.name] if internet else (),
        delay_stats=[DirectionStats(**entry) for entry in main.about.get("delays", ())],
        delays=scenario.network.delays,
        scenario=scenario.name,
        title=scenario.title,
        paper_migrations_s=scenario.paper_migrations_s,
        seed=scenario.seed,
        commit=found["environment"]["commit"],
        machine=found["environment"]["machine"] or None,
        story=main.story(number),
    )
    plots = {}
    caption = f"scenario {scenario.name} · seed {scenario.seed} · commit {found['environment']['commit']}"
    before = ""
    if drawn := _curves(scenario, runs):
        plots["curves"] = curves.draw(drawn, scenario.title, caption)
        before = _figure_section(scenario, found, plots["curves"].render())
    if transfers := _transfers(scenario, runs):
        plots["goodput"] = goodput.draw(transfers, caption)
        before += f"<figure>\n{plots['goodput'].render()}\n</figure>"
    if scenario.external is not None:
        before = _external_section(found)
    if scenario.description:
        before = f'<p class="lead">{escape(scenario.description.strip())}</p>\n{before}'
    page = write_page(
        out, data, plots, before=before, after=_variants_section(found) + _faults(runs) + _failures(found)
    )
    png.beside(sorted(out.glob("*.svg")))
    return page


def _curves(scenario: Scenario, runs: Sequence[Run]) -> list[curves.Curve]:
    """Of the first repetition of each curve; TCP's bulk transfers have no round trip to speak of."""
    found: list[curves.Curve] = []
    every = curves_of(scenario, runs)
    taken = {COLOURS[name] for _, name, _ in every if name in COLOURS}
    free = iter([colour for colour in range(1, curves.MOST_COLOURS + 1) if colour not in taken])
    for app, name, of in every:
        run = of[0]
        if app.kind == "tcp" or len(found) == curves.MOST_COLOURS:
            continue  # the table has them all
        began = run.about["began_ns"]
        _, numbers = scenario.group(app.ue)
        story = run.story(numbers[0])
        moving = app.to == "pvm"
        handovers, migrations = curves.moments(began, story.handovers, story.migrations if moving else ())
        levels = []
        packets = run.packets[app.name]
        for segment in segments(scenario, app, run):
            inside = [
                rtt for p in packets if segment.begin <= p.sent_ns < segment.end and (rtt := p.rtt_ms) is not None
            ]
            median = results.quantiles(inside)["p50"]
            if median is not None:
                begin, end = ((at - began) / 1e9 for at in (segment.begin, segment.end))
                levels.append(curves.Level(max(begin, 0.0), end, median))
        points = [((p.sent_ns - began) / 1e9, p.rtt_ms) for p in packets if p.sent_ns >= began]
        label = NAMES.get(name, name)
        colour = COLOURS.get(name) or next(free, curves.MOST_COLOURS)
        found.append(curves.Curve(label, colour, points, levels, handovers, migrations, _broken(run)))
    return found


def _broken(run: Run) -> list[tuple[float, float, str]]:
    """From when until when each part or link of a run was broken, in seconds since its start."""
    found: list[tuple[float, float, str]] = []
    begun: dict[str, float] = {}
    for fault in run.about["faults"]:
        at_s = (fault["at_ns"] - run.about["began_ns"]) / 1e9
        part = fault["what"].rsplit(" is ", 1)[0]
        if part in begun:
            found.append((begun.pop(part), at_s, part))
        else:
            begun[part] = at_s
    return found + [(at_s, at_s, part) for part, at_s in begun.items()]


def _transfers(scenario: Scenario, runs: Sequence[Run]) -> list[goodput.Transfer]:
    """Of the first repetition of each bulk transfer."""
    found: list[goodput.Transfer] = []
    for app, name, of in curves_of(scenario, runs):
        if app.kind != "tcp":
            continue
        began = of[0].about["began_ns"]
        came = [packet.received_ns for packet in of[0].packets[app.name] if packet.received_ns is not None]
        arrivals = [(at - began) / 1e9 for at in came]
        found.append(goodput.Transfer(name, len(found) % curves.MOST_COLOURS + 1, app.size, arrivals))
    return found


def _figure_section(scenario: Scenario, found: Mapping[str, Any], figure: str) -> str:
    columns: dict[str, Callable[[Entry, Entry], str]] = {
        "curve": lambda curve, _: NAMES.get(str(curve["name"]), str(curve["name"])),
        "where": lambda _, segment: segment["label"],
        "set delays alone, ms": lambda _, segment: _ms(segment["expected_ms"]),
        "paper, ms": lambda _, segment: _ms(segment["paper_ms"]),
        "here, median, ms": lambda _, segment: _estimate(segment["rtt_ms"]["median"], segment["median_ci95"]),
        "99th percentile, ms": lambda _, segment: _ms(segment["rtt_ms"]["p99"]),
        "above the set delays, ms": lambda _, segment: _above(segment),
        "sent": lambda _, segment: str(segment["sent"]),
        "lost": lambda _, segment: str(segment["lost"]),
    }
    pairs = [(curve, segment) for curve in found["curves"] for segment in curve["segments"]]
    if all(segment["paper_ms"] is None for _, segment in pairs):
        del columns["paper, ms"]
    rows = [[cell(curve, segment) for cell in columns.values()] for curve, segment in pairs]
    main = list(columns).index("here, median, ms")
    repeated = (
        f" The figure shows the first of {scenario.repetitions} repetitions; the table has all, with the 95 % "
        "confidence interval of the median over the repetitions."
        if scenario.repetitions > 1
        else ""
    )
    broken = " Red bars at the foot: for how long a part or a link was broken." if scenario.faults else ""
    return f"""<section>
<h2>Every packet</h2>
<p>Each dot is one packet, at the time it was sent; lines are the medians of the stretches in which the UE and its
personal VM stay where they are. Dashed: handovers. Shaded: the migration of the VM. Triangles at the upper edge:
answers that took longer than the panel shows.{broken}{repeated}</p>
<figure>
{figure}
</figure>
<div class="scroll">
{table("", list(columns), rows, main=main, words=2)}
</div>
</section>"""


def _external_section(found: Mapping[str, Any]) -> str:
    seen = [(name, str(count)) for name, count in found["events"].items()]
    stay = found["stay_s"]
    would = [
        ("UEs", str(found["ues"])),
        ("handovers", str(found["handovers"])),
        ("changes of cloudlet", str(found["cloudlet_changes"])),
        ("stay with a cloudlet, s, median", _ms(stay["p50"])),
        ("stay with a cloudlet, s, 99th percentile", _ms(stay["p99"])),
    ]
    return f"""<section>
<h2>What cloudlets would have seen</h2>
<p>By the scenario's map of eNodeBs to cloudlets. Stays are those of UEs that moved on.</p>
{table("", ("", "here"), would, main=1)}
</section>
<section>
<h2>Events</h2>
{table("", ("type", "number"), seen, main=1)}
</section>"""


def _variants_section(found: Mapping[str, Any]) -> str:
    variants = found.get("variants", {})
    if not variants or (len(variants) == 1 and found["repetitions"] == 1 and len(found.get("curves", ())) < 2):
        return ""
    names = list(dict.fromkeys(name for variant in variants.values() for name in variant["summary"]))
    rows = [
        (metric_name(name), *(summary_cell(variant["summary"].get(name)) for variant in variants.values()))
        for name in names
    ]
    interval = ", with its 95 % confidence interval (Student's t)" if found["repetitions"] > 1 else ""
    return f"""<section>
<h2>Variants</h2>
<p>The mean of {found["repetitions"]} repetition(s){interval}.</p>
<div class="scroll">
{table("", ("", *variants), rows, main=-1)}
</div>
</section>"""


def metric_name(name: str) -> str:
    """A metric in words: ``pvm.rtt_median_ms`` is the application's."""
    application, _, metric = name.rpartition(".")
    words = METRICS.get(metric, metric)
    return f"{application}: {words}" if application else words


def _faults(runs: Sequence[Run]) -> str:
    rows = [
        (run.directory.name, f"{(fault['at_ns'] - run.about['began_ns']) / 1e9:.2f}", fault["what"])
        for run in runs
        for fault in run.about["faults"]
    ]
    if not rows:
        return ""
    faults = table("", ("run", "time since the start, s", "what happened"), rows, main=1)
    return f'<section>\n<h2>What was broken</h2>\n<div class="scroll">\n{faults}\n</div>\n</section>'


def _failures(found: Mapping[str, Any]) -> str:
    failures = [
        f"{run['directory']}: {failure}"
        for variant in found.get("variants", {}).values()
        for run in variant["runs"]
        for failure in run["failures"]
    ]
    if not failures:
        return ""
    items = "".join(f"<li>{escape(failure)}</li>" for failure in failures)
    return f"<section>\n<h2>What the network did not do</h2>\n<ul>{items}</ul>\n</section>"


def summary_cell(summary: Mapping[str, Any] | None) -> str:
    """An estimate of ``results.json`` in a table: the mean, with its interval where there is one."""
    return NOTHING if summary is None else _estimate(summary["mean"], summary["ci95"])


def _estimate(value: float | None, interval: Sequence[float] | None) -> str:
    return _ms(value) if interval is None else f"{_ms(value)} [{_ms(interval[0])}, {_ms(interval[1])}]"


def _above(segment: Entry) -> str:
    median, expected = segment["rtt_ms"]["median"], segment["expected_ms"]
    return _ms(None if median is None or expected is None else median - expected)


def _ms(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.2f}"
