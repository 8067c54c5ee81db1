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
        inputs.DetourAwaited,
        inputs.DetourGranted,
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
    elif kind in (inputs.MoveDue, inputs.NotReady, inputs.NoStragglers, inputs.StayedAway):
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
What controllers ask of each other, and what becomes of it when the other one is away: [requests.md](requests.md).
"""


if __name__ == "__main__":
    print(page(), end="")
