"""What a run showed, in figures: from the pings and the events to ``results.json``.

Two records, made independently of each other, are laid side by side: when each ping left and came back (the user's
view), and the events on the bus, whose times are those of the completing message on the wire or of the switch's
confirmation. Every lost ping counts once: to the handover or migration it happened at, else to its phase.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mobiscud.bus.cloudevents import TYPE_PREFIX, nanoseconds
from mobiscud.core.errors import DecodeError

NS_PER_MS: Final = 1_000_000
AROUND_NS: Final = 250 * NS_PER_MS
"""How far from a handover or a switch-over a lost ping may be and still count to it."""


@dataclass(frozen=True, slots=True)
class Ping:
    """One echo request. Wall-clock nanoseconds; ``received_ns`` is ``None`` for one that was never answered."""

    seq: int
    sent_ns: int
    received_ns: int | None

    @property
    def rtt_ms(self) -> float | None:
        """The round trip in milliseconds."""
        return None if self.received_ns is None else (self.received_ns - self.sent_ns) / NS_PER_MS


@dataclass(frozen=True, slots=True)
class Fact:
    """An event of the run's UE, or of the network: ``kind`` is its type without prefix."""

    kind: str
    at: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A completed handover. ``begun``: first seen; ``flipped``: the downlink goes to the target."""

    source: str
    target: str
    begun: int
    prepared: int | None
    rules_ready: int | None
    executing: int | None
    completed: int
    flipped: int | None

    @property
    def interval(self) -> tuple[int, int]:
        """In which packets may be lost to it."""
        return self.executing or self.prepared or self.completed, max(self.completed, self.flipped or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A completed migration. ``switched``: the path goes to the target, where the guest is about to run."""

    source: str
    target: str
    begun: int
    switched: int
    completed: int
    total_ms: float | None
    downtime_ms: float | None

    @property
    def interval(self) -> tuple[int, int]:
        """In which packets may be lost to it: the guest may have stopped a whole downtime before the path flipped."""
        return self.switched - round((self.downtime_ms or 0) * NS_PER_MS), self.completed


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run, ``begin`` included, ``end`` excluded; a ping belongs to where it was sent."""

    name: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Story:
    """What the events tell."""

    ue: str | None
    facts: tuple[Fact, ...]
    handovers: tuple[Handover, ...]
    migrations: tuple[Migration, ...]
    enb_names: Mapping[int, str]


def load_pings(path: Path) -> list[Ping]:
    """Read ``seq,sent_ns,received_ns`` lines (with a heading), in the order of sending."""
    try:
        with path.open(newline="") as file:
            pings = [
                Ping(int(row["seq"]), int(row["sent_ns"]), int(row["received_ns"]) if row["received_ns"] else None)
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"{path}: not a record of pings: {error}") from error
    return sorted(pings, key=lambda ping: (ping.sent_ns, ping.seq))


def load_events(path: Path) -> list[dict[str, Any]]:
    """Read CloudEvents, one JSON object a line."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line]
    except ValueError as error:
        raise DecodeError(f"{path}: not JSON lines: {error}") from error


def tell(events: Sequence[Mapping[str, Any]], ue: str | None = None) -> Story:
    """Read the story of a UE out of the events, in the order of time; without a name, of the one that was handed over
    (or else attached)."""
    facts = _facts(events)
    if ue is None:
        ue = next((f.data["ue"] for f in facts if f.kind in ("handover.completed", "ue.attached")), None)
    return _story(ue, [fact for fact in facts if fact.data.get("ue") in (ue, None)], _enb_names(facts))


def tell_each(events: Sequence[Mapping[str, Any]]) -> dict[str, Story]:
    """The story of every UE that the events name."""
    facts = _facts(events)
    names = _enb_names(facts)
    common = [fact for fact in facts if fact.data.get("ue") is None]
    own: dict[str, list[Fact]] = {}
    for fact in facts:
        if (ue := fact.data.get("ue")) is not None:
            own.setdefault(ue, []).append(fact)
    return {ue: _story(ue, sorted([*common, *some], key=lambda fact: fact.at), names) for ue, some in own.items()}


def _story(ue: str | None, facts: Sequence[Fact], names: Mapping[int, str]) -> Story:
    return Story(ue, tuple(facts), tuple(_handovers(facts, names)), tuple(_migrations(facts)), names)


def compute(pings: Sequence[Ping], events: Sequence[Mapping[str, Any]], ue: str | None = None) -> dict[str, Any]:
    """What the pings to its personal VM and the events tell of a UE; what cannot be known is ``None``."""
    story = tell(events, ue)
    blamed = _blame(pings, [*story.handovers, *story.migrations])
    return {
        "ue": story.ue,
        "phases": [_phase_result(phase, pings, blamed) for phase in phases(story, pings)],
        "handovers": [
            {
                "from": handover.source,
                "to": handover.target,
                "prepare_ms": between_ms(handover.prepared, handover.rules_ready),
                "path_ms": between_ms(handover.completed, handover.flipped),
                "outage_ms": _outage_ms(pings, handover.interval),
                "lost": sum(blame == index for blame in blamed.values()),
            }
            for index, handover in enumerate(story.handovers)
        ],
        "migrations": [
            {
                "from": migration.source,
                "to": migration.target,
                "total_ms": _rounded(migration.total_ms),
                "downtime_ms": _rounded(migration.downtime_ms),
                "outage_ms": _outage_ms(pings, migration.interval),
                "lost": sum(blame == index for blame in blamed.values()),
            }
            for index, migration in enumerate(story.migrations, start=len(story.handovers))
        ],
        "pings": {"sent": len(pings), "lost": sum(ping.received_ns is None for ping in pings)},
    }


def phases(story: Story, pings: Sequence[Ping]) -> list[Phase]:
    """From the first answered ping on: a phase before the first handover, and one or two after each.

    Between a switch-over and the end of its migration lies no phase.
    """
    begin = next((ping.sent_ns for ping in pings if ping.received_ns is not None), None)
    if begin is None:
        return []
    last = min((fact.at for fact in story.facts if fact.kind == "ue.detached"), default=pings[-1].sent_ns + 1)
    if not story.handovers:
        return [Phase(_serving_enb(story), begin, last)]
    found = [Phase(story.handovers[0].source, begin, story.handovers[0].completed)]
    for handover, end in zip(story.handovers, [*(h.completed for h in story.handovers[1:]), last], strict=True):
        migration = next((m for m in story.migrations if handover.completed <= m.completed < end), None)
        if migration is None:
            found.append(Phase(handover.target, handover.completed, end))
        else:
            found.append(Phase(f"{handover.target} before migration", handover.completed, migration.switched))
            found.append(Phase(f"{handover.target} after migration", migration.completed, end))
    return found


# From events to facts ------------------------------------------------------------------------------------------------


def _facts(events: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """The events in the order of time, repeats (equal ids) dropped."""
    unique = {event["id"]: event for event in reversed(events)}
    facts = [
        Fact(str(event["type"]).removeprefix(TYPE_PREFIX), nanoseconds(event["time"]), event["data"])
        for event in reversed(unique.values())
    ]
    return sorted(facts, key=lambda fact: fact.at)


def _enb_names(facts: Sequence[Fact]) -> dict[int, str]:
    """eNodeBs are numbered by their ids, as the testbed gives them out."""
    enbs = [fact.data.get("enb") for fact in facts]
    enbs += [fact.data[end].get("enb") for fact in facts for end in ("source", "target") if fact.data.get(end)]
    ids = {enb["enb_id"] for enb in enbs if enb and enb.get("enb_id") is not None}
    return {enb_id: f"eNB{number}" for number, enb_id in enumerate(sorted(ids), start=1)}


def enb_name(enb: Mapping[str, Any] | None, names: Mapping[int, str]) -> str:
    """What an eNodeB is called in results and report."""
    if not enb:
        return "eNB?"
    return names.get(enb["enb_id"]) or f"eNB {enb.get('address') or '?'}"


def _serving_enb(story: Story) -> str:
    attached = next((fact for fact in story.facts if fact.kind in ("ue.attached", "ue.connected")), None)
    return enb_name(attached.data.get("enb") if attached else None, story.enb_names)


def _handovers(facts: Sequence[Fact], names: Mapping[int, str]) -> list[Handover]:
    found: list[Handover] = []
    earlier = 0
    for place, completed in enumerate(facts):
        if completed.kind != "handover.completed":
            continue
        before = facts[earlier:place]
        after = facts[place + 1 :]
        end = next((f.at for f in after if f.kind == "handover.completed"), None)
        steps = {fact.kind: fact.at for fact in before if fact.kind.startswith("handover.")}
        prepared = steps.get("handover.prepared")
        # The rules may be confirmed after the UE has arrived, in X2 above all.
        since = [fact for fact in facts[earlier:] if fact.at >= (prepared or completed.at)]
        ready = _first(since, "offload.prepared", end)
        found.append(
            Handover(
                source=enb_name((completed.data.get("source") or {}).get("enb"), names),
                target=enb_name(completed.data.get("enb"), names),
                begun=min((at for kind, at in steps.items() if kind.startswith("handover.")), default=completed.at),
                prepared=prepared,
                rules_ready=ready,
                executing=steps.get("handover.executing"),
                completed=completed.at,
                flipped=_first(after, "offload.moved", end),
            )
        )
        earlier = place + 1
    return found


def _migrations(facts: Sequence[Fact]) -> list[Migration]:
    found: list[Migration] = []
    for place, migrated in enumerate(facts):
        if migrated.kind != "pvm.migrated":
            continue
        target = migrated.data["to_cloudlet"]
        before = facts[:place]
        begun = max(
            (f.at for f in before if f.kind == "pvm.migrating" and f.data["to_cloudlet"] == target), default=None
        )
        begun = migrated.at if begun is None else begun
        switches = (
            fact.at
            for fact in facts
            if fact.kind == "offload.moved"
            and fact.data["cloudlet"] == target
            and fact.data["via"] == "local"
            and begun <= fact.at <= migrated.at + AROUND_NS
        )
        switched = min(switches, default=migrated.at)
        found.append(
            Migration(
                source=migrated.data["from_cloudlet"],
                target=target,
                begun=begun,
                switched=switched,
                completed=max(migrated.at, switched),
                total_ms=migrated.data.get("total_ms"),
                downtime_ms=migrated.data.get("downtime_ms"),
            )
        )
    return found


def _first(facts: Sequence[Fact], kind: str, end: int | None) -> int | None:
    return next((fact.at for fact in facts if fact.kind == kind and (end is None or fact.at < end)), None)


# From pings to figures -----------------------------------------------------------------------------------------------


def _blame(pings: Sequence[Ping], changes: Sequence[Handover | Migration]) -> dict[int, int]:
    """For each lost ping (by its place) the change it was lost to: the nearest, if near enough."""
    blamed: dict[int, int] = {}
    for place, ping in enumerate(pings):
        if ping.received_ns is not None:
            continue
        distances = [_distance(ping.sent_ns, change.interval) for change in changes]
        nearest = min(range(len(changes)), key=distances.__getitem__, default=None)
        if nearest is not None and distances[nearest] <= AROUND_NS:
            blamed[place] = nearest
    return blamed


def _distance(at: int, interval: tuple[int, int]) -> int:
    return max(interval[0] - at, at - interval[1], 0)


def _phase_result(phase: Phase, pings: Sequence[Ping], blamed: Mapping[int, int]) -> dict[str, Any]:
    inside = [(place, ping) for place, ping in enumerate(pings) if phase.begin <= ping.sent_ns < phase.end]
    rtts = sorted(rtt for _, ping in inside if (rtt := ping.rtt_ms) is not None)
    return {
        "name": phase.name,
        "rtt_ms": {
            "median": _rounded(statistics.median(rtts)) if rtts else None,
            "p99": _rounded(rtts[math.ceil(0.99 * len(rtts)) - 1]) if rtts else None,
        },
        "sent": len(inside),
        "lost": sum(ping.received_ns is None and place not in blamed for place, ping in inside),
    }


def _outage_ms(pings: Sequence[Ping], interval: tuple[int, int]) -> float | None:
    """The longest time without an answer that touches the interval; as long as the ping interval, it is none."""
    begin, end = interval[0] - AROUND_NS, interval[1] + AROUND_NS
    answers = sorted(ping.received_ns for ping in pings if ping.received_ns is not None)
    gaps = [b - a for a, b in itertools.pairwise(answers) if b > begin and a < end]
    return _rounded(max(gaps) / NS_PER_MS) if gaps else None


def reordered(packets: Sequence[Ping]) -> set[int]:
    """The packets that came back after one that was sent later (RFC 4737, type P reordered)."""
    received = sorted((ping.received_ns, ping.seq) for ping in packets if ping.received_ns is not None)
    newest = -1
    late = set()
    for _, number in received:
        if number < newest:
            late.add(number)
        newest = max(newest, number)
    return late


def between_ms(begin: int | None, end: int | None) -> float | None:
    """From one time to another (ns), if both are known."""
    return None if begin is None or end is None else _rounded((end - begin) / NS_PER_MS)


def quantiles(values: Iterable[float | None]) -> dict[str, float | None]:
    """Median and 99th percentile of what is known, by nearest rank."""
    known = sorted(value for value in values if value is not None)
    return {"p50": _nearest_rank(known, 0.5), "p99": _nearest_rank(known, 0.99)}


def _nearest_rank(known: Sequence[float], share: float) -> float | None:
    return _rounded(known[math.ceil(share * len(known)) - 1]) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
