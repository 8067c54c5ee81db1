"""The scheduling core of the delay node: frames wait their time in the order in which they came.

No I/O and no clock in here; the caller says what time it is, in nanoseconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

NEVER: Final = 1 << 63
"""Later than any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one direction does to frames: ``jitter_ms`` is the most a delay differs from its middle, either way, each
    value as likely; ``loss_percent`` is each frame's own chance; ``rate_mbit_s`` of frames with their headers, 0 for
    no limit. Frames never overtake each other."""

    delay_ms: float
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    rate_mbit_s: float = 0.0


class DelayQueue:
    """The frames under way in one direction of a link: at most ``capacity``, each for the time its shape gives it."""

    __slots__ = (
        "_capacity",
        "_chance",
        "_delay_ns",
        "_frames",
        "_idle_from",
        "_jitter_ns",
        "_last_due",
        "_loss",
        "_ns_per_octet",
        "dropped",
        "lost",
        "next_due",
    )

    def __init__(self, shape: Shape, capacity: int, chance: Callable[[], float]) -> None:
        """``chance`` gives numbers in [0, 1), as ``random.Random(seed).random`` does."""
        self.next_due = NEVER
        """When the first frame is due."""
        self.dropped = 0
        """Frames that found the queue full."""
        self.lost = 0
        """Frames that were lost because the shape says so."""
        self._delay_ns = round(shape.delay_ms * 1_000_000)
        self._jitter_ns = shape.jitter_ms * 1_000_000
        self._loss = shape.loss_percent / 100
        self._ns_per_octet = 8_000 / shape.rate_mbit_s if shape.rate_mbit_s else 0.0
        self._capacity = capacity
        self._chance = chance
        self._frames: deque[tuple[int, bytes]] = deque()
        self._last_due = 0
        self._idle_from = 0

    def push(self, frame: bytes, arrived: int) -> None:
        """Take a frame. It never overtakes an earlier one, even when its time of arrival claims so."""
        if self._loss and self._chance() < self._loss:
            self.lost += 1
            return
        if len(self._frames) >= self._capacity:
            self.dropped += 1
            return
        due = arrived + self._delay_ns
        if self._ns_per_octet:
            self._idle_from = max(self._idle_from, arrived) + round(len(frame) * self._ns_per_octet)
            due += self._idle_from - arrived
        if self._jitter_ns:
            due += round((2 * self._chance() - 1) * self._jitter_ns)
        self._last_due = max(self._last_due, due)
        if not self._frames:
            self.next_due = self._last_due
        self._frames.append((self._last_due, frame))

    def pop(self, now: int) -> tuple[int, bytes] | None:
        """Take out the first frame, with the time at which it was due, if that has come."""
        if now < self.next_due:
            return None
        first = self._frames.popleft()
        self.next_due = self._frames[0][0] if self._frames else NEVER
        return first
