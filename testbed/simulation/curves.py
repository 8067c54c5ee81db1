"""The pictures: what each policy buys, and for how much; and how the day goes. As SVG and as PNG, for print too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

PRICES: Final = (
    ("migrations_a_day", "migrations"),
    ("moved_mib_a_day", "copied, MiB"),
    ("outage_s_a_day", "outage, s"),
)
"""Of a user, a day."""
STYLES: Final = (
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", "-."),
    ("#cc79a7", "D", ":"),
    ("#000000", "v", "-"),
    ("#56b4e9", "P", "--"),
)
"""Colours that the colour-blind tell apart, and marks and strokes for who prints in black."""
LOOK: Final = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d8d8d8",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.hashsalt": "mobiscud",
    "svg.fonttype": "path",
}
DPI: Final = 200

Run = Mapping[str, Any]


def draw(result: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw ``trade-off`` and ``day`` below ``out``; gives the files."""
    with mpl.rc_context(LOOK):
        figures = {"trade-off": _trade_off(result), "day": _day(result)}
        return [_save(figure, out / f"{name}{end}") for name, figure in figures.items() for end in (".svg", ".png")]


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=DPI, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})
    return file


def _by_curve(runs: Iterable[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["curve"], []).append(run)
    return found


def _trade_off(result: Mapping[str, Any]) -> Figure:
    """Mean round-trip time against each price, a line for each curve."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, len(PRICES), sharey=True)
    beside = result["scenario"]["network"]["beside_ms"]
    means = [run["rtt_ms"]["mean"] for run in result["runs"]]
    for panel, (price, label) in zip(panels, PRICES, strict=True):
        for (name, runs), (colour, mark, stroke) in zip(_by_curve(result["runs"]).items(), _styles(), strict=False):
            points = sorted((run[price], run["rtt_ms"]["mean"]) for run in runs)
            look = {"color": colour, "marker": mark, "linestyle": stroke, "markersize": 5}
            panel.plot([x for x, _ in points], [y for _, y in points], label=name, clip_on=False, **look)
        panel.axhline(beside, color="#777", lw=0.8, ls=(0, (6, 4)))
        panel.set_xlabel(f"{label}, of a user a day")
        panel.set_xlim(left=0)
        panel.margins(x=0.08)
    span = max(max(means) - beside, 1.0)
    panels[0].set_ylim(beside - span / 12, beside + span * 1.05)
    panels[0].set_ylabel("mean round-trip time to the VM, ms")
    panels[-1].annotate("beside the user", (0, beside), xytext=(6, 3), textcoords="offset points", fontsize=7.5)
    _notes(panels[0], result["runs"])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    _caption(figure, result)
    return figure


def _notes(panel: Any, runs: Sequence[Run]) -> None:
    """What tells the points of a curve apart; the curves in turn above and below, and none upon another."""
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
    price = PRICES[0][0]
    above_and_below: tuple[list[tuple[float, float]], ...] = ([], [])
    for number, ((_, points), (colour, _, _)) in enumerate(zip(_by_curve(runs).items(), _styles(), strict=False)):
        said = above_and_below[number % 2]
        for run in points:
            x, y = run[price] / (right - left), run["rtt_ms"]["mean"] / (high - low)
            if run["label"] and all(abs(x - a) > 0.09 or abs(y - b) > 0.05 for a, b in said):
                said.append((x, y))
                offset, align = ((4, 5), "left") if number % 2 else ((-4, -10), "right")
                where = {"xytext": offset, "textcoords": "offset points", "ha": align}
                panel.annotate(run["label"], (run[price], run["rtt_ms"]["mean"]), fontsize=7, color=colour, **where)


def _day(result: Mapping[str, Any]) -> Figure:
    """Hour by hour: who is connected, round-trip time and migrations, of the middle run of each curve."""
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    connected, rtt, moves = figure.subplots(3, 1, sharex=True)
    shown = [runs[len(runs) // 2] for runs in _by_curve(result["runs"]).values()]
    hours = [hour["hour"] for hour in shown[0]["hours"]]
    connected.stairs(
        [hour["connected"] for hour in shown[0]["hours"]], [*hours, len(hours)], color="#444", lw=1.4, baseline=None
    )
    connected.set_ylabel("connected users")
    connected.set_ylim(bottom=0)
    for run, (colour, mark, stroke) in zip(shown, _styles(), strict=False):
        look = {"color": colour, "marker": mark, "linestyle": stroke, "markersize": 4}
        at = [hour + 0.5 for hour in hours]
        label = " ".join(part for part in (run["curve"], run["label"]) if part)
        rtt.plot(at, [hour["rtt_ms"] for hour in run["hours"]], label=label, **look)
        moves.plot(at, [hour["migrations"] / 3600 for hour in run["hours"]], **look)
    rtt.set_ylabel("mean round-trip time, ms")
    rtt.set_ylim(0, 1.12 * max(hour["rtt_ms"] or 0.0 for run in shown for hour in run["hours"]))
    moves.set_ylabel("migrations a second")
    moves.set_ylim(bottom=0)
    moves.set_xlabel("hour of the day")
    moves.set_xlim(0, len(hours))
    figure.legend(*rtt.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    _caption(figure, result)
    return figure


def _styles() -> Sequence[tuple[str, str, str]]:
    return STYLES * 4


def _caption(figure: Figure, result: Mapping[str, Any]) -> None:
    scenario = result["scenario"]
    figure.supxlabel(
        f"scenario {scenario['name']}: {scenario['ues']:,} users, {scenario['cloudlets']:,} cloudlets,"
        f" {scenario['hours']:g} h, {scenario['mobility']['model'].replace('_', ' ')}; seed {scenario['seed']};"
        f" commit {result['commit']}",
        fontsize=7.5,
        color="#444",
    )
