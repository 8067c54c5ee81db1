"""Hands the events on the bus, and what is retained of each UE, to who heeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from mobiscud.bus import topics
from mobiscud.bus.cloudevents import decode, unwrap
from mobiscud.bus.publisher import read_state
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import Event, UeEvent

log = structlog.get_logger(__name__)


class Subscriptions(Protocol):
    """What is needed of the bus."""

    async def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> Callable[[], None]: ...


async def listen(
    bus: Subscriptions,
    kinds: Iterable[type[Event]],
    on_event: Callable[[Event], None],
    on_state: Callable[[UeEvent], None],
) -> None:
    """From now on: events of these types, and where each UE is known to be, in their order."""

    def take_event(topic: str, payload: bytes) -> None:
        try:
            event = unwrap(decode(payload))
        except DecodeError as error:
            log.warning("event not understood", topic=topic, error=str(error))
            return
        if event is not None:
            on_event(event)

    def take_state(topic: str, payload: bytes) -> None:
        try:
            event = read_state(payload)
        except DecodeError as error:
            log.warning("state not understood", topic=topic, error=str(error))
            return
        if isinstance(event, UeEvent):
            on_state(event)

    for kind in kinds:
        await bus.subscribe(topics.of_type(kind), take_event)
    await bus.subscribe(topics.ALL_UE_STATES, take_state)
