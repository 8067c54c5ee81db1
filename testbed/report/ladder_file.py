"""``mobiscud ladder``: the ladder of a capture, or of an experiment's directory, as one SVG file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from epc_monitor.capture import read_capture
from mobiscud.core.errors import ConfigError
from testbed import results
from testbed.report import ladder, signalling
from testbed.report.ladder import NS, Rung
from testbed.report.svg import Drawing

CAPTURE: Final = "signalling.pcap"
"""Of an experiment's run, beside its events."""
EVENTS: Final = "events.jsonl"
MOST_RUNGS: Final = 1500


def draw(source: Path, *, begin_s: float = 0.0, end_s: float | None = None) -> Drawing:
    """The ladder of a capture (pcap, pcapng), or of an experiment (its directory, or that of one of its runs).

    ``begin_s`` and ``end_s`` choose a part, in seconds since the first rung.

    :raises CaptureError: the file is no capture
    :raises ConfigError: the directory is not one of an experiment, or nothing in it can be drawn
    """
    rungs = sorted(_of_run(_run_directory(source)) if source.is_dir() else _of_capture(source), key=lambda r: r.at)
    if not rungs:
        raise ConfigError(f"{source}: there is no signalling in it")
    origin = rungs[0].at
    shown = [
        rung for rung in rungs if rung.at - origin >= begin_s * NS and (end_s is None or rung.at - origin <= end_s * NS)
    ]
    if not shown:
        raise ConfigError(f"{source}: nothing happens there; the whole takes {(rungs[-1].at - origin) / NS:.1f} s")
    left_out = len(shown) - MOST_RUNGS
    more = f" · {left_out} more left out: choose a part with --from and --to" if left_out > 0 else ""
    return ladder.draw_rungs(shown[:MOST_RUNGS], f"{source.name}{more}")


def _of_capture(file: Path) -> list[Rung]:
    return signalling.rungs(read_capture(file))


def _run_directory(directory: Path) -> Path:
    """The directory itself, or of an experiment the first repetition of its last variant."""
    if (directory / EVENTS).exists():
        return directory
    runs = sorted((directory / "runs").glob("*-1"), key=lambda run: (run / "run.json").stat().st_mtime)
    if not runs:
        raise ConfigError(f"{directory}: neither an experiment nor one of its runs")
    return runs[-1]


def _of_run(directory: Path) -> list[Rung]:
    """The messages where they were captured, and what MobiScud did for each UE; else what the events tell of both."""
    events = results.load_events(directory / EVENTS)
    capture = directory / CAPTURE
    if not capture.exists():
        truths = _truths(directory / "truths.jsonl")
        return [rung for ue in _ues(events) for rung in ladder.of_story(results.tell(events, ue), truths)]
    stories = [results.tell(events, ue) for ue in _ues(events)]
    return [*_of_capture(capture), *(rung for story in stories for rung in ladder.actions(story))]


def _ues(events: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Those for which MobiScud did something."""
    acted = (event["data"].get("ue") for event in events if ".offload." in event["type"] or ".pvm." in event["type"])
    return dict.fromkeys(ue for ue in acted if ue)


def _truths(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
