"""From raw data whose figures are known to results and pages."""

from __future__ import annotations

import importlib.util
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobiscud.core.errors import ConfigError, MobiScudError, SetupError
from testbed.report import curves, goodput
from testbed.report.goodput import Transfer
from testbed.results import Ping
from testbed.scenario import experiment, figures
from testbed.scenario.compare import compare
from testbed.scenario.schema import Application
from testbed.scenario.statistics import estimate, t_95

MS = 1_000_000
UE = "ue-0123456789abcdef"
SCENARIO = """
name: made-up
title: A made-up run
description: Whose figures are known.
duration_s: 24
repetitions: 2
ues: [{name: walker}]
variants:
  stay: {migration: {policy: stay}}
  follow: {migration: {policy: follow}}
applications:
  - {name: internet, ue: walker, to: internet, variants: [follow], paper_ms: 85.7}
  - {name: pvm, ue: walker, paper_ms: [9.03, 13.66, 9.06, 13.99, 9.1]}
"""


def record(file: Path, pings: list[Ping]) -> None:
    lines = [f"{p.seq},{p.sent_ns},{'' if p.received_ns is None else p.received_ns}\n" for p in pings]
    file.write_text("seq,sent_ns,received_ns\n" + "".join(lines))


@pytest.fixture
def out(synthetic_run: Callable[..., Any], tmp_path: Path) -> Path:
    """An experiment of two variants and two repetitions; the second one's packets take a millisecond more."""
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    for variant in ("stay", "follow"):
        for repetition in (1, 2):
            run = synthetic_run()
            directory = tmp_path / "runs" / f"{variant}-{repetition}"
            directory.mkdir(parents=True)
            events = [e for e in run.events if variant == "follow" or ".pvm.mig" not in e["type"]]
            (directory / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
            (directory / "truths.jsonl").write_text("".join(json.dumps(truth) + "\n" for truth in run.truths))
            more = (repetition - 1) * MS
            pings = [Ping(p.seq, p.sent_ns, p.received_ns and p.received_ns + more) for p in run.pings]
            record(directory / "pvm.csv", pings)
            if variant == "follow":
                record(directory / "internet.csv", [Ping(p.seq, p.sent_ns, p.sent_ns + 71 * MS) for p in pings[::10]])
            about = {
                "variant": variant,
                "repetition": repetition,
                "began_ns": run.pings[0].sent_ns,
                "ues": {"ue1": UE},
                "faults": [{"at_ns": run.pings[100].sent_ns, "what": "c1 is killed", "do": "kill"}],
                "failures": ["ue1: handover to eNB9: no such cell"],
                "delay_engine": "user space",
                "delays": [],
                "environment": {"commit": "0123456789", "machine": {}},
            }
            (directory / "run.json").write_text(json.dumps(about))
    return tmp_path


def test_curves_have_the_segments_of_the_paper(out: Path) -> None:
    experiment.write_report(out)
    found = json.loads((out / "results.json").read_text())
    drawn = {curve["name"]: curve for curve in found["curves"]}
    assert list(drawn) == ["internet", "pvm, stay", "pvm, follow"]

    follow = drawn["pvm, follow"]["segments"]
    labels = ["eNB1", "eNB2 before migration", "eNB2 after migration", "eNB3 before migration", "eNB3 after migration"]
    assert [segment["label"] for segment in follow] == labels
    assert [segment["expected_ms"] for segment in follow] == [8, 12, 8, 12, 8]
    assert [segment["paper_ms"] for segment in follow] == [9.03, 13.66, 9.06, 13.99, 9.1]
    assert follow[0]["rtt_ms"] == {"median": 8, "mean": 8.5, "p99": 9}
    assert (follow[0]["sent"], follow[0]["lost"]) == (1000, 4)
    # Of the medians 8 and 9: their mean, and 12.706 times half a millisecond to each side.
    assert follow[0]["median_ci95"] == [2.147, 14.853]
    internet = drawn["internet"]["segments"]
    assert [(segment["label"], segment["rtt_ms"]["median"], segment["expected_ms"]) for segment in internet] == [
        (label, 71, 70) for label in ("eNB1", "eNB2", "eNB3")
    ]
    stay = drawn["pvm, stay"]["segments"]
    assert [(segment["label"], segment["expected_ms"]) for segment in stay] == [("eNB1", 8), ("eNB2", 12), ("eNB3", 16)]


def test_who_comes_twice_to_a_cell_does_not_repeat_the_experiment(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, runs = experiment.load(out)
    run = next(run for run in runs if run.variant == "stay")
    began = run.packets["pvm"][0].sent_ns
    visits = [figures.Segment("eNB1", began + at, began + at + 500 * MS, 8.0) for at in (0, 4000 * MS)]
    monkeypatch.setattr(figures, "segments", lambda *about: visits)
    (found,) = figures.curve(scenario, scenario.applications[-1], "pvm", [run])["segments"]
    assert found["sent"] == sum(any(v.begin <= p.sent_ns < v.end for v in visits) for p in run.packets["pvm"]) > 50
    assert found["median_ci95"] is None, "one run says nothing of another"


def test_curves_that_share_levels_share_a_panel() -> None:
    def curve(label: str, *levels_ms: float) -> curves.Curve:
        levels = [curves.Level(10.0 * n, 10.0 * n + 9, level) for n, level in enumerate(levels_ms)]
        points = [(level.begin_s + part, level.median_ms) for level in levels for part in range(9)]
        return curves.Curve(label, 1, points, levels)

    def breaks(*shown: curves.Curve) -> int:
        root = ET.fromstring(curves.draw(shown, "title", "caption").render_file())
        axes = [line for line in root.iter("{http://www.w3.org/2000/svg}line") if line.attrib["class"] == "axis"]
        return sum(line.attrib["x1"] != line.attrib["x2"] and line.attrib["y1"] != line.attrib["y2"] for line in axes)

    follow, stay = curve("follow", 9, 13, 9), curve("stay", 9, 13, 17)
    assert breaks(follow, stay) == 0, "the one is twice the other for a while, and equal at first"
    assert breaks(follow, stay, curve("internet", 71, 71)) == 2


def test_faults_are_drawn_in_rows_with_their_names() -> None:
    points = [(at / 10, 8.0) for at in range(300)]
    faults = [(4.0, 5.0, "c1"), (5.2, 6.0, "link isl-1"), (20.0, 21.0, "broker")]
    picture = curves.draw([curves.Curve("pvm", 1, points, [], faults=faults)], "title", "caption")
    root = ET.fromstring(picture.render_file())
    texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
    named = {text.text: float(text.attrib["y"]) for text in texts if "y" in text.attrib}
    assert named["c1"] == named["broker"] < named["link isl-1"], "names do not cover each other"


def test_results_tell_of_the_main_run_and_of_all_repetitions(out: Path) -> None:
    experiment.write_report(out)
    found = json.loads((out / "results.json").read_text())
    assert found["ue"] == UE
    assert len(found["phases"]) == 5
    assert len(found["handovers"]) == len(found["migrations"]) == 2
    assert found["internet"] == {"sent": 240, "lost": 0}
    follow = found["variants"]["follow"]
    assert [run["directory"] for run in follow["runs"]] == ["runs/follow-1", "runs/follow-2"]
    assert follow["summary"]["migrations"] == {"n": 2, "mean": 2, "ci95": [2, 2]}
    assert follow["summary"]["downtime_ms"]["mean"] == 20
    assert follow["summary"]["pvm.rtt_median_ms"]["n"] == 2
    assert found["variants"]["stay"]["summary"]["migrations"]["mean"] == 0
    assert "downtime_ms" not in found["variants"]["stay"]["summary"]


def test_the_page_shows_curves_variants_faults_and_failures(out: Path) -> None:
    page = experiment.write_report(out).read_text()
    for word in ("A made-up run", "Whose figures are known.", "here, median, ms", "Variants", "What was broken"):
        assert word in page
    assert page.count("c1 is killed") == 4
    assert "no such cell" in page
    named = list(ET.parse(out / "curves.svg").getroot().iter("{http://www.w3.org/2000/svg}text"))
    texts = [text.text for text in named]
    assert {"Internet server", "pvm, stay", "pvm, follow", "eNB1 → eNB2", "migration", "71.0"} <= set(texts)
    assert {"broken", "c1"} <= set(texts)
    assert "var(" not in (out / "curves.svg").read_text(), "not every program knows variables"
    colours = {text.text: text.attrib["class"] for text in named if "strong" in text.attrib["class"]}
    assert sorted(colours.values()) == ["strong t1", "strong t2", "strong t3"], "each curve has its own colour"


def test_experiments_are_compared(out: Path, tmp_path: Path) -> None:
    experiment.write_report(out)
    page = compare([out], tmp_path / "compared").read_text()
    assert "downtime, ms (median)" in page
    found = json.loads((tmp_path / "compared" / "results.json").read_text())
    assert list(found["columns"]) == ["stay", "follow"]
    assert found["columns"]["follow"]["downtime_ms"]["mean"] == 20
    assert found["experiments"][0]["scenario"] == "made-up"
    ET.parse(tmp_path / "compared" / "downtime_ms.svg")


def test_an_earlier_experiment_gives_way_and_nothing_else(out: Path) -> None:
    experiment.write_report(out)
    (out / "notes.txt").write_text("mine")
    experiment.clear(out)
    assert sorted(entry.name for entry in out.iterdir()) == ["notes.txt", "scenario.yaml"]

    (out / "scenario.yaml").unlink()
    (out / "runs").mkdir()
    experiment.clear(out)
    assert (out / "runs").exists(), "without its scenario it is nothing of ours"


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no results of an experiment"):
        compare([tmp_path], tmp_path / "out")
    with pytest.raises(MobiScudError):
        experiment.write_report(tmp_path)


def test_an_application_counts_losses_gaps_and_goodput() -> None:
    app = Application(name="bulk", kind="tcp", ue="walker", octets=1000)
    packets = [Ping(n, n * 10 * MS, None if n in (4, 5) else (n * 10 + 8) * MS) for n in range(11)]
    found = figures.application(app, packets)
    assert (found["sent"], found["lost"], found["reordered"]) == (11, 2, 0)
    assert found["longest_gap_ms"] == 30
    assert found["goodput_mbit_s"] == pytest.approx(9 * 8000 / 0.1 / 1e6)


def test_goodput_is_what_arrived_in_each_quarter_of_a_second() -> None:
    transfer = Transfer("bulk", 1, 12_500, [0.1, 0.2, 0.3, 1.1, -0.5])
    assert transfer.mbit_s(1.1) == pytest.approx([0.8, 0.4, 0, 0, 0.4])
    ET.fromstring(goodput.draw([transfer], "a caption").render_file())
    ET.fromstring(goodput.draw([], "a caption").render_file())


def test_estimates_are_student_s() -> None:
    assert estimate([]) is None
    assert estimate([None, 3.0]) is not None
    alone = estimate([3.0])
    assert alone is not None
    assert (alone.mean, alone.half_width) == (3.0, None)
    several = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert several is not None
    assert several.mean == 3
    assert several.half_width == pytest.approx(2.776 * 2.5**0.5 / 5**0.5)
    assert t_95(30) == 2.042
    assert t_95(120) == pytest.approx(1.980, abs=2e-3)


def test_a_plain_installation_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "os_ken" else found(name))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SetupError, match=r"needs os_ken: pip install 'mobiscud\[node,testbed\]'"):
        experiment.run(experiment.find("quick"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
