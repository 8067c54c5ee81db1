"""What cloudlets would have seen of a network that is not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobiscud.bus.cloudevents import rfc3339
from testbed.scenario import external, schema
from testbed.scenario.figures import Run

SCENARIO = """
name: external
title: Not ours
duration_s: 60
epc: {external: {interfaces: [eth0], cells: {1: c1, 2: c1, 3: c2}}}
"""


def seen(ue: str, kind: str, at_s: float, enb_id: int) -> dict[str, Any]:
    data = {"ue": ue, "enb": {"enb_id": enb_id}}
    return {"type": f"org.mobiscud.{kind}", "time": rfc3339(round(at_s * 1e9)), "data": data}


def test_only_moves_between_cloudlets_are_changes() -> None:
    events = [
        seen("ue-a", "ue.attached", 1, 1),
        seen("ue-b", "ue.connected", 2, 3),
        seen("ue-a", "handover.completed", 5, 2),
        seen("ue-a", "handover.completed", 11, 3),
        seen("ue-a", "ue.connected", 13, 3),
        seen("ue-a", "handover.completed", 15, 1),
    ]
    run = Run(Path("only-1"), {"variant": "only", "ues": {}}, events[::-1], (), {})
    found = external.compute(schema.parse(SCENARIO), [run])
    assert found["ues"] == 2
    assert found["handovers"] == 3
    assert found["cloudlet_changes"] == 2, "cells 1 and 2 are one cloudlet's"
    assert found["stay_s"] == {"p50": 4, "p99": 10}
    assert found["events"] == {"handover.completed": 3, "ue.attached": 1, "ue.connected": 2}
