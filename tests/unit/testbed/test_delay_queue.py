"""The scheduling core of the delay node, in virtual time."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from testbed.delay_queue import NEVER, DelayQueue, Shape

DELAY = 4_000_000
MS = 1_000_000


def make(capacity: int, **shape: float) -> DelayQueue:
    return DelayQueue(Shape(**{"delay_ms": 4, **shape}), capacity, random.Random(1).random)


def drain(queue: DelayQueue, now: int) -> list[bytes]:
    frames = []
    while (popped := queue.pop(now)) is not None:
        frames.append(popped[1])
    return frames


def test_frame_leaves_its_delay_after_it_came() -> None:
    queue = make(capacity=10)
    queue.push(b"frame", arrived=1000)

    assert queue.next_due == 1000 + DELAY
    assert queue.pop(999 + DELAY) is None
    assert queue.pop(1000 + DELAY) == (1000 + DELAY, b"frame")
    assert queue.next_due == NEVER


def test_late_look_releases_everything_due_in_order() -> None:
    queue = make(capacity=10)
    for number in range(5):
        queue.push(bytes([number]), arrived=number * 1000)

    assert drain(queue, 3000 + DELAY) == [b"\0", b"\1", b"\2", b"\3"]
    assert queue.next_due == 4000 + DELAY


def test_full_queue_drops_the_newcomer_and_counts_it() -> None:
    queue = make(capacity=2)
    for frame in (b"a", b"b", b"c"):
        queue.push(frame, arrived=0)

    assert queue.dropped == 1
    assert drain(queue, DELAY) == [b"a", b"b"]
    queue.push(b"d", arrived=DELAY)
    assert queue.dropped == 1


def test_earlier_time_stamp_does_not_overtake() -> None:
    queue = make(capacity=10)
    queue.push(b"first", arrived=2000)
    queue.push(b"second", arrived=1000)

    assert queue.pop(1000 + DELAY) is None
    assert drain(queue, 2000 + DELAY) == [b"first", b"second"]


@given(st.lists(st.integers(0, 10_000_000), max_size=50), st.integers(0, 1_000_000))
def test_order_is_kept_and_nothing_leaves_early(arrivals: list[int], step: int) -> None:
    queue = make(capacity=100)
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


def test_jitter_spreads_the_delay_both_ways_and_keeps_order() -> None:
    queue = make(capacity=5000, jitter_ms=2)
    apart = 10 * MS
    for number in range(2000):
        queue.push(number.to_bytes(2), arrived=number * apart)
    dues = []
    while queue.next_due != NEVER:
        popped = queue.pop(queue.next_due)
        assert popped is not None
        dues.append(popped[0])
    delays = sorted(due - number * apart for number, due in enumerate(dues))
    assert dues == sorted(dues)
    assert 2 * MS <= delays[0] < 2.1 * MS
    assert 5.9 * MS < delays[-1] <= 6 * MS
    assert abs(delays[1000] - 4 * MS) < 0.2 * MS


def test_loss_takes_its_share_and_counts_it() -> None:
    queue = make(capacity=20_000, loss_percent=5)
    for _ in range(10_000):
        queue.push(b"frame", arrived=0)
    assert 400 < queue.lost < 600
    assert len(drain(queue, DELAY)) == 10_000 - queue.lost
    assert queue.dropped == 0


def test_rate_spaces_frames_by_the_time_each_takes() -> None:
    queue = make(capacity=10, rate_mbit_s=8)  # an octet takes a microsecond
    for _ in range(3):
        queue.push(bytes(1000), arrived=0)
    queue.push(bytes(500), arrived=10 * MS)
    dues = [popped[0] for popped in (queue.pop(1 << 62) for _ in range(4)) if popped is not None]
    assert dues == [DELAY + MS, DELAY + 2 * MS, DELAY + 3 * MS, DELAY + 10 * MS + MS // 2]
