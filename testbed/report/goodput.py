"""How much of bulk transfers arrived when: the goodput of each over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from testbed.report.svg import Drawing, ticks

WIDTH: Final = 760.0
LEFT: Final = 62.0
RIGHT: Final = WIDTH - 150.0
TOP: Final = 34.0
BOTTOM: Final = 220.0
BIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Transfer:
    """A bulk transfer: when its pieces of ``octets`` came back, in seconds since the start. ``colour`` from 1."""

    label: str
    colour: int
    octets: int
    arrivals_s: Sequence[float]

    def mbit_s(self, end_s: float) -> list[float]:
        """In each bin up to the end."""
        bins = [0.0] * (int(end_s / BIN_S) + 1)
        for at in self.arrivals_s:
            if 0 <= at <= end_s:
                bins[int(at / BIN_S)] += 8e-6 * self.octets / BIN_S
        return bins


def draw(transfers: Sequence[Transfer], caption: str) -> Drawing:
    """A stepped line for each."""
    end_s = max((at for transfer in transfers for at in transfer.arrivals_s), default=1.0)
    series = [transfer.mbit_s(end_s) for transfer in transfers]
    high = 1.08 * max((value for values in series for value in values), default=1.0) or 1.0
    picture = Drawing(WIDTH, BOTTOM + 58, "Goodput of bulk transfers")

    def x(at_s: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(at_s / end_s, 1.0)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value / high

    picture.text(LEFT, 20, "Goodput of bulk transfers", "heading")
    for value in ticks(0, high, 6):
        picture.line(LEFT, y(value), RIGHT, y(value), "grid")
        picture.text(LEFT - 7, y(value) + 4, f"{value:g}", "small muted figure", anchor="end")
    picture.text_up(16, (TOP + BOTTOM) / 2, "Mbit/s", "small muted")
    for transfer, values in zip(transfers, series, strict=True):
        steps = "".join(f"H{x(n * BIN_S):.1f}V{y(value):.1f}" for n, value in enumerate(values))
        picture.path(f"M{LEFT:.1f} {BOTTOM:.1f}{steps}H{RIGHT:.1f}", f"s{transfer.colour} stroke")
        place = y(sum(values) / len(values))
        picture.text(RIGHT + 8, place + 4, transfer.label, f"strong t{transfer.colour}")
    picture.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")
    for value in ticks(0, end_s, 12):
        picture.line(x(value), BOTTOM, x(value), BOTTOM + 5, "axis")
        picture.text(x(value), BOTTOM + 18, f"{value:g}", "small muted figure", anchor="middle")
    picture.text((LEFT + RIGHT) / 2, BOTTOM + 35, "time since the start, s", "small muted", anchor="middle")
    picture.text(LEFT, BOTTOM + 52, caption, "tiny muted")
    return picture
