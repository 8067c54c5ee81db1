"""What was heard in the minute before is known again, and there is an end to what is remembered."""

from __future__ import annotations

import random

from epc_monitor.ue_tracker.repetitions import LONG_NS, Repetitions


def test_only_the_same_is_a_repetition() -> None:
    repetitions = Repetitions(100)
    assert [repetitions.heard(what, 5) for what in (b"a", b"b", b"a", b"ab")] == [False, False, True, False]


def test_a_minute_counts_from_the_last_time() -> None:
    repetitions = Repetitions(100)
    at = 1_700_000_000_000_000_000
    assert not repetitions.heard(b"a", at)
    assert repetitions.heard(b"a", at + LONG_NS - 1)
    assert repetitions.heard(b"a", at + 2 * LONG_NS - 2)
    assert not repetitions.heard(b"a", at + 3 * LONG_NS)


def test_a_clock_that_is_set_back_changes_nothing() -> None:
    repetitions = Repetitions(100)
    assert [repetitions.heard(b"a", at) for at in (LONG_NS, 1, LONG_NS, 1)] == [False, True, True, True]
    assert not repetitions.heard(b"a", 10 * LONG_NS)


def test_the_last_ones_are_known_and_the_number_is_bounded() -> None:
    repetitions = Repetitions(100)
    chance = random.Random(1)
    said: list[bytes] = []
    for number in range(5000):
        if said and chance.random() < 0.3:
            assert repetitions.heard(chance.choice(said[-20:]), number)
        else:
            said.append(number.to_bytes(2, "big"))
            assert not repetitions.heard(said[-1], number)
        assert len(repetitions._younger) + len(repetitions._older) <= 101
    assert not repetitions.heard(said[0], 5000)
