"""Knows again what it has heard not long ago."""

from __future__ import annotations

from typing import Final

LONG_NS: Final = 60_000_000_000
"""Longer than anybody repeats a request (TS 29.274 7.6); a node that has restarted may begin its numbers anew."""


class Repetitions:
    """Marks of datagrams, ``most`` of them or one more, in two halves: when the younger is full, the older goes.

    So there is nothing to keep in order, and no mark is looked at again only to be dropped.
    """

    __slots__ = ("_begun", "_half", "_older", "_younger")

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._younger: dict[int, int] = {}  # mark -> when it was last heard
        self._older: dict[int, int] = {}
        self._begun = 0  # when the younger half was

    def heard(self, what: bytes, at: int) -> bool:
        """Note it, heard ``at`` nanoseconds; whether exactly this was heard in the minute before."""
        mark, younger = hash(what), self._younger
        before = younger.get(mark)
        if before is None:
            before = self._older.get(mark)
        younger[mark] = at
        if len(younger) > self._half or abs(at - self._begun) > LONG_NS:
            self._older, self._younger, self._begun = younger, {}, at
        return before is not None and abs(at - before) < LONG_NS
