"""Draws the controller's table as it is: ``python scripts/draw_machine.py > docs/controller.md``.

Where a row leads is found by trying it: every combination of where the UE and its PVM may be, and of what the input
may say, goes through the row's function.
"""

# ruff: noqa: E501  # the rows of a table are lines
from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from mobiscud.controller import inputs
from mobiscud.controller.machine import TRANSITIONS
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.edge import DownlinkTunnel, Pvm
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid

HERE, THERE, ELSEWHERE = CloudletId("c1"), CloudletId("c2"), CloudletId("c3")
PVM = Pvm(PvmId("pvm"), "172.16.1.10", "52:54:00:00:00:10")
TUNNELS = inputs.Tunnels((), DownlinkTunnel("10.0.0.2", FTeid("10.0.0.11", Teid(1))))
HEAD = """\
# The controller's table

Drawn from `mobiscud/controller/machine.py` by `scripts/draw_machine.py`; a test keeps the two together. What each
phase means stands in `mobiscud/controller/record.py`, what each input tells in `mobiscud/controller/inputs.py`, and what
a row does in `mobiscud/controller/roles/`.

```mermaid
stateDiagram-v2
    direction LR
    [*] --> away"""


def samples(kind: Any) -> Iterator[Any]:
    """Inputs of a kind, with all that they may say of a place."""
    places = (HERE, THERE, ELSEWHERE)
    if kind in (inputs.UeArrived, inputs.HandoverDone, inputs.HandoverExpected):
        yield from (kind(place, "45.45.0.2", TUNNELS) for place in (*places, None))
    elif kind in (
        inputs.DetourAsked,
        inputs.MoveAsked,
        inputs.PvmSeen,
        inputs.PvmGone,
        inputs.PvmKept,
        inputs.DoubtThere,
    ):
        yield from (kind(place) for place in places)
    elif "reason" in kind.__slots__:
        yield kind("why")
    elif kind in (inputs.HaltedThere, inputs.MovedHere, inputs.Halted, inputs.Landed, inputs.MoveSucceeded):
        yield kind(1)
    elif kind in (inputs.MoveDue, inputs.NotReady, inputs.StayedAway):
        yield from (kind(token) for token in (0, 1))
    else:
        yield kind()


def records(phase: Phase) -> Iterator[UeRecord]:
    """Records in a phase, wherever UE and PVM may be."""
    anywhere = (HERE, THERE, None)
    booleans = (True, False)
    for ue_at, pvm_at, ready, going_to, registered, lingers, keeps in itertools.product(
        anywhere, anywhere, ((THERE,), ()), anywhere, booleans, booleans, booleans
    ):
        yield UeRecord(
            PVM,
            HERE,
            phase=phase,
            registered=registered,
            ue_ip="45.45.0.2",
            ue_at=ue_at,
            pvm_at=pvm_at,
            tunnels=inputs.Tunnels() if ue_at is None else TUNNELS,
            going_to=going_to,
            ready=ready,
            moving_to=THERE,
            token=1,
            lingers=lingers,
            keeps=keeps,
            absent=ue_at is None,
        )


def edges() -> dict[tuple[Phase, Phase], list[str]]:
    """Which inputs lead from one phase to another (or leave it: then only where nothing else can come of it)."""
    found: dict[tuple[Phase, Phase], list[str]] = defaultdict(list)
    for (phase, kind), row in TRANSITIONS.items():
        targets = set()
        for record, happened in itertools.product(records(phase), samples(kind)):
            try:
                targets.add(row(record, happened)[0].phase)
            except ValueError:
                continue  # a record that this phase does not allow
        for target in sorted(targets - {phase}, key=list(Phase).index):
            found[phase, target].append(kind.__name__)
    return found


def page() -> str:
    """The whole document."""
    lines = [HEAD]
    for (source, target), kinds in edges().items():
        lines.append(f"    {source} --> {target}: {', '.join(kinds)}")
    lines += ["```", "", "| phase | input | does |", "| --- | --- | --- |"]
    for (phase, kind), row in TRANSITIONS.items():
        lines.append(f"| {phase} | {kind.__name__} | `{row.__name__.lstrip('_')}` |")
    return "\n".join(lines) + "\n" + TAIL


TAIL = """
## Requests between controllers

Over the bus (`mobiscud/bus/requests.py`), JSON on `mobiscud/v1/site/SITE/NODE/request/NAME`; the version is the topic's.
Each has a deadline, after which it is not done any more, and a correlation, by which it is done once.

| request | from | means | asked again |
| --- | --- | --- | --- |
| `detour` | target | my rules stand | each second, until granted or no longer wanted |
| `move` | target | give me the PVM | each 5 s while it is awaited, each second while the source is silent; refused, when the policy wants it again |
| `halted` | source | the guest has stopped here: flip | each second, until heard |
| `moved` | source | the PVM is yours | each second, until heard |
| `stays` | source | the PVM did not come | each second, until heard |

| the other one | outcome | shown by |
| --- | --- | --- |
| target down or slow | 0.2 s after the UE has come there, what its PVM sends leaves by the core; what the UE sends takes the target's standing rules, or the core; when the target is back it asks for the detour | `test_a_target_that_stays_away_leaves_the_ue_to_the_core_until_it_is_back`, `tests/system/test_kills.py` |
| source down | its rules stand; what the UE sends reaches the PVM; what the PVM sends still goes to the old eNodeB until the source is back, hears from the retained state where the UE is, and is asked for the detour again | `tests/system/test_kills.py`, `test_a_detour_is_asked_for_again` |
| slow, and hears it after the deadline | it refuses, and does it when asked again | `test_what_a_slow_peer_hears_after_the_deadline_is_not_done_and_may_be_asked_for_again` |
| refuses | nothing was done; asked again as above | `test_what_was_refused_may_be_asked_for_again`, `test_a_refused_move_is_asked_for_again_later` |
| its answer is lost | asked again it gives the same answer, and does nothing | `test_an_answer_that_was_lost_is_given_again_and_nothing_done_twice` |
| answers twice | the second answer means nothing | `test_a_peer_that_answers_twice_is_heard_once` |
| restarted in between | it has forgotten the correlation and does it again: the table ignores what is true already | `test_a_peer_that_was_restarted_has_forgotten_what_it_did`, `test_what_was_heard_already_means_nothing` |

The walks of `tests/property/test_site.py` lose requests and answers, and restart controllers, at any moment.
"""


if __name__ == "__main__":
    print(page(), end="")
