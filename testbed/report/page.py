"""Puts the page together: figures, plots and tables into ``report.html``, and the plots beside it as files."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

from testbed.delay_node import DirectionStats
from testbed.report import close_up, ladder, machine, rtt_plot
from testbed.report.svg import Drawing, style_sheet
from testbed.results import AROUND_NS, NS_PER_MS, Ping, Story, phases, tell
from testbed.topology import Delays

NOTHING: Final = "\N{EN DASH}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """All that is known of a run. ``results`` as :func:`testbed.results.compute` gives them."""

    ue: str
    pings: Sequence[Ping]
    events: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any]
    delay_engine: str
    truths: Sequence[Mapping[str, Any]] = ()
    internet: Sequence[Ping] = ()
    """Pings to the Internet server, which are not offloaded."""
    delay_stats: Sequence[DirectionStats] = ()
    delays: Delays = field(default_factory=Delays)
    scenario: str = "demo"
    title: str = "A personal VM that follows its user"
    paper_migrations_s: Sequence[tuple[float, float]] = ()
    """What a paper says of each migration: in all, and how long the VM stood still."""
    seed: int = 1
    commit: str | None = None
    machine: Mapping[str, str] | None = None
    """Of the program and of the machine when the run was made; those of now where they are not known."""
    story: Story | None = None
    """What the events tell of this UE, where it is not the first that was handed over."""


def write_page(out: Path, run: RunData, more: Mapping[str, Drawing], *, before: str = "", after: str = "") -> Path:
    """Write ``report.html`` and the plots of a run into ``out``; gives the page's path.

    ``more``: other plots, as files; ``before`` and ``after``: HTML around the sections of the run.
    """
    out.mkdir(parents=True, exist_ok=True)
    story = run.story or tell(run.events)
    commit = run.commit or machine.commit()
    date = _date(run.pings)
    plots = _plots(run, story, caption=f"scenario {run.scenario} · seed {run.seed} · commit {commit} · {date}")
    for name, drawing in {**plots, **more}.items():
        (out / f"{name}.svg").write_text(drawing.render_file())
    page = Template(resource("page.html")).substitute(
        title=escape(run.title),
        scenario=escape(run.scenario),
        date=date,
        commit=escape(commit),
        ue=escape(run.ue),
        page_css=resource("page.css"),
        plot_css=style_sheet(),
        page_js=resource("page.js"),
        tiles=_tiles(run),
        before=before,
        after=after,
        interval=_interval(run.pings),
        around=f"{AROUND_NS // NS_PER_MS} ms",
        rtt_plot=plots["rtt"].render(),
        close_ups="\n".join(
            f"<figure>{drawing.render()}</figure>" for name, drawing in plots.items() if name not in ("rtt", "ladder")
        ),
        ladder=plots["ladder"].render(),
        phase_table=_phase_table(run.results),
        handover_table=_handover_table(run.results),
        migration_table=_migration_table(run),
        delay_note=_delay_note(run),
        machine_table="\n".join(
            f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
            for name, value in (run.machine or machine.describe()).items()
        ),
    )
    path = out / "report.html"
    path.write_text(page)
    return path


def _plots(run: RunData, story: Story, caption: str) -> dict[str, Drawing]:
    """By the name of the file. The UE is never further than one cloudlet from its VM in this experiment."""
    spans = phases(story, run.pings)
    set_rtts = (
        [*_set_rtts_ms(run.delays), _internet_set_rtt_ms(run.delays)] if run.internet else _set_rtts_ms(run.delays)
    )
    plots = {
        "rtt": rtt_plot.draw(run.pings, story, internet=run.internet, set_rtts_ms=set_rtts, caption=caption),
        "ladder": ladder.draw(story, run.truths, caption),
    }
    for number, handover in enumerate(story.handovers, start=1):
        plots[f"handover-{number}"] = close_up.handover(handover, run.pings, spans, caption)
    for number, migration in enumerate(story.migrations, start=1):
        plots[f"migration-{number}"] = close_up.migration(migration, run.pings, spans, caption)
    return plots


def _set_rtts_ms(delays: Delays) -> list[float]:
    """What the links alone give: beside the VM, and one cloudlet away."""
    return [2 * delays.ue_enb, 2 * (delays.ue_enb + delays.enb_enb)]


def _internet_set_rtt_ms(delays: Delays) -> float:
    return 2 * (delays.ue_enb + delays.enb_mtso + delays.sgw_pgw + delays.pgw_internet)


# Tiles and tables ----------------------------------------------------------------------------------------------------


def _tiles(run: RunData) -> str:
    found = run.results
    beside = [p["rtt_ms"]["median"] for p in found["phases"] if not p["name"].endswith("before migration")]
    detour = [p["rtt_ms"]["median"] for p in found["phases"] if p["name"].endswith("before migration")]
    tiles = (
        (_range(beside, "ms"), "median round trip with the VM beside the eNodeB"),
        (_range(detour, "ms"), "right after a handover, by the detour"),
        (_range([h["path_ms"] for h in found["handovers"]], "ms"), "from Handover Notify to the new path"),
        (_range([m["downtime_ms"] for m in found["migrations"]], "ms"), "the guest stood still in a migration"),
        (_lost_tile(found), "lost around handovers and migrations, of all pings"),
    )
    return "\n".join(f'<div class="tile"><b>{figure}</b><span>{label}</span></div>' for figure, label in tiles)


def _lost_tile(found: Mapping[str, Any]) -> str:
    lost = sum(change["lost"] for kind in ("handovers", "migrations") for change in found[kind])
    sent = found.get("pings", {}).get("sent", sum(phase["sent"] for phase in found["phases"]))
    return f"{lost} of {sent}"


def _phase_table(found: Mapping[str, Any]) -> str:
    rows = [
        (
            phase["name"],
            _value(phase["rtt_ms"]["median"], "", 2),
            _value(phase["rtt_ms"]["p99"], "", 2),
            str(phase["sent"]),
            str(phase["lost"]),
        )
        for phase in found["phases"]
    ]
    return table(
        "Phases of the ping to the VM", ("phase", "median RTT, ms", "99th percentile, ms", "sent", "lost"), rows, main=1
    )


def _handover_table(found: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{h['from']} → {h['to']}",
            _value(h["prepare_ms"], "", 2),
            _value(h["path_ms"], "", 2),
            _value(h.get("outage_ms"), "", 1),
            str(h["lost"]),
        )
        for h in found["handovers"]
    ]
    return table("Handovers", ("handover", "prepare, ms", "path, ms", "outage, ms", "lost"), rows, main=2)


def _migration_table(run: RunData) -> str:
    """With what a paper says of each beside it, where one does."""
    rows: list[tuple[str, ...]] = []
    for number, m in enumerate(run.results["migrations"]):
        paper = run.paper_migrations_s[number] if number < len(run.paper_migrations_s) else (None, None)
        theirs = [_value(None if value is None else 1000 * value, "", 0) for value in paper]
        rows.append(
            (
                f"{m['from']} → {m['to']}",
                _value(m["total_ms"], "", 0),
                theirs[0],
                _value(m["downtime_ms"], "", 1),
                theirs[1],
                _value(m["outage_ms"], "", 1),
                str(m["lost"]),
            )
        )
    heads = ["migration", "total, ms", "paper", "stood still, ms", "paper", "outage, ms", "lost"]
    if not run.paper_migrations_s:
        heads = [head for head in heads if head != "paper"]
        rows = [(row[0], row[1], row[3], *row[5:]) for row in rows]
    return table("Migrations", heads, rows, main=heads.index("stood still, ms"))


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, main: int, words: int = 1) -> str:
    """``main``: the column that matters most, -1 for none; the first ``words`` columns hold words."""
    css = ["words" if n < words else "main" if n == main else "" for n in range(len(heads))]

    def line(kind: str, cells: Sequence[str]) -> str:
        marked = (
            f'<{kind} class="{name}">{escape(cell)}</{kind}>' if name else f"<{kind}>{escape(cell)}</{kind}>"
            for name, cell in zip(css, cells, strict=True)
        )
        return "<tr>" + "".join(marked) + "</tr>"

    head = [f"<caption>{escape(caption)}</caption>"] if caption else []
    return "\n".join(["<table>", *head, line("th", heads), *(line("td", row) for row in rows), "</table>"])


def _delay_note(run: RunData) -> str:
    d = run.delays
    links = (
        f"One way: UE to eNodeB {d.ue_enb:g} ms, eNodeB to MTSO {d.enb_mtso:g} ms, S-GW to P-GW {d.sgw_pgw:g} ms, "
        f"P-GW to Internet {d.pgw_internet:g} ms, between neighbouring cloudlets {d.enb_enb:g} ms; made by "
    )
    if run.delay_engine == "netem":
        return links + "the kernel's netem."
    note = links + "a delay node in user space, which counts from the kernel's receive time stamp."
    forwarded = sum(direction.forwarded for direction in run.delay_stats)
    if not forwarded:
        return note
    late = sum(direction.late for direction in run.delay_stats)
    dropped = sum(direction.dropped for direction in run.delay_stats)
    worst = max(direction.worst_late_us for direction in run.delay_stats) / 1000
    return note + (
        f" Of {forwarded} frames it sent {late} ({100 * late / forwarded:.2f} %) more than 0.5 ms late, the worst by "
        f"{worst:.1f} ms, and dropped {dropped}."
    )


# Words and numbers ---------------------------------------------------------------------------------------------------


def _value(value: float | None, unit: str, digits: int) -> str:
    if value is None:
        return NOTHING
    return f"{value:.{digits}f} {unit}".strip()


def _range(values: Sequence[float | None], unit: str) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return NOTHING
    first, last = (f"{value:.0f}" if value >= 100 else f"{value:.1f}" for value in (known[0], known[-1]))
    return f"{first} {unit}" if first == last else f"{first}\N{EN DASH}{last} {unit}"


def _interval(pings: Sequence[Ping]) -> str:
    gaps = [(b.sent_ns - a.sent_ns) / NS_PER_MS for a, b in itertools.pairwise(pings)]
    return f"{statistics.median(gaps):.0f} ms" if gaps else "10 ms"


def _date(pings: Sequence[Ping]) -> str:
    at = datetime.fromtimestamp(pings[0].sent_ns // 1_000_000_000, UTC) if pings else datetime.now(UTC)
    return f"{at:%Y-%m-%d %H:%M} UTC"


def resource(name: str) -> str:
    """A file of this package."""
    return resources.files("testbed.report").joinpath(name).read_text()
