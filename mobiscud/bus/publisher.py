"""Puts the events of one source on the bus, and keeps the retained state of each UE beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Protocol

from mobiscud.bus import topics
from mobiscud.bus.cloudevents import (
    CONTENT_TYPE,
    TYPE_PREFIX,
    Envelopes,
    nanoseconds,
    reader,
    rfc3339,
    state_writer,
    unwrap,
    write_enb_state,
)
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import (
    BearerEvent,
    EnbConnected,
    EnbDisconnected,
    Event,
    HandoverCompleted,
    TrackingAreaUpdated,
    UeConnected,
    UeDetached,
    UeEvent,
    UeIdentified,
    UeIdle,
    UePlacedEvent,
)
from mobiscud.core.ids import UeKey
from mobiscud.core.ue import EnbState, UeState


class States(Protocol):
    """What is known of UEs and S1 associations now: of each, None when it is gone, and of which there is anything.

    UEs come with when they were last heard of (ns).
    """

    def state_of(self, key: UeKey) -> UeState | None: ...

    def enb_state_of(self, name: str) -> EnbState | None: ...

    def ues(self) -> Iterable[tuple[UeKey, int]]: ...

    def enbs(self) -> Iterable[str]: ...


_STATES = (
    UePlacedEvent,
    HandoverCompleted,
    BearerEvent,
    TrackingAreaUpdated,
    UeIdle,
    UeDetached,
    UeIdentified,
)
"""Events after which a UE's state is another."""


class Outbox(Protocol):
    """Where messages go."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None: ...


class EventPublisher:
    """``publish(event)``: the event to its topic, and the UE's state after it to the UE's ``state`` topic."""

    def __init__(self, outbox: Outbox, site: str, role: str, *, show_imsi: bool, states: States | None = None) -> None:
        """``role`` is ``monitor`` or ``controller``; a monitor has states, and retains them."""
        self._outbox = outbox
        self._site = site
        self._envelopes = Envelopes(f"/mobiscud/{site}/{role}", show_imsi=show_imsi)
        self._states = states
        self._write_state = state_writer(show_imsi=show_imsi)

    def publish(self, event: Event) -> None:
        """Publish one event."""
        text = self._envelopes.text(event)
        self._outbox.publish(topics.of_event(event, self._site), text.encode(), content_type=CONTENT_TYPE)
        if self._states is None:
            return
        if isinstance(event, _STATES):
            self._retain(event, self._states.state_of(event.ue))
        elif isinstance(event, EnbConnected | EnbDisconnected) and event.association is not None:
            self._retain_enb(event.association, self._states.enb_state_of(event.association))

    def forget(self, ue: UeKey) -> None:
        """The UE is gone: nothing is retained of it."""
        self._outbox.publish(topics.ue_state(ue), b"", retain=True)

    def tell_again(self) -> Iterator[None]:
        """Retain all anew, for a broker that may have forgotten, one at each step. What is gone meanwhile is left out.

        S1 associations come first, since a monitor that begins again needs them to place the UEs.
        """
        if self._states is None:
            return
        for name in self._states.enbs():
            if (enb := self._states.enb_state_of(name)) is not None:
                self._retain_enb(name, enb)
            yield
        for key, heard in self._states.ues():
            if (ue := self._states.state_of(key)) is not None:
                self._retain_ue(ue, heard)
            yield

    def _retain(self, event: UeEvent, state: UeState | None) -> None:
        if isinstance(event, UeIdentified):
            self.forget(event.previous_ue)
        if state is not None:
            self._retain_ue(state, event.at)
        elif isinstance(event, UeDetached):
            self.forget(event.ue)

    def _retain_ue(self, state: UeState, at: int) -> None:
        payload = f'{self._write_state(state)[:-1]},"time":"{rfc3339(at)}"}}'
        self._outbox.publish(topics.ue_state(state.ue), payload.encode(), retain=True)

    def _retain_enb(self, association: str, state: EnbState | None) -> None:
        payload = b"" if state is None else write_enb_state(state).encode()
        self._outbox.publish(topics.enb_state(self._site, association), payload, retain=True)


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


def read_enb(payload: bytes) -> EnbState:
    """A retained state of an S1 association.

    :raises DecodeError: it is no state of ours
    """
    try:
        state: EnbState = reader(EnbState)(json.loads(payload))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DecodeError("not the state of an S1 association") from error
    return state


def read_known(payload: bytes) -> tuple[UeState, int]:
    """A retained state as a monitor wrote it, and when it was so.

    :raises DecodeError: it is no state of ours
    """
    try:
        state = json.loads(payload)
        return reader(UeState)(state), nanoseconds(state["time"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DecodeError("not the state of a UE") from error
