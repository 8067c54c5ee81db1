"""SCTP packets, bytes to values and back."""

from __future__ import annotations

import pytest

from mobiscud.core.errors import DecodeError
from testbed.sctp_packet import (
    HEADER,
    Abort,
    Chunk,
    CookieAck,
    CookieEcho,
    Data,
    Heartbeat,
    HeartbeatAck,
    Init,
    InitAck,
    Packet,
    Sack,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    crc32c,
    decode_packet,
    encode_chunk,
    encode_packet,
)

CHUNKS: list[Chunk] = [
    Data(0xFFFF_FFFF, 3, 7, 18, b"odd"),
    Data(1, 0, 0, 18, b"four", unordered=True),
    Init(0xDEAD_BEEF, 131_072, 30, 29, 5),
    InitAck(1, 2, 3, 4, 5, b"cookie!!"),
    Sack(9, 1000, ((2, 3), (5, 5)), (4, 4)),
    Heartbeat(b"eight888"),
    HeartbeatAck(b"eight888"),
    Abort(),
    Abort(reflected=True),
    Shutdown(77),
    ShutdownAck(),
    ShutdownComplete(),
    CookieEcho(b"cookie!!"),
    CookieAck(),
]


@pytest.mark.parametrize(
    ("octets", "checksum"),
    [(b"123456789", 0xE306_9283), (bytes(32), 0x8A91_36AA), (b"\xff" * 32, 0x62A8_AB43)],
    ids=["check value", "RFC 3720 zeros", "RFC 3720 ones"],
)
def test_checksum_is_castagnoli(octets: bytes, checksum: int) -> None:
    assert crc32c(octets) == checksum


@pytest.mark.parametrize("chunk", CHUNKS, ids=lambda chunk: type(chunk).__name__)
def test_chunk_survives_the_wire(chunk: Chunk) -> None:
    packet = Packet(40_000, 36_412, 0x0102_0304, (chunk,))
    assert decode_packet(encode_packet(packet)) == packet


def test_bundle_keeps_its_order() -> None:
    packet = Packet(1, 2, 3, tuple(CHUNKS))
    assert decode_packet(encode_packet(packet)) == packet


def test_checksum_stands_least_significant_octet_first() -> None:
    octets = encode_packet(Packet(1, 2, 3, (CookieAck(),)))
    bare = octets[:8] + bytes(4) + octets[12:]
    assert octets[8:12] == crc32c(bare).to_bytes(4, "little")


def test_chunks_are_padded_to_four() -> None:
    assert len(encode_chunk(Data(1, 0, 0, 18, b"12345"))) % 4 == 0


def test_unknown_chunk_is_stepped_over() -> None:
    octets = encode_packet(Packet(1, 2, 3, (CookieAck(),)))
    forward_tsn = bytes.fromhex("c0000008") + bytes(4)
    packet = decode_packet(octets[: HEADER.size] + forward_tsn + octets[HEADER.size :])
    assert packet.chunks == (CookieAck(),)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("0003000300", id="length below the chunk header"),
        pytest.param("00030020" + "00" * 8, id="length beyond the packet"),
        pytest.param("00030008" + "00" * 4, id="DATA without its header"),
        pytest.param("00020014" + "00" * 16, id="fragment"),
        pytest.param("03000010" + "00" * 8 + "00050000", id="SACK with fewer gaps than it says"),
    ],
)
def test_lies_are_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        decode_packet(bytes(HEADER.size) + bytes.fromhex(body))


def test_cut_header_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_packet(bytes(11))
