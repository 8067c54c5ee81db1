"""One connection to an MQTT broker, from its greeting to its end: an asyncio protocol around ``packets``.

What the broker sends is handed on in its order, some at a time, and confirmed when it has been taken. While whoever
takes it asks to ``hold``, nothing is handed on nor confirmed; a broker that speaks MQTT 5 then stops by itself
(Receive Maximum), of any other no more is read. So what is too much waits where it came from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from mobiscud.bus import packets
from mobiscud.bus.packets import Connack, Disconnect, Puback, Publish, Reader, Suback, Version
from mobiscud.bus.spool import Message
from mobiscud.core.errors import AdapterError, DecodeError

IN_FLIGHT: Final = 200
"""Messages of ours that the broker has not confirmed yet, at most."""
RECEIVE_MAXIMUM: Final = 500
"""Messages that wait to be handed on, at most."""
AT_ONCE: Final = 32
"""Messages handed on before others get their turn."""
REFUSED: Final = 0x80

log = structlog.get_logger(__name__)


class RefusedError(AdapterError):
    """The broker has answered, and does not let us in."""


class Connection(asyncio.Protocol):
    """``hand_on`` gets topic and payload of each message; ``on_room`` is called when more can be published."""

    def __init__(self, version: Version, hand_on: Callable[[str, bytes], None], on_room: Callable[[], None]) -> None:
        self.unconfirmed: dict[int, Message] = {}
        """What the broker has not confirmed, by packet id, in the order of sending."""
        self.closed = asyncio.Event()
        self.why = "closed by the broker"
        self.keep_alive_s: int | None = None
        """What the broker says instead of what we did."""
        self._version = version
        self._hand_on = hand_on
        self._on_room = on_room
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._reader = Reader(version)
        self._transport: asyncio.Transport | None = None
        self._admitted: asyncio.Future[Connack] = self._loop.create_future()
        self._subscribing: dict[int, asyncio.Future[bytes]] = {}
        self._next_id = 0
        self._window = IN_FLIGHT
        self._writable = True
        self._waiting: deque[Publish] = deque()
        self._held = False
        self._handing_on = False

    # What we say -------------------------------------------------------------------------------------------------

    async def greet(self, hello: bytes) -> None:
        """Send CONNECT; return when we are in.

        :raises RefusedError: the broker does not let us in
        :raises AdapterError: it ended the connection
        """
        self._write(hello)
        answer = await self._admitted
        if answer.code:
            raise RefusedError(packets.reason(answer.code))
        self._window = min(IN_FLIGHT, answer.receive_maximum)
        self.keep_alive_s = answer.keep_alive_s

    @property
    def room(self) -> int:
        """How many messages may be published now."""
        return self._window - len(self.unconfirmed) if self._writable and not self.closed.is_set() else 0

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages, no more than there is room for."""
        octets = bytearray()
        for message in messages:
            packet_id = self._take_id()
            self.unconfirmed[packet_id] = message
            octets += packets.publish(
                self._version,
                packet_id,
                message.topic,
                message.payload,
                retain=message.retain,
                content_type=message.content_type,
            )
        self._write(octets)

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for the messages of topics; return when the broker has answered.

        :raises AdapterError: the connection was lost meanwhile
        """
        packet_id = self._take_id()
        answer = self._subscribing[packet_id] = self._loop.create_future()
        self._write(packets.subscribe(self._version, packet_id, filters))
        try:
            codes = await answer
        finally:
            del self._subscribing[packet_id]
        for topic_filter, code in zip(filters, codes, strict=False):
            if code >= REFUSED:
                log.error("the broker refused a subscription", topic=topic_filter, reason=packets.reason(code))

    def look(self, silence_s: float) -> None:
        """Ask for a sign of life, or give up who gave none for so long."""
        if not self._held and self._loop.time() - self._heard_at > silence_s:
            self.end(f"silent for {silence_s:g} s")
        else:
            self._write(packets.PINGREQ)

    def leave(self) -> None:
        """Say goodbye, if there is still somebody to say it to."""
        self._write(packets.disconnect(self._version))
        if self._transport is not None:
            self._transport.close()

    def end(self, why: str) -> None:
        """Break the connection off."""
        if not self.closed.is_set():
            self.why = why
        if self._transport is not None:
            self._transport.abort()

    def _take_id(self) -> int:
        while True:
            self._next_id = self._next_id % 0xFFFF + 1
            if self._next_id not in self.unconfirmed and self._next_id not in self._subscribing:
                return self._next_id

    def _write(self, octets: bytes | bytearray) -> None:
        if self._transport is not None and not self._transport.is_closing() and octets:
            self._transport.write(octets)

    # What we hear ------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Hand nothing on, for now."""
        self._held = True

    def go_on(self) -> None:
        """Hand on what has waited, and what comes."""
        if self._held:
            self._held = False
            self._soon()

    @property
    def waiting(self) -> int:
        """Messages that have come and were not handed on yet."""
        return len(self._waiting)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        self._heard_at = self._loop.time()
        try:
            for packet in self._reader.feed(data):
                self._take(packet)
        except DecodeError as error:
            self.end(f"what it says is not MQTT: {error}")
            return
        if self._waiting and not self._handing_on:
            self._hand_some_on()
        if len(self._waiting) > RECEIVE_MAXIMUM and self._transport is not None:
            self._transport.pause_reading()

    def _take(self, packet: packets.Packet) -> None:
        match packet:
            case Publish():
                self._waiting.append(packet)
            case Puback(packet_id, code):
                message = self.unconfirmed.pop(packet_id, None)
                if message is not None and code >= REFUSED:
                    log.error("the broker refused a message", topic=message.topic, reason=packets.reason(code))
                self._on_room()
            case Suback(packet_id, codes):
                answer = self._subscribing.get(packet_id)
                if answer is not None and not answer.done():
                    answer.set_result(codes)
            case Connack():
                if not self._admitted.done():
                    self._admitted.set_result(packet)
            case Disconnect(code):
                self.end(f"closed by the broker: {packets.reason(code)}")

    def _soon(self) -> None:
        if not self._handing_on and self._waiting:
            self._handing_on = True
            self._loop.call_soon(self._hand_some_on)

    def _hand_some_on(self) -> None:
        """Each message is confirmed when whoever takes it has returned."""
        self._handing_on = False
        taken = bytearray()
        for _ in range(AT_ONCE):
            if self._held or not self._waiting or self.closed.is_set():
                break
            message = self._waiting.popleft()
            self._hand_on(message.topic, message.payload)
            if message.packet_id is not None:
                taken += packets.puback(message.packet_id)
        self._write(taken)
        if not self._held:
            self._soon()
        if len(self._waiting) <= RECEIVE_MAXIMUM // 2 and self._transport is not None:
            self._transport.resume_reading()

    # As asyncio calls them ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The line stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        """The broker does not keep up."""
        self._writable = False

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._on_room()

    def connection_lost(self, error: Exception | None) -> None:
        """The line is cut."""
        if error is not None:
            self.why = str(error)
        self.closed.set()
        self._waiting.clear()  # not confirmed: a broker that keeps our session sends them again
        lost = AdapterError(self.why)
        waiting: list[asyncio.Future[Any]] = [self._admitted, *self._subscribing.values()]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(lost)
                answer.exception()  # seen, in case that nobody waits for it
