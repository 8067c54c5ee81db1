"""The experiment of the paper: a UE walks from eNB1 over eNB2 to eNB3, and its personal VM follows.

One ping to the PVM every 10 ms, and beside it one to an Internet server every 100 ms, which nobody touches.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import AdapterError, SetupError
from testbed import report, results, sweep
from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.report import RunData
from testbed.spawn import PYTHON
from testbed.topology import INTERNET_SERVER, Delays

BOOT_LIMIT_S: Final = 60.0
EVENT_LIMIT_S: Final = 30.0
ANSWER_LIMIT_S: Final = 0.5
MIGRATION_LIMIT_S: Final = 90.0
PING_S: Final = 0.01
INTERNET_PING_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds in each phase: with the PVM beside the UE, and in a new cell before the PVM follows."""

    beside_s: float
    dwell_s: float


FULL: Final = Pace(beside_s=10.0, dwell_s=6.0)
QUICK: Final = Pace(beside_s=4.0, dwell_s=3.0)


def run(out: Path, *, quick: bool, clean_only: bool) -> None:
    """Run the demo, or only sweep.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    if os.geteuid() != 0:
        raise SetupError("the testbed makes network namespaces and needs root: sudo .venv/bin/mobiscud demo")
    if clean_only:
        swept = asyncio.run(sweep.sweep())
        print(f"swept {swept}" if swept else "nothing was left", file=sys.stderr)
        return
    asyncio.run(_interruptible(out, QUICK if quick else FULL))


async def _interruptible(out: Path, pace: Pace) -> None:
    """SIGTERM ends the demo as Ctrl-C does: everything is taken down."""
    work = asyncio.create_task(_demo(out, pace), name="demo")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _Progress:
    """Lines on stderr, with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", file=sys.stderr, flush=True)


async def _demo(out: Path, pace: Pace) -> None:
    say = _Progress()
    setting = Setting(delays=Delays(), dwell_s=pace.dwell_s)
    async with RunningTestbed(setting, out, say) as bed:
        truths = await _walk(bed, pace, say)
        ue = bed.ue_key
        delay_engine = str(bed.network.delay_engine)
    say("writing the report")
    pings = results.load_pings(out / "pings.csv")
    internet = results.load_pings(out / "internet.csv")
    found = results.compute(pings, bed.events)
    found["internet"] = {"sent": len(internet), "lost": sum(p.received_ns is None for p in internet)}
    (out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    data = RunData(ue=ue, pings=pings, events=bed.events, results=found, delay_engine=delay_engine, truths=truths)
    page = report.write(out, data)
    say(f"done: {page}")


async def _walk(bed: RunningTestbed, pace: Pace, say: _Progress) -> list[dict[str, Any]]:
    """The UE's way; returns what the RAN knows of each step."""
    space = bed.network.namespace("ue")
    say("the UE attaches at eNB1")
    truths = [await bed.ran.attach(UE, 1)]
    await bed.event("pvm.started", after=0, within_s=BOOT_LIMIT_S, to_cloudlet="c1")
    await bed.event("offload.activated", after=0, within_s=EVENT_LIMIT_S, cloudlet="c1")
    say("its personal VM starts in cloudlet c1; waiting for the guest to boot")
    guest = GuestClient(space, PVM_ADDRESS, timeout_s=ANSWER_LIMIT_S)
    before = await guest.wait_until_up(BOOT_LIMIT_S)
    say(f"the guest answers (boot id {before.boot_id})")

    out = bed.out
    pingers = [
        await bed.start("ping-pvm", *_ping(PVM_ADDRESS, out / "pings.csv", PING_S), namespace=space),
        await bed.start(
            "ping-internet", *_ping(INTERNET_SERVER, out / "internet.csv", INTERNET_PING_S), namespace=space
        ),
    ]
    say(f"pinging the PVM every 10 ms beside eNB1 for {pace.beside_s:g} s")
    await asyncio.sleep(pace.beside_s)
    for target in (2, 3):
        mark = len(bed.events)
        say(f"S1 handover eNB{target - 1} -> eNB{target}")
        truths.append(await bed.ran.handover(UE, target))
        await bed.event("handover.completed", after=mark, within_s=EVENT_LIMIT_S)
        say(f"the UE is at eNB{target}, its PVM still in c{target - 1}; it follows in {pace.dwell_s:g} s")
        await bed.event("pvm.migrating", after=mark, within_s=MIGRATION_LIMIT_S, to_cloudlet=f"c{target}")
        say(f"the PVM migrates c{target - 1} -> c{target}")
        place = await bed.event("pvm.migrated", after=mark, within_s=MIGRATION_LIMIT_S, to_cloudlet=f"c{target}")
        moved = bed.events[place]["data"]
        say(
            f"the PVM is in c{target}: {moved['total_ms']:.0f} ms in all, stood still for {moved['downtime_ms']:.0f} ms"
        )
        await asyncio.sleep(pace.beside_s)
    for pinger in pingers:
        await pinger.stop()
    after = await guest.wait_until_up(EVENT_LIMIT_S)
    if after.boot_id != before.boot_id:
        raise AdapterError(f"the guest is not the one it was: boot id {before.boot_id}, now {after.boot_id}")
    say(f"the guest is the one it was (boot id {after.boot_id}); the UE detaches")
    truths.append(await bed.ran.detach(UE))
    with contextlib.suppress(AdapterError):
        await bed.event("pvm.stopped", after=0, within_s=EVENT_LIMIT_S)
    return truths


def _ping(target: str, out: Path, interval_s: float) -> tuple[str, ...]:
    return (*PYTHON, "testbed.pinger", target, str(out.absolute()), "--interval", str(interval_s))
