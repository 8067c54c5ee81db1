"""Whatever dies in the middle of a handover: traffic comes back to the short way, and no stale rule is left."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testbed import results
from testbed.experiment import PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.results import Ping
from testbed.rules_in_place import Rules, rules_for_ues
from testbed.spawn import PYTHON
from testbed.topology import Delays

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(300),
]

LIMIT_S = 60.0
ENOUGH = 20
SHORT_MS = 50.0
"""Over the core it takes some 90 ms to the PVM and back, over the cloudlets' link 12."""
KILLS = (
    ("c1", "s1"),
    ("c2", "x2"),
    ("broker", "s1"),
    ("switch:c1", "x2"),
    ("switch:c2", "s1"),
    ("monitor", "x2"),
)


def rtt_ms(ping: Ping) -> float:
    return results.between_ms(ping.sent_ns, ping.received_ns) or 1e9


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110  # a file tells nobody when it grows
            await asyncio.sleep(0.05)


class Pings:
    """The file that a pinger writes."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self) -> list[Ping]:
        return results.load_pings(self._file) if self._file.exists() else []

    async def short_again(self) -> None:
        """Wait until so many in a row were answered over the cloudlets."""
        begin = len(self.load())

        def restored() -> bool:
            latest = [ping for ping in self.load()[begin:] if ping.received_ns is not None][-ENOUGH:]
            return len(latest) == ENOUGH and all(rtt_ms(ping) < SHORT_MS for ping in latest)

        await until(restored)

    def cost(self, begin: int, end: int) -> dict[str, Any]:
        """What was lost of some pings, and the longest time without an answer; once all is written down."""
        pings = [ping for ping in self.load() if begin <= ping.seq < end]
        answered = sorted(ping.received_ns for ping in pings if ping.received_ns is not None)
        longest = max((b - a for a, b in pairwise(answered)), default=0)
        return {"lost": sum(ping.received_ns is None for ping in pings), "outage_ms": round(longest / 1e6)}


async def entries(bed: RunningTestbed) -> list[Rules]:
    """What is there for UEs, in the switches' tables and in the maps of the datapath programs, of each cloudlet."""
    everywhere = [await rules_for_ues(bed, number) for number in bed.switches]
    return [rules for rules in everywhere if rules.flows or rules.uplink or rules.downlink]


async def handover_and_kill(bed: RunningTestbed, target: int, kind: str, part: str) -> None:
    """Kill a part when the target's end points have been seen, and start it again."""
    mark = len(bed.events)
    handing_over = asyncio.create_task(bed.ran.handover(UE, target, kind=kind))
    await bed.event("handover.prepared", after=mark, within_s=LIMIT_S)
    await bed.kill(part, 0.0)
    await handing_over


async def test_traffic_is_restored_whatever_dies_in_a_handover(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    setting = Setting(delays=Delays(), dwell_s=0.0, policy="stay", cloudlets=2)
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:
        space = bed.network.namespace("ue")
        await bed.ran.attach(UE, 1)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        await GuestClient(space, PVM_ADDRESS).wait_until_up(LIMIT_S)
        file = tmp_path / "pings.csv"
        pinger = await bed.start(
            "pinger", *PYTHON, "testbed.pinger", PVM_ADDRESS, str(file), "--interval", "0.01", namespace=space
        )
        pings = Pings(file)
        await pings.short_again()
        at, begins = 1, list[int]()
        for part, kind in KILLS:
            at = 3 - at
            begins.append(pings.load()[-1].seq)
            await handover_and_kill(bed, at, kind, part)
            if part == "monitor":  # it has seen nothing of the UE since: until the UE says something
                await bed.ran.detach(UE)
                await bed.ran.attach(UE, at)
            await pings.short_again()
        await pinger.stop()
        begins.append(pings.load()[-1].seq)
        for (part, _), (begin, end) in zip(KILLS, pairwise(begins), strict=True):
            record_property(part, pings.cost(begin, end))
            print(part, json.dumps(pings.cost(begin, end)))
        assert await entries(bed)
        await bed.ran.detach(UE)
        async with asyncio.timeout(LIMIT_S):
            while left := await entries(bed):  # noqa: ASYNC110 - switches and maps tell nobody
                await asyncio.sleep(0.1)
        assert left == []
