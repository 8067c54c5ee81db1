"""What a simulation counts, hour by hour, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S


@dataclass(slots=True)
class Hour:
    """One hour of all users. ``connected_s``: how long they were connected, by how many hops away their VM was."""

    connected_s: dict[int, float] = field(default_factory=dict)
    handovers: int = 0
    migrations: int = 0
    aborted: int = 0
    moved_mib: float = 0.0
    outage_ms: float = 0.0


class Tally:
    """What happened, as it happens."""

    def __init__(self, hours: float) -> None:
        self._until = hours * HOUR_S
        self.hours = [Hour() for _ in range(-int(-hours // 1))]
        self.outages_ms: list[float] = []
        self.called_off = 0
        self.steps = 0
        self.paths = 0
        self.asked = 0
        self.most_moves = 0

    def at(self, now: float) -> Hour:
        """The hour that a moment is in; what ends after the day counts to the last."""
        return self.hours[min(int(now / HOUR_S), len(self.hours) - 1)]

    def connected(self, since: float, now: float, hops: int) -> None:
        """A user was connected so long, with the VM so far away."""
        now = min(now, self._until)
        while since < now:
            number = min(int(since / HOUR_S), len(self.hours) - 1)
            end = min(now, (number + 1) * HOUR_S)
            spent = self.hours[number].connected_s
            spent[hops] = spent.get(hops, 0.0) + end - since
            since = end


def figures(tally: Tally, ues: int, hours: float, rtt_ms: Sequence[float]) -> dict[str, Any]:
    """What the tally comes to. ``rtt_ms``: by hops.

    "A day" is 24 hours of one user, connected or not; round-trip times are means over the time connected.
    """
    user_days = ues * hours / 24
    spent: dict[int, float] = {}
    for hour in tally.hours:
        for hops, seconds in hour.connected_s.items():
            spent[hops] = spent.get(hops, 0.0) + seconds
    migrations = sum(hour.migrations for hour in tally.hours)
    moved_mib = sum(hour.moved_mib for hour in tally.hours)
    outage_ms = sum(hour.outage_ms for hour in tally.hours)
    handovers = sum(hour.handovers for hour in tally.hours)
    connected_s = sum(spent.values())
    return {
        "handovers": handovers,
        "handovers_a_day": _rounded(handovers / user_days),
        "handovers_called_off": tally.called_off,
        "connected_share": _rounded(connected_s / (ues * hours * HOUR_S)),
        "rtt_ms": {
            "mean": _rounded(_mean(spent, rtt_ms)),
            "p50": _quantile(spent, rtt_ms, 0.5),
            "p95": _quantile(spent, rtt_ms, 0.95),
        },
        "beside_share": _rounded(spent.get(0, 0.0) / connected_s if connected_s else None),
        "migrations": migrations,
        "migrations_a_day": _rounded(migrations / user_days),
        "migrations_aborted": sum(hour.aborted for hour in tally.hours),
        "moved_gib": _rounded(moved_mib / 1024),
        "moved_mib_a_day": _rounded(moved_mib / user_days),
        "outage_s_a_day": _rounded(outage_ms / 1000 / user_days),
        "outage_ms": {"p50": _rank(tally.outages_ms, 0.5), "p95": _rank(tally.outages_ms, 0.95)},
        "most_moves_at_once": tally.most_moves,
        "steps": tally.steps,
        "paths_set": tally.paths,
        "policy_asked": tally.asked,
        "hours": list(_by_hour(tally, rtt_ms)),
    }


def _by_hour(tally: Tally, rtt_ms: Sequence[float]) -> Iterator[dict[str, Any]]:
    for number, hour in enumerate(tally.hours):
        yield {
            "hour": number,
            "connected": _rounded(sum(hour.connected_s.values()) / HOUR_S),
            "rtt_ms": _rounded(_mean(hour.connected_s, rtt_ms)),
            "handovers": hour.handovers,
            "migrations": hour.migrations,
            "moved_gib": _rounded(hour.moved_mib / 1024),
            "outage_s": _rounded(hour.outage_ms / 1000),
        }


def _mean(spent: Mapping[int, float], rtt_ms: Sequence[float]) -> float | None:
    total = sum(spent.values())
    return sum(rtt_ms[hops] * spent[hops] for hops in sorted(spent)) / total if total else None


def _quantile(spent: Mapping[int, float], rtt_ms: Sequence[float], share: float) -> float | None:
    """Of the time connected; round-trip times grow with the hops."""
    left = share * sum(spent.values())
    for hops in sorted(spent):
        left -= spent[hops]
        if left <= 0:
            return _rounded(rtt_ms[hops])
    return None


def _rank(values: Sequence[float], share: float) -> float | None:
    ranked = sorted(values)
    return _rounded(ranked[min(int(share * len(ranked)), len(ranked) - 1)]) if ranked else None


def _rounded(value: float | None) -> float | None:
    """To six digits: no more is meant."""
    return None if value is None else float(f"{value:.6g}")
