"""Plans, for any two paths: they arrive, they never take away what is wanted, and they add from the far end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.path import path_rules
from flows.pipeline import Layout
from flows.plan import diff
from flows.rules import DecapRule, EncapRule, FlowRule, Rule
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey

HERE, C2, C3 = CloudletId("c1"), CloudletId("c2"), CloudletId("c3")
LAYOUT = Layout(HERE, "gi1", "pvm", {C2: "isl-c2", C3: "isl-c3"}, "172.16.0.1", "02:4d:53:ff:ff:01")
UE = UeKey("ue-0000000000000001")

addresses = st.sampled_from(["10.0.0.11", "10.0.0.12", "10.0.0.13"])
f_teids = st.builds(FTeid, addresses, st.integers(1, 3).map(Teid))
paths = st.none() | st.builds(
    PathSpec,
    ue_ip=st.sampled_from(["45.45.0.2", "45.45.0.3"]),
    pvm=st.just(Pvm(PvmId("pvm1"), "172.16.1.10", "52:54:00:00:00:10")),
    pvm_at=st.sampled_from([HERE, C2, C3]),
    ue_at=st.sampled_from([HERE, C2, C3, None]),
    uplinks=st.lists(st.builds(UplinkTunnel, addresses, f_teids), max_size=3, unique=True).map(tuple),
    downlink=st.none() | st.builds(DownlinkTunnel, addresses, f_teids),
)


@given(paths, paths)
def test_a_plan_arrives(before: PathSpec | None, after: PathSpec | None) -> None:
    installed, desired = path_rules(UE, before, LAYOUT), path_rules(UE, after, LAYOUT)
    plan = diff(desired, installed)
    slots = {rule.slot: rule for rule in installed}
    slots.update((rule.slot, rule) for rule in plan.adds)
    assert set(slots.values()) >= desired  # all that is wanted stands before anything goes
    for rule in plan.deletes:
        assert slots.pop(rule.slot) == rule
    assert set(slots.values()) == desired


@given(paths)
def test_nothing_is_done_when_nothing_changes(path: PathSpec | None) -> None:
    plan = diff(path_rules(UE, path, LAYOUT), path_rules(UE, path, LAYOUT))
    assert (plan.adds, plan.deletes) == ((), ())


@given(paths, paths)
def test_the_far_end_is_built_first_and_goes_last(before: PathSpec | None, after: PathSpec | None) -> None:
    plan = diff(path_rules(UE, after, LAYOUT), path_rules(UE, before, LAYOUT))
    assert kinds(plan.adds) == sorted(kinds(plan.adds))
    assert kinds(plan.deletes) == sorted(kinds(plan.deletes), reverse=True)


def kinds(rules: tuple[Rule, ...]) -> list[int]:
    return [(EncapRule, FlowRule, DecapRule).index(type(rule)) for rule in rules]
