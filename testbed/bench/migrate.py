"""What a migration costs the traffic between a UE and its personal VM: ``mobiscud bench migrate``.

A UE walks to and fro between three cells with cloudlets, and its personal VM follows it each time. Meanwhile numbered
packets go to the VM's echo and back, one a millisecond, on the way that any traffic of the UE takes. After each
migration the guest is asked who it is and whether its memory is whole: one that is not, or is silent, is lost, and the
bench goes on with a new testbed.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from migration.verdict import MigrationMode, choose_mode
from mobiscud.core.errors import AdapterError
from testbed import results
from testbed.bench import common
from testbed.experiment import PVM_ADDRESS, UE, Progress, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.results import Migration, Ping
from testbed.spawn import PYTHON
from testbed.topology import Delays

Guest = Literal["idle", "dirtying"]

RUNS: Final[Mapping[Guest, int]] = {"idle": 200, "dirtying": 50}
WORK: Final[Mapping[Guest, tuple[int, float]]] = {"idle": (2, 0), "dirtying": (32, 50)}
"""MiB that the guest keeps and checks, and how many of them it rewrites a second; nought still shows corruption."""
NO_DELAYS: Final = Delays(ue_enb=0, enb_mtso=0, sgw_pgw=0, pgw_internet=0, enb_enb=0)
"""Wires alone: to delay a packet a millisecond in user space takes the processors that the guest is to run on."""
WALK: Final = (2, 3, 2, 1)
"""The eNodeBs in turn, from the first."""
DWELL_S: Final = 0.5
"""Between handover and migration, so that each has its own moment."""
SETTLE_S: Final = 1.0
TELL_EVERY: Final = 10
"""After how many migrations is said how many are left."""
LIMIT_S: Final = 60.0
ANSWER_LIMIT_S: Final = 30.0
AROUND_NS: Final = 300 * results.NS_PER_MS
"""How far from the switch-over a packet may be sent or missed and still count to the migration."""


@dataclass(frozen=True, slots=True)
class Run:
    """One migration and what it cost the stream."""

    total_ms: float
    outage_ms: float
    lost: int


@dataclass(frozen=True, slots=True)
class Series:
    """Migrations of one kind of guest; ``sent`` counts the packets of the streams."""

    runs: tuple[Run, ...] = ()
    sent: int = 0
    guests_lost: int = 0

    def __add__(self, other: Series) -> Series:
        return Series(self.runs + other.runs, self.sent + other.sent, self.guests_lost + other.guests_lost)

    @property
    def attempts(self) -> int:
        """Those that lost the guest included."""
        return len(self.runs) + self.guests_lost


async def measure(
    out: Path, say: Progress, runs: Mapping[Guest, int] = RUNS, *, all_modes: bool = False
) -> dict[str, Any]:
    """Measure as many migrations of each guest; ``out`` takes the records.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    default = choose_mode("auto")
    modes = [default, *(mode for mode in MigrationMode if mode is not default and all_modes)]
    rows = []
    for mode, (guest, count) in itertools.product(modes, runs.items()):
        series = Series()
        while series.attempts < count:
            series += await _series(out / f"{mode}-{guest}-{series.guests_lost}", say, mode, guest, count, series)
        rows.append(row(mode, guest, series))
    return {"default": default.value, "rows": rows}


async def _series(out: Path, say: Progress, mode: MigrationMode, guest: Guest, count: int, before: Series) -> Series:
    """As many migrations as are missing, or up to the loss of the guest, on a testbed of their own."""
    setting = Setting(delays=NO_DELAYS, dwell_s=DWELL_S, migration_mode=mode.value)
    async with RunningTestbed(setting, out, say) as bed:
        lost = await _walk(bed, say, guest, count - before.attempts)
        events = list(bed.events)
    stream = results.load_pings(out / "stream.csv")
    migrations = results.tell(events).migrations
    return Series(
        tuple(run_of(stream, migration) for migration in migrations[: len(migrations) - lost]), len(stream), lost
    )


async def _walk(bed: RunningTestbed, say: Progress, guest: Guest, count: int) -> int:
    """Attach at the first cell and migrate under the stream; gives how many guests were lost, none or one."""
    space = bed.network.namespace("ue")
    say(f"the UE attaches; {count} migrations of a guest that is {guest}")
    await bed.ran.attach(UE, 1)
    await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
    client = GuestClient(space, PVM_ADDRESS, timeout_s=ANSWER_LIMIT_S)
    await client.wait_until_up(LIMIT_S)
    born = await client.dirty(*WORK[guest])
    command = (*PYTHON, "testbed.bench.stream", PVM_ADDRESS, str((bed.out / "stream.csv").absolute()))
    stream = await bed.start("stream", *command, namespace=space)
    await asyncio.sleep(SETTLE_S)
    lost = 0
    for number, enb in enumerate(itertools.islice(itertools.cycle(WALK), count), start=1):
        mark = len(bed.events)
        await bed.ran.handover(UE, enb)
        await bed.event("pvm.migrated", after=mark, within_s=LIMIT_S, to_cloudlet=f"c{enb}")
        wrong = await _what_is_wrong(client, born.boot_id)
        if wrong is not None:
            say(f"the guest was lost in migration {number}: {wrong}")
            lost = 1
            break
        if number % TELL_EVERY == 0 and number < count:
            say(f"{number} of {count} migrations")
        await asyncio.sleep(SETTLE_S)
    await stream.stop()
    return lost


async def _what_is_wrong(client: GuestClient, boot_id: str) -> str | None:
    """Ask the guest, patiently: a busy machine makes it slow, and slow is not lost."""
    try:
        found = (await client.wait_until_up(ANSWER_LIMIT_S)).boot_id
        corrupt = await client.verify()
    except AdapterError as error:
        return str(error)
    if found != boot_id:
        return f"boot id {found} instead of {boot_id}"
    return f"{corrupt} pages are corrupt" if corrupt else None


def run_of(stream: Sequence[Ping], migration: Migration) -> Run:
    """What one migration cost: the longest time without an answer around its switch-over, and who never came back."""
    begin, end = migration.switched - AROUND_NS, migration.switched + AROUND_NS
    answers = sorted(ping.received_ns for ping in stream if ping.received_ns is not None)
    gaps = (late - early for early, late in itertools.pairwise(answers) if early < end and late > begin)
    return Run(
        total_ms=migration.total_ms or 0.0,
        outage_ms=max(gaps, default=0) / results.NS_PER_MS,
        lost=sum(begin <= ping.sent_ns < end and ping.received_ns is None for ping in stream),
    )


def row(mode: MigrationMode, guest: Guest, series: Series) -> dict[str, Any]:
    """The figures of a series."""
    return {
        "mode": mode.value,
        "guest": guest,
        "runs": series.attempts,
        "total_ms": quantiles([run.total_ms for run in series.runs]),
        "outage_ms": quantiles([run.outage_ms for run in series.runs]),
        "sent": series.sent,
        "lost_per_run": quantiles([run.lost for run in series.runs]),
        "guests_lost": series.guests_lost,
    }


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Median and 95th percentile by nearest rank."""
    ranked = sorted(values)
    ranks = {name: math.ceil(share * len(ranked)) - 1 for name, share in (("p50", 0.5), ("p95", 0.95))}
    return {name: round(ranked[rank], 3) if ranked else None for name, rank in ranks.items()}


def run(runs: Mapping[Guest, int], *, all_modes: bool = False, out: Path | None = None) -> dict[str, Any]:
    """Measure; the whole report. ``out`` keeps the records.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    with tempfile.TemporaryDirectory(prefix="mobiscud-bench-") as scratch:
        found = asyncio.run(measure(out or Path(scratch), common.say, runs, all_modes=all_modes))
    return common.report("migrate", found)
