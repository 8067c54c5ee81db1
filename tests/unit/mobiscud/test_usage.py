"""Usage records add up to what was carried, whatever is lost, repeated or started anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mobiscud.app.usage import UsageReporter
from mobiscud.bus.cloudevents import Envelopes, decode, encode, unwrap
from mobiscud.controller.usage import UsageReports
from mobiscud.core.events import BearerModified, Event, UeAttached, UsageReported
from mobiscud.core.ids import CloudletId, ERabId, FTeid, Teid, UeKey
from mobiscud.core.ue import BearerContext, Pdn
from mobiscud.core.usage import Carried, Usage, UsageOf

C1 = CloudletId("c1")
UE = UeKey("ue-0000000000000001")
BEARER = FTeid("10.0.0.1", Teid(0x1001))
SINCE = 1_700_000_000_000_000_000
LATER = SINCE + 60_000_000_000


def usage(up: int, down: int = 0, *, ended: bool = False, rule: str = "web", since: int = SINCE) -> Usage:
    return Usage(1, UsageOf(UE, BEARER, rule), since, Carried(up, 100 * up), Carried(down, 100 * down), ended)


def told(reports: UsageReports, *now: Usage, at: int = LATER, interim: bool = True) -> list[UsageReported]:
    return reports.events(now, at, interim=interim)


def test_a_record_tells_the_bearer_the_rule_and_the_interval() -> None:
    reports = UsageReports(C1)
    bearers = (BearerContext(ERabId(5), 9, BEARER, FTeid("10.0.0.11", Teid(1))),)
    about: dict[str, Any] = {"at": 1, "origin": b"", "ue": UE}
    pdns = (Pdn(ERabId(5), "internet", ("45.45.0.2",)),)
    reports.heard(UeAttached(**about, enb=None, ecgi=None, tai=None, bearers=bearers, pdns=pdns))
    [event] = told(reports, usage(3, 2))
    assert (event.ue, event.cloudlet, event.rule, event.status) == (UE, C1, "web", "interim")
    assert (event.e_rab_id, event.qci, event.apn, event.bearer) == (5, 9, "internet", BEARER)
    assert (event.start, event.end) == ("2023-11-14T22:13:20.000000Z", "2023-11-14T22:14:20.000000Z")
    assert (event.uplink, event.downlink) == (Carried(3, 300), Carried(2, 200))
    assert unwrap(decode(encode(Envelopes("/mobiscud/lab/controller").wrap(event)))) is not None
    reports.heard(BearerModified(**about, bearers=(BearerContext(ERabId(5), 7, BEARER, None),)))
    [event] = told(reports, usage(4))
    assert (event.qci, event.apn) == (7, "internet")


def test_what_is_not_known_is_null() -> None:
    [event] = told(UsageReports(C1), usage(1, rule=""))
    assert (event.rule, event.e_rab_id, event.qci, event.apn) == (None, None, None, None)


def test_only_what_has_grown_is_told_again() -> None:
    reports = UsageReports(C1)
    assert told(reports, usage(0)) == []
    assert told(reports, usage(1), interim=False) == []
    assert len(told(reports, usage(1))) == 1
    assert told(reports, usage(1)) == []
    assert [event.uplink.packets for event in told(reports, usage(5))] == [5]


def test_the_end_is_told_at_once_and_once() -> None:
    reports = UsageReports(C1)
    [interim] = told(reports, usage(5))
    [final] = told(reports, usage(5, ended=True), interim=False)
    assert (final.status, final.record, final.uplink) == ("final", interim.record, interim.uplink)
    assert told(reports, usage(5, ended=True)) == []
    assert reports.settled([usage(5, ended=True)]) == [1]
    assert told(reports, usage(0, ended=True, since=SINCE + 1)) == [], "nothing was carried"


def test_times_never_go_back() -> None:
    reports = UsageReports(C1)
    [first] = told(reports, usage(1), at=LATER)
    [second] = told(reports, usage(2), at=LATER - 10_000_000)
    assert second.end == first.end


def test_a_final_record_that_is_told_by_two_processes_has_one_id() -> None:
    ids = {
        Envelopes("/mobiscud/lab/controller").wrap(told(UsageReports(C1), usage(5, ended=True), at=at)[0])["id"]
        for at in (LATER, LATER + 5)
    }
    assert len(ids) == 1


def test_totals_are_of_this_process() -> None:
    reports = UsageReports(C1)
    reports.found([usage(10, 1)])
    told(reports, usage(15, 1))
    assert reports.totals == {("web", "uplink"): Carried(5, 500), ("web", "downlink"): Carried(0, 0)}


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["tell", "lose", "restart", "settle"])), max_size=30))
def test_the_last_of_each_record_adds_up_to_what_was_carried(life: list[tuple[int, str]]) -> None:
    reports, since, count, total = UsageReports(C1), SINCE, 0, 0
    last: dict[str, UsageReported] = {}
    for more, fate in life:
        count += more
        total += more
        at = since + 1_000 * (total + 1)
        if fate == "restart":
            reports = UsageReports(C1)
            reports.found([usage(count, since=since)])
        ended = fate == "settle"
        for event in told(reports, usage(count, ended=ended, since=since), at=at):
            if fate != "lose":
                last[event.record] = event
        if ended:
            reports.settled([usage(count, ended=True, since=since)])
            since, count = since + 10**9, 0
    for event in told(reports, usage(count, ended=True, since=since), at=since + 10**9):
        last[event.record] = event
    told_packets = sum(event.uplink.packets for event in last.values())
    assert told_packets == total


class Port:
    """A switch that counts."""

    def __init__(self, *now: Usage) -> None:
        self.now = list(now)
        self.settled: list[int] = []

    def accounts(self) -> list[int]:
        return [one.number for one in self.now]

    def usage(self, of: Iterable[int]) -> list[Usage]:
        wanted = set(of)
        return [one for one in self.now if one.number in wanted]

    def settle(self, numbers: Iterable[int]) -> None:
        self.settled += numbers


async def test_what_has_ended_is_kept_until_the_broker_has_it() -> None:
    published: list[Event] = []
    broker = asyncio.Event()

    async def flush() -> bool:
        return broker.is_set()

    port = Port()
    reporter = UsageReporter(UsageReports(C1), published.append, flush)
    await reporter.report(interim=True)
    reporter.attach(port)
    port.now = [usage(3, ended=True)]
    await reporter.report(interim=False)
    assert (len(published), port.settled) == (1, [])
    await reporter.report(interim=False)
    assert len(published) == 1
    broker.set()
    await reporter.report(interim=False)
    assert (len(published), port.settled) == (1, [1])
