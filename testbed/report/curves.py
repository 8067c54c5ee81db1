"""The figure of an experiment: the round-trip time of every packet of every application, as the paper's figure 6.

Curves far apart get a panel each, as on paper, so that a step of 4 ms can be seen beside 70 ms. It is made for print:
as wide as a page's text, with its own labels, and colours that differ in lightness too.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from testbed.report.svg import SMALL, Drawing, text_width, ticks
from testbed.results import Handover, Migration

WIDTH: Final = 760.0
LEFT: Final = 62.0
RIGHT: Final = WIDTH - 150.0
TOP: Final = 46.0
UPPER_HEIGHT: Final = 84.0
PANEL_GAP: Final = 16.0
LOWER_HEIGHT: Final = 250.0
LANE_HEIGHT: Final = 11.0
FAULT_HEIGHT: Final = 13.0
LABEL_HEIGHT: Final = 15.0
APART: Final = 1.8
"""How many times what is below the levels above must be for these to have a panel of their own."""
MOST_COLOURS: Final = 6
MOST_LEVELS: Final = 12
"""Of a curve whose medians are written beside them."""

Abscissa = Callable[[float], float]
"""From seconds since the start to where they are drawn."""
Point = tuple[float, float | None]
"""Seconds since the start, and the round-trip time in milliseconds, if there was an answer."""


@dataclass(frozen=True, slots=True)
class Level:
    """A segment's median."""

    begin_s: float
    end_s: float
    median_ms: float


@dataclass(frozen=True, slots=True)
class Curve:
    """An application's packets, in the order of sending. ``colour`` counts from 1."""

    label: str
    colour: int
    points: Sequence[Point]
    levels: Sequence[Level]
    handovers: Sequence[tuple[float, str]] = ()
    migrations: Sequence[tuple[float, float, str]] = ()
    faults: Sequence[tuple[float, float, str]] = ()
    """From when until when, in seconds since the start, what was broken."""


@dataclass(frozen=True, slots=True)
class _Panel:
    low: float
    high: float
    top: float
    bottom: float

    def y(self, rtt_ms: float) -> float:
        return self.bottom - (self.bottom - self.top) * (rtt_ms - self.low) / (self.high - self.low)

    def holds(self, rtt_ms: float) -> bool:
        return self.low <= rtt_ms <= self.high


def moments(
    began_ns: int, handovers: Iterable[Handover], migrations: Iterable[Migration]
) -> tuple[list[tuple[float, str]], list[tuple[float, float, str]]]:
    """A UE's handovers and migrations in seconds since the start, with their names."""
    return (
        [((h.completed - began_ns) / 1e9, f"{h.source} → {h.target}") for h in handovers],
        [((m.begun - began_ns) / 1e9, (m.completed - began_ns) / 1e9, f"{m.source} → {m.target}") for m in migrations],
    )


def draw(curves: Sequence[Curve], title: str, caption: str) -> Drawing:
    """The figure. Handovers, migrations and faults are those of the last curve that has any."""
    lower, upper = _split(curves)
    top = TOP + (22 if any(curve.handovers for curve in curves) else 0)
    panels: dict[str, _Panel] = {}
    at = top
    if upper:
        low, high = _extent(upper)
        panels |= {curve.label: _Panel(low, high, at, at + UPPER_HEIGHT) for curve in upper}
        at += UPPER_HEIGHT + PANEL_GAP
    low, high = _extent(lower)
    panels |= {curve.label: _Panel(low, high, at, at + LOWER_HEIGHT) for curve in lower}
    bottom = at + LOWER_HEIGHT
    lanes = bottom + 6
    end_s = max((point[0] for curve in curves for point in curve.points), default=1.0)

    def x(at_s: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(max(at_s / end_s, 0.0), 1.0)

    faults = _rows(next((curve.faults for curve in reversed(curves) if curve.faults), ()), x)
    foot = lanes + LANE_HEIGHT * len(curves) + FAULT_HEIGHT * len(faults)
    height = foot + 62
    picture = Drawing(WIDTH, height, title)
    picture.text(LEFT, 20, title, "heading")
    _moments(picture, curves, x, top, lanes + LANE_HEIGHT * len(curves))
    for number, panel in enumerate(dict.fromkeys(panels.values())):
        _axis(picture, panel, joined=bool(upper) and number == 0)
    for curve in curves:
        _dots(picture, curve, panels[curve.label], x)
    _levels(picture, curves, panels, x)
    _labels(picture, curves, panels)
    picture.text_up(16, (top + bottom) / 2, "round-trip time, ms", "small muted")
    _lanes(picture, curves, x, lanes)
    _faults(picture, faults, x, lanes + LANE_HEIGHT * len(curves))
    _time(picture, end_s, foot, x)
    picture.text(LEFT, height - 8, caption, "tiny muted")
    return picture


def _split(curves: Sequence[Curve]) -> tuple[list[Curve], list[Curve]]:
    """Those of the lower panel and of the upper one: where the widest gap between all levels lies, if it is wide."""
    spans = {curve.label: _span(curve) for curve in curves}
    ranked = sorted(curves, key=lambda curve: spans[curve.label])
    gaps = []
    for place in range(1, len(ranked)):
        highest = max(spans[curve.label][1] for curve in ranked[:place])
        if highest > 0:
            gaps.append((spans[ranked[place].label][0] / highest, place))
    if not gaps or max(gaps)[0] < APART:
        return ranked, []
    place = max(gaps)[1]
    return ranked[:place], ranked[place:]


def _span(curve: Curve) -> tuple[float, float]:
    """From its lowest level to its highest."""
    levels = [level.median_ms for level in curve.levels]
    if not levels:
        levels = [statistics.median([rtt for _, rtt in curve.points if rtt is not None] or [0.0])]
    return min(levels), max(levels)


def _extent(curves: Sequence[Curve]) -> tuple[float, float]:
    """The range of a panel: its levels, and what most packets took, but not what a few did."""
    rtts = sorted(rtt for curve in curves for _, rtt in curve.points if rtt is not None)
    levels = [level.median_ms for curve in curves for level in curve.levels]
    if not rtts:
        return (0.0, 10.0)
    low = min([rtts[len(rtts) // 100], *levels])
    highest = max(levels, default=rtts[len(rtts) // 2])
    high = min(max(rtts[len(rtts) * 97 // 100], 1.06 * highest), 1.3 * highest)
    margin = max(0.1 * (high - low), 0.6)
    return max(0.0, low - margin), high + margin


def _moments(picture: Drawing, curves: Sequence[Curve], x: Abscissa, top: float, bottom: float) -> None:
    handovers = next((curve.handovers for curve in reversed(curves) if curve.handovers), ())
    migrations = next((curve.migrations for curve in reversed(curves) if curve.migrations), ())
    for begin, end, name in migrations:
        width = max(x(end) - x(begin), 2.0)
        picture.rect(x(begin), top, width, bottom - top, "migration-band", tip=f"migration {name}")
    free = LEFT - 60
    for at, name in sorted(handovers):
        picture.line(x(at), top - 4, x(at), bottom, "handover-line dashed")
        half = text_width(name, SMALL) / 2
        if x(at) - half >= free and x(at) + half <= WIDTH:
            picture.text(x(at), top - 10, name, "small handover-label", anchor="middle")
            free = x(at) + half + 6
    free = LEFT - 60
    for begin, end, _ in migrations:
        middle, label = (x(begin) + x(end)) / 2, "migration"
        half = text_width(label, SMALL) / 2
        taken = any(abs(x(at) - middle) < half + text_width(name, SMALL) / 2 + 4 for at, name in handovers)
        if middle - half >= free and not taken:
            picture.text(middle, top - 10, label, "small migration-label", anchor="middle")
            free = middle + half + 6


def _axis(picture: Drawing, panel: _Panel, *, joined: bool) -> None:
    for value in ticks(panel.low, panel.high, max(2, int((panel.bottom - panel.top) / 28))):
        y = panel.y(value)
        picture.line(LEFT, y, RIGHT, y, "grid")
        picture.text(LEFT - 7, y + 4, f"{value:g}", "small muted figure", anchor="end")
    picture.line(LEFT, panel.top, LEFT, panel.bottom, "axis")
    if joined:
        # The break between the panels: two strokes on the axis.
        for y in (panel.bottom, panel.bottom + PANEL_GAP):
            picture.line(LEFT - 5, y + 3, LEFT + 5, y - 3, "axis")


def _dots(picture: Drawing, curve: Curve, panel: _Panel, x: Abscissa) -> None:
    answered = [(at, rtt) for at, rtt in curve.points if rtt is not None]
    inside = [(x(at), panel.y(rtt)) for at, rtt in answered if panel.holds(rtt)]
    picture.dots(inside, f"c{curve.colour} packet")
    beyond = [x(at) for at, rtt in answered if rtt > panel.high]
    picture.path("".join(f"M{at - 2.5:.1f} {panel.top + 5:.1f}l2.5 -5l2.5 5z" for at in beyond), f"f{curve.colour}")


def _levels(picture: Drawing, curves: Sequence[Curve], panels: Mapping[str, _Panel], x: Abscissa) -> None:
    """The medians, and their figures where they cover neither each other nor another level's line."""
    drawn = [
        (curve, level, panel.y(level.median_ms))
        for curve in curves
        if (panel := panels[curve.label])
        for level in curve.levels
        if panel.holds(level.median_ms)
    ]
    taken = [(x(level.begin_s), y - 2, x(level.end_s), y + 2) for _, level, y in drawn]
    for _, level, y in drawn:
        picture.line(x(level.begin_s), y, x(level.end_s), y, "level")
    for curve, level, y in drawn:
        label = f"{level.median_ms:.1f}" if level.median_ms >= 20 else f"{level.median_ms:.2f}"
        width = text_width(label, SMALL)
        left, right = x(level.begin_s), x(level.end_s)
        if right - left < width + 6 or len(curve.levels) > MOST_LEVELS:
            continue
        for share, down in itertools.product((0.5, 0.25, 0.75), (-7.0, 15.0)):
            middle = left + (right - left) * share
            box = (middle - width / 2 - 2, y + down - 11, middle + width / 2 + 2, y + down + 3)
            fits = share == 0.5 or right - left >= 2 * width + 8
            if fits and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                picture.rect(box[0], box[1], width + 4, 14, "halo", r=2)
                picture.text(middle, y + down, label, f"small figure t{curve.colour}", anchor="middle")
                break


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _labels(picture: Drawing, curves: Sequence[Curve], panels: Mapping[str, _Panel]) -> None:
    """The name of each curve beside its end, moved apart where they would meet."""
    wanted: list[tuple[float, int]] = []
    for number, curve in enumerate(curves):
        panel = panels[curve.label]
        last = next((rtt for _, rtt in reversed(curve.points) if rtt is not None and panel.holds(rtt)), panel.low)
        level = curve.levels[-1].median_ms if curve.levels else last
        wanted.append((panel.y(min(max(level, panel.low), panel.high)), number))
    wanted.sort()
    places: list[float] = []
    for ordinate, _ in wanted:
        places.append(max(ordinate, places[-1] + LABEL_HEIGHT if places else TOP))
    limit = max(panel.bottom for panel in panels.values())
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit)
        limit = places[number] - LABEL_HEIGHT
    for y, (_, number) in zip(places, wanted, strict=True):
        picture.text(RIGHT + 8, y + 4, curves[number].label, f"strong t{curves[number].colour}")


def _lanes(picture: Drawing, curves: Sequence[Curve], x: Abscissa, top: float) -> None:
    """Lost packets, a lane for each curve, with their number."""
    picture.text(LEFT - 7, top + LANE_HEIGHT * len(curves) / 2 + 4, "lost", "small loss-label", anchor="end")
    for number, curve in enumerate(curves):
        y = top + LANE_HEIGHT * number
        picture.rect(LEFT, y + 1, RIGHT - LEFT, LANE_HEIGHT - 2, "lane")
        lost = [at for at, rtt in curve.points if rtt is None]
        strokes = "".join(f"M{x(at):.1f} {y + 1:.1f}v{LANE_HEIGHT - 2:g}" for at in lost)
        picture.path(strokes, f"s{curve.colour} stroke")
        picture.text(RIGHT + 8, y + 9, f"{len(lost)} of {len(curve.points)}", f"tiny figure t{curve.colour}")


def _rows(faults: Iterable[tuple[float, float, str]], x: Abscissa) -> list[list[tuple[float, float, str]]]:
    """Faults in as few rows as let each have its name behind it."""
    rows: list[list[tuple[float, float, str]]] = []
    taken: list[float] = []
    for begin, end, what in sorted(faults):
        row = next((number for number, until in enumerate(taken) if until < x(begin)), len(rows))
        if row == len(rows):
            rows.append([])
            taken.append(0.0)
        rows[row].append((begin, end, what))
        taken[row] = x(end) + text_width(what, SMALL) + 10
    return rows


def _faults(picture: Drawing, rows: Sequence[Sequence[tuple[float, float, str]]], x: Abscissa, top: float) -> None:
    """What was broken, and for how long."""
    if rows:
        middle = top + FAULT_HEIGHT * len(rows) / 2 + 4
        picture.text(LEFT - 7, middle, "broken", "small loss-label", anchor="end")
    for number, row in enumerate(rows):
        y = top + FAULT_HEIGHT * number
        for begin, end, what in row:
            picture.rect(x(begin), y + 3, max(x(end) - x(begin), 2.0), FAULT_HEIGHT - 6, "fault-bar", tip=what)
            picture.text(x(end) + 4, y + FAULT_HEIGHT - 3, what, "tiny loss-label")


def _time(picture: Drawing, end_s: float, y: float, x: Abscissa) -> None:
    picture.line(LEFT, y, RIGHT, y, "axis")
    for value in ticks(0, end_s, 12):
        picture.line(x(value), y, x(value), y + 5, "axis")
        picture.text(x(value), y + 18, f"{value:g}", "small muted figure", anchor="middle")
    picture.text((LEFT + RIGHT) / 2, y + 35, "time since the start, s", "small muted", anchor="middle")
