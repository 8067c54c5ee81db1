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


async def test_an_s1_and_an_x2_handover_lose_nothing(tmp_path: Path) -> None:
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

    assert (s1.lost, x2.lost) == (0, 0)
    assert all(ping.received_ns is not None for ping in stream)
