"""One connection to an MQTT broker that outlives the broker.

``publish`` never waits: messages go into a spool, leave it in order, many in flight at once (QoS 1), and are sent
again, in order, when the connection was lost before the broker took them: at least once, never out of order. The
spool is bounded; what does not fit is counted. Subscriptions are made again at every reconnect, and a broker that
speaks MQTT 5 keeps for a while what comes in between.

MQTT 5 is tried first; a broker that only knows 3.1.1 serves as well (CONTRACT 3).
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import aiomqtt
import structlog
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, Client, MQTTMessage
from paho.mqtt.matcher import MQTTMatcher
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mobiscud.bus.spool import SPOOL_BYTES, Message, Spool
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, ConfigError

Handler = Callable[[str, bytes], None]
"""Called with topic and payload of each message, in order of arrival; must not block."""

QOS: Final = 1
IN_FLIGHT: Final = 200
CONNECT_TIMEOUT_S: Final = 5.0
KEEP_ALIVE_S: Final = 15
"""A broker that says nothing for so long is gone; so are we to it after half as long again."""
SESSION_S: Final = 300
"""How long a broker keeps what we have subscribed to, when the connection breaks."""
RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger(__name__)


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

    def __init__(self, broker: Broker, *, will: Message | None = None, spool_bytes: int = SPOOL_BYTES) -> None:
        """``will`` is published by the broker when this node falls silent; ``spool_bytes`` bounds what may wait."""
        self._broker = broker
        self._will = will
        self._client_id = f"mobiscud-{secrets.token_hex(8)}"
        self._has_session = False  # with a broker that may still keep it
        self._protocol: aiomqtt.ProtocolVersion | None = None
        self._client: _Client | None = None
        self._spool = Spool(spool_bytes)
        self._in_flight: dict[int, Message] = {}  # by packet identifier, in the order in which they left
        self._idle = asyncio.Event()
        self._idle.set()
        self._held: deque[tuple[str, bytes]] | None = None
        self._subscriptions: dict[str, list[Handler]] = {}
        self._handlers = MQTTMatcher()  # type: ignore[no-untyped-call]
        self._on_connect: list[Callable[[], None]] = []
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a broker to talk to now."""
        return self._client is not None

    @property
    def waiting(self) -> int:
        """Messages that the broker has not yet taken."""
        return len(self._spool) + len(self._in_flight)

    @property
    def lost(self) -> int:
        """Messages that had to give way, since the spool was full."""
        return self._spool.lost

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
            await self._unsubscribe()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._client is not None:  # the supervisor had not yet begun
            await _leave(self._client)
        if self.waiting:
            log.warning("gone before the broker took everything", messages=self.waiting)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None:
        """Put a message into the spool; it leaves in its turn."""
        self._spool.put(Message(topic, payload, retain, content_type))
        self._idle.clear()
        self._push()

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
        handlers = self._handlers[topic_filter] = self._subscriptions.setdefault(topic_filter, [])
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

    def hold(self) -> None:
        """Hand no message to any handler for now, and read no more: they wait at the broker. Not for long: the broker's
        answers wait as well."""
        if self._held is None:
            self._held = deque()
            if self._client is not None:
                self._client.hold()

    def go_on(self) -> None:
        """The reverse of ``hold``; harmless without it."""
        if self._held is None:
            return
        held, self._held = self._held, None
        for topic, payload in held:  # once one has us held again, the others go back
            self._take(topic, payload)
        if self._client is not None and self._held is None:
            self._client.go_on()

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call back at every connection, this one included; for what a broker may have forgotten."""
        self._on_connect.append(callback)
        if self._client is not None:
            callback()

    # The connection ----------------------------------------------------------------------------------------------

    async def _connect(self) -> _Client:
        """Connect in the highest protocol version that the broker knows; in MQTT 5 with a session that it keeps."""
        try:
            if self._protocol is None:
                self._protocol = await self._highest_version()
            client = self._new_client(self._protocol, keeps_session=True)
            await client.__aenter__()
        except aiomqtt.MqttError as error:
            if isinstance(error, aiomqtt.MqttCodeError):
                self._protocol = None  # it has answered, and refused: another broker may have taken its place
            raise AdapterError(f"no MQTT broker at {self._broker.shown}: {error.__cause__ or error}") from error
        self._has_session = True
        return client

    async def _highest_version(self) -> aiomqtt.ProtocolVersion:
        """Tried without a session: a broker that does not know MQTT 5 stumbles over one before it says so."""
        client = self._new_client(aiomqtt.ProtocolVersion.V5, keeps_session=False)
        try:
            await client.__aenter__()
        except aiomqtt.MqttCodeError:
            return aiomqtt.ProtocolVersion.V311
        await _leave(client)
        return aiomqtt.ProtocolVersion.V5

    def _new_client(self, protocol: aiomqtt.ProtocolVersion, *, keeps_session: bool) -> _Client:
        broker = self._broker
        options: Iterable[Any] = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),) if broker.transport == "tcp" else ()
        will = self._will if keeps_session else None
        with_session = keeps_session and protocol is aiomqtt.ProtocolVersion.V5
        return _Client(
            self._take,
            self._confirmed,
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier=self._client_id if keeps_session else None,
            protocol=protocol,
            keepalive=KEEP_ALIVE_S,
            clean_start=not self._has_session if with_session else MQTT_CLEAN_START_FIRST_ONLY,
            properties=_session_properties() if with_session else None,
            transport=broker.transport,  # "tcp" or "unix"
            tls_context=broker.tls,
            will=aiomqtt.Will(will.topic, will.payload, QOS, will.retain) if will else None,
            timeout=CONNECT_TIMEOUT_S,
            max_inflight_messages=IN_FLIGHT,
            socket_options=options,
        )

    async def _supervise(self, client: _Client | None) -> None:
        """Use the connection while it lasts, then make another."""
        attempt = 0
        again = False
        while True:
            if client is not None:
                attempt = 0
                try:
                    await self._serve(client, again)
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
            again = True

    async def _unsubscribe(self) -> None:
        """We go for good: the broker need not keep anything for us."""
        if self._client is not None and self._subscriptions:
            try:
                await self._client.unsubscribe(list(self._subscriptions))
            except aiomqtt.MqttError:
                log.debug("the broker is gone before us")

    async def _serve(self, client: _Client, again: bool) -> None:
        self._client = client
        for topic_filter in tuple(self._subscriptions):
            await client.subscribe(topic_filter, qos=QOS)
        for callback in self._on_connect:
            callback()
        if again:
            log.info("connected to the broker again", broker=self._broker.shown)
        self._push()
        if self._held is not None:
            client.hold()
        await client.lost()

    def _take(self, topic: str, payload: bytes) -> None:
        if self._held is not None:
            self._held.append((topic, payload))
            return
        for handlers in self._handlers.iter_match(topic):  # type: ignore[no-untyped-call]
            for handler in tuple(handlers):
                try:
                    handler(topic, payload)
                except Exception:
                    log.exception("a handler failed", topic=topic)  # the others still get theirs

    # The spool ---------------------------------------------------------------------------------------------------

    def _push(self) -> None:
        """Send what waits, as far as there is room on the way."""
        client = self._client
        while client and len(self._in_flight) < IN_FLIGHT and (message := self._spool.take()) is not None:
            content_type = message.content_type if self._protocol is aiomqtt.ProtocolVersion.V5 else None
            number = client.send(message.topic, message.payload, message.retain, content_type)
            self._in_flight[number] = message  # what the broker does not confirm is sent again after the reconnect

    def _confirmed(self, number: int) -> None:
        self._in_flight.pop(number, None)
        self._push()
        if not self.waiting:
            self._idle.set()

    def _take_back(self) -> None:
        """Put what the broker has not confirmed back at the head of the spool."""
        self._spool.put_back(self._in_flight.values())
        self._in_flight.clear()


class _Client(aiomqtt.Client):
    """aiomqtt's connection, without a task and a queue for each message: it is handed on when it has been read, and
    leaves before the event loop looks at anything else. What comes can be left to the broker for a while."""

    def __init__(
        self, take: Callable[[str, bytes], None], confirmed: Callable[[int], None], *args: Any, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._take = take
        self._confirmed = confirmed
        self._thread = threading.get_ident()
        self._client.on_message = self._on_delivery
        self._client.on_publish = self._on_confirmation
        self._client.on_socket_register_write = self._on_words
        self._client.on_socket_unregister_write = self._on_silence

    async def lost(self) -> None:
        """Wait until the connection is.

        :raises aiomqtt.MqttError: it is lost
        """
        async for _ in self.messages:  # none comes this way
            pass

    def send(self, topic: str, payload: bytes, retain: bool, content_type: str | None) -> int:
        """Publish; gives the number under which the broker will confirm it."""
        properties = _content_type(content_type) if content_type else None
        return self._client.publish(topic, payload, QOS, retain, properties).mid

    def hold(self) -> None:
        """Read nothing more; beyond what fits into the sockets, the broker keeps it."""
        if (connection := self._client.socket()) is not None:
            self._loop.remove_reader(connection.fileno())

    def go_on(self) -> None:
        """The reverse of ``hold``."""
        if (connection := self._client.socket()) is not None:
            self._loop.add_reader(connection.fileno(), self._read)

    def _on_delivery(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        self._take(message.topic, bytes(message.payload))

    def _on_confirmation(
        self, client: Client, userdata: Any, number: int, reason: ReasonCode, properties: Properties
    ) -> None:
        if reason.is_failure:
            log.warning("the broker refuses a message", reason=str(reason))
        self._confirmed(number)

    def _on_words(self, client: Client, userdata: Any, connection: Any) -> None:
        """There is something to write: as soon as the loop comes round, and not when it has been woken for that."""
        self._in_loop(self._loop.add_writer, connection.fileno(), self._write)

    def _on_silence(self, client: Client, userdata: Any, connection: Any) -> None:
        self._in_loop(self._loop.remove_writer, connection.fileno())

    def _in_loop(self, work: Callable[..., object], *args: Any) -> None:
        if threading.get_ident() == self._thread:
            work(*args)
        else:  # aiomqtt connects in another thread
            self._loop.call_soon_threadsafe(work, *args)

    def _write(self) -> None:
        self._attempt(self._client.loop_write)

    def _read(self) -> None:
        self._attempt(self._client.loop_read)
        while isinstance(connection := self._client.socket(), ssl.SSLSocket) and connection.pending():
            self._attempt(self._client.loop_read)  # what is deciphered already does not wake the event loop

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            if not self._disconnected.done():
                self._disconnected.set_exception(error)


@functools.cache
def _content_type(name: str) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = name
    return properties


async def _leave(client: _Client) -> None:
    """Say goodbye, if there is still somebody to say it to."""
    await asyncio.gather(client.__aexit__(None, None, None), return_exceptions=True)


def _session_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = SESSION_S
    return properties
