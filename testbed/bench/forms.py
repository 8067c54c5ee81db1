"""The two forms of the monitor, plain and compiled, as directories to put before everything else on the path."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import epc_monitor.aper
from testbed.bench.common import say

ROOT: Final = Path(__file__).resolve().parents[2]
_BUILDER: Final = ROOT / "scripts" / "compiled.sh"


def is_compiled() -> bool:
    """Whether the ``epc_monitor`` of this process is the compiled form."""
    return not epc_monitor.aper.__file__.endswith(".py")


def plain(directory: Path) -> Path:
    """Copy the source alone, so that the plain form is plain even where the installed one is compiled."""
    source = Path(epc_monitor.aper.__file__).parent
    shutil.copytree(source, directory / "epc_monitor", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return directory


def compiled() -> Path | None:
    """Where the compiled form is: installed, or built in the checkout; None where there is none."""
    if is_compiled():
        return Path(epc_monitor.aper.__file__).parents[1]
    if not _BUILDER.exists():
        say("no compiled form: install with MOBISCUD_COMPILE=1")
        return None
    try:
        subprocess.run((_BUILDER,), check=True)
    except (OSError, subprocess.CalledProcessError):
        say("no compiled form")
        return None
    return ROOT / "build" / "compiled"
