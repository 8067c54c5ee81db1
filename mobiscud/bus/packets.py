"""MQTT 5 and 3.1.1 as a client speaks it, at QoS 0 and 1: packets to octets, and octets to packets. Pure.

Clauses are those of MQTT 5.0; 3.1.1 differs by what is left out. Of the properties only those are read that a client
must heed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from mobiscud.core.errors import DecodeError

LARGEST: Final = 16 << 20
"""Octets of the largest packet that is taken in; nothing of ours comes near."""
QOS: Final = 1
PINGREQ: Final = b"\xc0\x00"

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 1, 2, 3, 4, 8, 9
_PINGRESP, _DISCONNECT = 13, 14
_WILL, _WILL_RETAIN, _CLEAN, _PASSWORD, _USERNAME = 0x04, 0x20, 0x02, 0x40, 0x80
_CONTENT_TYPE, _SESSION_EXPIRY, _SERVER_KEEP_ALIVE, _RECEIVE_MAXIMUM, _LARGEST_PACKET = 0x03, 0x11, 0x13, 0x21, 0x27

_FIXED_SIZE: Final[Mapping[int, int]] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
"""Octets of the properties whose value is a number (2.2.2.2); all others are strings, or a pair of them."""
_PAIR: Final = 0x26
_VARIABLE: Final = 0x0B

_REFUSALS: Final[Mapping[int, str]] = {
    1: "it does not speak this version of MQTT",
    2: "it does not like our client id",
    3: "it is not available",
    4: "wrong user name or password",
    5: "not authorised",
    0x84: "it does not speak this version of MQTT",
    0x86: "wrong user name or password",
    0x87: "not authorised",
    0x88: "it is not available",
    0x89: "it is busy",
    0x8A: "we are banned",
    0x8E: "another client took our session over",
}
"""Of 3.1.1 (3.2.2.3 there) and 5 (2.4); all others are told by their number."""


class Version(IntEnum):
    """The protocol level (3.1.2.2)."""

    V311 = 4
    V5 = 5


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when we fall silent."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True, slots=True)
class Connack:
    """The broker lets us in (code 0) or not. ``receive_maximum``: messages that it takes before it confirms one."""

    code: int
    receive_maximum: int
    keep_alive_s: int | None


@dataclass(frozen=True, slots=True)
class Publish:
    """A message for us. ``packet_id``: to be confirmed with it; None: not to be confirmed."""

    topic: str
    payload: bytes
    packet_id: int | None


@dataclass(frozen=True, slots=True)
class Puback:
    """A message of ours has been taken, or refused (code 0x80 and above): it is not to be sent again."""

    packet_id: int
    code: int


@dataclass(frozen=True, slots=True)
class Suback:
    """A subscription stands; a code of 0x80 and above: not that filter."""

    packet_id: int
    codes: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A sign of life."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The broker ends the connection, and says why."""

    code: int


Packet = Connack | Publish | Puback | Suback | Pong | Disconnect


def reason(code: int) -> str:
    """A refusal in words."""
    return _REFUSALS.get(code, f"reason code {code:#04x}")


# What we say -----------------------------------------------------------------------------------------------------


def connect(
    version: Version,
    client_id: str,
    *,
    keep_alive_s: int,
    clean: bool,
    session_s: int = 0,
    receive_maximum: int | None = None,
    username: str | None = None,
    password: str | None = None,
    will: Will | None = None,
) -> bytes:
    """CONNECT (3.1). ``session_s`` and ``receive_maximum`` say something in version 5 only."""
    flags = _CLEAN if clean else 0
    payload = _string(client_id)
    if will is not None:
        flags |= _WILL | QOS << 3 | (_WILL_RETAIN if will.retain else 0)
        payload += _properties(version) + _string(will.topic) + _binary(will.payload)
    if username is not None:
        flags |= _USERNAME
        payload += _string(username)
    if password is not None:
        flags |= _PASSWORD
        payload += _string(password)
    properties = b""
    if session_s:
        properties += struct.pack("!BI", _SESSION_EXPIRY, session_s)
    if receive_maximum is not None:
        properties += struct.pack("!BHBI", _RECEIVE_MAXIMUM, receive_maximum, _LARGEST_PACKET, LARGEST)
    head = _string("MQTT") + struct.pack("!BBH", version, flags, keep_alive_s)
    return _packet(_CONNECT << 4, head + _properties(version, properties) + payload)


def publish(
    version: Version, packet_id: int, topic: str, payload: bytes, *, retain: bool, content_type: str | None
) -> bytes:
    """PUBLISH at QoS 1 (3.3)."""
    properties = b"" if content_type is None else bytes((_CONTENT_TYPE,)) + _string(content_type)
    head = _string(topic) + packet_id.to_bytes(2) + _properties(version, properties)
    return _packet(_PUBLISH << 4 | QOS << 1 | retain, head + payload)


def puback(packet_id: int) -> bytes:
    """PUBACK: taken (3.4)."""
    return b"\x40\x02" + packet_id.to_bytes(2)


def subscribe(version: Version, packet_id: int, filters: Sequence[str]) -> bytes:
    """SUBSCRIBE at QoS 1 (3.8)."""
    wanted = b"".join(_string(topic_filter) + bytes((QOS,)) for topic_filter in filters)
    return _packet(_SUBSCRIBE << 4 | 2, packet_id.to_bytes(2) + _properties(version) + wanted)


def disconnect(version: Version) -> bytes:
    """DISCONNECT: no will, and no session to be kept (3.14)."""
    if version is Version.V311:
        return bytes((_DISCONNECT << 4, 0))
    return _packet(_DISCONNECT << 4, b"\0" + _properties(version, struct.pack("!BI", _SESSION_EXPIRY, 0)))


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def _properties(version: Version, properties: bytes = b"") -> bytes:
    return b"" if version is Version.V311 else _length(len(properties)) + properties


def _length(number: int) -> bytes:
    """A variable byte integer (1.5.5)."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _string(text: str) -> bytes:
    return _binary(text.encode())


def _binary(octets: bytes) -> bytes:
    return len(octets).to_bytes(2) + octets


# What we hear ----------------------------------------------------------------------------------------------------


class Reader:
    """Octets of one connection in, packets out."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that are whole now.

        :raises DecodeError: this is not MQTT; nothing can be read after it
        """
        self._buffer += data
        buffer = self._buffer
        offset = 0
        try:
            while (found := _frame(buffer, offset)) is not None:
                begin, end = found
                first, offset = buffer[offset], end
                packet = self._read(first, bytes(buffer[begin:end]))
                if packet is not None:
                    yield packet
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise DecodeError("a packet that contradicts its length") from error
        finally:
            del buffer[:offset]

    def _read(self, first: int, body: bytes) -> Packet | None:
        kind = first >> 4
        if kind == _PUBLISH:
            return self._publish(first, body)
        if kind == _PUBACK:
            return Puback(int.from_bytes(_exactly(body, 0, 2)), body[2] if len(body) > 2 else 0)
        if kind == _SUBACK:
            codes = 2 if self._version is Version.V311 else _after_properties(body, 2)
            return Suback(int.from_bytes(_exactly(body, 0, 2)), body[codes:])
        if kind == _PINGRESP:
            return Pong()
        if kind == _CONNACK:
            return _connack(body)
        if kind == _DISCONNECT:
            return Disconnect(body[0] if body else 0)
        raise DecodeError(f"a packet of type {kind}, which no broker sends to us")

    def _publish(self, first: int, body: bytes) -> Publish:
        size = int.from_bytes(_exactly(body, 0, 2))
        topic = str(_exactly(body, 2, size), "utf-8")
        place = 2 + size
        qos = first >> 1 & 3
        if qos > QOS:
            raise DecodeError(f"a message at QoS {qos}, which was not asked for")
        packet_id = None
        if qos:
            packet_id = int.from_bytes(_exactly(body, place, 2))
            place += 2
        if self._version is Version.V5:
            place = _after_properties(body, place)
        return Publish(topic, body[place:], packet_id)


def _frame(buffer: bytearray, offset: int) -> tuple[int, int] | None:
    """Begin and end of what follows the fixed header (2.1) at ``offset``; None while it is not all there."""
    length, shift, place = 0, 0, offset + 1
    while True:
        if place >= len(buffer):
            return None
        octet = buffer[place]
        place += 1
        length |= (octet & 0x7F) << shift
        if octet < 0x80:
            break
        shift += 7
        if shift > 21:
            raise DecodeError("a length of more than four octets")
    if length > LARGEST:
        raise DecodeError(f"a packet of {length} octets")
    return (place, place + length) if place + length <= len(buffer) else None


def _exactly(body: bytes, place: int, size: int) -> bytes:
    found = body[place : place + size]
    if len(found) < size:
        raise DecodeError("a packet that contradicts its length")
    return found


def _variable(body: bytes, place: int) -> tuple[int, int]:
    """A variable byte integer, and what follows it."""
    number = 0
    for shift in (0, 7, 14, 21):
        octet = body[place]
        place += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number, place
    raise DecodeError("a length of more than four octets")


def _after_properties(body: bytes, place: int) -> int:
    length, begin = _variable(body, place)
    if begin + length > len(body):
        raise DecodeError("properties that contradict their length")
    return begin + length


def _connack(body: bytes) -> Connack:
    """CONNACK (3.2); a broker that only knows 3.1.1 answers a version 5 CONNECT in its own way, without properties."""
    code = body[1]
    found: dict[int, int] = {}
    if len(body) > 2:
        length, place = _variable(body, 2)
        found = _numbers(_exactly(body, place, length))
    return Connack(code, found.get(_RECEIVE_MAXIMUM, 0xFFFF), found.get(_SERVER_KEEP_ALIVE))


def _numbers(properties: bytes) -> dict[int, int]:
    """The properties that are numbers, by their identifier."""
    found: dict[int, int] = {}
    place = 0
    while place < len(properties):
        which = properties[place]
        place += 1
        if which == _VARIABLE:
            found[which], place = _variable(properties, place)
            continue
        if which in _FIXED_SIZE:
            size = _FIXED_SIZE[which]
            found[which] = int.from_bytes(_exactly(properties, place, size))
            place += size
            continue
        for _ in range(2 if which == _PAIR else 1):
            place += 2 + int.from_bytes(_exactly(properties, place, 2))
    return found
