"""What the page on requests between controllers promises is shown by tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_each_outcome_is_shown() -> None:
    text = (ROOT / "docs/requests.md").read_text()
    outcomes = text[text.index("| the other one |") :].splitlines()[2:]
    rows = [line for line in outcomes if line.startswith("|")]
    defined = {
        name for file in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    for row in rows:
        shown_by = re.findall(r"`([^`]+)`", row.split("|")[3])
        assert shown_by, row
        for name in shown_by:
            assert name in defined or (ROOT / name).is_file(), name
