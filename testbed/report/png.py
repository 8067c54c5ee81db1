"""Plots as PNG, for those whose programs take no SVG: drawn by librsvg's ``rsvg-convert``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mobiscud.core.errors import AdapterError

PROGRAM: Final = "rsvg-convert"
ZOOM: Final = 3
"""Pixels for each unit: 2,280 across a figure, some 330 an inch at the width of a page's text."""
LIMIT_S: Final = 60.0


def beside(plots: Iterable[Path]) -> bool:
    """Make a PNG file beside each SVG file; ``False``, and none, where the program is missing.

    :raises AdapterError: it cannot draw one
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return False
    for plot in plots:
        command = (program, "--zoom", str(ZOOM), "--output", str(plot.with_suffix(".png")), str(plot))
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
        except (subprocess.SubprocessError, OSError) as error:
            raise AdapterError(f"{PROGRAM} cannot draw {plot}: {error}") from error
    return True
