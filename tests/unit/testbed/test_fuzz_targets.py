"""The fuzz targets take what the fuzzer begins with, and plain damage to it, so that a fuzz run finds only news."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from testbed.fuzz_targets import TARGETS, seeds

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_damaged_seeds(name: str) -> None:
    chance = random.Random(36413)
    inputs = list(seeds(name, CAPTURES))
    assert inputs
    for seed in chance.sample(inputs, min(60, len(inputs))):
        TARGETS[name](seed)
        for _ in range(3):
            damaged = bytearray(seed)
            for _ in range(4):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            TARGETS[name](bytes(damaged[: chance.randrange(1, 2 * len(damaged))]))
