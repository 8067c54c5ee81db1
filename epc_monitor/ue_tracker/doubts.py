"""Facts that hold unless somebody who has not said his name yet turns out to be the UE they are about.

A UE that comes with a temporary identity we do not know (ciphering hides new ones) is a stranger until its bearers
tell who it is. When meanwhile a connected UE is released, or its last session deleted, that may be the end of its
connection, or the MME clearing up because the stranger is that UE. So the fact waits until all strangers who were there
are known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from epc_monitor.ue_tracker.facts import Facts
from epc_monitor.ue_tracker.state import MmeNode, S1Connection, Ue

PATIENCE_NS: Final = 30_000_000_000
"""A stranger who has not been served after so long will not be (NAS guard timers are shorter, TS 24.301 10.2)."""

When = tuple[int, bytes]
"""Time and place of the message that completed a fact."""


class _Doubt(NamedTuple):
    when: When
    until: int
    """The number of the last stranger who was there."""
    settle: Callable[[When], None]


class Doubts:
    """Knows the strangers, and keeps what is uncertain because of them."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._count = 0
        self._strangers: dict[S1Connection, tuple[int, int]] = {}  # its number, and when it came
        self._waiting: dict[Ue, _Doubt] = {}

    def came(self, connection: S1Connection) -> None:
        """A UE has come that we do not know."""
        self._count += 1
        self._strangers[connection] = self._count, self._facts.at

    def possible(self, node: MmeNode | None = None, *, attaching: bool = False) -> bool:
        """Whether there is a stranger, at this MME, who attaches."""
        self._forget_lost_ones()
        return any(
            (node is None or connection.association.mme is node) and (connection.attaching or not attaching)
            for connection in self._strangers
        )

    def hold(self, ue: Ue, settle: Callable[[When], None]) -> None:
        """A fact about ``ue`` is complete now, and uncertain; ``settle`` makes it an event."""
        self._waiting.setdefault(ue, _Doubt((self._facts.at, self._facts.place), self._count, settle))

    def known(self, connection: S1Connection, ue: Ue) -> None:
        """The stranger is ``ue``: what was uncertain about it was not so."""
        if self._strangers.pop(connection, None) is not None:
            self._waiting.pop(ue, None)
            self._settle_certain()

    def gone(self, connection: S1Connection) -> None:
        """The stranger has left unknown."""
        if self._strangers.pop(connection, None) is not None:
            self._settle_certain()

    def dismiss(self, ue: Ue) -> None:
        """It was not so."""
        self._waiting.pop(ue, None)

    def confirm(self, ue: Ue) -> None:
        """It was so: the UE itself has come back since."""
        doubt = self._waiting.pop(ue, None)
        if doubt is not None:
            doubt.settle(doubt.when)

    def settle(self) -> None:
        """Settle what was uncertain only because of strangers who were never served."""
        if self._waiting:
            self._settle_certain()

    def _settle_certain(self) -> None:
        self._forget_lost_ones()
        first = next(iter(self._strangers.values()), (self._count + 1, 0))[0]
        while self._waiting:
            ue, doubt = next(iter(self._waiting.items()))  # the oldest, so that nobody who waits is asked twice
            if doubt.until >= first:
                return
            self.confirm(ue)

    def _forget_lost_ones(self) -> None:
        oldest = self._facts.at - PATIENCE_NS
        while self._strangers:
            connection, (_, came) = next(iter(self._strangers.items()))
            if came >= oldest:
                return
            del self._strangers[connection]
