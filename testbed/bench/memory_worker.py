"""``memory_worker UES``: attaches so many UEs, each with a bearer, through the whole monitor, and weighs the process.

Prints the growth of resident memory for each UE. Frames are made one by one and forgotten; the events too.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Final

from epc_monitor.frames import LINKTYPE_ETHERNET, Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from testbed.bench.forms import is_compiled
from testbed.bench.ue_life import UeLives

ENBS: Final = 100
WARM_UP: Final = 1000
"""UEs before the first weighing: what is made once should not count."""

BETWEEN_FRAMES_NS: Final = 100_000


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    ues = int(sys.argv[1])
    lives, monitor = UeLives(ENBS), Monitor(UeKeys(bytes(32)))
    at = 1_700_000_000_000_000_000

    def attach(first: int, last: int) -> None:
        nonlocal at
        for number in range(first, last):
            for data in lives.attach(number):
                at += BETWEEN_FRAMES_NS
                monitor.receive(Frame(at, LINKTYPE_ETHERNET, data))

    for data in lives.setups():
        monitor.receive(Frame(at, LINKTYPE_ETHERNET, data))
    attach(0, WARM_UP)
    before = resident_bytes()
    attach(WARM_UP, WARM_UP + ues)
    grown = resident_bytes() - before
    stats = monitor.stats.as_dict()
    print(json.dumps({"bytes_per_ue": round(grown / ues), "stats": stats, "compiled": is_compiled()}))


if __name__ == "__main__":
    main()
