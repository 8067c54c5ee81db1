"""What a killed run leaves is found and removed; what lives is left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testbed import netns, sweep
from testbed.topology import namespace_prefix

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

RUN = """
import asyncio, subprocess, sys
from testbed import netns
from testbed.sweep import RunDirectory
from testbed.topology import namespace_prefix

async def main():
    place = RunDirectory.create()
    namespace = namespace_prefix(place.run) + "ue"
    await netns.create([namespace])
    await netns.command("mount", "-t", "tmpfs", "none", str(make(place.path / "with space")))
    await netns.command("mount", "-t", "tmpfs", "none", str(make(place.path / "with space" / "inner")))
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True, **quiet)
    inside = subprocess.Popen(["ip", "netns", "exec", namespace, "env", "-i", "sleep", "1000"], **quiet)
    print(place.run, daemon.pid, inside.pid, flush=True)
    sys.stdin.read()

def make(path):
    path.mkdir()
    return path

asyncio.run(main())
"""


class KilledRun:
    """A run in a process of its own, with a daemon, a process without the mark, a namespace, and mounts."""

    def __init__(self, process: asyncio.subprocess.Process, run: str, pids: tuple[int, ...]) -> None:
        self.process = process
        self.run = run
        self.pids = pids

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@pytest.fixture
async def other() -> AsyncIterator[KilledRun]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    run, *pids = (await process.stdout.readline()).decode().split()
    yield KilledRun(process, run, tuple(int(pid) for pid in pids))
    if process.returncode is None:
        process.kill()
    await process.wait()
    await sweep.clean(run)


def lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_live_run_is_left_alone(other: KilledRun) -> None:
    swept = await sweep.sweep()

    assert other.run not in swept.runs
    assert all(lives(pid) for pid in other.pids)
    assert await netns.existing(namespace_prefix(other.run))


async def test_killed_run_is_removed_whole(other: KilledRun) -> None:
    await other.kill()
    assert all(lives(pid) for pid in other.pids)

    swept = await sweep.sweep()

    assert other.run in swept.runs
    assert set(other.pids) <= set(swept.processes)
    assert not any(lives(pid) for pid in other.pids)
    assert await netns.existing(namespace_prefix(other.run)) == []
    assert other.run not in await netns.command("cat", "/proc/self/mountinfo")
    assert not (sweep.RUNS_DIRECTORY / other.run).exists()
    assert other.run not in sweep.known_runs()


async def test_own_run_removes_itself() -> None:
    place = sweep.RunDirectory.create()
    child = await asyncio.create_subprocess_exec("sleep", "1000")

    await place.remove()

    assert await child.wait() == -signal.SIGKILL
    assert not place.path.exists()
    assert sweep.RUN_VARIABLE not in os.environ


def test_owner_is_told_from_a_later_process_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "RUNS_DIRECTORY", tmp_path)
    (tmp_path / "aaaa").mkdir()
    assert not sweep.owner_lives("aaaa")

    (tmp_path / "aaaa/owner.json").write_text(f'{{"pid": {os.getpid()}, "start_time": 1}}')
    assert not sweep.owner_lives("aaaa")

    (tmp_path / "aaaa/owner.json").write_text(
        f'{{"pid": {os.getpid()}, "start_time": {sweep.start_time(os.getpid())}}}'
    )
    assert sweep.owner_lives("aaaa")
