"""GTPv2-C on S11: the elements that matter, piggybacking, and lengths that lie."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from epc_monitor import gtpv2
from epc_monitor.frames import UDP, Frame, FrameDecoder
from epc_monitor.gtpv2 import GtpBearer, GtpFTeid, GtpMessage, GtpType
from mobiscud.core.errors import DecodeError

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"
MME, SGW = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 3))
SGW_6 = bytes.fromhex("20010db8000000000000000000000003")


def element(kind: int, value: bytes, instance: int = 0) -> bytes:
    return struct.pack(">BHB", kind, len(value), instance) + value


def message(
    kind: int, *elements: bytes, teid: int | None = 5, sequence: int = 0xABCDEF, piggyback: bool = False
) -> bytes:
    flags = 0x40 | (0 if teid is None else 8) | (16 if piggyback else 0)
    body = b"" if teid is None else struct.pack(">I", teid)
    body += struct.pack(">I", sequence << 8) + b"".join(elements)
    return struct.pack(">BBH", flags, kind, len(body)) + body


REQUEST = message(
    32,
    element(1, bytes.fromhex("99790000000000f1")),
    element(87, b"\x8a" + struct.pack(">I", 0x501) + MME),
    element(87, b"\x87" + struct.pack(">I", 0) + SGW, 1),
    element(99, b"\x01"),
    element(93, element(73, b"\x05") + element(80, b"\x61\x09" + bytes(20))),
    teid=0,
)
RESPONSE = message(
    33,
    element(2, b"\x10\0"),
    element(87, b"\xcb" + struct.pack(">I", 0x601) + SGW + SGW_6),
    element(79, b"\x03\x40" + SGW_6 + bytes((10, 45, 0, 2))),
    element(93, element(73, b"\x05") + element(2, b"\x10\0") + element(87, b"\x81" + struct.pack(">I", 0x100) + SGW)),
)


@pytest.mark.parametrize(
    ("octets", "apn"),
    [
        (b"\x08internet", "internet"),
        (b"\x03IMS\x05Corp1", "ims.corp1"),
        (b"\x08internet\x06mnc070\x06mcc999\x04gprs", "internet"),
        (b"", ""),
        (b"\x02\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_apn(octets: bytes, apn: str) -> None:
    [request] = gtpv2.decode(message(32, element(71, octets)))
    assert request.apn == apn


def test_an_apn_that_lies_about_its_length() -> None:
    with pytest.raises(DecodeError, match="APN label"):
        gtpv2.decode(message(32, element(71, b"\x09internet")))


def test_create_session() -> None:
    [request] = gtpv2.decode(REQUEST)
    assert request.type == GtpType.CREATE_SESSION_REQUEST
    assert (request.teid, request.sequence, request.imsi) == (0, 0xABCDEF, "999700000000001")
    assert request.f_teid(gtpv2.S11_MME) == GtpFTeid(10, 0x501, MME, None)
    assert request.f_teid(gtpv2.S11_SGW) is None
    assert request.bearers == (GtpBearer(5, (), 9),)
    [response] = gtpv2.decode(RESPONSE)
    assert response.cause == 16
    assert response.addresses == (bytes((10, 45, 0, 2)), SGW_6)
    sgw = response.f_teid(gtpv2.S11_SGW)
    assert sgw is not None
    assert (sgw.ipv4, sgw.ipv6, sgw.address) == (SGW, SGW_6, SGW)
    assert response.bearers == (GtpBearer(5, (GtpFTeid(1, 0x100, SGW, None),), None),)


def test_a_message_that_rides_on_another() -> None:
    first = message(33, element(2, b"\x10\0"), piggyback=True)
    second = message(95, element(73, b"\x05"), sequence=7)
    assert [found.type for found in gtpv2.decode(first + second)] == [33, 95]
    with pytest.raises(DecodeError):
        gtpv2.decode(first)


def test_messages_that_are_not_followed_are_not_read() -> None:
    assert gtpv2.decode(message(1, b"\x03\xff\xff\0", teid=None)) == [GtpMessage(1, None, 0xABCDEF)]


@pytest.mark.parametrize("whole", [REQUEST, RESPONSE], ids=["request", "response"])
def test_cut_short_anywhere(whole: bytes) -> None:
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            gtpv2.decode(whole[:size])
    assert gtpv2.decode(whole + b"\0\0\0") == gtpv2.decode(whole)


@pytest.mark.parametrize(
    "datagram",
    [
        b"\x30" + bytes(11),
        message(32, element(87, b"\xca\0\0\0\1" + MME)),
        message(32, element(1, b"\xab\xcd\xef")),
        message(33, element(79, b"\x01\x0a\x2d")),
        message(33, element(2, b"")),
        message(33, element(93, b"\x49\0\xff\0\x05")),
        b"\x48\x20\0\x04" + bytes(8),
    ],
)
def test_what_is_not_what_it_claims_to_be(datagram: bytes) -> None:
    with pytest.raises(DecodeError):
        gtpv2.decode(datagram)


def test_captured_messages(frames_of: Callable[[str], list[Frame]]) -> None:
    kinds: dict[int, int] = {}
    decoder = FrameDecoder()
    for path in CAPTURES.glob("*.pcap"):
        for frame in frames_of(path.stem):
            packet = decoder.receive(frame)
            if packet is not None and packet.protocol == UDP and b"\x08\x4b" in packet.payload[:4]:
                for found in gtpv2.decode(packet.payload[8:]):
                    kinds[found.type] = kinds.get(found.type, 0) + 1
    assert {32, 33, 34, 35, 36, 37, 95, 96, 166, 168, 170, 171, 176} <= kinds.keys()
