"""``mobiscud bench replay FILE``: from captured frames to events, as a library and as a program; memory for each UE.

The capture is repeated until it is long (``long_capture``), so that start-up counts for little. As a program,
``mobiscud replay`` stands against tshark printing three fields of S1AP from the same file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

from testbed.bench import common, decode, forms, long_capture
from testbed.bench.common import Took, say

LEAST_FRAMES: Final = 150_000
ROUNDS: Final = 5
PROGRAM_ROUNDS: Final = 3
UES: Final = 100_000


def run(file: Path, least_frames: int = LEAST_FRAMES, ues: int = UES) -> dict[str, Any]:
    """Measure; the whole report.

    :raises MobiScudError: the file is no capture, tshark is missing, or a contestant failed
    """
    with tempfile.TemporaryDirectory(prefix="mobiscud-bench-") as name:
        return common.report("replay", _measure(Path(name), file, least_frames, ues))


def _measure(directory: Path, file: Path, least_frames: int, ues: int) -> dict[str, Any]:
    path = directory / "long.pcap"
    copies, _ = long_capture.write(file, path, least_frames)
    monitors: dict[str, Path | None] = {"plain": forms.plain(directory / "plain"), "compiled": forms.compiled()}
    paths: dict[str, Any] = {}
    programs: dict[str, Took] = {}
    memory: dict[str, Any] = {}
    for form, monitor in monitors.items():
        if monitor is None:
            continue
        say(f"{form}: the path from frame to events, {ROUNDS} rounds")
        paths[form] = common.worker("replay_worker", str(path), str(ROUNDS), monitor=monitor)
        say(f"{form}: mobiscud replay, {PROGRAM_ROUNDS} times")
        programs[form] = _program(_replay(path), common.environment(monitor))
        say(f"{form}: {ues} UEs attach")
        memory[form] = common.worker("memory_worker", str(ues), monitor=monitor)
    say(f"tshark, {PROGRAM_ROUNDS} times")
    programs["tshark"] = _program(decode.tshark(path), None)
    stats = paths["plain"]["stats"]
    return {
        "messages_per_s": {form: _rate(paths, form, "messages") for form in monitors},
        "frames_per_s": {form: _rate(paths, form, "frames") for form in monitors},
        "program_cpu_s": {name: round(took.cpu_s, 3) for name, took in programs.items()},
        "program_wall_s": {name: round(took.wall_s, 3) for name, took in programs.items()},
        "times_tshark": {form: _times(programs, form) for form in monitors},
        "bytes_per_ue": {form: memory[form]["bytes_per_ue"] if form in memory else None for form in monitors},
        "capture": {"file": file.name, "copies": copies, **stats},
        "ues": ues,
    }


def _rate(paths: dict[str, Any], form: str, what: str) -> int | None:
    return round(paths[form]["stats"][what] / median(paths[form]["seconds"])) if form in paths else None


def _times(programs: dict[str, Took], form: str) -> float | None:
    return common.ratio(programs["tshark"].cpu_s, programs[form].cpu_s) if form in programs else None


def _replay(path: Path) -> tuple[str, ...]:
    return (*common.one_core(), sys.executable, "-P", "-m", "mobiscud", "replay", "--output", "none", str(path))


def _program(command: tuple[str, ...], env: dict[str, str] | None) -> Took:
    """The medians of several runs of a program."""
    runs = [common.took(command, env) for _ in range(PROGRAM_ROUNDS)]
    return Took(median(took.wall_s for took in runs), median(took.cpu_s for took in runs))
