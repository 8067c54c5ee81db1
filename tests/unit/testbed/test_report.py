"""The report of a made-up run: whole, self-contained, legible."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from testbed import results
from testbed.delay_node import DirectionStats
from testbed.report import png
from testbed.report.page import RunData, write_page
from testbed.report.scale import RttScale
from testbed.report.svg import SMALL, Drawing, nice_step, text_width, ticks
from testbed.results import Ping

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta"}


class Balance(HTMLParser):
    """Notes tags that are not closed, and everything that a page could fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def make(out: Path, run: Any, **more: Any) -> str:
    found = results.compute(run.pings, run.events)
    data = RunData(
        ue="ue-0123456789abcdef",
        pings=run.pings,
        events=run.events,
        results=found,
        delay_engine="user space",
        truths=run.truths,
        **more,
    )
    return write_page(out, data, {}).read_text()


def internet(run: Any) -> list[Ping]:
    return [Ping(n, p.sent_ns, p.sent_ns + 70_500_000) for n, p in enumerate(run.pings[::10])]


def boxes(svg: Path) -> list[tuple[str, float, float, float, float]]:
    """Each level text of a plot with the box it needs: text, left, top, right, bottom."""
    found = []
    for text in ET.parse(svg).getroot().iter(f"{SVG}text"):
        if "transform" in text.attrib:
            continue
        content = text.text or ""
        size = SMALL if "small" in text.attrib["class"] else 13.0
        x, y, width = float(text.attrib["x"]), float(text.attrib["y"]), text_width(content, size)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[text.attrib.get("text-anchor", "start")]
        found.append((content, left, y - 0.72 * size, left + width, y + 0.2 * size))
    return found


def overlaps(svg: Path) -> list[tuple[str, str]]:
    return [
        (a[0], b[0])
        for a, b in itertools.combinations(boxes(svg), 2)
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]


RUNS = {
    "usual": {},
    "noisy": {"jitter": True, "downtime": 400.0},
    "ping-pong": {"handovers_at": (1000.0, 2500.0), "migrated_after": 1200.0, "end": 6000.0},
    "long": {"handovers_at": (60_000.0, 120_000.0), "end": 180_000.0, "interval": 100.0},
}


@pytest.mark.parametrize("times", RUNS.values(), ids=RUNS.keys())
def test_no_label_covers_another_or_leaves_the_plot(
    times: dict[str, Any], synthetic_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = synthetic_run(**times)
    make(tmp_path, run, internet=internet(run))

    names = {"rtt", "ladder", "handover-1", "handover-2", "migration-1", "migration-2"}
    assert {svg.stem for svg in tmp_path.glob("*.svg")} == names
    for svg in tmp_path.glob("*.svg"):
        assert overlaps(svg) == []
        width = float(ET.parse(svg).getroot().attrib["width"])
        assert [box for box in boxes(svg) if box[1] < 0 or box[3] > width] == []


def test_page_is_whole_and_fetches_nothing(synthetic: Any, tmp_path: Path) -> None:
    page = make(tmp_path, synthetic, internet=internet(synthetic))

    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.fetched == []
    assert not re.search(r"url\(|@import|\$[a-z_]", page)
    assert set(re.findall(r"https?://[^\"<\s]+", page)) == {"http://www.w3.org/2000/svg"}


def test_page_says_what_was_measured(synthetic: Any, tmp_path: Path) -> None:
    stats = [
        DirectionStats(
            link="uu1", from_device="a", to_device="b", forwarded=4000, dropped=0, late=20, worst_late_us=900.0
        )
    ]
    paper = ((14.0, 2.87), (7.0, 1.44))
    page = make(tmp_path, synthetic, internet=internet(synthetic), delay_stats=stats, paper_migrations_s=paper)

    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    assert ["eNB2 before migration", "12.00", "12.00", "400", "0"] in rows
    assert ["eNB1 → eNB2", "2.50", "3.25", "34.0", "2"] in rows
    assert ["c1 → c2", "1200", "14000", "20.0", "2870", "26.0", "2"] in rows
    assert "Of 4000 frames it sent 20 (0.50 %) more than 0.5 ms late, the worst by 0.9 ms" in page


def test_every_ping_and_every_loss_is_drawn(synthetic: Any, tmp_path: Path) -> None:
    make(tmp_path, synthetic)

    root = ET.parse(tmp_path / "rtt.svg").getroot()
    paths = {path.attrib["class"]: path.attrib["d"] for path in root.iter(f"{SVG}path")}
    answered = sum(p.received_ns is not None for p in synthetic.pings)
    # A dot more for each colour of the legend.
    drawn = sum(path.attrib["d"].count("h0") for path in root.iter(f"{SVG}path") if "large" not in path.attrib["class"])
    assert drawn == answered
    assert paths["loss"].count("M") == len(synthetic.pings) - answered == 8


def test_ladder_tells_the_story_in_order(synthetic: Any, tmp_path: Path) -> None:
    make(tmp_path, synthetic)

    labels = [box[0] for box in sorted(boxes(tmp_path / "ladder.svg"), key=lambda box: box[2])]
    wanted = [
        "Attach: context set up",
        "personal VM runs",
        "S1 handover begins",
        "Handover Required",
        "Handover Request Acknowledge",
        "rules stand ready by way of c1",
        "Handover Command",
        "Handover Notify",
        "downlink flips to c2",
        "migration begins",
        "path flips to the VM here",
        "moved in 1200 ms, stood 20 ms",
    ]
    places = [labels.index(label) for label in wanted]
    assert places == sorted(places)


def test_page_without_any_ping_or_event_is_a_page(tmp_path: Path) -> None:
    data = RunData(ue="none", pings=[], events=[], results=results.compute([], []), delay_engine="netem")

    page = write_page(tmp_path, data, {}).read_text()

    assert "the kernel's netem" in page
    assert overlaps(tmp_path / "rtt.svg") == []


def test_names_from_outside_are_escaped(synthetic: Any, tmp_path: Path) -> None:
    data = RunData(
        ue="<script>",
        pings=synthetic.pings,
        events=synthetic.events,
        results=results.compute(synthetic.pings, synthetic.events),
        delay_engine="netem",
        scenario="a & b",
    )

    page = write_page(tmp_path, data, {}).read_text()

    assert page.count("<script>") == 1
    assert "a &amp; b" in page
    ET.parse(tmp_path / "rtt.svg")


def test_scale_shows_milliseconds_and_outliers_at_once() -> None:
    scale = RttScale.fit([8.2] * 500 + [12.3] * 480 + [900.0], top=0, bottom=400)

    assert scale.y(8.2) - scale.y(12.3) > 60
    assert 0 <= scale.y(900) < scale.y(100) < scale.y(scale.knee) < scale.y(12.3) < 400
    labelled = [scale.y(tick) for tick in scale.ticks()]
    assert all(a - b >= 15 for a, b in itertools.pairwise(labelled))


@pytest.mark.parametrize("rtts", [[], [8.0], [8.0] * 100, [0.01, 0.02], [70.0, 5000.0]])
def test_scale_fits_whatever_was_measured(rtts: list[float]) -> None:
    scale = RttScale.fit(rtts, top=0, bottom=400)

    assert all(0 <= scale.y(rtt) <= 400 for rtt in rtts)
    assert scale.ticks()


@pytest.mark.parametrize(("span", "most", "step"), [(24, 13, 2), (0.9, 9, 0.1), (1000, 4, 500), (0, 5, 1)])
def test_steps_are_round(span: float, most: int, step: float) -> None:
    assert nice_step(span, most) == pytest.approx(step)
    assert len(ticks(0, span, most)) <= most + 1


@pytest.mark.skipif(not png.available(), reason="rsvg-convert is not installed")
def test_pictures_are_drawn_as_png_but_none_that_is_too_tall(tmp_path: Path) -> None:
    for name, height in (("small", 100), ("tall", 20_000), ("endless", 40_000)):
        (tmp_path / f"{name}.svg").write_text(Drawing(200, height, name).render_file())
    png.beside(sorted(tmp_path.glob("*.svg")))
    sizes = {
        file.stem: (int.from_bytes(file.read_bytes()[16:20]), int.from_bytes(file.read_bytes()[20:24]))
        for file in tmp_path.glob("*.png")
    }
    assert sizes == {"small": (600, 300), "tall": (320, 32_000)}
