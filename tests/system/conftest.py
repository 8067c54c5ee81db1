"""Programs of the testbed, as a user starts them, and what they leave on the machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


def _traces() -> set[str]:
    """What an experiment leaves on the machine while it runs."""
    found = {f"namespace {entry.name}" for entry in Path("/run/netns").glob("ms-*")}
    found |= {f"directory {entry}" for entry in Path("/run/mobiscud-testbed").glob("*")}
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    found |= {f"mount {where}" for where in mounts if where.startswith("/run/mobiscud-testbed")}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"MOBISCUD_RUN=" in (process / "environ").read_bytes():
                found.add(f"process {process.name}")
        except OSError:
            pass  # it has ended, or begins
    return found


@contextmanager
def _running(*command: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has come as far as a line with ``until``."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if until in line:
                break
        else:
            pytest.fail("it ended early: " + "".join(said))
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def traces() -> Callable[[], set[str]]:
    """Gives what the testbed has left on this machine, or has there now."""
    return _traces


@pytest.fixture
def running() -> Callable[..., AbstractContextManager[subprocess.Popen[str]]]:
    """Starts a program and waits until it has said something on stderr."""
    return _running
