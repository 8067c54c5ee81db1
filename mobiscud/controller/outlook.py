"""What a controller knows beyond one user's record when it asks the policy: its walk, and what a move costs.

All of it is heard on the bus, so every controller knows the same; it is not kept over a restart, but begins from
what the configuration expects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mobiscud.controller.policy import Estimate, Facts, Visit
from mobiscud.core.commands import Moment
from mobiscud.core.config import CostConfig, LinkConfig
from mobiscud.core.events import Event, PvmMigrated, PvmMigrating, PvmMigrationFailed, UsageReported
from mobiscud.core.ids import CloudletId, UeKey
from mobiscud.core.times import nanoseconds

REMEMBERED: Final = 8
"""Visits of a UE."""
WEIGHT: Final = 0.1
"""Of the latest outage in the mean of all."""

Link = frozenset[CloudletId]


@dataclass(frozen=True, slots=True)
class _Count:
    """Of one usage record: what it has come to, after how long, and how fast it grew of late."""

    round_trips: int = 0
    span_ns: int = 0
    a_second: float = 0.0


class Outlook:
    """The walks of all UEs, and the moves that are under way between cloudlets."""

    def __init__(self, cost: CostConfig, rtt_ms: Callable[[CloudletId, CloudletId], float] | None = None) -> None:
        """``rtt_ms``: of the way between two cloudlets, where it is known better than from the configuration."""
        self._rtt_ms = rtt_ms
        self.reckon_with(cost)
        self._walks: dict[UeKey, tuple[Visit, ...]] = {}
        self._moving: dict[UeKey, Link] = {}
        self._moves_on: dict[Link, int] = {}
        self._outage_ms = cost.outage_ms
        self._counts: dict[UeKey, dict[str, _Count]] = {}

    def reckon_with(self, cost: CostConfig) -> None:
        """What the configuration says of links and moves; what was heard stays."""
        self._cost = cost
        self._links: Mapping[Link, LinkConfig] = {
            frozenset(CloudletId(end) for end in link.between): link for link in cost.links
        }

    def arrived(self, ue: UeKey, cloudlet: CloudletId | None, now: float) -> None:
        """The UE is connected at a cell of ``cloudlet``; a new visit if it was elsewhere before."""
        walk = self._walks.get(ue, ())
        if not walk or walk[-1].cloudlet != cloudlet:
            self._walks[ue] = (*walk[1 - REMEMBERED :], Visit(cloudlet, now))

    def left(self, ue: UeKey) -> None:
        """The UE is no longer registered."""
        self._walks.pop(ue, None)
        self._counts.pop(ue, None)

    def heard(self, event: Event) -> None:
        """A move that begins or ends, or what a switch has counted, anywhere in the site."""
        match event:
            case UsageReported(ue=ue, record=record, uplink=up, downlink=down):
                span_ns = nanoseconds(event.end) - nanoseconds(event.start)
                self.carried(ue, record, min(up.packets, down.packets), span_ns, ended=event.status == "final")
            case PvmMigrating(ue=ue, from_cloudlet=source, to_cloudlet=target) if source and target:
                self.move_began(ue, source, target)
            case PvmMigrated(ue=ue, downtime_ms=outage_ms):
                self.move_ended(ue, outage_ms)
            case PvmMigrationFailed(ue=ue):
                self.move_ended(ue)
            case _:
                pass

    def move_began(self, ue: UeKey, source: CloudletId, target: CloudletId) -> None:
        """The PVM of the UE is on the link between the two, and on no other."""
        self._off_the_link(ue)
        link = self._moving[ue] = frozenset((source, target))
        self._moves_on[link] = self._moves_on.get(link, 0) + 1

    def move_ended(self, ue: UeKey, outage_ms: float | None = None) -> None:
        """It has come, after an outage (where that is known), or it stays."""
        self._off_the_link(ue)
        if outage_ms is not None:
            self._outage_ms += WEIGHT * (outage_ms - self._outage_ms)

    def _off_the_link(self, ue: UeKey) -> None:
        link = self._moving.pop(ue, None)
        if link is not None:
            self._moves_on[link] -= 1
            if not self._moves_on[link]:
                del self._moves_on[link]

    def carried(self, ue: UeKey, record: str, round_trips: int, span_ns: int, *, ended: bool = False) -> None:
        """So many round trips of a UE were counted since the record began, ``span_ns`` ago."""
        counts = self._counts.setdefault(ue, {})
        before = counts.get(record, _Count())
        if span_ns > before.span_ns:
            a_second = (round_trips - before.round_trips) / (span_ns - before.span_ns) * 1e9
            counts[record] = _Count(round_trips, span_ns, a_second)
        if ended and len(counts) > 1:
            del counts[record]  # the last one is all that is known

    def _round_trips_s(self, ue: UeKey) -> float | None:
        counts = self._counts.get(ue)
        return sum(count.a_second for count in counts.values()) if counts else None

    def facts(self, ue: UeKey, moment: Moment, here: CloudletId, pvm_at: CloudletId, now: float) -> Facts:
        """All that a policy may know of this user now."""
        link = frozenset((here, pvm_at))
        known = self._links.get(link)
        moves = self._moves_on.get(link, 0)
        rtt_ms = self._rtt_ms(here, pvm_at) if self._rtt_ms else known.rtt_ms if known else self._cost.rtt_ms
        estimate = Estimate(
            rtt_gain_ms=rtt_ms,
            outage_ms=self._outage_ms,
            move_mib=self._cost.move_mib,
            link_load=moves / (known.moves if known else self._cost.moves),
            round_trips_s=self._round_trips_s(ue),
        )
        return Facts(moment, now, here, pvm_at, self._walks.get(ue, ()), estimate)
