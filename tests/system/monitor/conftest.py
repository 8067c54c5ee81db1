"""A wire, and the program where everybody may read it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.system.monitor.parts import Wire


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with TemporaryDirectory(prefix="monitor-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def open_program(open_path: Path) -> Iterator[tuple[str, ...]]:
    """The program where everybody may read it; the checkout may lie where only root looks."""
    checkout, shown = Path(__file__).parents[3], open_path / "checkout"
    shown.mkdir()
    subprocess.run(["mount", "--bind", checkout, shown], check=True)
    python = Path(sys.executable)
    if python.is_relative_to(checkout):
        python = shown / python.relative_to(checkout)
    try:
        yield ("env", f"PYTHONPATH={shown}", "PYTHONDONTWRITEBYTECODE=1", str(python), "-m", "mobiscud")
    finally:
        subprocess.run(["umount", shown], check=True)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire(f"monitor-test-{os.getpid()}") as wire:
        yield wire
