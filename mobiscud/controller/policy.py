"""When a personal VM follows its user. Pure: what is known of a user in, what its VM shall do out.

The controller of the cloudlet that the UE comes to asks (``Consult``), when the UE may come and when it is there, and
again after whatever failed. A policy sees one user at a time; what it knows of others is the load of the link.
Times are seconds of any one clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Protocol

from mobiscud.core.commands import Moment
from mobiscud.core.config import CostConfig, FollowConfig, MigrationConfig
from mobiscud.core.ids import CloudletId, PvmId

QUIET_S: Final = 60.0
"""How long a user without traffic is left alone."""
FULL: Final = 0.95
"""A link is never taken for fuller than this: the price of a byte stays finite."""


@dataclass(frozen=True, slots=True)
class Visit:
    """The UE was at ``cloudlet`` (None: at a cell without one) from ``since`` to the next visit."""

    cloudlet: CloudletId | None
    since: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a move of the PVM is expected to bring and to cost now.

    ``rtt_gain_ms``: what each round trip saves. ``outage_ms``: how long the user's traffic stands still;
    ``move_mib``: what the migration copies; ``link_load``: how much of the way between the cloudlets other moves
    take, 0 to 1. ``round_trips_s``: the user's, a second, where they were counted.
    """

    rtt_gain_ms: float
    outage_ms: float
    move_mib: float
    link_load: float = 0.0
    round_trips_s: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """One user, as the controller of ``here`` knows it: the UE is here, or expected (``moment``).

    ``visits``: where it was, the latest last; when it is here, that is this visit.
    """

    moment: Moment
    now: float
    here: CloudletId
    pvm_at: CloudletId
    visits: tuple[Visit, ...]
    estimate: Estimate

    @property
    def stayed_s(self) -> float:
        """How long the UE has been here."""
        here_now = self.visits and self.visits[-1].cloudlet == self.here
        return self.now - self.visits[-1].since if here_now else 0.0


@dataclass(frozen=True, slots=True)
class Move:
    """The PVM comes here, ``after_s`` from now if the UE is still here then."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stay:
    """The PVM stays where it is for as long as the UE is here."""

    reason: str


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Not now; what is known ``after_s`` from now decides."""

    after_s: float
    reason: str


Decision = Move | Stay | AskAgain


class Policy(Protocol):
    """Decides for one user at a time, from what it is told alone."""

    def decide(self, facts: Facts) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Follow:
    """The PVM follows always, once the UE has been in the new place for ``dwell_s``."""

    dwell_s: float = 0.0

    def decide(self, facts: Facts) -> Decision:
        """Move, when the dwell time is over."""
        return Move(max(self.dwell_s - facts.stayed_s, 0.0))


@dataclass(frozen=True, slots=True)
class Remain:
    """The PVM never follows: the user is served over the detour."""

    def decide(self, facts: Facts) -> Decision:
        """Stay."""
        return Stay("the policy is that it stays")


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """The PVM follows after ``dwell_s``; after ``ping_pong_s`` where the UE goes to and fro.

    It does when it comes to a place that it left less than ``ping_pong_s`` before: it may well leave again soon.
    """

    dwell_s: float
    ping_pong_s: float

    def decide(self, facts: Facts) -> Decision:
        """Move, when the time that goes with the user's walk is over."""
        wait_s = self.ping_pong_s if self._to_and_fro(facts) else self.dwell_s
        return Move(max(wait_s - facts.stayed_s, 0.0))

    def _to_and_fro(self, facts: Facts) -> bool:
        *before, current = facts.visits or (Visit(facts.here, facts.now),)
        left = current.since
        for visit in reversed(before):
            if current.since - left >= self.ping_pong_s:
                return False
            if visit.cloudlet == facts.here:
                return True
            left = visit.since
        return False


@dataclass(frozen=True, slots=True)
class Cost:
    """The PVM follows when that saves its user more waiting than it costs.

    A second at the new place saves the user's round trips (``round_trips_s`` where they were not counted) times what
    each saves. The move costs what waits while the traffic stands still, half of the outage on average, and
    ``wait_ms_per_mib`` for each MiB on the link, the more the fuller the link is. Both give the stay for which the
    move pays. Who usually stays that long is followed at once; who does not, when it has stayed that long after all:
    so the detour never costs much more than twice what foresight would have paid.
    """

    round_trips_s: float
    wait_ms_per_mib: float
    usual_stay_s: float

    def decide(self, facts: Facts) -> Decision:
        """Move now, later, or not at all."""
        pays_after_s = self.pays_after_s(facts.estimate)
        if pays_after_s is None:
            if facts.estimate.round_trips_s == 0.0:
                return AskAgain(QUIET_S, "no traffic")
            return Stay("no round trip becomes shorter")
        stayed_s = facts.stayed_s
        if stayed_s >= pays_after_s or self.expected_stay_s(facts) >= pays_after_s:
            return Move()
        return AskAgain(pays_after_s - stayed_s, f"pays after a stay of {pays_after_s:.0f} s")

    def pays_after_s(self, estimate: Estimate) -> float | None:
        """The stay that makes up for the move; None: there is none."""
        round_trips_s = self.round_trips_s if estimate.round_trips_s is None else estimate.round_trips_s
        saved_ms_per_s = round_trips_s * estimate.rtt_gain_ms
        if saved_ms_per_s <= 0:
            return None
        outage = round_trips_s * estimate.outage_ms / 1000 * estimate.outage_ms / 2
        copying = self.wait_ms_per_mib * estimate.move_mib / (1 - min(max(estimate.link_load, 0.0), FULL))
        return (outage + copying) / saved_ms_per_s

    def expected_stay_s(self, facts: Facts) -> float:
        """The middle one of the user's last stays and the usual one: long rests say little of a walk."""
        visits = facts.visits
        stays = sorted([self.usual_stay_s, *(after.since - visit.since for visit, after in pairwise(visits))])
        return stays[(len(stays) - 1) // 2]


def choose(config: FollowConfig, cost: CostConfig) -> Policy:
    """The policy that a configuration names."""
    match config.policy:
        case "follow":
            return Follow(config.dwell_s)
        case "stay":
            return Remain()
        case "hysteresis":
            return Hysteresis(config.dwell_s, config.ping_pong_s)
        case "cost":
            return Cost(cost.round_trips_s, cost.wait_ms_per_mib, cost.usual_stay_s)


class Start(IntEnum):
    """The earliest moment at which a PVM may begin to move; the names are those of the configuration."""

    at_preparing = Moment.PREPARED
    at_executing = Moment.EXECUTING
    at_completed = Moment.ARRIVED


@dataclass(frozen=True, slots=True)
class Manner:
    """How the PVM of one user follows."""

    policy: Policy
    start: Start = Start.at_completed

    def decide(self, facts: Facts) -> Decision:
        """What the policy decides, once a move may start. Before the UE is there, it is now or not yet."""
        if facts.moment < self.start:
            return Stay("too early")
        decision = self.policy.decide(facts)
        if facts.moment < Moment.ARRIVED and decision != Move():
            return Stay("not before the UE is here")
        return decision


@dataclass(frozen=True, slots=True)
class Manners:
    """How each user's PVM follows: as the site's do, or as its own."""

    usual: Manner
    own: Mapping[PvmId, Manner] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_config(cls, config: MigrationConfig) -> Manners:
        """Read the section ``migration``."""

        def manner(chosen: FollowConfig) -> Manner:
            return Manner(choose(chosen, config.cost), Start[chosen.start])

        return cls(manner(config), {PvmId(own.pvm): manner(own) for own in config.overrides})

    def of(self, pvm: PvmId) -> Manner:
        """The manner of one PVM."""
        return self.own.get(pvm, self.usual)
