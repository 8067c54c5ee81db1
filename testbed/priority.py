"""Let the parts of an experiment run as if each had processors of its own (sched(7)).

In a real network every node is a machine. Here all of them share the processors, with each other's emulations and
with whatever else runs on this machine; a node that waits for its turn would be measured as slow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PRIORITY: Final = 5
"""Before all ordinary programs, behind what keeps the time of the experiment: the delays (20), the streams (10)."""


def prefer(processes: Iterable[int]) -> bool:
    """Give all threads of these processes, and those to come, real-time priority; in turns, so that none starves.

    False where the system does not grant it.
    """
    try:
        for process in processes:
            for thread in Path(f"/proc/{process}/task").iterdir():
                os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(PRIORITY))
    except PermissionError:
        return False
    return True


def guests_of(init: int) -> list[int]:
    """The QEMU processes in the process namespace whose init this is."""
    space = os.readlink(f"/proc/{init}/ns/pid")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().startswith("qemu-") and os.readlink(entry / "ns/pid") == space:
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended
    return found
