"""Usage records: from what the switch has counted to the events that an operator charges by. Pure.

A record is of one bearer under one rule at one cloudlet, and cumulative, as in RFC 2866: from ``start`` to ``end`` so
much was carried. Interim records follow each other with the same ``record`` and larger numbers, a final one ends them;
who charges takes the last of each. So a record that is lost or told twice, and a controller that starts anew, change
no sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from mobiscud.core.events import (
    BearerEstablished,
    BearerEvent,
    BearerModified,
    Event,
    HandoverCompleted,
    HandoverPrepared,
    UePlacedEvent,
    UsageReported,
)
from mobiscud.core.ids import CloudletId, ERabId, FTeid, UeKey
from mobiscud.core.times import rfc3339
from mobiscud.core.usage import Carried, Usage

HEARD_TOO: Final = (BearerEstablished, BearerModified)
"""What must be heard for the records, beside what every controller hears."""

REMEMBERED: Final = 32
"""Bearers of a UE: more than it can have at once (TS 24.007 11.2.3.1.5), for those that have just gone."""


NOTHING: Final = (Carried(), Carried())
_Key = tuple[int, int]


def _key(one: Usage) -> _Key:
    """What an account is known by for ever."""
    return one.number, one.since


class UsagePort(Protocol):
    """The switch, as far as it counts."""

    def accounts(self) -> list[int]:
        """The accounts of bearers and rules, by number."""

    def usage(self, of: Iterable[int]) -> list[Usage]:
        """What was carried on these accounts; one that has ended stays until it is settled."""

    def settle(self, numbers: Iterable[int]) -> None:
        """These have ended, and are known to who needs them."""


@dataclass(frozen=True, slots=True)
class _Bearer:
    e_rab_id: ERabId
    qci: int | None
    apn: str | None


class UsageReports:
    """The records of one cloudlet."""

    def __init__(self, here: CloudletId) -> None:
        self._here = here
        self._bearers: dict[UeKey, dict[FTeid, _Bearer]] = {}
        self._told: dict[_Key, UsageReported] = {}
        self._counted: dict[_Key, tuple[Carried, Carried]] = {}
        self.totals: dict[tuple[str, str], Carried] = {}
        """What was carried since this process began, by rule and direction (``uplink``, ``downlink``)."""

    def heard(self, event: Event) -> None:
        """Learn which bearers there are."""
        if not isinstance(event, UePlacedEvent | HandoverPrepared | HandoverCompleted | BearerEvent):
            return
        apns = {} if isinstance(event, BearerEvent) else {pdn.e_rab_id: pdn.apn for pdn in event.pdns}
        known = self._bearers.setdefault(event.ue, {})
        for bearer in event.bearers:
            if bearer.uplink is not None:
                before = known.pop(bearer.uplink, None)
                apn = apns.get(bearer.e_rab_id) or (before.apn if before else None)
                qci = bearer.qci if bearer.qci is not None or before is None else before.qci
                known[bearer.uplink] = _Bearer(bearer.e_rab_id, qci, apn)
        while len(known) > REMEMBERED:
            del known[next(iter(known))]

    def found(self, usage: Iterable[Usage]) -> None:
        """What was there when this process began is of the totals of the one before it."""
        self._counted.update((_key(one), (one.uplink, one.downlink)) for one in usage)

    def events(self, usage: Iterable[Usage], at: int, *, interim: bool) -> list[UsageReported]:
        """The records to be told at ``at`` (ns since the epoch): final ones, and with ``interim`` what has grown."""
        reported = []
        for one in usage:
            if not one.uplink.packets and not one.downlink.packets:
                continue
            key = _key(one)
            self._count(key, one)
            last = self._told.get(key)
            if last is not None and last.status == "final":
                continue
            grown = last is None or (last.uplink, last.downlink) != (one.uplink, one.downlink)
            if one.ended or (interim and grown):
                event = self._told[key] = self._event(one, max(at, one.since, last.at if last else 0))
                reported.append(event)
        return reported

    def settled(self, usage: Iterable[Usage]) -> list[int]:
        """The numbers of those that have ended and of which nothing more is to be told."""
        numbers = []
        for one in usage:
            if one.ended:
                numbers.append(one.number)
                self._told.pop(_key(one), None)
                self._counted.pop(_key(one), None)
        return numbers

    def _count(self, key: _Key, one: Usage) -> None:
        before = self._counted.get(key, NOTHING)
        after = (one.uplink, one.downlink)
        if after == before:
            return
        self._counted[key] = after
        for direction, was, now in zip(("uplink", "downlink"), before, after, strict=True):
            total = self.totals.get((one.about.rule, direction), Carried())
            packets, octets = total.packets + now.packets - was.packets, total.bytes + now.bytes - was.bytes
            self.totals[one.about.rule, direction] = Carried(packets, octets)

    def _event(self, one: Usage, at: int) -> UsageReported:
        record = sha256(f"{self._here}/{one.number}/{one.since}".encode()).hexdigest()[:16]
        bearer = self._bearers.get(one.about.ue, {}).get(one.about.bearer)
        status = "final" if one.ended else "interim"
        return UsageReported(
            at=at,
            origin=f"{record}/{status if one.ended else at}".encode(),
            ue=one.about.ue,
            cloudlet=self._here,
            record=record,
            status=status,
            rule=one.about.rule or None,
            bearer=one.about.bearer,
            e_rab_id=bearer.e_rab_id if bearer else None,
            qci=bearer.qci if bearer else None,
            apn=bearer.apn if bearer else None,
            start=rfc3339(one.since),
            end=rfc3339(at),
            uplink=one.uplink,
            downlink=one.downlink,
        )
