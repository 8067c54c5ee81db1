"""Find and remove what a run left that was killed before it could clean up.

A run registers itself in ``/run/mobiscud-testbed/RUN`` with its process id and start time, so that a number given
to another process later does not pass for it. What belongs to a run needs no list that could be incomplete:

- processes: those that inherited ``MOBISCUD_RUN`` in their environment, and all inside the run's namespaces;
- namespaces: by the prefix of their names;
- mounts (BPF file systems with their pins among them) and files: whatever lies below the run's directory.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from mobiscud.core.errors import AdapterError
from testbed import netns
from testbed.topology import namespace_prefix

RUNS_DIRECTORY: Final = Path("/run/mobiscud-testbed")
RUN_VARIABLE: Final = "MOBISCUD_RUN"
OWNER_FILE: Final = "owner.json"
DEATH_LIMIT_S: Final = 10.0

_NAMESPACE: Final = re.compile(r"ms-([0-9a-f]{4})-.+")


def new_run() -> str:
    """A name for a run: four hexadecimal digits, unused on this machine."""
    used = known_runs()
    while (name := os.urandom(2).hex()) in used:
        pass
    return name


def known_runs() -> set[str]:
    """The runs that live, and those that left something."""
    directories = {entry.name for entry in RUNS_DIRECTORY.iterdir()} if RUNS_DIRECTORY.is_dir() else set()
    namespaces = netns.NETNS_DIRECTORY.iterdir() if netns.NETNS_DIRECTORY.is_dir() else ()
    return directories | {found[1] for entry in namespaces if (found := _NAMESPACE.fullmatch(entry.name))}


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5), field 22); ``None`` when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name of the program, in brackets, may hold anything: count behind it.
    return int(stat.rpartition(")")[2].split()[19])


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The place of one run: sockets, configurations, logs, mounts and pins go below ``path``."""

    run: str
    path: Path

    @classmethod
    def create(cls, run: str | None = None) -> Self:
        """Register this process as a run. What it starts from now on carries the mark of the run."""
        name = run or new_run()
        path = RUNS_DIRECTORY / name
        path.mkdir(parents=True)
        owner = {"pid": os.getpid(), "start_time": start_time(os.getpid())}
        (path / OWNER_FILE).write_text(json.dumps(owner))
        os.environ[RUN_VARIABLE] = name
        return cls(name, path)

    @property
    def bpffs(self) -> Path:
        """Where a BPF file system for pins belongs."""
        return self.path / "bpf"

    async def remove(self) -> None:
        """Clean up after this very run, whatever is left of it."""
        await clean(self.run)
        if os.environ.get(RUN_VARIABLE) == self.run:
            del os.environ[RUN_VARIABLE]


@dataclass(slots=True)
class Swept:
    """What was found and removed."""

    runs: list[str] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __str__(self) -> str:
        return (
            f"{len(self.runs)} run(s): {len(self.processes)} process(es), {len(self.mounts)} mount(s), "
            f"{len(self.namespaces)} namespace(s)"
        )


async def sweep() -> Swept:
    """Clean up after every run whose owner no longer lives. Runs that live are left alone."""
    swept = Swept()
    for run in sorted(known_runs()):
        if not owner_lives(run):
            await clean(run, swept)
    return swept


def owner_lives(run: str) -> bool:
    """Whether the process that registered a run still exists."""
    try:
        owner = json.loads((RUNS_DIRECTORY / run / OWNER_FILE).read_text())
        return bool(start_time(owner["pid"]) == owner["start_time"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # killed between making its directory and saying who it is, or never registered


async def clean(run: str, swept: Swept | None = None) -> Swept:
    """Remove everything of a run, dead or alive: processes, mounts, namespaces, files, in this order."""
    swept = Swept() if swept is None else swept
    swept.runs.append(run)
    namespaces = await netns.existing(namespace_prefix(run))
    swept.processes += await _kill(run, namespaces)
    directory = RUNS_DIRECTORY / run
    for mount in _mounts_below(directory):
        await netns.command("umount", "--lazy", mount)
        swept.mounts.append(mount)
    await netns.delete(namespaces)
    swept.namespaces += namespaces
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return swept


async def _kill(run: str, namespaces: Iterable[str]) -> list[int]:
    """Kill a run's processes until none is found: they may start others while we look."""
    killed: list[int] = []
    inodes = {netns.path(name).stat().st_ino for name in namespaces}
    try:
        async with asyncio.timeout(DEATH_LIMIT_S):
            while found := _processes(run, inodes):
                for pid in found:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                killed += [pid for pid in found if pid not in killed]
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AdapterError(f"processes of run {run} do not die: {found}") from None
    return killed


def _processes(run: str, namespace_inodes: set[int]) -> list[int]:
    """The processes of a run, this one and those already dead but not buried excepted."""
    mark = f"{RUN_VARIABLE}={run}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # A zombie has neither an environment nor namespaces.
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
            if marked or (entry / "ns/net").stat().st_ino in namespace_inodes:
                found.append(int(entry.name))
        except OSError:
            continue  # it just ended
    return found


def _mounts_below(directory: Path) -> list[str]:
    """Mount points below a directory, the deepest first (proc_pid_mountinfo(5): field 5, with octal escapes)."""
    below = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = re.sub(r"\\(\d{3})", lambda escape: chr(int(escape[1], 8)), line.split()[4])
        if Path(point).is_relative_to(directory):
            below.append(point)
    return below[::-1]
