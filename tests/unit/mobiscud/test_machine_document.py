"""The drawing of the controller's table shows the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_drawing_is_up_to_date() -> None:
    drawn = subprocess.run(
        [sys.executable, str(ROOT / "scripts/draw_machine.py")], capture_output=True, text=True, check=True
    )
    hint = "run: python scripts/draw_machine.py > docs/controller.md"
    assert drawn.stdout == (ROOT / "docs/controller.md").read_text(), hint
