"""Input that means harm: floods, numbers that go round, shells in shells. Bounded, counted, alive."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from epc_monitor import gtpv2, nas, s1ap
from epc_monitor.frames import LINKTYPE_ETHERNET, LINKTYPE_RAW, SCTP, Frame, FrameDecoder
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.sctp_stream import Delivery, Direction
from mobiscud.core.errors import DecodeError

WHOLE = 3


def test_a_million_half_open_attaches() -> None:
    """With limits of 2,000 UEs and 1,000 half-open connections, over a wrap of the TSN."""
    command = [sys.executable, "-m", "testbed.attach_flood", "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["messages"] == 1_000_000 + 5
    assert (found["decode_errors"], found["gaps"]) == (0, 0)
    assert found["evicted"] == 1_000_000 - 1000
    assert found["told"] > 900_000
    assert found["times_told"] < 50
    assert found["facts"] == ["ue.attached", "ue.idle"]
    assert found["grown_kib"] < 2048


# --- numbers that go round --------------------------------------------------------------------------------------------


def one(direction: Direction, tsn: int, ssn: int = 0) -> list[Delivery]:
    return direction.receive(tsn & 0xFFFF_FFFF, WHOLE, 1, ssn & 0xFFFF, 18, b"x")


def test_tsn_wraps_again_and_again() -> None:
    """Each jump leaves the window; three of them are a whole circle, and the numbering goes on from there."""
    direction = Direction()
    tsn = 0
    for number in range(200):
        assert [delivery.tsn for delivery in one(direction, tsn, number)] == [tsn & 0xFFFF_FFFF]
        assert one(direction, tsn, number) == []
        tsn += 0x5555_5555
    assert direction.weight == 0


def test_a_tsn_one_round_later_is_new_after_the_round() -> None:
    direction = Direction()
    seen = 0
    for tsn in range(0xFFFF_FF00, 0x1_0000_0100):
        seen += len(one(direction, tsn, tsn))
    assert seen == 0x200
    assert direction.lost == 0


# --- shells in shells -------------------------------------------------------------------------------------------------


def element(kind: int, content: bytes) -> bytes:
    return struct.pack(">BHB", kind, len(content), 0) + content


def nested_bearers() -> bytes:
    content = b""
    for _ in range(15_000):
        content = element(93, content)
    return struct.pack(">BBHII", 0x48, 33, 8 + len(content), 1, 1 << 8) + content


def many_extensions() -> bytes:
    """An E-RAB list whose items each claim 65535 extensions."""
    item = b"\0\x32\x40\x06\x60\xff\xff\xff\xff\xff"
    content = bytes((255,)) + item * 256
    value = b"\0\0\x01" + b"\0\x33\x40" + struct.pack(">H", 0x8000 | len(content)) + content
    return b"\x20\x09\x00" + struct.pack(">H", 0x8000 | len(value)) + value


@pytest.mark.parametrize(
    ("decode", "octets"),
    [
        (gtpv2.decode, nested_bearers()),
        (gtpv2.decode, struct.pack(">BBHI", 0x50, 1, 4, 0) * 8000),
        (s1ap.decode, many_extensions()),
        (s1ap.decode, b"\0\x0d\x40" + b"\xc4" * 60_000),
        (s1ap.decode, b"\0\x0d\x40\x83\xff\0\xff\xff" + bytes(1020)),
        (lambda octets: nas.decode(octets, uplink=False), b"\x07\x42\x02\x49\0\0\0" + b"\x50\0" * 30_000),
        (lambda octets: nas.decode(octets, uplink=True), b"\x17\0\0\0\0\0" * 10_000),
    ],
    ids=["bearers in bearers", "piggyback", "extensions", "fragments", "elements", "gutis", "headers in headers"],
)
def test_nesting_and_counts_that_lie(decode: Callable[[bytes], object], octets: bytes) -> None:
    try:
        decode(octets)
    except DecodeError:
        pass


def test_tags_in_tags_and_headers_behind_headers() -> None:
    tags = bytes(12) + b"\x81\0\0\1" * 16_000 + b"\x08\x06"
    assert FrameDecoder().receive(Frame(0, LINKTYPE_ETHERNET, tags)) is None
    chain = b"\x3c\0" + bytes(6)
    head = struct.pack(">IHBB", 6 << 28, 8 * 8000, 60, 64) + bytes(32)
    with pytest.raises(DecodeError):
        FrameDecoder().receive(Frame(0, LINKTYPE_RAW, head + chain * 8000))


@pytest.mark.parametrize("length", [0, 3, 4, 15, 16, 17, 200, 65535])
def test_chunk_lengths_that_lie(length: int) -> None:
    """The packets around a lying one are read, and nothing is invented from it."""
    monitor = Monitor(UeKeys(bytes(32)))
    for number in range(1000):
        payload = struct.pack(">HHII", 40000, 36412, 1, 0) + struct.pack(">BBH", 0, 3, length) + bytes(20)
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, SCTP, 0)
        assert monitor.receive(Frame(number, LINKTYPE_RAW, head + bytes(range(8)) + payload)) == []
    assert monitor.stats.messages <= 1
    assert monitor.stats.decode_errors + monitor.stats.messages > 0
