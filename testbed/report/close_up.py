"""Close-ups: the pings around one handover or one switch-over, with the steps named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from testbed.report.rtt_plot import colour_by_phase, dots
from testbed.report.scale import RttScale
from testbed.report.svg import SMALL, Drawing, text_width, ticks
from testbed.results import Handover, Migration, Phase, Ping

NS_PER_MS: Final = 1_000_000
WIDTH: Final = 552.0
LEFT: Final = 52.0
RIGHT: Final = WIDTH - 14.0
STEP_TOP: Final = 46.0
STEP_HEIGHT: Final = 16.0
PLOT_HEIGHT: Final = 190.0
BEFORE_MS: Final = 150
AFTER_MS: Final = 300


@dataclass(frozen=True, slots=True)
class Step:
    """A named moment."""

    at: int
    label: str


def handover(change: Handover, pings: Sequence[Ping], spans: Sequence[Phase], caption: str) -> Drawing:
    """Around a handover; time 0 is Handover Notify (or Path Switch Request Acknowledge) on the wire."""
    named = (
        (change.begun if change.begun < (change.prepared or change.completed) else None, "handover begins"),
        (change.prepared, "target's tunnels are known"),
        (change.rules_ready, "target's rules stand"),
        (change.executing, "UE is told to go"),
        (change.completed, "UE is there"),
        (change.flipped, "downlink goes there"),
    )
    return _draw(
        f"Handover {change.source} → {change.target}", change.completed, named, "handover", pings, spans, caption
    )


def migration(change: Migration, pings: Sequence[Ping], spans: Sequence[Phase], caption: str) -> Drawing:
    """Around a switch-over; time 0 is the flip of the path to the target."""
    named = (
        (change.switched, f"path leads to {change.target}"),
        (change.completed, "migration is done"),
    )
    return _draw(
        f"Switch-over {change.source} → {change.target}", change.switched, named, "migration", pings, spans, caption
    )


def _draw(
    title: str,
    zero: int,
    named: Sequence[tuple[int | None, str]],
    css: str,
    pings: Sequence[Ping],
    spans: Sequence[Phase],
    caption: str,
) -> Drawing:
    steps = sorted((Step(at, label) for at, label in named if at is not None), key=lambda step: step.at)
    begin = min(steps[0].at - 60 * NS_PER_MS, zero - BEFORE_MS * NS_PER_MS)
    end = max(steps[-1].at + 60 * NS_PER_MS, zero + AFTER_MS * NS_PER_MS)
    top = STEP_TOP + STEP_HEIGHT * len(steps)
    bottom = top + PLOT_HEIGHT
    picture = Drawing(WIDTH, bottom + 80, title)

    def x(at: int) -> float:
        return LEFT + (RIGHT - LEFT) * (at - begin) / (end - begin)

    near = [ping for ping in pings if begin <= ping.sent_ns <= end]
    scale = RttScale.fit([rtt for ping in near if (rtt := ping.rtt_ms) is not None], top, bottom)
    picture.text(LEFT, 22, title, "heading")
    for value in scale.ticks():
        picture.line(LEFT, scale.y(value), RIGHT, scale.y(value), "grid")
        picture.text(LEFT - 8, scale.y(value) + 4, f"{value:g}", "small muted figure", anchor="end")
    picture.text_up(16, (top + bottom) / 2, "round-trip time, ms", "small muted")
    for number, step in enumerate(steps):
        _mark(
            picture, step, x(step.at), STEP_TOP + STEP_HEIGHT * number, bottom + 18, (step.at - zero) / NS_PER_MS, css
        )
    picture.rect(LEFT, bottom + 6, RIGHT - LEFT, 12, "lane")
    picture.text(LEFT - 8, bottom + 16, "lost", "small loss-label", anchor="end")
    lost = [ping for ping in near if ping.received_ns is None]
    picture.path("".join(f"M{x(ping.sent_ns):.1f} {bottom + 6:.1f}v12" for ping in lost), "loss")
    dots(picture, near, x, scale, colour_by_phase(spans), "large")
    picture.line(LEFT, bottom, RIGHT, bottom, "axis")
    for value in ticks((begin - zero) / NS_PER_MS, (end - zero) / NS_PER_MS, 9):
        at = x(zero + round(value * NS_PER_MS))
        picture.line(at, bottom + 18, at, bottom + 23, "axis")
        picture.text(at, bottom + 36, f"{value:g}", "small muted figure", anchor="middle")
    picture.text((LEFT + RIGHT) / 2, bottom + 54, "time at which the ping was sent, ms", "small muted", anchor="middle")
    picture.text(LEFT, bottom + 74, caption, "small tiny muted")
    return picture


def _mark(picture: Drawing, step: Step, x: float, y: float, bottom: float, offset_ms: float, css: str) -> None:
    """A line at the moment, its name on a row of its own, on the side where there is room."""
    label = f"{step.label}  {offset_ms:+.1f} ms"
    picture.line(x, y - 8, x, bottom, f"{css}-line")
    if x + 6 + text_width(label, SMALL) <= RIGHT:
        picture.text(x + 5, y, label, f"small {css}-label figure")
    else:
        picture.text(x - 5, y, label, f"small {css}-label figure", anchor="end")
