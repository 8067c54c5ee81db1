"""Where users are over the day, made before the simulation begins: the same walks for every policy.

The area is a grid of square cells, each with an eNodeB and a cloudlet. Each UE has a stream of random numbers of its
own, named by the seed and its number, so that a UE walks the same way however many others there are.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from mobiscud.core.errors import ConfigError
from testbed.simulation.scenario import MobilityConfig, Scenario

IDLE: Final = -1
"""As a cell: the UE goes idle where it is."""
CANCELLED: Final = -2
"""As a cell: a handover is prepared towards the cell that follows, and called off."""
DAY_S: Final = 86_400.0
BACK_S: Final = (2.0, 12.0)
"""How long after a handover a UE that is handed back is, and over again after the same while."""
RETRY_S: Final = 1.0
ATTACHED_S: Final = 10.0
"""Who attaches is connected for this long at least."""


@dataclass(frozen=True, slots=True)
class Grid:
    """``count`` cells in rows of ``columns``; the last row may be short."""

    count: int
    columns: int

    @classmethod
    def of(cls, count: int) -> Grid:
        """Near square, and without a short row where the count allows."""
        side = math.ceil(math.sqrt(count))
        whole = next((columns for columns in range(side, 2 * side) if count % columns == 0), side)
        return cls(count, whole)

    @property
    def rows(self) -> int:
        """How many rows there are, the short one included."""
        return -(-self.count // self.columns)

    def cell(self, x: float, y: float) -> int:
        """The cell at a point, in units of cells; outside of the grid the nearest."""
        column = min(max(int(x), 0), self.columns - 1)
        row = min(max(int(y), 0), self.rows - 1)
        number = row * self.columns + column
        return number if number < self.count else number - self.columns

    def hops(self, a: int, b: int) -> int:
        """How far apart two cells are, counted over edges."""
        rows = abs(a // self.columns - b // self.columns)
        return rows + abs(a % self.columns - b % self.columns)


@dataclass(slots=True)
class Walk:
    """One UE's day: at each time it is in a cell, or goes ``IDLE``, or is nearly (``CANCELLED``) in the next."""

    times: array[float] = field(default_factory=lambda: array("d"))
    cells: array[int] = field(default_factory=lambda: array("i"))

    def add(self, at: float, cell: int) -> None:
        """What comes next, no earlier than what came before."""
        self.times.append(at)
        self.cells.append(cell)


def walks(scenario: Scenario) -> Iterator[Walk]:
    """The walk of each UE.

    :raises ConfigError: a trace that cannot be read
    """
    mobility, grid = scenario.mobility, Grid.of(scenario.cloudlets)
    until = scenario.hours * 3600
    if mobility.file is not None:
        yield from _trace(mobility, scenario, until)
        return
    roads = _manhattan if mobility.model == "manhattan" else _straight
    chance = random.Random()
    for number in range(scenario.ues):
        chance.seed(f"{scenario.seed}/{number}")
        yield _live(mobility, grid, chance, roads, until)


Point = tuple[float, float]
Roads = Callable[[MobilityConfig, Grid, random.Random, Point], list[Point]]


def _live(mobility: MobilityConfig, grid: Grid, chance: random.Random, roads: Roads, until: float) -> Walk:
    """Rest and walk in turn, from somewhere in the area, until the day is over."""
    walk = Walk()
    here = (chance.uniform(0, grid.columns), chance.uniform(0, grid.rows))
    cell = grid.cell(*here)
    walk.add(0.0, cell)
    at = 0.0
    rested = -chance.expovariate(1 / mobility.rest_s)  # the day begins in the middle of a rest
    while True:
        rest_s = chance.expovariate(1 / mobility.rest_s)
        while chance.random() > _liveliness(at + rest_s):
            rest_s += chance.expovariate(1 / mobility.rest_s)
        active_s = chance.expovariate(1 / mobility.active_s)
        at += rest_s
        idle_at = max(rested + active_s, ATTACHED_S)
        if idle_at < min(at, until):
            walk.add(idle_at, IDLE)
            if at < until:
                walk.add(at, cell)
        if at >= until:
            return walk
        speed = chance.choice(mobility.speeds_m_s) / mobility.cell_m
        for there in roads(mobility, grid, chance, here):
            for share, crossed in _crossings(grid, here, there):
                _hand_over(mobility, walk, chance, at + share * math.dist(here, there) / speed, cell, crossed, until)
                cell = crossed
            at += math.dist(here, there) / speed
            here = there
        rested = at = max(at, walk.times[-1])


def _liveliness(at: float) -> float:
    """How many set out, of those by day: a third at three in the night, all at three in the afternoon."""
    return 2 / 3 - math.cos(2 * math.pi * (at / DAY_S - 0.125)) / 3


def _hand_over(
    mobility: MobilityConfig, walk: Walk, chance: random.Random, at: float, left: int, entered: int, until: float
) -> None:
    """Into the next cell; at the border some are called off first, and some go to and fro."""
    at = max(at, walk.times[-1])
    steps = [(0.0, entered)]
    luck = chance.random()
    if luck < mobility.cancelled:
        steps = [(0.0, CANCELLED), (RETRY_S, entered)]
    elif luck < mobility.cancelled + mobility.ping_pong:
        back_s = chance.uniform(*BACK_S)
        steps += [(back_s, left), (2 * back_s, entered)]
    for after_s, cell in steps:
        if at + after_s < until:
            walk.add(at + after_s, cell)


def _straight(mobility: MobilityConfig, grid: Grid, chance: random.Random, here: Point) -> list[Point]:
    """Random waypoint: somewhere around."""
    length = chance.expovariate(mobility.cell_m / mobility.leg_m)
    angle = chance.uniform(0, 2 * math.pi)
    x = _inside(here[0] + length * math.cos(angle), grid.columns)
    y = _inside(here[1] + length * math.sin(angle), grid.rows)
    return [(x, y)]


def _manhattan(mobility: MobilityConfig, grid: Grid, chance: random.Random, here: Point) -> list[Point]:
    """To the nearest corner, then along streets: at each second crossing on average round a corner."""
    block = mobility.block_m / mobility.cell_m
    x, y = (round(part / block) * block for part in here)
    blocks = max(round(chance.expovariate(mobility.block_m / mobility.leg_m)), 1)
    corners = [(x, y)]
    heading = chance.randrange(4)
    while blocks > 0:
        run = min(1 + (chance.random() < 0.5) + (chance.random() < 0.25), blocks)
        blocks -= run
        dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[heading]
        x, y = x + dx * run * block, y + dy * run * block
        if not (0 <= x < grid.columns and 0 <= y < grid.rows):
            x, y = _inside(x, grid.columns), _inside(y, grid.rows)
            heading += 2
        corners.append((x, y))
        heading = (heading + chance.choice((1, 3))) % 4
    return corners


def _inside(value: float, size: int) -> float:
    """Turned back at the border of the area."""
    value = abs(value) % (2 * size)
    return min(value if value < size else 2 * size - value, size - 1e-9)


def _crossings(grid: Grid, here: Point, there: Point) -> list[tuple[float, int]]:
    """Where a straight way enters another cell: as a share of the way, and which."""
    (x, y), (to_x, to_y) = here, there
    shares = []
    for start, end in ((x, to_x), (y, to_y)):
        if int(start) != int(end):
            low, high = sorted((start, end))
            shares += [(line - start) / (end - start) for line in range(math.floor(low) + 1, math.floor(high) + 1)]
    shares.sort()
    found = []
    cell = grid.cell(x, y)
    for number, share in enumerate(shares):
        after = (share + (shares[number + 1] if number + 1 < len(shares) else 1.0)) / 2
        entered = grid.cell(x + (to_x - x) * after, y + (to_y - y) * after)
        if entered != cell:
            found.append((share, entered))
            cell = entered
    if (last := grid.cell(to_x, to_y)) != cell:  # a hair's breadth behind the border
        found.append((1.0, last))
    return found


def _trace(mobility: MobilityConfig, scenario: Scenario, until: float) -> Iterator[Walk]:
    found = [Walk() for _ in range(scenario.ues)]
    assert mobility.file is not None
    try:
        lines = mobility.file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mobility.file: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(("#", "ue")):
            continue
        try:
            ue, at, cell = line.split(",")
            walk, seconds, place = found[int(ue)], float(at), int(cell)
            if int(ue) < 0 or not 0 <= place < scenario.cloudlets or not math.isfinite(seconds):
                raise ValueError
            if seconds < (walk.times[-1] if walk.times else 0.0):
                raise ValueError
        except (ValueError, IndexError):
            raise ConfigError(
                f"{mobility.file}:{number}: not ue,seconds,cell with a UE below {scenario.ues}, a cell below"
                f" {scenario.cloudlets}, and times that do not fall: {line!r}"
            ) from None
        if seconds < until and not (walk.cells and walk.cells[-1] == place):
            walk.add(seconds, place)
    yield from found
