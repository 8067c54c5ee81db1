"""``bench latency``, in short: real monitor, real broker, real wire, and nothing lost on the way."""

from __future__ import annotations

import os

import pytest

from testbed.bench import latency

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]


def test_every_event_reaches_the_subscriber() -> None:
    results = latency.run(seconds=0.5)["results"]
    for load in latency.LOADS:
        measured = results[load.name]
        assert measured["events"] > 0
        assert measured["lost_events"] == measured["lost_frames"] == 0
        assert 0 < measured["p50_ms"] <= measured["p99_ms"] <= measured["max_ms"]
