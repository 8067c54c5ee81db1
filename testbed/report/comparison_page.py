"""The report of a comparison: for each metric the columns with their confidence intervals, as a table and as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from testbed.report import png
from testbed.report.experiment_page import metric_name, summary_cell
from testbed.report.page import resource, table
from testbed.report.svg import SMALL, Drawing, style_sheet, text_width, ticks

WIDTH: Final = 760.0
ROW: Final = 22.0
TOP: Final = 34.0

Columns = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By column and metric, the estimates."""


def write(out: Path, sources: Sequence[Mapping[str, Any]], columns: Columns) -> Path:
    """Write page and plots; gives the page's path."""
    metrics = list(dict.fromkeys(metric for column in columns.values() for metric in column))
    caption = "; ".join(f"{s['scenario']}, seed {s['seed']}, commit {s['commit']}" for s in sources)
    plots = {
        metric: draw(metric_name(metric), {name: column.get(metric) for name, column in columns.items()}, caption)
        for metric in metrics
    }
    for metric, plot in plots.items():
        (out / f"{metric}.svg").write_text(plot.render_file())
    rows = [
        (metric_name(metric), *(summary_cell(column.get(metric)) for column in columns.values())) for metric in metrics
    ]
    figures = "\n".join(f"<figure>{plot.render()}</figure>" for plot in plots.values())
    keys = ("directory", "scenario", "seed", "repetitions", "commit")
    experiments = table("", keys, [[str(source[key]) for key in keys] for source in sources], main=-1, words=2)
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MobiScud: comparison</title>
<style>
{resource("page.css")}
{style_sheet()}
</style>
</head>
<body>
<header>
<h1>Comparison</h1>
<p class="lead">Means over the repetitions; where there are several, with 95 % confidence intervals (Student's t).</p>
</header>
<section>
<h2>Experiments</h2>
<div class="scroll">
{experiments}
</div>
</section>
<section>
<h2>Figures</h2>
<div class="scroll">
{table("", ("", *columns), rows, main=-1)}
</div>
</section>
<section>
<h2>Plots</h2>
<p>A point is a mean, a bar its confidence interval.</p>
<div class="pair">
{figures}
</div>
</section>
</body>
</html>
"""
    path = out / "report.html"
    path.write_text(page)
    png.beside(sorted(out.glob("*.svg")))
    return path


def draw(title: str, estimates: Mapping[str, Mapping[str, Any] | None], caption: str) -> Drawing:
    """The estimates of one metric, a row each, on one axis that begins at nought."""
    left = 24 + max([text_width(name, SMALL) for name in estimates], default=60.0)
    right = WIDTH - 92
    bottom = TOP + ROW * len(estimates)
    picture = Drawing(WIDTH, bottom + 46, title)
    known = [estimate for estimate in estimates.values() if estimate is not None]
    highest = max([estimate["ci95"][1] if estimate["ci95"] else estimate["mean"] for estimate in known], default=1.0)
    high = highest * 1.06 or 1.0

    def x(value: float) -> float:
        return left + (right - left) * min(max(value / high, 0.0), 1.0)

    picture.text(14, 20, title, "heading")
    for value in ticks(0, high, 7):
        picture.line(x(value), TOP - 4, x(value), bottom, "grid")
        picture.text(x(value), bottom + 16, f"{value:g}", "small muted figure", anchor="middle")
    picture.line(left, bottom, right, bottom, "axis")
    for number, (name, estimate) in enumerate(estimates.items()):
        y = TOP + ROW * (number + 0.5)
        colour = number % 6 + 1
        picture.text(left - 10, y + 4, name, "small", anchor="end")
        if estimate is None:
            continue
        if estimate["ci95"]:
            low, up = (x(bound) for bound in estimate["ci95"])
            picture.path(f"M{low:.1f} {y:.1f}H{up:.1f}", f"s{colour} bar")
            picture.path("".join(f"M{bound:.1f} {y - 5:.1f}v10" for bound in (low, up)), f"s{colour} bar")
        picture.circle(x(estimate["mean"]), y, 4, f"f{colour}")
        picture.text(right + 8, y + 4, f"{estimate['mean']:.4g}", f"small figure t{colour}")
    picture.text(14, bottom + 38, caption, "tiny muted")
    return picture
