"""Frames of every link layer give the same packet; lengths that lie give DecodeError and nothing else."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from epc_monitor.frames import (
    LINKTYPE_ETHERNET,
    LINKTYPE_IPV4,
    LINKTYPE_IPV6,
    LINKTYPE_LOOP,
    LINKTYPE_NULL,
    LINKTYPE_RAW,
    LINKTYPE_SLL,
    LINKTYPE_SLL2,
    SCTP,
    UDP,
    FragmentLimits,
    Frame,
    FrameDecoder,
    Packet,
    Reassembly,
)
from mobiscud.core.errors import DecodeError

PAYLOAD = bytes(range(48))
SOURCE, DESTINATION = ip_address("10.0.0.11").packed, ip_address("10.0.0.2").packed
SOURCE_6, DESTINATION_6 = ip_address("2001:db8::11").packed, ip_address("2001:db8::2").packed
MACS = b"\2\0\0\0\0\1\2\0\0\0\0\2"


def ipv4(
    payload: bytes = PAYLOAD, protocol: int = SCTP, options: bytes = b"", fragment: int = 0, ident: int = 7
) -> bytes:
    length = 20 + len(options)
    head = struct.pack(">BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), ident, fragment, 64, protocol, 0)
    return head + SOURCE + DESTINATION + options + payload


def ipv6(payload: bytes = PAYLOAD, following: int = SCTP) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(payload), following, 64) + SOURCE_6 + DESTINATION_6 + payload


PACKET = Packet(SCTP, SOURCE, DESTINATION, PAYLOAD)
PACKET_6 = Packet(SCTP, SOURCE_6, DESTINATION_6, PAYLOAD)

FRAMES = {
    "ethernet": (LINKTYPE_ETHERNET, MACS + b"\x08\x00" + ipv4(), PACKET),
    "trailer": (LINKTYPE_ETHERNET, MACS + b"\x08\x00" + ipv4() + b"\0\0\0", PACKET),
    "vlan": (LINKTYPE_ETHERNET, MACS + b"\x81\0\0\x64\x08\x00" + ipv4(), PACKET),
    "qinq": (LINKTYPE_ETHERNET, MACS + b"\x88\xa8\0\x64\x81\0\0\x05\x86\xdd" + ipv6(), PACKET_6),
    "cooked": (LINKTYPE_SLL, bytes(14) + b"\x08\x00" + ipv4(), PACKET),
    "cooked vlan": (LINKTYPE_SLL, bytes(14) + b"\x81\0\0\x64\x08\x00" + ipv4(), PACKET),
    "cooked 2": (LINKTYPE_SLL2, b"\x86\xdd" + bytes(18) + ipv6(), PACKET_6),
    "raw 4": (LINKTYPE_RAW, ipv4(), PACKET),
    "raw 6": (LINKTYPE_RAW, ipv6(), PACKET_6),
    "only ipv4": (LINKTYPE_IPV4, ipv4(), PACKET),
    "only ipv6": (LINKTYPE_IPV6, ipv6(), PACKET_6),
    "null little": (LINKTYPE_NULL, b"\2\0\0\0" + ipv4(), PACKET),
    "null big": (LINKTYPE_NULL, b"\0\0\0\x1e" + ipv6(), PACKET_6),
    "loop": (LINKTYPE_LOOP, b"\0\0\0\2" + ipv4(), PACKET),
    "options": (LINKTYPE_RAW, ipv4(options=bytes(12)), PACKET),
    "hop by hop": (LINKTYPE_RAW, ipv6(bytes((60, 0)) + bytes(6) + bytes((SCTP, 1)) + bytes(14) + PAYLOAD, 0), PACKET_6),
    "authentication": (LINKTYPE_RAW, ipv6(bytes((SCTP, 4)) + bytes(22) + PAYLOAD, 51), PACKET_6),
    "udp": (LINKTYPE_RAW, ipv4(protocol=UDP), replace(PACKET, protocol=UDP)),
    "tcp": (LINKTYPE_RAW, ipv4(protocol=6), None),
    "arp": (LINKTYPE_ETHERNET, MACS + b"\x08\x06" + bytes(28), None),
    "icmp 6": (LINKTYPE_RAW, ipv6(following=58), None),
    "other family": (LINKTYPE_NULL, b"\7\0\0\0" + ipv4(), None),
}


def receive(linktype: int, data: bytes) -> Packet | None:
    return FrameDecoder().receive(Frame(0, linktype, data))


@pytest.mark.parametrize("name", FRAMES)
def test_every_link_layer(name: str) -> None:
    linktype, data, packet = FRAMES[name]
    assert receive(linktype, data) == packet


@pytest.mark.parametrize("name", [name for name, (_, _, packet) in FRAMES.items() if packet and name != "trailer"])
def test_cut_short_anywhere(name: str) -> None:
    linktype, data, _ = FRAMES[name]
    for size in range(len(data)):
        try:
            assert receive(linktype, data[:size]) is None
        except DecodeError:
            continue


def test_unknown_link_layer() -> None:
    with pytest.raises(DecodeError, match="147"):
        receive(147, ipv4())


@pytest.mark.parametrize("octet", [0x45 - 1, 0x65, 0x4F])
def test_impossible_header_lengths(octet: int) -> None:
    with pytest.raises(DecodeError):
        receive(LINKTYPE_IPV4, bytes((octet,)) + ipv4(b"")[1:] if octet != 0x65 else b"\x45\0\0\x10" + ipv4(b"")[4:])


def test_fragments_in_any_order() -> None:
    parts = [
        ipv4(PAYLOAD[:16], fragment=0x2000),
        ipv4(PAYLOAD[16:32], fragment=0x2000 | 2),
        ipv4(PAYLOAD[32:], fragment=4),
    ]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        decoder = FrameDecoder()
        found = [decoder.receive(Frame(0, LINKTYPE_RAW, parts[i])) for i in order]
        assert found == [None, None, PACKET]


def test_fragments_of_two_packets_do_not_mix() -> None:
    decoder = FrameDecoder()
    for ident, size in ((1, 24), (2, 32)):
        assert decoder.receive(Frame(0, LINKTYPE_RAW, ipv4(bytes(size), fragment=0x2000, ident=ident))) is None
    second = decoder.receive(Frame(0, LINKTYPE_RAW, ipv4(b"end", fragment=4, ident=2)))
    first = decoder.receive(Frame(0, LINKTYPE_RAW, ipv4(b"end", fragment=3, ident=1)))
    assert first is not None
    assert second is not None
    assert (len(first.payload), len(second.payload)) == (27, 35)


def test_ipv6_fragments() -> None:
    decoder = FrameDecoder()
    head = struct.pack(">BBHI", SCTP, 0, 1, 99)
    tail = struct.pack(">BBHI", SCTP, 0, 16, 99)
    assert decoder.receive(Frame(0, LINKTYPE_RAW, ipv6(head + PAYLOAD[:16], 44))) is None
    assert decoder.receive(Frame(0, LINKTYPE_RAW, ipv6(tail + PAYLOAD[16:], 44))) == PACKET_6


def test_ipv6_extension_headers_behind_the_fragment_header() -> None:
    decoder = FrameDecoder()
    rest = bytes((SCTP, 0)) + bytes(6) + PAYLOAD
    first, second = (struct.pack(">BBHI", 60, 0, placement, 99) for placement in (1, 16))
    assert decoder.receive(Frame(0, LINKTYPE_RAW, ipv6(first + rest[:16], 44))) is None
    assert decoder.receive(Frame(0, LINKTYPE_RAW, ipv6(second + rest[16:], 44))) == PACKET_6


def test_fragments_inside_fragments_lead_nowhere() -> None:
    nested = struct.pack(">BBHI", 44, 0, 0, 7) * 4000 + struct.pack(">BBHI", SCTP, 0, 0, 7) + PAYLOAD
    assert receive(LINKTYPE_RAW, ipv6(nested, 44)) is None


def test_reassembly_is_bounded() -> None:
    reassembly = Reassembly(FragmentLimits(packets=10, octets=1000))
    for i in range(100):
        assert reassembly.add(i.to_bytes(2, "big"), 0, True, bytes(88), 0) is None
    assert reassembly.evicted == 90
    assert reassembly.add((99).to_bytes(2, "big"), 88, False, b"end", 0) == bytes(88) + b"end"


@pytest.mark.parametrize(("offset", "more", "size"), [(0xFFF8, False, 9), (0, True, 0), (8, False, 0), (0, True, 15)])
def test_impossible_fragments(offset: int, more: bool, size: int) -> None:
    with pytest.raises(DecodeError):
        Reassembly().add(b"k", offset, more, bytes(size), 0)


def test_a_packet_in_tiny_fragments_does_not_tie_up_the_monitor() -> None:
    reassembly = Reassembly()
    assert reassembly.add(b"k", 0xFFF0, False, bytes(8), 0) is None
    for offset in range(8, 0xFFF0, 8):
        assert reassembly.add(b"k", offset, True, bytes(8), 0) is None
    assert reassembly.evicted == 0xFFF0 // 8 // 257
    assert sum(len(partial.parts) for partial in reassembly._open.values()) <= 256


def test_a_packet_that_is_never_completed_expires_with_its_identification() -> None:
    reassembly = Reassembly(FragmentLimits(age_s=30))
    second = 1_000_000_000
    assert reassembly.add(b"k", 0, True, b"old data", 0) is None
    assert reassembly.add(b"k", 8, False, b"end", 31 * second) is None
    assert reassembly.expired == 1
    assert reassembly.add(b"k", 0, True, b"new data", 32 * second) == b"new dataend"


def test_overlapping_fragments_are_no_way_in() -> None:
    reassembly = Reassembly()
    assert reassembly.add(b"k", 0, True, b"a" * 16, 0) is None
    assert reassembly.add(b"k", 8, True, b"b" * 16, 0) is None
    assert reassembly.add(b"k", 24, False, b"c", 0) == b"a" * 8 + b"b" * 16 + b"c"
