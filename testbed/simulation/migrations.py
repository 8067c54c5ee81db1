"""How long migrations take and users' traffic stands still: as measured on the testbed, run by run.

``python -m testbed.simulation.migrations DIR REPORT > FILE`` makes the file from what ``mobiscud bench migrate --json
--out DIR > REPORT`` has kept and said; ``measured.json`` is one, and names the machine and its load.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import ConfigError
from testbed import results
from testbed.bench.migrate import run_of

TAIL_MS: Final = 300.0
"""From the switch-over to the end of the whole migration; part of its total."""
MOVED_MIB: Final = {"idle": 52.0, "dirtying": 120.0}
"""What a migration of each guest copies. Idle: as libvirt counts; the bench does not keep it. Dirtying: reckoned, the
same and its 32 MiB, and what it rewrites in the 0.7 s before the switch-over."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Runs of one guest: how long each took, and how long it kept its user waiting. ``source``: whence they come."""

    source: str
    runs: tuple[tuple[float, float], ...]
    """Total and outage, ms."""
    moved_mib: float

    def draw(self, chance: random.Random) -> tuple[float, float]:
        """Total and outage of one migration, ms: as one of the measured had them."""
        return self.runs[int(chance.random() * len(self.runs))]


def load(guest: str, file: Path | None = None) -> Measured:
    """The runs of a guest.

    :raises ConfigError: the file is not there or not such a file, or has no such guest
    """
    try:
        text = file.read_text() if file else resources.files(__package__).joinpath("measured.json").read_text()
        found = json.loads(text)
        known = found["guests"]
        if guest not in known:
            raise ConfigError(f"vm.guest: {guest!r} was not measured, but {', '.join(sorted(known))}")
        runs = tuple((float(total), float(outage)) for total, outage in known[guest]["runs"])
        if not runs or any(not outage >= 0 or not total > 0 for total, outage in runs):
            raise ValueError("no runs, or impossible ones")
        return Measured(str(found["source"]), runs, float(known[guest]["moved_mib"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"vm.measured: {file or 'measured.json'}: {error!r}") from error


def collect(kept: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content, from a bench's records (one folder a series, named after mode and guest) and its report."""
    guests: dict[str, Any] = {}
    for folder in sorted(path.parent for path in kept.glob("*/stream.csv")):
        mode, guest, _ = folder.name.rsplit("-", 2)
        if mode != report["results"]["default"]:
            continue
        stream = results.load_pings(folder / "stream.csv")
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        runs = [run_of(stream, migration) for migration in results.tell(events).migrations]
        measured = guests.setdefault(guest, {"mode": mode, "moved_mib": MOVED_MIB[guest], "runs": []})
        measured["runs"] += [[round(run.total_ms, 1), round(run.outage_ms, 2)] for run in runs if run.total_ms]
    where = {key: report["machine"][key] for key in ("processor", "QEMU", "KVM device", "load", "commit", "at")}
    about = ", ".join(f"{key} {value}" for key, value in where.items())
    return {"source": f"mobiscud bench migrate; {about}", "unit": "total and outage of each run, ms", "guests": guests}


def show(found: Mapping[str, Any]) -> str:
    """As text, a run a line."""
    text = json.dumps(found, indent=1)
    return re.sub(r"\[\s+([\d.]+),\s+([\d.]+)\s+\]", r"[\1, \2]", text)


if __name__ == "__main__":
    print(show(collect(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))))
