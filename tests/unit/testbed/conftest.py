"""A made-up run of the demo with known figures, for the results and the report."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mobiscud.bus.cloudevents import rfc3339
from testbed.results import Ping

MS = 1_000_000
S = 1000 * MS
START = 1_790_000_000 * S
UE = "ue-0123456789abcdef"
PLMN = {"mcc": "999", "mnc": "70"}


def enb(number: int) -> dict[str, Any]:
    return {"plmn": PLMN, "enb_id": 410 + number, "address": f"10.0.0.{10 + number}"}


@dataclass(slots=True)
class SyntheticRun:
    """Three cells, two handovers, two migrations; times in milliseconds after ``START``."""

    handovers_at: tuple[float, ...] = (5000.0, 14000.0)
    migrated_after: float = 4000.0
    total: float = 1200.0
    downtime: float = 20.0
    end: float = 24000.0
    interval: float = 10.0
    jitter: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    truths: list[dict[str, Any]] = field(default_factory=list)
    pings: list[Ping] = field(default_factory=list)

    def event(self, at: float, kind: str, /, **data: Any) -> None:
        source = "controller" if kind.startswith(("offload", "pvm")) else "monitor"
        about_ue = not kind.startswith("enb.")
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"{len(self.events):08x}",
            "source": f"/mobiscud/testbed/{source}",
            "type": f"org.mobiscud.{kind}",
            "time": rfc3339(START + round(at * MS)),
            "data": {**({"ue": UE, "imsi": None, "ue_ip": ["45.45.0.2"]} if about_ue else {}), **data},
        }
        self.events.append(envelope)

    def build(self) -> SyntheticRun:
        for number in (1, 2, 3):
            self.event(-3000 + number, "enb.connected", enb=enb(number), tais=[], mme=None)
        self.event(-2000, "ue.attached", enb=enb(1), ecgi=None, tai=None, bearers=[])
        self.truths.append(
            {"ev": "attach", "t0": START / S - 2.1, "t": START / S - 2, "enb_id": 411, "ue_ip": "45.45.0.2"}
        )
        self.event(
            -1700, "pvm.started", to_cloudlet="c1", from_cloudlet=None, downtime_ms=None, total_ms=None, reason=None
        )
        self.event(-1695, "offload.activated", cloudlet="c1", via="local", rule_ids=["up", "down"])
        for target, at in enumerate(self.handovers_at, start=2):
            self._handover(target, at)
            self._migration(target, at + self.migrated_after)
        self.event(self.end, "ue.detached", cause=None)
        self._ping()
        return self

    def _handover(self, target: int, at: float) -> None:
        ends = {"kind": "s1", "source": {"enb": enb(target - 1)}, "target": {"enb": enb(target)}, "cause": None}
        here, there = f"c{target}", f"c{target - 1}"
        self.event(at - 60, "handover.preparing", **ends)
        self.event(at - 40, "handover.prepared", **ends, enb=enb(target), bearers=[])
        self.event(at - 37.5, "offload.prepared", cloudlet=here, via=there, rule_ids=["up", "down"])
        self.event(at - 30, "handover.executing", **ends, enb=enb(target), bearers=[], forwarding=None)
        self.event(at, "handover.completed", **ends, enb=enb(target), ecgi=None, tai=None, bearers=[])
        self.event(at + 3.25, "offload.moved", cloudlet=there, via=here, rule_ids=["down"])
        self.event(at + 4, "offload.activated", cloudlet=here, via=there, rule_ids=["up", "down"])
        self.truths.append(
            {
                "ev": "s1_handover",
                "t0": START / S + (at - 70) / 1000,
                "t": START / S + at / 1000,
                "enb_id": 410 + target,
                "from_enb_id": 409 + target,
            }
        )

    def _migration(self, target: int, switched: float) -> None:
        places = {"from_cloudlet": f"c{target - 1}", "to_cloudlet": f"c{target}", "reason": None}
        begun, done = switched - 1000, switched + 200
        self.event(begun, "pvm.migrating", **places, downtime_ms=None, total_ms=None)
        self.event(switched, "offload.moved", cloudlet=f"c{target}", via="local", rule_ids=["up", "down"])
        self.event(done, "pvm.migrated", **places, downtime_ms=self.downtime, total_ms=self.total)
        self.event(done + 5, "offload.removed", cloudlet=f"c{target - 1}", via="local", rule_ids=[])

    def _ping(self) -> None:
        noise = random.Random(36412)
        at, seq = 0.0, 0
        while at < self.end:
            rtt = self._rtt(at)
            if rtt is not None and self.jitter:
                rtt += noise.lognormvariate(-1.6, 0.55) + (noise.expovariate(1 / 6) if noise.random() < 0.004 else 0)
                if seq in (700, 1850):
                    rtt = None
            sent = START + round(at * MS)
            self.pings.append(Ping(seq, sent, None if rtt is None else sent + round(rtt * MS)))
            seq += 1
            at += self.interval

    def _rtt(self, at: float) -> float | None:
        """8 ms beside the PVM, 12 ms in the next cell; lost while the UE is between cells or the guest stands still."""
        rtt = 8.0
        for handover in self.handovers_at:
            switched = handover + self.migrated_after
            if handover - 25 <= at < handover or switched - self.downtime <= at < switched:
                return None
            if handover <= at < switched - self.downtime:
                rtt = 12.0
        return rtt


@pytest.fixture
def synthetic() -> SyntheticRun:
    return SyntheticRun().build()


@pytest.fixture
def synthetic_run() -> Callable[..., SyntheticRun]:
    """Builds a run with other times than the usual."""
    return lambda **times: SyntheticRun(**times).build()
