"""The simulation's queue of what is still to happen."""

from __future__ import annotations

import random

from testbed.simulation.moments import Moments


def test_each_comes_in_its_turn_and_those_of_one_moment_as_they_were_added() -> None:
    chance, moments = random.Random(7), Moments()
    heard: list[tuple[float, int]] = []
    added: list[tuple[float, int]] = []

    def add(at: float) -> None:
        added.append((at, len(added)))
        moments.add(at, happen, len(added) - 1)

    def happen(now: float, number: int) -> None:
        heard.append((now, number))
        if len(added) < 3000:  # now, soon, at the next full second, and much later
            for after_s in chance.sample((0.0, 0.002, 1.0 - now % 1.0, 0.7, 5000.0), 2):
                add(now + after_s)

    for _ in range(200):
        add(round(chance.uniform(0.0, 20.0), 1))
    for now, _, what, about in moments:
        what(now, *about)
    assert heard == sorted(added)
    assert len(heard) >= 3000
