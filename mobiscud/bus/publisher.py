"""Puts the events of one source on the bus, and keeps the retained state of each UE beside them."""

from __future__ import annotations

import json
from typing import Any, Protocol

from mobiscud.bus import topics
from mobiscud.bus.cloudevents import CONTENT_TYPE, TYPE_PREFIX, Envelopes, encode, unwrap
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import (
    Event,
    HandoverCompleted,
    UeConnected,
    UeDetached,
    UeIdentified,
    UeIdle,
    UePlacedEvent,
)

PLACE = ("enb", "ecgi", "tai", "bearers", "pdns")

_STATES = (UePlacedEvent, HandoverCompleted, UeIdle, UeDetached, UeIdentified)
"""Events after which a UE's state is another."""


class Outbox(Protocol):
    """Where messages go."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None: ...


class EventPublisher:
    """``publish(event)``: the event to its topic, and the UE's state after it to the UE's ``state`` topic."""

    def __init__(self, outbox: Outbox, site: str, role: str, *, show_imsi: bool) -> None:
        """``role`` is ``monitor`` or ``controller``; only a monitor retains UE states."""
        self._outbox = outbox
        self._site = site
        self._envelopes = Envelopes(f"/mobiscud/{site}/{role}", show_imsi=show_imsi)
        self._keeps_state = role == "monitor"

    def publish(self, event: Event) -> None:
        """Publish one event."""
        text = self._envelopes.text(event)
        self._outbox.publish(topics.of_event(event, self._site), text.encode(), content_type=CONTENT_TYPE)
        if self._keeps_state and isinstance(event, _STATES):
            self._retain(event, json.loads(text))

    def _retain(self, event: Event, envelope: dict[str, Any]) -> None:
        data = envelope["data"]
        if isinstance(event, UePlacedEvent | HandoverCompleted):
            known = {name: data[name] for name in ("ue", "imsi", "ue_ip", *PLACE)}
            self._retain_state(event.ue, {**known, "status": "connected", "time": envelope["time"]})
        elif isinstance(event, UeIdle):
            known = {name: data[name] for name in ("ue", "imsi", "ue_ip", "enb")}
            self._retain_state(event.ue, {**known, "status": "idle", "time": envelope["time"]})
        elif isinstance(event, UeDetached):
            self._retain_state(event.ue, None)
        elif isinstance(event, UeIdentified):
            self._retain_state(event.previous_ue, None)

    def _retain_state(self, ue: Any, state: dict[str, Any] | None) -> None:
        self._outbox.publish(topics.ue_state(ue), encode(state) if state else b"", retain=True)


def read_state(payload: bytes) -> Event | None:
    """The event that a retained state amounts to: the UE is connected, or idle; None: it is gone.

    :raises DecodeError: it is no state of ours
    """
    if not payload:
        return None
    try:
        state = json.loads(payload)
        at, status = state["time"], state["status"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DecodeError("not the state of a UE") from error
    kind = UeConnected if status == "connected" else UeIdle
    return unwrap({"id": "state", "type": TYPE_PREFIX + kind.TYPE, "time": at, "data": state})
