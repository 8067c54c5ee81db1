"""What is still to happen, in order: a queue that stays quick however many wait in it for later in the day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Final

WIDTH_S: Final = 1.0
"""What is to come is sorted into stretches of this length, and within one only when its turn has come."""

Happening = Callable[..., None]
_Entry = tuple[float, int, Happening, tuple[Any, ...]]


class Moments:
    """Calls to come. Those of one moment come in the order in which they were added.

    Nearly all that is added comes within milliseconds, while every user has one step of its walk waiting, hours away:
    in one heap, each of the many would sink past all of the few hundred thousand.
    """

    def __init__(self) -> None:
        self._now: list[_Entry] = []
        """A heap: what comes before ``_until``."""
        self._until = 0.0
        self._stretches: dict[int, list[_Entry]] = {}
        """What comes later, unsorted."""
        self._numbers: list[int] = []
        """A heap: of which stretches there is something."""
        self._count = 0

    def add(self, at: float, happen: Happening, *about: Any) -> None:
        """Call ``happen(at, *about)`` then."""
        self._count = count = self._count + 1
        if at < self._until:
            heappush(self._now, (at, count, happen, about))
            return
        number = int(at / WIDTH_S)
        stretch = self._stretches.get(number)
        if stretch is None:
            self._stretches[number] = [(at, count, happen, about)]
            heappush(self._numbers, number)
        else:
            stretch.append((at, count, happen, about))

    def __iter__(self) -> Iterator[_Entry]:
        """Each in its turn, also what is added meanwhile."""
        while self._numbers:
            number = heappop(self._numbers)
            self._now = now = self._stretches.pop(number)
            self._until = (number + 1) * WIDTH_S
            heapify(now)
            while now:
                yield heappop(now)
