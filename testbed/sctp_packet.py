"""SCTP on the wire (RFC 9260): packets and the chunks that an S1 association needs, bytes to values and back."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from mobiscud.core.errors import DecodeError

HEADER: Final = struct.Struct("!HHII")
_CHUNK: Final = struct.Struct("!BBH")
_DATA: Final = struct.Struct("!IHHI")
_INIT: Final = struct.Struct("!IIHHI")
_SACK: Final = struct.Struct("!IIHH")

_COOKIE_PARAMETER: Final = 7
_HEARTBEAT_PARAMETER: Final = 1


@dataclass(frozen=True, slots=True)
class Data:
    """User data (3.3.1), whole: fragments are refused, no S1AP message of the testbed needs them."""

    tsn: int
    stream: int
    ssn: int
    ppid: int
    payload: bytes
    unordered: bool = False


@dataclass(frozen=True, slots=True)
class Init:
    """The opening of an association (3.3.2)."""

    tag: int
    window: int
    outbound_streams: int
    inbound_streams: int
    initial_tsn: int


@dataclass(frozen=True, slots=True)
class InitAck(Init):
    """The answer to INIT (3.3.3); everything the sender must remember is in the cookie."""

    cookie: bytes = b""


@dataclass(frozen=True, slots=True)
class Sack:
    """What has arrived (3.3.4). Gaps are offsets from the cumulative TSN, first and last of each block."""

    cumulative_tsn: int
    window: int
    gaps: tuple[tuple[int, int], ...] = ()
    duplicates: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Are you there? (3.3.5)"""

    info: bytes


@dataclass(frozen=True, slots=True)
class HeartbeatAck:
    """I am (3.3.6); the info is the asker's own."""

    info: bytes


@dataclass(frozen=True, slots=True)
class Abort:
    """The end, at once (3.3.7). ``reflected``: T bit, the tag is the receiver's own sent back."""

    reflected: bool = False


@dataclass(frozen=True, slots=True)
class Shutdown:
    """No more data from here (3.3.8)."""

    cumulative_tsn: int


@dataclass(frozen=True, slots=True)
class ShutdownAck:
    """Nor from here (3.3.9)."""


@dataclass(frozen=True, slots=True)
class ShutdownComplete:
    """The end, agreed (3.3.13)."""

    reflected: bool = False


@dataclass(frozen=True, slots=True)
class CookieEcho:
    """The cookie of INIT ACK, sent back (3.3.11)."""

    cookie: bytes


@dataclass(frozen=True, slots=True)
class CookieAck:
    """The association stands (3.3.12)."""


Chunk = (
    Data
    | Init
    | InitAck
    | Sack
    | Heartbeat
    | HeartbeatAck
    | Abort
    | Shutdown
    | ShutdownAck
    | ShutdownComplete
    | CookieEcho
    | CookieAck
)


@dataclass(frozen=True, slots=True)
class Packet:
    """A common header and its chunks (3.1)."""

    source_port: int
    destination_port: int
    tag: int
    chunks: tuple[Chunk, ...]


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F6_3B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C: Final = _crc32c_table()


def crc32c(octets: bytes) -> int:
    """The checksum of RFC 9260 appendix A (Castagnoli, reflected)."""
    crc = 0xFFFF_FFFF
    for octet in octets:
        crc = crc >> 8 ^ _CRC32C[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFF_FFFF


def encode_packet(packet: Packet) -> bytes:
    """Write a packet with its checksum, which stands in the wire's order of octets least significant first."""
    body = b"".join(encode_chunk(chunk) for chunk in packet.chunks)
    bare = HEADER.pack(packet.source_port, packet.destination_port, packet.tag, 0) + body
    return bare[:8] + crc32c(bare).to_bytes(4, "little") + bare[12:]


def encode_chunk(chunk: Chunk) -> bytes:
    """Write one chunk, padded to a multiple of four."""
    match chunk:
        case Data():
            head = _DATA.pack(chunk.tsn, chunk.stream, chunk.ssn, chunk.ppid)
            return _chunk(0, 7 if chunk.unordered else 3, head + chunk.payload)
        case InitAck():
            return _chunk(2, 0, _init(chunk) + _parameter(_COOKIE_PARAMETER, chunk.cookie))
        case Init():
            return _chunk(1, 0, _init(chunk))
        case Sack():
            head = _SACK.pack(chunk.cumulative_tsn, chunk.window, len(chunk.gaps), len(chunk.duplicates))
            gaps = b"".join(struct.pack("!HH", *gap) for gap in chunk.gaps)
            return _chunk(3, 0, head + gaps + struct.pack(f"!{len(chunk.duplicates)}I", *chunk.duplicates))
        case Heartbeat():
            return _chunk(4, 0, _parameter(_HEARTBEAT_PARAMETER, chunk.info))
        case HeartbeatAck():
            return _chunk(5, 0, _parameter(_HEARTBEAT_PARAMETER, chunk.info))
        case Abort():
            return _chunk(6, chunk.reflected, b"")
        case Shutdown():
            return _chunk(7, 0, struct.pack("!I", chunk.cumulative_tsn))
        case ShutdownAck():
            return _chunk(8, 0, b"")
        case CookieEcho():
            return _chunk(10, 0, chunk.cookie)
        case CookieAck():
            return _chunk(11, 0, b"")
        case ShutdownComplete():
            return _chunk(14, chunk.reflected, b"")


def decode_packet(octets: bytes) -> Packet:
    """Read a packet; chunks of unknown type are skipped, the checksum is not verified.

    :raises DecodeError: when a length lies or a chunk is short
    """
    if len(octets) < HEADER.size:
        raise DecodeError("SCTP header is cut", len(octets))
    source_port, destination_port, tag, _ = HEADER.unpack_from(octets)
    chunks: list[Chunk] = []
    at = HEADER.size
    while at + _CHUNK.size <= len(octets):
        kind, flags, length = _CHUNK.unpack_from(octets, at)
        if length < _CHUNK.size or at + length > len(octets):
            raise DecodeError("SCTP chunk length lies", at)
        chunk = _decode_chunk(kind, flags, octets[at + _CHUNK.size : at + length], at)
        if chunk is not None:
            chunks.append(chunk)
        at += length + 3 & ~3
    return Packet(source_port, destination_port, tag, tuple(chunks))


def _decode_chunk(kind: int, flags: int, value: bytes, at: int) -> Chunk | None:
    try:
        match kind:
            case 0:
                return _decode_data(flags, value, at)
            case 1:
                return Init(*_INIT.unpack_from(value))
            case 2:
                return _decode_init_ack(value)
            case 3:
                return _decode_sack(value)
            case 4:
                return Heartbeat(_parameters(value).get(_HEARTBEAT_PARAMETER, b""))
            case 5:
                return HeartbeatAck(_parameters(value).get(_HEARTBEAT_PARAMETER, b""))
            case 6:
                return Abort(bool(flags & 1))
            case 7:
                return Shutdown(*struct.unpack_from("!I", value))
            case 8:
                return ShutdownAck()
            case 10:
                return CookieEcho(value)
            case 11:
                return CookieAck()
            case 14:
                return ShutdownComplete(bool(flags & 1))
            case _:
                return None
    except struct.error as error:
        raise DecodeError("SCTP chunk is cut", at) from error


def _decode_data(flags: int, value: bytes, at: int) -> Data:
    if flags & 3 != 3:
        raise DecodeError("fragmented SCTP data", at)
    tsn, stream, ssn, ppid = _DATA.unpack_from(value)
    return Data(tsn, stream, ssn, ppid, value[_DATA.size :], bool(flags & 4))


def _decode_init_ack(value: bytes) -> InitAck:
    tag, window, outbound, inbound, tsn = _INIT.unpack_from(value)
    cookie = _parameters(value[_INIT.size :]).get(_COOKIE_PARAMETER, b"")
    return InitAck(tag, window, outbound, inbound, tsn, cookie)


def _decode_sack(value: bytes) -> Sack:
    cumulative_tsn, window, gap_count, duplicate_count = _SACK.unpack_from(value)
    numbers = struct.unpack_from(f"!{2 * gap_count}H{duplicate_count}I", value, _SACK.size)
    gaps = tuple(zip(numbers[0 : 2 * gap_count : 2], numbers[1 : 2 * gap_count : 2], strict=True))
    return Sack(cumulative_tsn, window, gaps, numbers[2 * gap_count :])


def _parameters(octets: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at + 4 <= len(octets):
        kind, length = struct.unpack_from("!HH", octets, at)
        if length < 4:
            break
        found[kind] = octets[at + 4 : at + length]
        at += length + 3 & ~3
    return found


def _init(chunk: Init) -> bytes:
    return _INIT.pack(chunk.tag, chunk.window, chunk.outbound_streams, chunk.inbound_streams, chunk.initial_tsn)


def _parameter(kind: int, value: bytes) -> bytes:
    return _padded(struct.pack("!HH", kind, 4 + len(value)) + value)


def _chunk(kind: int, flags: int, value: bytes) -> bytes:
    return _padded(_CHUNK.pack(kind, flags, _CHUNK.size + len(value)) + value)


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)
