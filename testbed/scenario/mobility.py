"""From the mobility of a scenario to what each UE does and when. Pure: the same scenario, the same plan."""

from __future__ import annotations

import csv
import functools
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from mobiscud.core.errors import ConfigError
from testbed.scenario.schema import Scenario, UeGroup
from testbed.scenario.steps import (
    HandoverKind,
    HandoverStep,
    Highway,
    PingPong,
    RandomWalk,
    Step,
    Trace,
    Walk,
)

ReadTrace = Callable[[str], str]
"""Gives the text of a trace by the name that the scenario has for it."""

Leg = tuple[float, int]
"""A time in seconds, and the cell to which the UE goes then."""


def plan(scenario: Scenario, repetition: int, read_trace: ReadTrace) -> dict[int, list[Step]]:
    """The steps of each UE, by its number; those at times in their order, those at states after them.

    ``repetition``, from 1, is part of the seed: repetitions differ in what is random, and in nothing else.

    :raises ConfigError: a trace that is no trace
    """
    plans: dict[int, list[Step]] = {}
    for group in scenario.ues:
        _, numbers = scenario.group(group.name)
        for member, number in enumerate(numbers, start=1):
            chance = random.Random(f"{scenario.seed}/{repetition}/{group.name}/{member}")
            steps = [*group.steps, *_handovers(scenario, group, member, chance, read_trace)]
            timed = sorted((step for step in steps if step.at_s is not None), key=lambda step: step.at_s or 0.0)
            plans[number] = [*timed, *(step for step in steps if step.at_s is None)]
    return plans


def start_cell(group: UeGroup, member: int, read_trace: ReadTrace) -> int:
    """Where a UE of the group is at first: at the first cell of its trace, walk or pair, else at the group's."""
    match group.mobility:
        case Walk(cells=cells):
            return cells[0]
        case PingPong(between=between):
            return between[0]
        case Trace(file=file):
            return next((cell for _, cell in _trace(read_trace(file), member)), group.cell)
    return group.cell


def _handovers(
    scenario: Scenario, group: UeGroup, member: int, chance: random.Random, read_trace: ReadTrace
) -> Iterator[HandoverStep]:
    mobility = group.mobility
    legs: Iterator[Leg]
    patient = False
    match mobility:
        case None:
            return
        case Walk():
            legs = ((mobility.first_s + n * mobility.stay_s, cell) for n, cell in enumerate(mobility.cells[1:]))
            patient = mobility.patient
        case PingPong():
            there = (mobility.between[1], mobility.between[0])
            legs = ((mobility.first_s + n * mobility.stay_s, there[n % 2]) for n in range(mobility.times))
        case Highway():
            legs = _drive(mobility, group.cell, scenario.network.cells, member)
        case RandomWalk():
            legs = _wander(mobility, group.cell, scenario.network.cells, scenario.duration_s, chance)
        case Trace():
            found = list(_trace(read_trace(mobility.file), member))
            legs = ((at, cell) for (_, before), (at, cell) in pairwise(found) if cell != before)
    kinds = _kinds(mobility.kind)
    for at_s, cell in legs:
        if at_s >= scenario.duration_s:
            return
        if cell > scenario.network.cells:
            raise ConfigError(f"ues {group.name!r}: there is no cell {cell}")
        yield HandoverStep(do="handover", at_s=at_s, to=cell, kind=next(kinds), patient=patient)


def _kinds(kind: str) -> Iterator[HandoverKind]:
    while True:
        if kind != "x2":
            yield "s1"
        if kind != "s1":
            yield "x2"


def _drive(highway: Highway, first: int, cells: int, member: int) -> Iterator[Leg]:
    crossing_s = highway.cell_m / (highway.speed_kmh / 3.6)
    at_s = (member - 1) * highway.headway_s
    way = [*range(first + 1, cells + 1), *range(cells - 1, 0, -1)]
    for lap in range(highway.laps):
        for cell in way if lap == 0 else [*range(2, cells + 1), *range(cells - 1, 0, -1)]:
            at_s += crossing_s
            yield at_s, cell


def _wander(walk: RandomWalk, first: int, cells: int, duration_s: float, chance: random.Random) -> Iterator[Leg]:
    at_s, cell = 0.0, first
    while cells > 1 and (at_s := at_s + chance.expovariate(1 / walk.mean_stay_s)) < duration_s:
        cell = chance.choice([near for near in (cell - 1, cell + 1) if 1 <= near <= cells])
        yield at_s, cell


def _trace(text: str, member: int) -> Sequence[Leg]:
    return _legs(text).get(member, ())


@functools.lru_cache(maxsize=4)
def _legs(text: str) -> Mapping[int, Sequence[Leg]]:
    """Those of all members, in the order of time: a trace of a thousand UEs is asked for as often."""
    found: dict[int, list[Leg]] = {}
    try:
        for row in csv.DictReader(io.StringIO(text)):
            found.setdefault(int(row["ue"]), []).append((float(row["time_s"]), int(row["cell"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"not a trace of lines time_s,ue,cell: {error}") from error
    return {member: sorted(legs) for member, legs in found.items()}
