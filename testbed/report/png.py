"""Plots as PNG, for those whose programs take no SVG: drawn by librsvg's ``rsvg-convert``."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mobiscud.core.errors import AdapterError

PROGRAM: Final = "rsvg-convert"
ZOOM: Final = 3.0
"""Pixels for each unit: 2,280 across a figure, some 330 an inch at the width of a page's text."""
MOST_PIXELS: Final = 32_000
"""Of a picture's height: cairo, which draws, has no more."""
_HEIGHT: Final = re.compile(r'<svg [^>]*height="([0-9.]+)"')
LIMIT_S: Final = 60.0


def available() -> bool:
    """Whether the program is there."""
    return shutil.which(PROGRAM) is not None


def beside(plots: Iterable[Path]) -> None:
    """Make a PNG file beside each SVG file; none where the program is missing. A picture that is very
    tall, as the ladder of a long experiment, gets fewer pixels, or none where one could read nothing in it.

    :raises AdapterError: it cannot draw one
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return
    for plot in plots:
        zoom = min(ZOOM, MOST_PIXELS / _height(plot))
        if zoom < 1:
            continue
        command = (program, "--zoom", str(zoom), "--output", str(plot.with_suffix(".png")), str(plot))
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
        except (subprocess.SubprocessError, OSError) as error:
            raise AdapterError(f"{PROGRAM} cannot draw {plot}: {error}") from error


def _height(plot: Path) -> float:
    with plot.open(encoding="utf-8") as file:
        found = _HEIGHT.search(file.read(1000))
    return float(found[1]) if found else 1.0
