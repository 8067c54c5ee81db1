"""What a handover costs the traffic between a UE and its personal VM: ``mobiscud bench handover``.

A UE walks to and fro between three cells with cloudlets, by S1 and X2 handovers in turn, so that every pair of
neighbours sees both kinds in both directions. Its personal VM stays in the first cloudlet. Meanwhile numbered packets
go to the VM's echo and back, one a millisecond; the times of the handovers and of the rules are the events'.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mobiscud.core.errors import SetupError
from testbed import results
from testbed.bench import common
from testbed.experiment import PVM_ADDRESS, UE, Progress, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.results import Handover, Ping
from testbed.spawn import PYTHON
from testbed.topology import Delays

Kind = Literal["s1", "x2"]

EACH: Final = 100
"""Handovers of each kind."""
WALK: Final = (2, 3, 2, 1)
"""The eNodeBs in turn, from the first."""
KINDS: Final[tuple[Kind, ...]] = ("s1", "x2", "s1", "x2", "x2", "s1", "x2", "s1")
"""Two walks; in the second each step is of the other kind."""
INTERVAL_S: Final = 0.001
SETTLE_S: Final = 2.0
PAUSE_S: Final = 0.4
"""Between handovers, in which the source's context is released."""
LIMIT_S: Final = 60.0
MOVE_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Crossing:
    """One handover as it was asked for, and what it cost the stream."""

    kind: Kind
    handover: Handover
    lost: int
    reordered: int

    @property
    def prepare_ms(self) -> float | None:
        """From the target's end points on the wire to its rules confirmed."""
        return results.between_ms(self.handover.prepared, self.handover.rules_ready)

    @property
    def path_ms(self) -> float | None:
        """From the UE's arrival on the wire to the downlink flipped."""
        return results.between_ms(self.handover.completed, self.handover.flipped)


def run(each: int = EACH, out: Path | None = None) -> dict[str, Any]:
    """Measure ``each`` handovers of each kind; the whole report. ``out`` keeps the records.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    if os.geteuid() != 0:
        raise SetupError("the testbed makes network namespaces and needs root: sudo .venv/bin/mobiscud bench handover")
    with tempfile.TemporaryDirectory(prefix="mobiscud-bench-") as scratch:
        found = asyncio.run(measure(out or Path(scratch), common.say, each))
    return common.report("handover", found)


async def measure(out: Path, say: Progress, each: int = EACH) -> dict[str, Any]:
    """Run the walk on a testbed of its own; ``out`` takes its records.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    setting = Setting(delays=Delays(), dwell_s=0.0, policy="stay", preferred=True)
    async with RunningTestbed(setting, out, say) as bed:
        kinds = await walk(bed, say, each)
    stream = results.load_pings(out / "stream.csv")
    return figures(stream, crossings(stream, kinds, results.tell(bed.events).handovers))


async def walk(bed: RunningTestbed, say: Progress, each: int) -> list[Kind]:
    """Attach at the first cell, walk under the stream, and give the kinds of the handovers made."""
    space = bed.network.namespace("ue")
    say("the UE attaches at eNB1; waiting for its personal VM to boot")
    await bed.ran.attach(UE, 1)
    await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
    await GuestClient(space, PVM_ADDRESS, timeout_s=0.5).wait_until_up(LIMIT_S)
    if bed.setting.preferred:
        bed.prefer_guests()
    command = (*PYTHON, "testbed.bench.stream", PVM_ADDRESS, str((bed.out / "stream.csv").absolute()))
    stream = await bed.start("stream", *command, "--interval", str(INTERVAL_S), namespace=space)
    await asyncio.sleep(SETTLE_S)
    kinds = list(itertools.islice(itertools.cycle(KINDS), 2 * each))
    say(f"{len(kinds)} handovers under a stream of a packet a millisecond")
    for target, kind in zip(itertools.cycle(WALK), kinds, strict=False):
        mark = len(bed.events)
        await bed.ran.handover(UE, target, kind=kind)
        await bed.event("offload.moved", after=mark, within_s=MOVE_LIMIT_S)
        await asyncio.sleep(PAUSE_S)
    await stream.stop()
    return kinds


def crossings(stream: Sequence[Ping], kinds: Sequence[Kind], handovers: Sequence[Handover]) -> list[Crossing]:
    """Each handover with its share of the stream: what was sent from half-way since the one before on."""
    begins = [handover.begun for handover in handovers]
    bounds = [0, *((a + b) // 2 for a, b in itertools.pairwise(begins)), stream[-1].sent_ns + 1]
    late = results.reordered(stream)
    found = []
    for kind, handover, (begin, end) in zip(kinds, handovers, itertools.pairwise(bounds), strict=True):
        share = [ping for ping in stream if begin <= ping.sent_ns < end]
        lost = sum(ping.received_ns is None for ping in share)
        found.append(Crossing(kind, handover, lost, sum(ping.seq in late for ping in share)))
    return found


def figures(stream: Sequence[Ping], made: Sequence[Crossing]) -> dict[str, Any]:
    """The figures of all handovers, and of each kind."""
    whole = {
        "handovers": len(made),
        "sent": len(stream),
        "lost": sum(ping.received_ns is None for ping in stream),
        "reordered": len(results.reordered(stream)),
        **_times(made),
    }
    return whole | {kind: _share([crossing for crossing in made if crossing.kind == kind]) for kind in ("s1", "x2")}


def _share(made: Sequence[Crossing]) -> dict[str, Any]:
    return {
        "handovers": len(made),
        "lost": sum(crossing.lost for crossing in made),
        "reordered": sum(crossing.reordered for crossing in made),
        **_times(made),
    }


def _times(made: Sequence[Crossing]) -> dict[str, Mapping[str, float | None]]:
    return {
        "prepare_ms": results.quantiles(crossing.prepare_ms for crossing in made),
        "path_ms": results.quantiles(crossing.path_ms for crossing in made),
    }
