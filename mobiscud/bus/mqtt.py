"""One connection to an MQTT broker that outlives the broker.

``publish`` never waits: messages go into a spool, leave it in order, many in flight at once (QoS 1), and are sent
again, in order, when the connection was lost before the broker took them: at least once, never out of order. The
spool is bounded; what does not fit is counted. Subscriptions are made again at every reconnect, and a broker that
speaks MQTT 5 keeps for a while what comes in between.

MQTT 5 is tried first; a broker that only knows 3.1.1 serves as well (CONTRACT 3).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import structlog

from mobiscud.bus import packets, topics
from mobiscud.bus.connection import RECEIVE_MAXIMUM, Connection, RefusedError
from mobiscud.bus.packets import Version, Will
from mobiscud.bus.spool import SPOOL_BYTES, Message, Spool
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, ConfigError

Handler = Callable[[str, bytes], None]
"""Called with topic and payload of each message, in order of arrival; must not block."""

CONNECT_TIMEOUT_S: Final = 5.0
KEEP_ALIVE_S: Final = 15
"""A broker that says nothing for so long is gone; we ask it twice as often, and say so at the beginning."""
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
        self._will = None if will is None else Will(will.topic, will.payload, will.retain)
        self._client_id = f"mobiscud-{secrets.token_hex(8)}"
        self._has_session = False  # with a broker that may still keep it
        self._version: Version | None = None
        self._connection: Connection | None = None
        self._spool = Spool(spool_bytes)
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._held = False
        self._subscriptions: dict[str, list[Handler]] = {}
        self._on_connect: list[Callable[[], None]] = []
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a broker to talk to now."""
        return self._connection is not None

    @property
    def waiting(self) -> int:
        """Messages that the broker has not yet taken."""
        return len(self._spool) + (len(self._connection.unconfirmed) if self._connection else 0)

    @property
    def unread(self) -> int:
        """Messages that have come and were not handed to anybody yet."""
        return self._connection.waiting if self._connection else 0

    @property
    def lost(self) -> int:
        """Messages that had to give way, since the spool was full."""
        return self._spool.lost

    async def __aenter__(self) -> Self:
        """Connect.

        :raises AdapterError: there is no broker, or it does not let us in
        """
        connection = self._connection = await self._connect()
        self._supervisor = asyncio.create_task(self._supervise(connection), name="mqtt")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self.flush()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._connection is not None:  # the supervisor had not yet begun
            self._connection.leave()
        if self.waiting:
            log.warning("gone before the broker took everything", messages=self.waiting)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None:
        """Put a message into the spool; it leaves in its turn."""
        self._spool.put(Message(topic, payload, retain, content_type))
        self._idle.clear()
        self._wake()

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
        if self._connection is not None:
            try:
                await self._connection.subscribe((topic_filter,))
            except AdapterError:
                log.debug("subscription waits for the broker", topic=topic_filter)

        def stop() -> None:
            if handler in handlers:
                handlers.remove(handler)

        return stop

    def hold(self) -> None:
        """Hand no message to any handler for now. They wait, not confirmed, here (a few hundred) and at the broker."""
        self._held = True
        if self._connection is not None:
            self._connection.hold()

    def go_on(self) -> None:
        """The reverse of ``hold``; harmless without it."""
        self._held = False
        if self._connection is not None:
            self._connection.go_on()

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call back at every connection, this one included; for what a broker may have forgotten."""
        self._on_connect.append(callback)
        if self._connection is not None:
            callback()

    # The connection ----------------------------------------------------------------------------------------------

    async def _connect(self) -> Connection:
        """Connect in the highest protocol version that the broker knows; in MQTT 5 with a session that it keeps."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if self._version is None:
                    self._version = await self._highest_version()
                connection = await self._open(self._version, self._hello(self._version))
        except (OSError, AdapterError) as error:  # a TimeoutError is an OSError
            if isinstance(error, RefusedError):
                self._version = None  # it has answered, and refused: another broker may have taken its place
            raise AdapterError(f"no MQTT broker at {self._broker.shown}: {_why(error)}") from error
        self._has_session = True
        return connection

    async def _highest_version(self) -> Version:
        """Tried without a session: a broker that does not know MQTT 5 stumbles over one before it says so."""
        hello = packets.connect(
            Version.V5,
            "",
            keep_alive_s=KEEP_ALIVE_S,
            clean=True,
            username=self._broker.username,
            password=self._broker.password,
        )
        try:
            (await self._open(Version.V5, hello)).leave()
        except RefusedError:
            return Version.V311
        return Version.V5

    def _hello(self, version: Version) -> bytes:
        return packets.connect(
            version,
            self._client_id,
            keep_alive_s=KEEP_ALIVE_S,
            clean=version is Version.V311 or not self._has_session,
            session_s=SESSION_S,
            receive_maximum=RECEIVE_MAXIMUM,
            username=self._broker.username,
            password=self._broker.password,
            will=self._will,
        )

    async def _open(self, version: Version, hello: bytes) -> Connection:
        """A connection that the broker has let in.

        :raises OSError: nobody listens
        :raises AdapterError: the broker does not let us in
        """
        broker, loop = self._broker, asyncio.get_running_loop()
        connection = Connection(version, self._dispatch, self._wake)
        if self._held:
            connection.hold()
        if broker.transport == "unix":
            await loop.create_unix_connection(lambda: connection, broker.host)
        else:
            await loop.create_connection(lambda: connection, broker.host, broker.port, ssl=broker.tls)
        try:
            await connection.greet(hello)
        except BaseException:
            connection.end("not let in")
            raise
        return connection

    async def _supervise(self, connection: Connection | None) -> None:
        """Use the connection while it lasts, then make another."""
        attempt = 0
        again = False
        while True:
            if connection is not None:
                attempt = 0
                self._connection = connection
                try:
                    await self._serve(connection, again)
                except AdapterError:
                    pass  # the end of the connection says more
                finally:
                    self._connection = None
                    self._take_back(connection)
                    connection.leave()
                log.warning("connection to the broker lost", broker=self._broker.shown, error=connection.why)
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1
            try:
                connection = await self._connect()
            except AdapterError:
                connection = None
            again = True

    async def _serve(self, connection: Connection, again: bool) -> None:
        """Until the connection ends.

        :raises AdapterError: it ended before the subscriptions stood
        """
        (connection.hold if self._held else connection.go_on)()
        if self._subscriptions:
            await connection.subscribe(tuple(self._subscriptions))
        for callback in self._on_connect:
            callback()
        if again:
            log.info("connected to the broker again", broker=self._broker.shown)
        self._wake()
        silence_s = connection.keep_alive_s or KEEP_ALIVE_S
        while not connection.closed.is_set():
            try:
                async with asyncio.timeout(silence_s / 2):
                    await connection.closed.wait()
            except TimeoutError:
                connection.look(silence_s)

    def _dispatch(self, topic: str, payload: bytes) -> None:
        levels = topic.split("/")
        for topic_filter, handlers in tuple(self._subscriptions.items()):
            if not topics.matches(topic_filter, levels):
                continue
            for handler in tuple(handlers):
                try:
                    handler(topic, payload)
                except Exception:
                    log.exception("a handler failed", topic=topic)  # the others still get theirs

    # The spool ---------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Send what waits, together with whatever else is published before the loop comes round."""
        if not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        self._draining = False
        if self._connection is not None:
            leaving: list[Message] = []
            while len(leaving) < self._connection.room and (message := self._spool.take()) is not None:
                leaving.append(message)
            if leaving:
                self._connection.publish(leaving)
        if not self.waiting:
            self._idle.set()

    def _take_back(self, connection: Connection) -> None:
        """Put what the broker has not confirmed back at the head of the spool."""
        self._spool.put_back(connection.unconfirmed.values())
        connection.unconfirmed.clear()
        self._wake()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(error)
