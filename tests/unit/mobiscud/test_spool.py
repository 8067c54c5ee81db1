"""What waits for the broker keeps its order, and the memory it takes has a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobiscud.bus.spool import Message, Spool

EVENT_SIZE = Message("e", b"000").size


def event(number: int) -> Message:
    return Message("e", b"%03d" % number)


def state(ue: str, value: bytes) -> Message:
    return Message(f"state/{ue}", value, retain=True)


def drained(spool: Spool) -> list[Message]:
    found = []
    while (message := spool.take()) is not None:
        found.append(message)
    assert len(spool) == 0
    return found


def test_first_in_first_out() -> None:
    spool = Spool()
    messages = [event(number) for number in range(10)]
    for message in messages:
        spool.put(message)
    assert drained(spool) == messages
    assert spool.lost == 0


def test_beyond_the_bound_the_oldest_go_and_are_counted() -> None:
    spool = Spool(3 * EVENT_SIZE)
    for number in range(10):
        spool.put(event(number))
    assert spool.lost == 7
    assert drained(spool) == [event(7), event(8), event(9)]


def test_a_message_larger_than_the_bound_still_goes() -> None:
    spool = Spool(10)
    spool.put(event(1))
    assert drained(spool) == [event(1)]


def test_of_a_retained_topic_only_the_last_is_sent() -> None:
    spool = Spool()
    for message in (state("a", b"1"), event(1), state("b", b"1"), state("a", b"2"), event(2)):
        spool.put(message)
    assert drained(spool) == [event(1), state("b", b"1"), state("a", b"2"), event(2)]


def test_the_last_state_outlives_the_bound() -> None:
    spool = Spool(2 * EVENT_SIZE + 8)  # a state takes a little more
    spool.put(state("a", b"1"))
    spool.put(state("b", b"1"))
    for number in range(5):
        spool.put(event(number))
    spool.put(state("b", b"2"))
    assert drained(spool) == [event(4), state("b", b"2"), state("a", b"1")]
    assert spool.lost == 4


def test_what_was_not_delivered_is_first_again() -> None:
    spool = Spool()
    for message in (event(1), state("a", b"1"), event(2), event(3)):
        spool.put(message)
    taken = [spool.take() for _ in range(3)]
    spool.put_back(message for message in taken if message is not None)
    assert drained(spool) == [event(1), state("a", b"1"), event(2), event(3)]


def test_a_state_that_came_back_gives_way_to_a_later_one() -> None:
    spool = Spool()
    spool.put(state("a", b"1"))
    taken = spool.take()
    assert taken is not None
    spool.put(state("a", b"2"))
    spool.put_back([taken])
    assert drained(spool) == [state("a", b"2")]


@given(
    st.lists(st.sampled_from(["event", "a", "b", "take", "put_back"]), max_size=60),
    st.integers(min_value=1, max_value=6),
)
def test_events_stay_in_order_and_the_last_states_survive(steps: list[str], room: int) -> None:
    spool = Spool(room * EVENT_SIZE)
    sent: list[Message] = []
    last: dict[str, Message] = {}
    taken: Message | None = None
    events = 0
    for number, step in enumerate(steps):
        if step == "take":
            taken = spool.take()
            if taken is not None:
                sent.append(taken)
        elif step == "put_back":
            if taken is not None:
                sent.pop()
                spool.put_back([taken])
            taken = None
        elif step == "event":
            spool.put(event(number))
            events += 1
        else:
            last[f"state/{step}"] = state(step, b"%03d" % number)
            spool.put(last[f"state/{step}"])
    sent += drained(spool)
    numbers = [int(message.payload) for message in sent if not message.retain]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + spool.lost == events
    for topic, message in last.items():
        assert [m for m in sent if m.topic == topic][-1] == message
