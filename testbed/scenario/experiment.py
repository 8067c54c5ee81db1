"""``mobiscud experiment``: run a scenario with all its variants and repetitions, and keep what came of it.

    OUT/scenario.yaml            what was run
    OUT/runs/VARIANT-N/          raw data of each run: events, truths, a CSV file for each application, logs
    OUT/results.json             figures, environment and versions
    OUT/report.html, *.svg, *.png

Each run has a testbed of its own, so that nothing of one is seen in the next.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import AdapterError, ConfigError, MobiScudError, SetupError
from testbed import sweep
from testbed.experiment import Progress, RunningTestbed
from testbed.report import experiment_page, machine, png
from testbed.scenario import external, figures, mobility, schema
from testbed.scenario.figures import RUN_FILE, Run
from testbed.scenario.play import Play
from testbed.scenario.schema import Scenario
from testbed.setting import Setting

GALLERY: Final = "testbed.scenarios"
SUFFIX: Final = ".yaml"
NEEDED_PACKAGES: Final = ("os_ken", "libvirt", "pycrate_mobile")
"""That a plain installation has not."""


@dataclass(frozen=True, slots=True)
class Source:
    """A scenario with the text it came from, and the directory where its traces lie."""

    scenario: Scenario
    text: str
    directory: Path | None

    def trace(self, name: str) -> str:
        """The text of a trace beside the scenario.

        :raises ConfigError: it cannot be read
        """
        if self.directory is None:
            raise ConfigError(f"{name}: a scenario of the gallery has no file beside it")
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{name}: {os.strerror(error.errno or 0)}") from error


def gallery() -> dict[str, Source]:
    """The scenarios that come with the program, by name."""
    found = {}
    for entry in sorted(resources.files("testbed").joinpath("scenarios").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(SUFFIX):
            text = entry.read_text(encoding="utf-8")
            found[entry.name.removesuffix(SUFFIX)] = Source(schema.parse(text), text, None)
    return found


def find(name: str) -> Source:
    """A scenario by the path of its file, or by its name in the gallery.

    :raises ConfigError: there is none, or it is wrong
    """
    path = Path(name)
    if path.suffix in (SUFFIX, ".yml") or path.exists():
        scenario = schema.load(path)
        return Source(scenario, path.read_text(encoding="utf-8"), path.parent)
    known = gallery()
    if name not in known:
        raise ConfigError(f"{name}: no such file, and no scenario of the gallery ({', '.join(known)})")
    return known[name]


class Announcer:
    """Lines on stderr, with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", file=sys.stderr, flush=True)


def run(source: Source, out: Path) -> Path:
    """Run all of it; gives the report's path.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    :raises KeyboardInterrupt: told to stop, by SIGINT or SIGTERM; everything is taken down then
    """
    check_root("experiment run")
    if source.scenario.external is None:
        check_packages()
    _check_plans(source)
    clear(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "scenario.yaml").write_text(source.text)
    say = Announcer()
    asyncio.run(_interruptible(_all_runs(source, out, say)))
    say("writing the report")
    page = write_report(out)
    if not png.available():
        say(f"no plots as PNG: {png.PROGRAM} is not installed (apt install librsvg2-bin)")
    say(f"done: {page}")
    return page


def clear(out: Path) -> None:
    """Remove an earlier experiment, and nothing else, from the directory."""
    if not (out / "scenario.yaml").exists():
        return
    shutil.rmtree(out / "runs", ignore_errors=True)
    for file in (out / "results.json", out / "report.html", *out.glob("*.svg"), *out.glob("*.png")):
        file.unlink(missing_ok=True)


def check_root(command: str) -> None:
    """Say who is needed before anything is begun.

    :raises SetupError: it is not root
    """
    if os.geteuid() != 0:
        raise SetupError(f"the testbed makes network namespaces and needs root: sudo .venv/bin/mobiscud {command}")


def check_packages() -> None:
    """Say which Python packages an emulated network lacks, before the first of its processes trips over one.

    :raises SetupError: there are some
    """
    missing = [name for name in NEEDED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"the testbed needs {', '.join(missing)}: pip install 'mobiscud[node,testbed]' (with libvirt-dev and"
            " pkg-config installed; make setup does all of it)"
        )


def clean() -> str:
    """Remove what a killed run left; says what."""
    swept = asyncio.run(sweep.sweep())
    return f"swept {swept}" if swept else "nothing was left"


def load(out: Path) -> tuple[Scenario, list[Run]]:
    """The scenario and the raw data of an experiment that was run.

    :raises MobiScudError: the directory is not one of an experiment
    """
    scenario = schema.load(out / "scenario.yaml")
    directories = sorted((out / "runs").iterdir()) if (out / "runs").is_dir() else []
    runs = [figures.load_run(directory, scenario) for directory in directories if (directory / RUN_FILE).exists()]
    order = list(scenario.runs)
    return scenario, sorted(runs, key=lambda run: (order.index(run.variant), run.about["repetition"]))


def write_report(out: Path) -> Path:
    """(Re)write ``results.json``, the plots and the page from the raw data in ``out``; gives the page's path."""
    scenario, runs = load(out)
    if not runs:
        raise AdapterError(f"{out}: no run has come to its end")
    found: dict[str, Any] = {
        "scenario": scenario.name,
        "title": scenario.title,
        "seed": scenario.seed,
        "repetitions": scenario.repetitions,
        "environment": runs[0].about["environment"],
    }
    found |= external.compute(scenario, runs) if scenario.external else figures.compute(scenario, runs)
    (out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    return experiment_page.write(out, scenario, runs, found)


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM ends the work as Ctrl-C does."""
    task = asyncio.create_task(work, name="experiment")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        # Tasks that end together often fail for the same reason: one is enough to tell.
        if (ours := group.subgroup(MobiScudError)) is not None and group.split(MobiScudError)[1] is None:
            raise _first(ours) from None
        raise


def _first(group: BaseExceptionGroup[MobiScudError]) -> MobiScudError:
    error: BaseExceptionGroup[MobiScudError] | MobiScudError = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _check_plans(source: Source) -> None:
    """Plan everything once, before anything is started."""
    mobility.plan(source.scenario, 1, source.trace)


async def _all_runs(source: Source, out: Path, say: Progress) -> None:
    scenario = source.scenario
    total = scenario.repetitions * len(scenario.runs)
    number = 0
    for repetition in range(1, scenario.repetitions + 1):
        for variant, migration in scenario.runs.items():
            number += 1
            if total > 1:
                say(f"run {number} of {total}: variant {variant}, repetition {repetition}")
            directory = out / "runs" / f"{variant}-{repetition}"
            if scenario.external is not None:
                await external.watch(scenario, scenario.external, directory, say)
            else:
                await _one_run(source, variant, migration, repetition, directory, say)


async def _one_run(
    source: Source, variant: str, migration: Mapping[str, Any], repetition: int, directory: Path, say: Progress
) -> None:
    scenario = source.scenario
    plans = mobility.plan(scenario, repetition, source.trace)
    cells = {
        number: mobility.start_cell(group, member, source.trace)
        for group in scenario.ues
        for member, number in enumerate(scenario.group(group.name)[1], start=1)
    }
    before = os.getloadavg()
    bed = RunningTestbed(_setting(scenario, migration), directory, say)
    async with bed:
        outcome = await Play(bed, scenario, variant, plans, cells).run()
        engine = bed.network.delay_engine
        keys = {subscriber.ue: str(bed.key_of(subscriber)) for subscriber in bed.subscribers}
    about = {
        "variant": variant,
        "repetition": repetition,
        "began_ns": outcome.began_ns,
        "ues": keys,
        "faults": outcome.faults,
        "failures": outcome.failures,
        "delay_engine": engine,
        "delays": [asdict(direction) for direction in bed.delay_stats],
        "load": {"before": before, "after": os.getloadavg()},
        "environment": environment(),
    }
    _write_raw(directory, about, outcome.truths)


def _write_raw(directory: Path, about: Mapping[str, Any], truths: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps(truth) for truth in sorted(truths, key=lambda truth: float(truth.get("t", 0)))]
    (directory / "truths.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (directory / RUN_FILE).write_text(json.dumps(about, indent=1) + "\n")


def _setting(scenario: Scenario, migration: Mapping[str, Any]) -> Setting:
    def numbers(pvm: str) -> frozenset[int]:
        return frozenset(n for group in scenario.ues if group.pvm == pvm for n in scenario.group(group.name)[1])

    return Setting(
        delays=scenario.network.delays,
        dwell_s=0.0,
        cloudlets=scenario.network.cells,
        ues=sum(group.count for group in scenario.ues),
        migration=migration,
        plain_ues=numbers("none"),
        mtso_ues=numbers("mtso"),
        shapes=scenario.network.shapes,
        forwarding=scenario.network.forwarding,
        interruption_s=scenario.network.interruption_ms / 1000,
        preferred=True,
        recorded=True,
    )


def environment() -> dict[str, Any]:
    """Where and with what: the machine, the versions of the parts, of MobiScud and of the Python packages it uses."""
    packages = {}
    for requirement in metadata.requires("mobiscud") or ():
        name = requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip()
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "machine": machine.describe(),
        "commit": machine.commit(),
        "mobiscud": metadata.version("mobiscud"),
        "packages": packages,
        "at": time.strftime("%F %T %Z"),
    }
