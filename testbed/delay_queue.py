"""The scheduling core of the delay node: frames wait their time in the order in which they came.

No I/O and no clock in here; the caller says what time it is, in nanoseconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

NEVER: Final = 1 << 63
"""Later than any time."""


class DelayQueue:
    """The frames under way in one direction of a link: at most ``capacity``, each for ``delay_ns``."""

    __slots__ = ("_capacity", "_delay_ns", "_frames", "_last_due", "dropped", "next_due")

    def __init__(self, delay_ns: int, capacity: int) -> None:
        self.next_due = NEVER
        """When the first frame is due."""
        self.dropped = 0
        """Frames that found the queue full."""
        self._delay_ns = delay_ns
        self._capacity = capacity
        self._frames: deque[tuple[int, bytes]] = deque()
        self._last_due = 0

    def push(self, frame: bytes, arrived: int) -> None:
        """Take a frame. It never overtakes an earlier one, even when its time of arrival claims so."""
        if len(self._frames) >= self._capacity:
            self.dropped += 1
            return
        self._last_due = max(self._last_due, arrived + self._delay_ns)
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
