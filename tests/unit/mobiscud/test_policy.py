"""Each policy as a table: where a user was, and what its VM does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiscud.controller.hearing import read
from mobiscud.controller.inputs import HandoverExpected, HandoverOrdered, Tunnels
from mobiscud.controller.outlook import REMEMBERED, Outlook
from mobiscud.controller.policy import (
    AskAgain,
    Cost,
    Decision,
    Estimate,
    Facts,
    Follow,
    Hysteresis,
    Manner,
    Manners,
    Move,
    Policy,
    Remain,
    Start,
    Stay,
    Visit,
)
from mobiscud.core.commands import Moment
from mobiscud.core.config import CostConfig, LinkConfig, MigrationConfig, OverrideConfig
from mobiscud.core.edge import Pvm
from mobiscud.core.events import (
    HandoverExecuting,
    HandoverPrepared,
    PvmMigrated,
    PvmMigrating,
    PvmMigrationFailed,
    UsageReported,
)
from mobiscud.core.ids import CloudletId, EnbId, FTeid, PvmId, Teid, UeKey
from mobiscud.core.times import rfc3339
from mobiscud.core.ue import Enb, Forwarding, HandoverEnd, HandoverKind
from mobiscud.core.usage import Carried

C1, C2, C3 = CloudletId("c1"), CloudletId("c2"), CloudletId("c3")
UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10")
PLAIN = Estimate(rtt_gain_ms=4.0, outage_ms=40.0, move_mib=100.0)
COST = Cost(round_trips_s=10.0, wait_ms_per_mib=4.0, usual_stay_s=60.0)
"""A move costs 8 ms of waiting in the outage and 400 on the link, and saves 40 a second: it pays after 10.2 s."""
PAYS_AFTER_S = 10.2


def facts(*walk: tuple[CloudletId | None, float], now: float, estimate: Estimate = PLAIN) -> Facts:
    """The UE came to each place at a time, the last of them c2; its PVM is in c1."""
    visits = tuple(Visit(cloudlet, since) for cloudlet, since in walk)
    return Facts(Moment.ARRIVED, now, C2, C1, visits, estimate)


def expected(estimate: Estimate = PLAIN) -> Facts:
    """A UE that has been at c1 for a minute is expected at c2."""
    return Facts(Moment.PREPARED, 60.0, C2, C1, (Visit(C1, 0.0),), estimate)


@pytest.mark.parametrize(
    ("policy", "known", "decision"),
    [
        (Follow(), facts((C1, 0), (C2, 60), now=60), Move()),
        (Follow(5), facts((C1, 0), (C2, 60), now=60), Move(5)),
        (Follow(5), facts((C1, 0), (C2, 60), now=63), Move(2)),
        (Follow(5), facts((C1, 0), (C2, 60), now=70), Move()),
        (Follow(5), facts(now=70), Move(5)),
        (Remain(), facts((C1, 0), (C2, 60), now=900), Stay("the policy is that it stays")),
        (Hysteresis(5, 30), facts((C1, 0), (C2, 60), now=60), Move(5)),
        (Hysteresis(5, 30), facts((C2, 0), (C1, 40), (C2, 60), now=60), Move(30)),
        (Hysteresis(5, 30), facts((C2, 0), (C1, 40), (C2, 60), now=80), Move(10)),
        (Hysteresis(5, 30), facts((C2, 0), (C1, 30), (C2, 60), now=60), Move(5)),
        (Hysteresis(5, 30), facts((C2, 0), (C1, 40), (C3, 50), (C2, 60), now=60), Move(30)),
        (Hysteresis(5, 30), facts((C2, 0), (C1, 10), (C3, 50), (C2, 60), now=60), Move(5)),
        (Hysteresis(5, 30), facts((C3, 40), (C1, 50), (C2, 60), now=60), Move(5)),
        (Hysteresis(5, 30), facts(now=60), Move(5)),
        (COST, facts((C1, 0), (C2, 60), now=60), Move()),
    ],
)
def test_decisions(policy: Policy, known: Facts, decision: Decision) -> None:
    got = policy.decide(known)
    assert got == decision


HASTY = [(place, 40 + float(number)) for number, place in enumerate(itertools.islice(itertools.cycle((C2, C1)), 8))]
"""To and fro every second, and last to c1."""


def test_cost_waits_for_who_never_stays_until_the_stay_has_paid() -> None:
    eager = Cost(10.0, 4.0, usual_stay_s=20.0)
    walk = [*HASTY[1:], (C2, 48.0)]
    for stayed_s in (0.0, 5.0):
        decision = eager.decide(facts(*walk, now=48 + stayed_s))
        assert isinstance(decision, AskAgain)
        assert decision.after_s == pytest.approx(PAYS_AFTER_S - stayed_s)
    assert eager.decide(facts(*walk, now=48 + PAYS_AFTER_S)) == Move()


def test_cost_moves_nobody_for_nothing() -> None:
    assert isinstance(COST.decide(facts((C2, 0), now=9e9, estimate=Estimate(0.0, 40.0, 100.0))), Stay)
    assert isinstance(Cost(0.0, 4.0, 60.0).decide(facts((C2, 0), now=9e9)), Stay)


@given(
    gain=st.floats(0.1, 100),
    outage=st.floats(0, 1000),
    mib=st.floats(0, 10_000),
    load=st.floats(0, 2),
    more=st.floats(1, 100),
)
def test_cost_grows_with_what_a_move_costs_and_falls_with_what_it_brings(
    gain: float, outage: float, mib: float, load: float, more: float
) -> None:
    def pays(estimate: Estimate) -> float:
        found = COST.pays_after_s(estimate)
        assert found is not None
        return found

    here = pays(Estimate(gain, outage, mib, load))
    assert pays(Estimate(gain, outage + more, mib, load)) >= here
    assert pays(Estimate(gain, outage, mib + more, load)) >= here
    assert pays(Estimate(gain, outage, mib, load + more)) >= here
    assert pays(Estimate(gain + more, outage, mib, load)) <= here


@pytest.mark.parametrize(("start", "before"), [(Start.at_preparing, Move()), (Start.at_executing, Stay("too early"))])
def test_a_move_starts_no_earlier_than_it_may(start: Start, before: Decision) -> None:
    assert Manner(Follow(), start).decide(expected()) == before
    assert Manner(Follow(), start).decide(facts((C1, 0), (C2, 60), now=60)) == Move()
    assert Manner(Follow()).decide(expected()) == Stay("too early")


def test_before_the_ue_is_there_a_policy_that_would_wait_is_asked_again_when_it_is() -> None:
    slow = Cost(10.0, 4.0, usual_stay_s=1.0)
    assert Manner(slow, Start.at_preparing).decide(expected()) == Stay("not before the UE is here")
    assert isinstance(Manner(slow, Start.at_preparing).decide(facts((C2, 60), now=60)), AskAgain)


def test_a_configuration_names_the_policy_of_the_site_and_of_single_users() -> None:
    config = MigrationConfig(
        policy="hysteresis",
        dwell_s=3,
        overrides=(
            OverrideConfig(pvm="pvm-1", policy="stay"),
            OverrideConfig(pvm="pvm-2", start="at_preparing"),
            OverrideConfig(pvm="pvm-3", policy="cost"),
        ),
    )
    manners = Manners.from_config(config)
    assert manners.of(PvmId("pvm-0")) == Manner(Hysteresis(3, 60))
    assert manners.of(PvmId("pvm-1")) == Manner(Remain())
    assert manners.of(PvmId("pvm-2")) == Manner(Follow(), Start.at_preparing)
    assert isinstance(manners.of(PvmId("pvm-3")).policy, Cost)


# What the policies are told -----------------------------------------------------------------------------------------


def seen(outlook: Outlook, now: float = 100.0) -> Facts:
    return outlook.facts(UE, Moment.ARRIVED, C2, C1, now)


def test_a_walk_is_remembered_place_by_place() -> None:
    outlook = Outlook(CostConfig())
    outlook.arrived(UE, C1, 10.0)
    outlook.arrived(UE, C1, 20.0)  # to another eNodeB of the same cloudlet
    outlook.arrived(UE, C2, 90.0)
    assert seen(outlook).visits == (Visit(C1, 10.0), Visit(C2, 90.0))
    assert seen(outlook).stayed_s == 10.0
    for number in range(20):
        outlook.arrived(UE, (C1, C2)[number % 2], 100.0 + number)
    assert len(seen(outlook).visits) == REMEMBERED
    outlook.left(UE)
    assert seen(outlook).visits == ()


def test_a_link_is_as_loaded_as_there_are_moves_on_it() -> None:
    cost = CostConfig(rtt_ms=6, moves=4, links=(LinkConfig(between=("c1", "c3"), rtt_ms=9, moves=2),))
    outlook = Outlook(cost)
    assert seen(outlook).estimate == Estimate(6.0, cost.outage_ms, cost.move_mib, 0.0)
    about = {"at": 0, "origin": b"", "ue": UE, "ue_ip": (), "pvm": PVM, "to_cloudlet": C2}
    outlook.heard(PvmMigrating(**about, from_cloudlet=C1))  # type: ignore[arg-type]
    outlook.heard(PvmMigrating(**about, from_cloudlet=C1))  # type: ignore[arg-type]
    assert seen(outlook).estimate.link_load == 0.25
    outlook.heard(PvmMigrated(**about, from_cloudlet=C1, downtime_ms=140.0))  # type: ignore[arg-type]
    assert seen(outlook).estimate == Estimate(6.0, cost.outage_ms + 10.0, cost.move_mib, 0.0)
    outlook.heard(PvmMigrating(**{**about, "to_cloudlet": C3}, from_cloudlet=C1))  # type: ignore[arg-type]
    far = outlook.facts(UE, Moment.ARRIVED, C3, C1, 0.0).estimate
    assert (far.rtt_gain_ms, far.link_load) == (9.0, 0.5)
    outlook.heard(PvmMigrationFailed(**about, from_cloudlet=C1))  # type: ignore[arg-type]
    assert outlook.facts(UE, Moment.ARRIVED, C3, C1, 0.0).estimate.link_load == 0.0


def test_a_user_s_traffic_is_what_was_counted_of_late() -> None:
    outlook = Outlook(CostConfig())
    assert seen(outlook).estimate.round_trips_s is None
    outlook.carried(UE, "a", 600, 60_000_000_000)
    outlook.carried(UE, "b", 60, 60_000_000_000)
    assert seen(outlook).estimate.round_trips_s == pytest.approx(11.0)
    outlook.carried(UE, "a", 600, 60_000_000_000)  # told twice
    outlook.carried(UE, "a", 720, 120_000_000_000)
    outlook.carried(UE, "b", 60, 70_000_000_000, ended=True)
    assert seen(outlook).estimate.round_trips_s == pytest.approx(2.0)
    outlook.carried(UE, "a", 720, 180_000_000_000, ended=True)
    assert seen(outlook).estimate.round_trips_s == 0.0
    outlook.left(UE)
    assert seen(outlook).estimate.round_trips_s is None


def test_what_the_switches_tell_of_usage_is_traffic() -> None:
    outlook = Outlook(CostConfig())
    bearer = FTeid("10.0.0.2", Teid(1))
    about = {"origin": b"", "ue": UE, "ue_ip": (), "cloudlet": C2, "record": "a", "rule": None, "bearer": bearer}
    outlook.heard(
        UsageReported(
            **about,  # type: ignore[arg-type]
            at=0,
            status="interim",
            e_rab_id=None,
            qci=None,
            apn=None,
            start=rfc3339(0),
            end=rfc3339(60_000_000_000),
            uplink=Carried(600, 1),
            downlink=Carried(900, 1),
        )
    )
    assert seen(outlook).estimate.round_trips_s == pytest.approx(10.0)


def test_cost_reckons_with_the_traffic_that_was_counted() -> None:
    busy, quiet, silent = (replace(PLAIN, round_trips_s=rate) for rate in (100.0, 1.0, 0.0))
    assert COST.decide(facts((C1, 0), (C2, 60), now=60, estimate=busy)) == Move()
    assert isinstance(COST.decide(facts((C1, 0), (C2, 60), now=60, estimate=quiet)), AskAgain)
    assert COST.decide(facts((C1, 0), (C2, 60), now=900, estimate=silent)) == AskAgain(60.0, "no traffic")


# The moments at which it is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "moment"), [(HandoverKind.S1, Moment.PREPARED), (HandoverKind.X2, Moment.EXECUTING)])
def test_in_x2_the_ue_has_gone_when_the_target_is_known(kind: HandoverKind, moment: Moment) -> None:
    event = HandoverPrepared(**handover(kind))  # type: ignore[arg-type]
    assert read(event, {2: C2}) == HandoverExpected(C2, "45.45.0.2", Tunnels(), moment)


def test_a_handover_command_is_an_order() -> None:
    event = HandoverExecuting(**handover(HandoverKind.S1), forwarding=Forwarding())  # type: ignore[arg-type]
    assert read(event, {2: C2}) == HandoverOrdered()


def handover(kind: HandoverKind) -> dict[str, object]:
    """What the events of a handover to the eNodeB of c2 have in common."""
    there = Enb(None, EnbId(2), "10.0.0.12")
    ends = {"source": HandoverEnd(Enb(None, EnbId(1), "10.0.0.11")), "target": HandoverEnd(there)}
    return {
        "at": 0,
        "origin": b"",
        "ue": UE,
        "ue_ip": ("45.45.0.2",),
        "kind": kind,
        **ends,
        "enb": there,
        "bearers": (),
    }
