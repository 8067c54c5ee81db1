"""The experiment of the paper, as ``mobiscud demo`` runs it: the scenario ``paper`` of the gallery, or ``quick``."""

from __future__ import annotations

import sys
from pathlib import Path

from testbed.scenario import experiment


def run(out: Path, *, quick: bool, clean_only: bool) -> None:
    """Run the demo, or only sweep.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    experiment.check_root("demo")
    if clean_only:
        print(experiment.clean(), file=sys.stderr)
        return
    experiment.run(experiment.find("quick" if quick else "paper"), out)
