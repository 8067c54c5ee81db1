"""An event that comes twice is taken once."""

from mobiscud.bus.repeats import Repeats


def test_each_id_is_new_once() -> None:
    repeats = Repeats()
    assert [repeats.is_new(event_id) for event_id in "abacb"] == [True, True, False, True, False]


def test_the_memory_has_a_bound() -> None:
    repeats = Repeats(limit=2)
    assert [repeats.is_new(event_id) for event_id in "abca"] == [True, True, True, True]
    assert not repeats.is_new("c")
