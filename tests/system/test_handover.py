"""Handovers on the whole testbed, under a stream that would show the loss of a single packet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import results
from testbed.bench import handover
from testbed.experiment import RunningTestbed, Setting
from testbed.topology import Delays

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(180),
]

MS = 1_000_000
BETWEEN_CELLS_MS = 40
"""The UE's silence with what its first packets then take to the wire, generously."""


async def test_what_an_s1_and_an_x2_handover_lose(tmp_path: Path) -> None:
    setting = Setting(delays=Delays(), dwell_s=0.0, policy="stay", preferred=True)
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:
        kinds = await handover.walk(bed, lambda line: None, each=1)
        counted = (await bed.ran.status())["enbs"]
    stream = results.load_pings(tmp_path / "stream.csv")
    s1, x2 = handover.crossings(stream, kinds, results.tell(bed.events).handovers)
    assert (s1.kind, s1.handover.source, s1.handover.target) == ("s1", "eNB1", "eNB2")
    assert (x2.kind, x2.handover.source, x2.handover.target) == ("x2", "eNB2", "eNB3")
    assert counted["1"]["forwarded"] > 0
    assert counted["2"]["forwarded"] > 0

    assert s1.lost == 0
    # In X2 the target's first uplink is on the wire before anybody hears of the handover, by the Path Switch Request:
    # until the target's rules stand it goes to the P-GW, where no personal VM is.
    begin, end = x2.handover.completed - BETWEEN_CELLS_MS * MS, x2.handover.flipped
    assert end is not None
    lost = [ping for ping in stream if ping.received_ns is None]
    assert len(lost) == x2.lost
    assert all(begin < ping.sent_ns < end for ping in lost)
