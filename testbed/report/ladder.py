"""The ladder: who said or did what, in the order of time, from the events and what the RAN says of itself."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from testbed.report.svg import SMALL, Drawing, text_width
from testbed.results import Fact, Story, enb_name

NS: Final = 1_000_000_000
WIDTH: Final = 1120.0
LEFT: Final = 150.0
RIGHT: Final = WIDTH - 206.0
"""Room for what is done at the last lane."""
TOP: Final = 84.0
ROW: Final = 34.0
PAUSE_ROW: Final = 26.0
PAUSE_NS: Final = NS // 2
CORE: Final = "MME / S-GW"
MME: Final = "MME"
SGW: Final = "S-GW"
UE: Final = "UE"

Style = Literal["signal", "nas", "request", "move", "act"]


@dataclass(frozen=True, slots=True)
class Rung:
    """One row. An arrow from ``source`` to ``target``, or something done at ``source`` when they are the same."""

    at: int
    source: str
    target: str
    label: str
    style: Style
    ue_at: str | None = None
    """From here on the UE is at this eNodeB."""
    pvm_at: str | None = None
    """From here on the personal VM is in this cloudlet."""
    via: str | None = None
    """Who hands it on, between source and target."""


def draw(story: Story, truths: Sequence[Mapping[str, Any]], caption: str) -> Drawing:
    """The ladder of a run, as the events tell it."""
    return draw_rungs(of_story(story, truths), caption)


def of_story(story: Story, truths: Sequence[Mapping[str, Any]]) -> list[Rung]:
    """The rungs of a run, as the events and the RAN tell it."""
    return [*_rungs(story), *_ran_rungs(truths, story)]


def actions(story: Story) -> list[Rung]:
    """What MobiScud itself did, without the messages that it saw."""
    return [rung for fact in story.facts if (rung := _edge_rung(fact)) is not None]


def draw_rungs(unordered: Sequence[Rung], caption: str) -> Drawing:
    """Any ladder; the rungs are put in the order of time."""
    rungs = sorted(unordered, key=lambda rung: rung.at)
    lanes = _lanes(rungs)
    pauses = sum(b.at - a.at >= PAUSE_NS for a, b in itertools.pairwise(rungs))
    bottom = TOP + ROW * len(rungs) + PAUSE_ROW * pauses + 14
    picture = Drawing(WIDTH, bottom + 34, "Ladder of messages and actions")
    spacing = (RIGHT - LEFT) / max(len(lanes) - 1, 1)
    x = {lane: LEFT + spacing * number for number, lane in enumerate(lanes)}

    ordinates: list[float] = []
    y, before = TOP, rungs[0].at if rungs else 0
    for rung in rungs:
        y += ROW + (PAUSE_ROW if rung.at - before >= PAUSE_NS else 0)
        ordinates.append(y)
        before = rung.at
    _heads(picture, x, bottom)
    _lives(picture, x, rungs, ordinates, bottom)
    origin = rungs[0].at if rungs else 0
    for number, (rung, y) in enumerate(zip(rungs, ordinates, strict=True)):
        previous = rungs[number - 1].at if number else rung.at
        if rung.at - previous >= PAUSE_NS:
            _pause(picture, y - ROW / 2 - PAUSE_ROW / 2 - 2, (rung.at - previous) / NS)
        _times(picture, y, (rung.at - origin) / NS, (rung.at - previous) / 1e6 if number else None)
        _rung(picture, x, rung, y)
    picture.text(14, bottom + 22, caption, "small muted")
    return picture


# From facts to rungs -------------------------------------------------------------------------------------------------


def _rungs(story: Story) -> list[Rung]:
    found = []
    for fact in story.facts:
        rung = _handover_rung(fact, story) or _ue_rung(fact, story) or _edge_rung(fact)
        if rung is not None:
            found.append(rung)
    return found


def _handover_rung(fact: Fact, story: Story) -> Rung | None:
    if not fact.kind.startswith("handover."):
        return None
    x2 = fact.data.get("kind") == "x2"
    source, target = (enb_name((fact.data.get(end) or {}).get("enb"), story.enb_names) for end in ("source", "target"))
    if fact.data.get("enb"):
        target = enb_name(fact.data["enb"], story.enb_names)
    match fact.kind.removeprefix("handover."):
        case "preparing":
            return Rung(fact.at, source, CORE, "Handover Required", "signal")
        case "prepared":
            label = "Path Switch Request" if x2 else "Handover Request Acknowledge"
            return Rung(fact.at, target, CORE, label, "signal")
        case "executing":
            return Rung(fact.at, CORE, source, "Handover Command", "signal")
        case "completed" if x2:
            return Rung(fact.at, CORE, target, "Path Switch Request Acknowledge", "signal", ue_at=target)
        case "completed":
            return Rung(fact.at, target, CORE, "Handover Notify", "signal", ue_at=target)
        case "rejected":
            return Rung(fact.at, CORE, source, "Handover rejected", "signal")
        case "cancelled":
            return Rung(fact.at, source, CORE, "Handover Cancel", "signal")
    return None


def _ue_rung(fact: Fact, story: Story) -> Rung | None:
    enb = enb_name(fact.data.get("enb"), story.enb_names)
    match fact.kind:
        case "enb.connected":
            return Rung(fact.at, enb, CORE, "S1 Setup", "signal")
        case "ue.attached":
            return Rung(fact.at, enb, CORE, "Attach: context set up", "signal", ue_at=enb)
        case "ue.connected":
            return Rung(fact.at, enb, CORE, "UE connected: context set up", "signal", ue_at=enb)
        case "ue.idle":
            return Rung(fact.at, enb, CORE, "UE idle: context released", "signal")
        case "ue.detached":
            return Rung(fact.at, CORE, CORE, "UE detached", "signal", ue_at="", pvm_at=None)
        case "tracking_area.updated":
            return Rung(fact.at, CORE, CORE, "tracking area updated", "signal")
    return None


def _edge_rung(fact: Fact) -> Rung | None:
    data = fact.data
    here, via, source, target = (str(data.get(key)) for key in ("cloudlet", "via", "from_cloudlet", "to_cloudlet"))
    by = "" if via == "local" else f" by way of {via}"
    match fact.kind:
        case "offload.prepared":
            return Rung(fact.at, here, here, f"rules stand ready{by}", "act")
        case "offload.activated":
            return Rung(fact.at, here, here, f"path to the VM{by or ' here'}", "act")
        case "offload.moved":
            return Rung(
                fact.at,
                here,
                here,
                "path flips to the VM here" if via == "local" else f"downlink flips to {via}",
                "act",
            )
        case "offload.removed":
            return Rung(fact.at, here, here, "rules gone", "act")
        case "pvm.started":
            return Rung(fact.at, target, target, "personal VM runs", "act", pvm_at=target)
        case "pvm.migrating":
            return Rung(fact.at, source, target, "migration begins", "request")
        case "pvm.migrated":
            took = f"moved in {data['total_ms']:.0f} ms" if data.get("total_ms") is not None else "moved"
            stood = f", stood {data['downtime_ms']:.0f} ms" if data.get("downtime_ms") is not None else ""
            return Rung(fact.at, source, target, took + stood, "move", pvm_at=target)
        case "pvm.migration_failed":
            return Rung(fact.at, target, source, f"migration failed: {data.get('reason')}", "request", pvm_at=source)
        case "pvm.stopped":
            return Rung(fact.at, source, source, "personal VM stopped", "act", pvm_at="")
    return None


def _ran_rungs(truths: Sequence[Mapping[str, Any]], story: Story) -> list[Rung]:
    """When the UE began what the network then saw."""
    found = []
    for truth in truths:
        if "t0" not in truth:
            continue
        number = truth.get("from_enb_id", truth.get("enb_id"))
        enb = story.enb_names.get(number) if number is not None else None
        if enb is not None:
            label = str(truth["ev"]).replace("_", " ").replace("s1 ", "S1 ").replace("x2 ", "X2 ")
            found.append(Rung(round(truth["t0"] * NS), UE, enb, f"{label} begins", "signal"))
    return found


def _lanes(rungs: Sequence[Rung]) -> list[str]:
    """UE, eNodeBs, core, cloudlets: those that occur."""
    names = {name for rung in rungs for name in (rung.source, rung.target, rung.via) if name is not None}
    enbs = sorted((name for name in names if name.startswith("eNB")), key=lambda name: (len(name), name))
    core = [name for name in (CORE, MME, SGW) if name in names]
    cloudlets = sorted(names - {UE, *core} - set(enbs))
    return [*([UE] if UE in names else []), *enbs, *core, *cloudlets]


# From rungs to the picture -------------------------------------------------------------------------------------------


def _heads(picture: Drawing, x: Mapping[str, float], bottom: float) -> None:
    picture.text(14, 22, "Messages on the wire and what MobiScud did", "heading")
    picture.text(14, 62, "time, s", "small muted")
    picture.text(104, 62, "+ ms", "small muted", anchor="end")
    for lane, at in x.items():
        picture.line(at, TOP - 12, at, bottom, "lifeline")
        width = max(1.1 * text_width(lane) + 18, 52)
        picture.rect(at - width / 2, 44, width, 28, "head-box", r=5)
        picture.text(at, 62.5, lane, "strong", anchor="middle")


def _lives(
    picture: Drawing, x: Mapping[str, float], rungs: Sequence[Rung], ordinates: Sequence[float], bottom: float
) -> None:
    """Thick lines: along which eNodeB the UE is served, in which cloudlet its personal VM runs."""
    for css, places in (
        ("lifeline-ue", [(rung.ue_at, y) for rung, y in zip(rungs, ordinates, strict=True) if rung.ue_at is not None]),
        (
            "lifeline-pvm",
            [(rung.pvm_at, y) for rung, y in zip(rungs, ordinates, strict=True) if rung.pvm_at is not None],
        ),
    ):
        for (place, begin), (_, end) in itertools.pairwise([*places, ("", bottom - 4)]):
            if place in x:
                picture.line(x[place], begin, x[place], end, css)


def _times(picture: Drawing, y: float, at_s: float, since_ms: float | None) -> None:
    picture.text(14, y + 4, f"{at_s:.3f}", "small figure")
    if since_ms is not None and since_ms < PAUSE_NS / 1e6:
        picture.text(104, y + 4, f"+{since_ms:.1f}", "small muted figure", anchor="end")


def _pause(picture: Drawing, y: float, seconds: float) -> None:
    picture.line(14, y, WIDTH - 14, y, "rule")
    label = f"{seconds:.1f} s later"
    picture.rect(14, y - 8, text_width(label, SMALL) + 4, 16, "halo")
    picture.text(14, y + 4, label, "small muted")


def _rung(picture: Drawing, x: Mapping[str, float], rung: Rung, y: float) -> None:
    source, target = x[rung.source], x[rung.target]
    width = text_width(rung.label, SMALL)
    if rung.source == rung.target:
        picture.circle(source, y, 4.5, "act" if rung.style == "act" else "signal-dot")
        picture.rect(source + 7, y - 8, width + 2, 16, "halo")
        picture.text(source + 9, y + 4, rung.label, "small")
        return
    picture.arrow(source, target, y, rung.style)
    if rung.via is not None:
        picture.circle(x[rung.via], y, 2.6, "nas-dot")
    middle = min(max((source + target) / 2, 112 + width / 2), WIDTH - 6 - width / 2)
    picture.rect(middle - width / 2, y - 18, width, 14, "halo")
    picture.text(middle, y - 7, rung.label, "small", anchor="middle")
