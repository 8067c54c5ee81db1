"""One connection to an MQTT broker that outlives the broker.

``publish`` never waits: messages go into an outbox, leave it in order, many in flight at once (QoS 1), and are sent
again, in order, when the connection was lost before the broker took them: at least once, never out of order. The
outbox is bounded; what does not fit is counted. Subscriptions are made again at every reconnect.

MQTT 5 is tried first; a broker that only knows 3.1.1 serves as well (CONTRACT 3).
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, ConfigError

Handler = Callable[[str, bytes], None]
"""Called with topic and payload of each message, in order of arrival; must not block."""

QOS: Final = 1
IN_FLIGHT: Final = 200
OUTBOX_LIMIT: Final = 100_000
CONNECT_TIMEOUT_S: Final = 5.0
RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how to enter."""

    host: str
    port: int
    transport: str
    username: str | None
    password: str | None
    tls: ssl.SSLContext | None
    shown: str

    @classmethod
    def from_config(cls, config: BusConfig, url: str) -> Self:
        """Read the pieces of ``bus.url`` (``mqtt://``, ``mqtts://``, ``unix://``) and the secrets.

        :raises ConfigError: a secret or certificate file cannot be read
        """
        parts = urlsplit(url)
        username = unquote(parts.username) if parts.username else config.username
        password = unquote(parts.password) if parts.password else config.password
        if config.password_file is not None:
            password = _secret(config.password_file)
        if parts.scheme == "unix":
            return cls(parts.path, 1883, "unix", username, password, None, url)
        tls = None
        if parts.scheme == "mqtts":
            try:
                tls = ssl.create_default_context(cafile=str(config.ca_file) if config.ca_file else None)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"bus.ca_file: {error}") from error
        port = parts.port or (8883 if tls else 1883)
        host = parts.hostname or "localhost"
        return cls(host, port, "tcp", username, password, tls, f"{parts.scheme}://{host}:{port}")


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"bus.password_file: {path}: {error}") from error


class MqttBus:
    """The bus, as an asynchronous context manager: connected inside, everything sent on the way out."""

    def __init__(self, broker: Broker, *, will: Message | None = None, client_id: str | None = None) -> None:
        """``will`` is published by the broker when this node falls silent; ``client_id`` must be unique."""
        self._broker = broker
        self._will = will
        self._client_id = client_id
        self._protocol = aiomqtt.ProtocolVersion.V5
        self._client: aiomqtt.Client | None = None
        self._outbox: deque[Message] = deque()
        self._in_flight: deque[tuple[Message, asyncio.Task[None]]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._subscriptions: dict[str, list[Handler]] = {}
        self._on_connect: list[Callable[[], None]] = []
        self._supervisor: asyncio.Task[None] | None = None
        self.dropped = 0
        """Messages that found the outbox full."""

    async def __aenter__(self) -> Self:
        """Connect.

        :raises AdapterError: there is no broker, or it does not let us in
        """
        client = self._client = await self._connect()
        self._supervisor = asyncio.create_task(self._supervise(client), name="mqtt")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self.flush()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._client is not None:  # the supervisor had not yet begun
            await _leave(self._client)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None:
        """Put a message into the outbox; it leaves in its turn."""
        if len(self._outbox) >= OUTBOX_LIMIT:
            self.dropped += 1
            return
        self._outbox.append(Message(topic, payload, retain, content_type))
        self._idle.clear()
        self._wake.set()

    async def flush(self, within_s: float = CONNECT_TIMEOUT_S) -> bool:
        """Wait until the broker has everything; False when it has not ``within_s`` seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def subscribe(self, topic_filter: str, handler: Handler) -> Callable[[], None]:
        """Hand every message that matches to ``handler``. What comes back ends it; calling that twice is harmless."""
        handlers = self._subscriptions.setdefault(topic_filter, [])
        handlers.append(handler)
        if self._client is not None:
            try:
                await self._client.subscribe(topic_filter, qos=QOS)
            except aiomqtt.MqttError:
                log.debug("subscription waits for the broker", topic=topic_filter)

        def stop() -> None:
            if handler in handlers:
                handlers.remove(handler)

        return stop

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call back at every connection, this one included; for what a broker may have forgotten."""
        self._on_connect.append(callback)
        if self._client is not None:
            callback()

    # The connection ----------------------------------------------------------------------------------------------

    def _new_client(self) -> aiomqtt.Client:
        broker = self._broker
        options: Iterable[Any] = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),) if broker.transport == "tcp" else ()
        will = self._will and aiomqtt.Will(self._will.topic, self._will.payload, QOS, self._will.retain)
        return aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier=self._client_id,
            protocol=self._protocol,
            transport=broker.transport,  # type: ignore[arg-type]  # "tcp" or "unix"
            tls_context=broker.tls,
            will=will or None,
            timeout=CONNECT_TIMEOUT_S,
            max_inflight_messages=IN_FLIGHT,
            socket_options=options,
        )

    async def _connect(self) -> aiomqtt.Client:
        for protocol in (self._protocol, aiomqtt.ProtocolVersion.V311):
            self._protocol = protocol
            client = self._new_client()
            client.pending_calls_threshold = IN_FLIGHT + 1
            try:
                await client.__aenter__()
            except aiomqtt.MqttError as error:
                cause = error.__cause__ or error
                if protocol is aiomqtt.ProtocolVersion.V5 and not isinstance(cause, OSError):
                    continue  # it may not know MQTT 5: one more try, with 3.1.1
                self._protocol = aiomqtt.ProtocolVersion.V5
                raise AdapterError(f"no MQTT broker at {self._broker.shown}: {cause}") from error
            return client
        raise AssertionError("unreachable: the last protocol either connects or raises")

    async def _supervise(self, client: aiomqtt.Client | None) -> None:
        """Use the connection while it lasts, then make another."""
        attempt = 0
        while True:
            if client is not None:
                attempt = 0
                try:
                    await self._serve(client)
                except aiomqtt.MqttError as error:
                    log.warning("connection to the broker lost", broker=self._broker.shown, error=str(error))
                finally:
                    self._client = None
                    self._take_back()
                    await _leave(client)
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1
            try:
                client = await self._connect()
            except AdapterError:
                client = None
            else:
                log.info("connected to the broker again", broker=self._broker.shown)

    async def _serve(self, client: aiomqtt.Client) -> None:
        self._client = client
        for topic_filter in tuple(self._subscriptions):
            await client.subscribe(topic_filter, qos=QOS)
        for callback in self._on_connect:
            callback()
        drainer = asyncio.create_task(self._drain(client), name="mqtt-outbox")
        try:
            async for message in client.messages:
                self._dispatch(message)
        finally:
            drainer.cancel()
            await asyncio.gather(drainer, return_exceptions=True)

    def _dispatch(self, message: aiomqtt.Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload or "").encode()
        for topic_filter, handlers in tuple(self._subscriptions.items()):
            if not message.topic.matches(topic_filter):
                continue
            for handler in tuple(handlers):
                try:
                    handler(message.topic.value, payload)
                except Exception:
                    log.exception("a handler failed", topic=message.topic.value)  # the others still get theirs

    # The outbox --------------------------------------------------------------------------------------------------

    async def _drain(self, client: aiomqtt.Client) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox and len(self._in_flight) < IN_FLIGHT:
                message = self._outbox.popleft()
                sending = asyncio.create_task(self._send(client, message), name="mqtt-publish")
                self._in_flight.append((message, sending))
                sending.add_done_callback(self._sent)

    async def _send(self, client: aiomqtt.Client, message: Message) -> None:
        properties = None
        if message.content_type and self._protocol is aiomqtt.ProtocolVersion.V5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = message.content_type
        await client.publish(
            message.topic, message.payload, QOS, message.retain, properties=properties, timeout=math.inf
        )

    def _sent(self, sending: asyncio.Task[None]) -> None:
        if not sending.cancelled():
            sending.exception()  # seen; what failed is still in flight and is sent again after the reconnect
        while self._in_flight and _delivered(self._in_flight[0][1]):
            self._in_flight.popleft()
        if not self._in_flight and not self._outbox:
            self._idle.set()
        self._wake.set()

    def _take_back(self) -> None:
        """Put what the broker has not acknowledged back at the head of the outbox."""
        waiting, self._in_flight = self._in_flight, deque()
        for message, sending in reversed(waiting):
            sending.cancel()
            if not _delivered(sending):
                self._outbox.appendleft(message)
        self._wake.set()


async def _leave(client: aiomqtt.Client) -> None:
    """Say goodbye, if there is still somebody to say it to."""
    await asyncio.gather(client.__aexit__(None, None, None), return_exceptions=True)


def _delivered(sending: asyncio.Task[None]) -> bool:
    return sending.done() and not sending.cancelled() and sending.exception() is None
