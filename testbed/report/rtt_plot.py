"""The round-trip time of every ping over the run, with where the UE and its personal VM were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from testbed.report.scale import RttScale
from testbed.report.svg import SMALL, Drawing, text_width, ticks
from testbed.results import Handover, Migration, Phase, Ping, Story, phases

NS: Final = 1_000_000_000
WIDTH: Final = 1120.0
LEFT: Final = 66.0
RIGHT: Final = WIDTH - 92.0
BAR_HEIGHT: Final = 20.0
UE_BAR: Final = 46.0
PVM_BAR: Final = 72.0
LABEL_ROWS: Final = (122.0, 108.0)
PLOT_TOP: Final = 130.0
PLOT_BOTTOM: Final = 450.0
LOSS_TOP: Final = 460.0
LOSS_BOTTOM: Final = 476.0
HEIGHT: Final = 538.0

Colour = Callable[[Ping], str]


@dataclass(frozen=True, slots=True)
class Stay:
    """Something was at ``place`` from ``begin`` to ``end``."""

    place: str
    begin: int
    end: int


def draw(
    pings: Sequence[Ping],
    story: Story,
    *,
    internet: Sequence[Ping],
    set_rtts_ms: Sequence[float],
    caption: str,
) -> Drawing:
    """``set_rtts_ms``: what the delays of the links alone give, drawn as reference lines."""
    picture = Drawing(WIDTH, HEIGHT, "Round-trip time of every ping over the run")
    spans = phases(story, pings)
    origin = spans[0].begin if spans else (pings[0].sent_ns if pings else 0)
    end = max((ping.sent_ns for ping in pings), default=origin + NS)
    duration_s = max((end - origin) / NS, 1e-3)

    def x(at: int) -> float:
        return LEFT + (RIGHT - LEFT) * min(max((at - origin) / NS / duration_s, 0.0), 1.0)

    shown = [ping for ping in pings if ping.sent_ns >= origin]
    beside = [ping for ping in internet if origin <= ping.sent_ns <= end]
    rtts = [rtt for ping in shown if (rtt := ping.rtt_ms) is not None]
    all_rtts = rtts + [rtt for ping in beside if (rtt := ping.rtt_ms) is not None]
    fitted = RttScale.fit(rtts, PLOT_TOP, PLOT_BOTTOM)
    scale = RttScale(
        fitted.low, fitted.knee, max([fitted.high, *(1.25 * rtt for rtt in all_rtts)]), PLOT_TOP, PLOT_BOTTOM
    )

    _legend(picture, has_internet=bool(beside))
    _bars(picture, x, story, origin, end)
    _bands(picture, x, story)
    _rtt_axis(picture, scale, set_rtts_ms)
    _time_axis(picture, duration_s)
    dots(picture, beside, x, scale, lambda ping: "internet-dots")
    dots(picture, shown, x, scale, colour_by_phase(spans))
    _losses(picture, shown, x)
    picture.text(LEFT, HEIGHT - 8, caption, "small muted")
    picture.attributes = {
        "data-pings": json.dumps(
            [
                [round((p.sent_ns - origin) / NS, 3), None if p.rtt_ms is None else round(p.rtt_ms, 2), p.seq]
                for p in shown
            ],
            separators=(",", ":"),
        ),
        "data-frame": json.dumps([LEFT, RIGHT, PLOT_TOP, LOSS_BOTTOM, duration_s]),
    }
    return picture


def colour_by_phase(spans: Sequence[Phase]) -> Colour:
    """Beside the PVM, by the detour, or between a switch-over and the end of its migration."""

    def colour(ping: Ping) -> str:
        name = next((span.name for span in spans if span.begin <= ping.sent_ns < span.end), None)
        if name is None:
            return "between-dots"
        return "detour-dots" if name.endswith("before migration") else "beside-dots"

    return colour


def dots(
    picture: Drawing, pings: Iterable[Ping], x: Callable[[int], float], scale: RttScale, colour: Colour, size: str = ""
) -> None:
    """A dot for each answered ping, at the time it was sent."""
    by_colour: dict[str, list[tuple[float, float]]] = {}
    for ping in pings:
        if (rtt := ping.rtt_ms) is not None:
            by_colour.setdefault(colour(ping), []).append((x(ping.sent_ns), scale.y(rtt)))
    for css, points in sorted(by_colour.items()):
        picture.dots(points, f"{css} {size}".strip())


def stays(story: Story, origin: int, end: int) -> tuple[list[Stay], list[Stay]]:
    """Where the UE was, and where its personal VM was (a migration is no stay)."""
    if not story.handovers:
        ue = []
    else:
        changes = [origin, *(handover.completed for handover in story.handovers), end]
        places = [story.handovers[0].source, *(handover.target for handover in story.handovers)]
        ue = [Stay(place, changes[i], changes[i + 1]) for i, place in enumerate(places)]
    started = next((fact.data["to_cloudlet"] for fact in story.facts if fact.kind == "pvm.started"), None)
    first = story.migrations[0].source if story.migrations else started
    pvm: list[Stay] = []
    begin = origin
    for migration in story.migrations:
        pvm.append(Stay(migration.source, begin, migration.begun))
        begin = migration.completed
    last = story.migrations[-1].target if story.migrations else first
    if last is not None:
        pvm.append(Stay(last, begin, end))
    return ue, pvm


def _bars(picture: Drawing, x: Callable[[int], float], story: Story, origin: int, end: int) -> None:
    ue, pvm = stays(story, origin, end)
    for label, y in (("UE at", UE_BAR), ("VM in", PVM_BAR)):
        picture.text(LEFT - 8, y + 14.5, label, "small muted", anchor="end")
    for kind, y, places in (("ue", UE_BAR, ue), ("pvm", PVM_BAR, pvm)):
        for number, stay in enumerate(places):
            _segment(picture, x(stay.begin), x(stay.end), y, stay.place, f"{kind}-{number % 2 + 1}")
    for migration in story.migrations:
        moving = f"{migration.source} → {migration.target}"
        _segment(picture, x(migration.begun), x(migration.completed), PVM_BAR, moving, "pvm-moving")


def _segment(picture: Drawing, left: float, right: float, y: float, label: str, css: str) -> None:
    width = max(right - left, 2.0)
    picture.rect(left, y, width, BAR_HEIGHT, css, r=3, tip=label)
    if text_width(label) + 8 <= width:
        picture.text((left + right) / 2, y + 14.5, label, anchor="middle")


def _bands(picture: Drawing, x: Callable[[int], float], story: Story) -> None:
    for migration in story.migrations:
        _band(picture, x(migration.begun), x(migration.completed), "migration-band", _migration_tip(migration))
        _band(
            picture, x(migration.switched), x(migration.completed), "switched-band", "from the switch-over to its end"
        )
    for handover in story.handovers:
        _band(picture, x(handover.begun), x(handover.interval[1]), "handover-band", _handover_tip(handover))

    labels = [(x(handover.completed), "handover", "handover-label") for handover in story.handovers]
    labels += [
        ((x(migration.begun) + x(migration.completed)) / 2, "migration", "migration-label")
        for migration in story.migrations
    ]
    _labels(picture, sorted(labels))


def _labels(picture: Drawing, labels: Sequence[tuple[float, str, str]]) -> None:
    """Each label over its band, in the first row where it has room; without room the band must speak for itself."""
    free_from = [LEFT - 20] * len(LABEL_ROWS)
    for at, label, css in labels:
        half = text_width(label, SMALL) / 2
        row = next((row for row, free in enumerate(free_from) if at - half >= free), None)
        if row is not None:
            picture.text(at, LABEL_ROWS[row], label, f"small {css}", anchor="middle")
            free_from[row] = at + half + 8


def _band(picture: Drawing, left: float, right: float, css: str, tip: str) -> None:
    width = max(right - left, 3.0)
    picture.rect((left + right - width) / 2, PLOT_TOP, width, LOSS_BOTTOM - PLOT_TOP, css, tip=tip)


def _handover_tip(handover: Handover) -> str:
    return f"handover {handover.source} → {handover.target}"


def _migration_tip(migration: Migration) -> str:
    return f"migration {migration.source} → {migration.target}"


def _rtt_axis(picture: Drawing, scale: RttScale, set_rtts_ms: Sequence[float]) -> None:
    for value in scale.ticks():
        y = scale.y(value)
        picture.line(LEFT, y, RIGHT, y, "grid")
        picture.text(LEFT - 8, y + 4, f"{value:g}", "small muted figure", anchor="end")
    if scale.broken:
        y = scale.y(scale.knee)
        picture.line(LEFT, y, RIGHT, y, "knee")
        picture.text_up(18, (scale.top + y) / 2, "log scale", "small muted")
    picture.text_up(18, (scale.y(scale.knee) + PLOT_BOTTOM) / 2, "round-trip time, ms", "small muted")
    last = None
    for value in sorted(set(set_rtts_ms)):
        if not scale.low <= value <= scale.high:
            continue
        y = scale.y(value)
        picture.line(LEFT, y, RIGHT + 4, y, "set")
        if last is None or last - y >= 14:
            picture.text(RIGHT + 8, y + 4, f"{value:g} ms set", "small muted figure")
            last = y


def _time_axis(picture: Drawing, duration_s: float) -> None:
    picture.line(LEFT, PLOT_BOTTOM, RIGHT, PLOT_BOTTOM, "axis")
    for value in ticks(0, duration_s, 13):
        at = LEFT + (RIGHT - LEFT) * value / duration_s
        picture.line(at, LOSS_BOTTOM, at, LOSS_BOTTOM + 5, "axis")
        picture.text(at, LOSS_BOTTOM + 19, f"{value:g}", "small muted figure", anchor="middle")
    picture.text(
        (LEFT + RIGHT) / 2, LOSS_BOTTOM + 37, "time since the first answered ping, s", "small muted", anchor="middle"
    )


def _losses(picture: Drawing, pings: Sequence[Ping], x: Callable[[int], float]) -> None:
    picture.rect(LEFT, LOSS_TOP, RIGHT - LEFT, LOSS_BOTTOM - LOSS_TOP, "lane")
    picture.text(LEFT - 8, LOSS_BOTTOM - 4, "lost", "small loss-label", anchor="end")
    lost = [ping for ping in pings if ping.received_ns is None]
    picture.path("".join(f"M{x(ping.sent_ns):.1f} {LOSS_TOP:g}V{LOSS_BOTTOM:g}" for ping in lost), "loss")
    picture.text(RIGHT + 8, LOSS_BOTTOM - 4, f"{len(lost)} of {len(pings)}", "small loss-label figure")


def _legend(picture: Drawing, *, has_internet: bool) -> None:
    picture.text(LEFT, 22, "RTT of every ping", "heading")
    at = RIGHT
    entries = [
        ("switched-band", "switched over"),
        ("migration-band", "migration"),
        ("handover-band", "handover"),
        *([("internet-dots", "Internet server")] if has_internet else []),
        ("detour-dots", "VM one cloudlet away"),
        ("beside-dots", "VM beside the eNodeB"),
    ]
    for css, label in entries:
        at -= text_width(label, SMALL)
        picture.text(at, 22, label, "small")
        if css.endswith("band"):
            picture.rect(at - 19, 12, 14, 12, css)
        else:
            picture.dots([(at - 11, 18)], f"{css} large")
        at -= 34
