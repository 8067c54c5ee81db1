"""How soon a personal VM answers once its user has attached: part of ``mobiscud bench migrate``.

A UE attaches and leaves again, and each time sends to the VM's echo every other millisecond, from the moment it is
attached until the first answer. Cold: the VM boots. Saved: it is read from the file to which its last stop saved it.
Pool: it stands still in memory since then. The guest is asked who it is, so that a way cannot pass for another.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import AdapterError
from testbed.bench import common
from testbed.bench.migrate import NO_DELAYS, quantiles
from testbed.experiment import PVM_ADDRESS, UE, Progress, RunningTestbed, Setting
from testbed.guest.client import ECHO_PORT, GuestClient
from testbed.netns_socket import socket_in

WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "pool": {"on_stop": "pause", "pool": 1},
    "saved": {"on_stop": "save"},
    "cold": {"on_stop": "destroy"},
}
"""What the host does when its guest stops, and so how the next one starts."""

COLD_SHARE: Final = 3
"""Of so many starts one is cold: these take seconds each, and only give the scale."""

EVERY_S: Final = 0.002
SETTLE_S: Final = 0.5
LIMIT_S: Final = 60.0


async def measure(out: Path, say: Progress, runs: int) -> list[dict[str, Any]]:
    """Measure each way as often; ``out`` takes the records, and must be a place that the guest's host sees too.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a step failed
    """
    rows = []
    for way, stop in WAYS.items():
        count = max(1, runs // COLD_SHARE) if way == "cold" else runs
        place = out / f"start-{way}"
        hypervisor = {**stop, "saved_images": str(place.absolute() / "saved")}
        setting = Setting(delays=NO_DELAYS, dwell_s=0.0, cloudlets=1, hypervisor=hypervisor)
        async with RunningTestbed(setting, place, say) as bed:
            say(f"{count} attaches of a UE whose VM starts: {way}")
            answers = await _attach_often(bed, count, goes_on=way != "cold")
        rows.append({"way": way, "runs": len(answers), "answer_ms": quantiles(answers)})
    return rows


async def _attach_often(bed: RunningTestbed, count: int, *, goes_on: bool) -> list[float]:
    client = GuestClient(bed.network.namespace("ue"), PVM_ADDRESS, timeout_s=LIMIT_S)
    answers = []
    boots = []
    for number in range(count + 1):  # the first makes what the others start from
        await bed.ran.attach(UE, 1)
        answer_ms = await _first_answer(bed.network.namespace("ue"))
        boots.append((await client.wait_until_up(LIMIT_S)).boot_id)
        await asyncio.sleep(SETTLE_S)
        mark = len(bed.events)
        await bed.ran.detach(UE)
        await bed.event("pvm.stopped", after=mark, within_s=LIMIT_S)
        await asyncio.sleep(SETTLE_S)
        if number:
            answers.append(answer_ms)
    if len(set(boots)) != (1 if goes_on else count + 1):
        raise AdapterError(
            f"{len(set(boots))} boots in {count + 1} starts: the VM did not start in the way that counts"
        )
    return answers


async def _first_answer(namespace: str) -> float:
    """Send until something comes back; milliseconds."""
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    with socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = asyncio.ensure_future(loop.sock_recv(probe, 64))
        try:
            while not answer.done():
                if time.monotonic() - began > LIMIT_S:
                    raise AdapterError(f"the VM does not answer within {LIMIT_S:.0f} s of the attach")
                try:
                    probe.sendto(b"are you there?", (PVM_ADDRESS, ECHO_PORT))
                except OSError:
                    pass  # no way there yet: a packet without answer, like any other
                await asyncio.wait({answer}, timeout=EVERY_S)
            answer.result()
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
    return (time.monotonic() - began) * 1000


def run(runs: int, out: Path | None = None) -> list[dict[str, Any]]:
    """Measure; the rows of the report. ``out`` keeps the records."""
    with tempfile.TemporaryDirectory(prefix="mobiscud-bench-") as scratch:
        return asyncio.run(measure(out or Path(scratch), common.say, runs))
