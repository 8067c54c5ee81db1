"""The scheduling core of the delay node, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from testbed.delay_queue import NEVER, DelayQueue

DELAY = 4_000_000


def drain(queue: DelayQueue, now: int) -> list[bytes]:
    frames = []
    while (popped := queue.pop(now)) is not None:
        frames.append(popped[1])
    return frames


def test_frame_leaves_its_delay_after_it_came() -> None:
    queue = DelayQueue(DELAY, capacity=10)
    queue.push(b"frame", arrived=1000)

    assert queue.next_due == 1000 + DELAY
    assert queue.pop(999 + DELAY) is None
    assert queue.pop(1000 + DELAY) == (1000 + DELAY, b"frame")
    assert queue.next_due == NEVER


def test_late_look_releases_everything_due_in_order() -> None:
    queue = DelayQueue(DELAY, capacity=10)
    for number in range(5):
        queue.push(bytes([number]), arrived=number * 1000)

    assert drain(queue, 3000 + DELAY) == [b"\0", b"\1", b"\2", b"\3"]
    assert queue.next_due == 4000 + DELAY


def test_full_queue_drops_the_newcomer_and_counts_it() -> None:
    queue = DelayQueue(DELAY, capacity=2)
    for frame in (b"a", b"b", b"c"):
        queue.push(frame, arrived=0)

    assert queue.dropped == 1
    assert drain(queue, DELAY) == [b"a", b"b"]
    queue.push(b"d", arrived=DELAY)
    assert queue.dropped == 1


def test_earlier_time_stamp_does_not_overtake() -> None:
    queue = DelayQueue(DELAY, capacity=10)
    queue.push(b"first", arrived=2000)
    queue.push(b"second", arrived=1000)

    assert queue.pop(1000 + DELAY) is None
    assert drain(queue, 2000 + DELAY) == [b"first", b"second"]


@given(st.lists(st.integers(0, 10_000_000), max_size=50), st.integers(0, 1_000_000))
def test_order_is_kept_and_nothing_leaves_early(arrivals: list[int], step: int) -> None:
    queue = DelayQueue(DELAY, capacity=100)
    for number, arrived in enumerate(arrivals):
        queue.push(bytes([number]), arrived)

    out: list[bytes] = []
    now = 0
    while queue.next_due != NEVER:
        now = max(queue.next_due, now + step)
        while (popped := queue.pop(now)) is not None:
            due, frame = popped
            assert arrivals[frame[0]] + DELAY <= due <= now
            out.append(frame)
    assert out == [bytes([number]) for number in range(len(arrivals))]
