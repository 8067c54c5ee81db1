"""What all benches share: the form of their results, workers in processes of their own, and progress on stderr."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mobiscud.core.errors import AdapterError, SetupError
from testbed.report import machine

LIMIT_S: Final = 600.0


def report(bench: str, results: dict[str, Any]) -> dict[str, Any]:
    """A bench's result as the contract wants it: what was measured, on what."""
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    where = {**machine.describe(), "load": load, "commit": machine.commit(), "at": time.strftime("%F %T %Z")}
    return {"bench": bench, "machine": where, "results": results}


def say(message: str) -> None:
    """Progress, for whoever waits."""
    print(f"bench: {message}", file=sys.stderr, flush=True)


def one_core() -> tuple[str, ...]:
    """What to put before a command so that it keeps to one core: the last, since interrupts tend to use the first."""
    return ("taskset", "-c", str(max(os.sched_getaffinity(0))))


def worker(module: str, *arguments: str, monitor: Path | None = None) -> Any:
    """Run a module of this package in a process of its own on one core, and give the JSON it prints.

    ``monitor``: a directory whose ``epc_monitor`` is used instead of the installed one. The current directory never
    counts (``-P``): who measures from a checkout would otherwise measure that.
    """
    command = (*one_core(), sys.executable, "-P", "-m", f"testbed.bench.{module}", *arguments)
    return json.loads(run(command, environment(monitor)))


def environment(monitor: Path | None) -> dict[str, str]:
    """The environment in which ``epc_monitor`` comes from a directory, and all else from where we come from."""
    path = [str(Path(__file__).resolve().parents[2])]
    if monitor is not None:
        path.insert(0, str(monitor))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}


class Took(NamedTuple):
    """What a process took: seconds on the clock, and of processor, which others on the machine do not stretch."""

    wall_s: float
    cpu_s: float


def run(command: Sequence[str], env: dict[str, str] | None = None) -> str:
    """Run a program to its end; its standard output.

    :raises SetupError: it is not installed
    :raises AdapterError: it failed, with its last words
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=env)
    except FileNotFoundError:
        raise SetupError(f"{command[0]} is not installed (make setup installs it)") from None
    except subprocess.TimeoutExpired:
        raise AdapterError(f"{' '.join(command)}: no end after {LIMIT_S:.0f} s") from None
    if done.returncode:
        words = done.stderr.strip().splitlines()[-3:] or [f"exit status {done.returncode}"]
        raise AdapterError(f"{' '.join(command)}: {' | '.join(words)}")
    return done.stdout


def took(command: Sequence[str], env: dict[str, str] | None = None) -> Took:
    """How long a whole program takes, start-up included. Its parent, this process, must have no other child then."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run(command, env)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def describe(report: dict[str, Any]) -> str:
    """A report as lines for people."""
    where = report["machine"]
    head = f"{report['bench']}: {where['processor']}, Python {where['Python']}, load {where['load']}, {where['commit']}"
    return "\n".join([head, *_lines(report["results"], "  ")])


def _lines(values: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in values.items():
        shown = name.replace("_per_s", "/s").replace("_", " ")
        if isinstance(value, dict):
            lines += [f"{indent}{shown}", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            for place, row in enumerate(value, start=1):
                lines += [f"{indent}{shown} {place}", *_lines(row, indent + "  ")]
        else:
            number = f"{value:,}" if isinstance(value, int) else value
            lines.append(f"{indent}{shown:24} {'-' if value is None else number:>12}")
    return lines


def ratio(figure: float | None, yardstick: float | None) -> float | None:
    """How many times as much, to three digits; None where either is missing."""
    if not figure or not yardstick:
        return None
    return float(f"{figure / yardstick:.3g}")
