"""A little SVG: shapes with CSS classes, so that one style sheet serves page and file, light and dark."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from typing import Final, Literal

Anchor = Literal["start", "middle", "end"]

FONT_SIZE: Final = 13.0
SMALL: Final = 11.5
_MEAN_GLYPH: Final = 0.56
"""Mean width of a letter in a sans-serif font, as a part of the font size; on the safe side."""


class Drawing:
    """A picture in user units (CSS pixels at full size)."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width = width
        self.height = height
        self.attributes: dict[str, str] = {}
        """More attributes of the ``svg`` element, for scripts."""
        self._title = title
        self._parts: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, css: str, *, r: float = 0, tip: str = "") -> None:
        """A rectangle; ``tip`` is shown when the pointer rests on it."""
        corner = f' rx="{r:g}"' if r else ""
        self._add(
            f'<rect class="{css}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"{corner}',
            tip,
            "rect",
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        self._parts.append(f'<line class="{css}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>')

    def path(self, d: str, css: str) -> None:
        """A path, in SVG's own language."""
        if d:
            self._parts.append(f'<path class="{css}" d="{d}"/>')

    def dots(self, points: Iterable[tuple[float, float]], css: str) -> None:
        """Points as one path of strokes without length: a tenth of the size of as many circles."""
        self.path("".join(f"M{_n(x)} {_n(y)}h0" for x, y in points), css)

    def circle(self, x: float, y: float, radius: float, css: str) -> None:
        """A circle."""
        self._parts.append(f'<circle class="{css}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"/>')

    def text(self, x: float, y: float, content: str, css: str = "", *, anchor: Anchor = "start") -> None:
        """A line of text on the base line ``y``."""
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self._parts.append(f'<text class="{css}" x="{_n(x)}" y="{_n(y)}"{where}>{escape(content)}</text>')

    def text_up(self, x: float, y: float, content: str, css: str = "") -> None:
        """A line of text that runs upwards, centred on the point."""
        where = f"translate({_n(x)} {_n(y)}) rotate(-90)"
        self._parts.append(f'<text class="{css}" text-anchor="middle" transform="{where}">{escape(content)}</text>')

    def arrow(self, x1: float, x2: float, y: float, css: str) -> None:
        """A level arrow from ``x1`` to ``x2``."""
        back = -7 if x2 > x1 else 7
        self.line(x1, y, x2 + back / 2, y, css)
        self.path(f"M{_n(x2)} {_n(y)}l{back} -4v8z", f"{css} head")

    def render(self) -> str:
        """For a page that has the style sheet."""
        return "\n".join(self._lines(standalone=False))

    def render_file(self) -> str:
        """As a file of its own."""
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + "\n".join(self._lines(standalone=True)) + "\n"

    def _lines(self, *, standalone: bool) -> Iterator[str]:
        more = "".join(f' {name}="{escape(value)}"' for name, value in self.attributes.items())
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {_n(self.width)} {_n(self.height)}"'
            f' width="{_n(self.width)}" height="{_n(self.height)}" role="img"{more}>'
        )
        yield f"<title>{escape(self._title)}</title>"
        if standalone:
            yield f"<style>{print_style_sheet()}</style>"
            yield '<rect class="ground" width="100%" height="100%"/>'
        yield from self._parts
        yield "</svg>"

    def _add(self, opening: str, tip: str, name: str) -> None:
        self._parts.append(f"{opening}><title>{escape(tip)}</title></{name}>" if tip else f"{opening}/>")


def style_sheet() -> str:
    """The colours and lines of all plots."""
    return resources.files("testbed.report").joinpath("plot.css").read_text()


def print_style_sheet() -> str:
    """The same for a file, in the colours of print and without variables: programs that are no browsers read it too."""
    sheet = style_sheet()
    printed = re.search(r"@media print \{ \.plot \{(.*?)\} \}", sheet, re.DOTALL)
    plain = re.sub(r"@media .*?\} \}\n", "", sheet, flags=re.DOTALL)
    colours = dict(re.findall(r"(--[a-z0-9]+): ([^;]+);", plain + (printed[1] if printed else "")))
    plain = re.sub(r"--[a-z0-9]+: [^;]+;\s*", "", plain)
    return re.sub(r"var\((--[a-z0-9]+)\)", lambda name: colours[name[1]], plain)


def text_width(content: str, size: float = FONT_SIZE) -> float:
    """About how wide a text is; on the safe side."""
    return len(content) * _MEAN_GLYPH * size


def nice_step(span: float, most: int) -> float:
    """The step 1, 2 or 5 times a power of ten that cuts ``span`` into at most ``most`` pieces."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= most)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    step = nice_step(high - low, most)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _n(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
