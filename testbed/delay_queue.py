"""The scheduling core of the delay node: frames wait their time in the order in which they came.

No I/O and no clock in here; the caller says what time it is, in nanoseconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque


class DelayQueue:
    """The frames under way in one direction of a link: at most ``capacity``, each for ``delay_ns``."""

    def __init__(self, delay_ns: int, capacity: int) -> None:
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
        self._frames.append((self._last_due, frame))

    @property
    def next_due(self) -> int | None:
        """When the first frame is due; ``None`` when none is under way."""
        return self._frames[0][0] if self._frames else None

    def pop(self, now: int) -> tuple[int, bytes] | None:
        """Take out the first frame, with the time at which it was due, if that has come."""
        if self._frames and self._frames[0][0] <= now:
            return self._frames.popleft()
        return None
