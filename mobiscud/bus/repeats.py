"""The bus delivers at least once, and monitors may be doubled: equal facts have equal ids, and are taken once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 65_536


class Repeats:
    """Knows the ids of the last events."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, event_id: str) -> bool:
        """Whether this id comes for the first time; from now on it does not."""
        if event_id in self._seen:
            return False
        self._seen[event_id] = None
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True
