"""Turns what the tracker has found out into events, each with a place on the wire of its own."""

from __future__ import annotations

from typing import Any, Final

from epc_monitor.ue_tracker.state import Ue
from mobiscud.core.events import (
    Event,
    HandoverCompleted,
    HandoverPreparing,
    MonitorDesynchronised,
    UeAttached,
    UeConnected,
    UeDetached,
    UeEvent,
    UeIdle,
)

_PLACING: Final = frozenset[type[UeEvent]]((UeAttached, UeConnected, HandoverCompleted))
_LEAVING: Final = frozenset[type[UeEvent]]((HandoverPreparing, HandoverCompleted))
_ENDING: Final = frozenset[type[UeEvent]]((UeIdle, UeDetached))


class Facts:
    """Collects the events of one message; ``at`` and ``place`` are that message's."""

    __slots__ = ("_again", "at", "events", "place")

    def __init__(self) -> None:
        self.at = 0
        self.place = b""
        self.events: list[Event] = []
        self._again: dict[tuple[str, bytes], int] | None = None

    def begin(self, at: int, place: bytes) -> None:
        """A new message: what follows is completed by it."""
        self.at = at
        self.place = place
        self.events = []
        self._again = None

    def add(self, event: type[Event], *, detail: bytes = b"", **fields: Any) -> None:
        """A fact about the network. ``detail`` tells apart several facts of one type that one message completes."""
        self.events.append(event(at=self.at, origin=self._origin(event, detail), **fields))

    def about(
        self,
        ue: Ue,
        event: type[UeEvent],
        *,
        detail: bytes = b"",
        when: tuple[int, bytes] | None = None,
        **fields: Any,
    ) -> None:
        """A fact about a UE. ``when``: time and place of a fact that was complete before and is certain only now."""
        ue.named = True
        self._follow(ue, event, fields)
        at, origin = when or (self.at, self._origin(event, detail))
        self.events.append(event(at=at, origin=origin, ue=ue.key, imsi=ue.imsi, ue_ip=ue.ue_ip, **fields))

    def _follow(self, ue: Ue, event: type[UeEvent], fields: dict[str, Any]) -> None:
        """A UE leaves from where we have said that it is; else something was missed, and that is said first."""
        source = fields["source"].enb if event in _LEAVING else None
        if source is not None and ue.place is not None and ue.place != source.address:
            self.desynchronised(f"{event.TYPE} from where the UE was not known to be", ue)
        if event in _PLACING:
            ue.place = fields["enb"].address
        elif event in _ENDING:
            ue.place = None

    def desynchronised(self, detail: str, ue: Ue | None = None) -> None:
        """A message that cannot follow from what was seen."""
        origin = self._origin(MonitorDesynchronised, b"")
        if ue is None:
            self.events.append(MonitorDesynchronised(at=self.at, origin=origin, detail=detail))
            return
        ue.named = True
        ue.place = None
        self.events.append(
            MonitorDesynchronised(at=self.at, origin=origin, detail=detail, ue=ue.key, imsi=ue.imsi, ue_ip=ue.ue_ip)
        )

    def _origin(self, event: type[Event], detail: bytes) -> bytes:
        if self._again is None:
            self._again = {}
        fact = event.TYPE, detail
        again = self._again.get(fact, 0)
        self._again[fact] = again + 1
        origin = self.place + detail
        return origin if not again else origin + again.to_bytes(2, "big")
