"""Let the parts of an experiment run as if each had processors of its own (sched(7)).

In a real network every node is a machine. Here all of them share the processors, with each other's emulations and
with whatever else runs on this machine; a node that waits for its turn would be measured as slow.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PRIORITY: Final = 5
"""Before all ordinary programs, behind what keeps the time of the experiment: the delays (20), the streams (10)."""

GROUP: Final = "mobiscud-hypervisors"
WEIGHTS: Final = ((Path("/sys/fs/cgroup/cpu"), "cpu.shares", "10240"), (Path("/sys/fs/cgroup"), "cpu.weight", "1000"))
"""Ten times what others have, in either version of cgroups(7): where it is mounted, and the file that takes it."""


def group() -> Path | None:
    """The group of all hypervisors, made now where there is none: its processes, and those that they start, get the
    processors before others do. None where the system does not grant it.

    Niceness would not do: the kernel weighs sessions against each other (autogroup), and each QEMU is one.
    """
    for mounted, file, weight in WEIGHTS:
        made = mounted / GROUP
        try:
            if (mounted / "cgroup.subtree_control").exists():
                (mounted / "cgroup.subtree_control").write_text("+cpu")
            made.mkdir(exist_ok=True)
            (made / file).write_text(weight)
        except OSError:
            with contextlib.suppress(OSError):
                made.rmdir()
            continue
        return made
    return None


def leave_no_group() -> None:
    """Remove the group, unless somebody is in it."""
    for mounted, _, _ in WEIGHTS:
        with contextlib.suppress(OSError):
            (mounted / GROUP).rmdir()


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
