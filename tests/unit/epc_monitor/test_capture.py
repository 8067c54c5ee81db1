"""Capture files: every format, and what is said of those that are damaged or none."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from epc_monitor.capture import CaptureError, NotACapture, TruncatedCapture, read_capture, read_frames
from epc_monitor.frames import Frame

FRAMES = [(1_700_000_000_000_001_000, b"first"), (1_700_000_001_999_999_000, b"second!")]


def pcap(order: str, nanoseconds: bool, linktype: int = 1) -> bytes:
    magic, unit = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, linktype)
    for at, data in FRAMES:
        out += struct.pack(order + "IIII", at // 10**9, at % 10**9 // unit, len(data), len(data)) + data
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, linktype: int, options: bytes) -> bytes:
    return block(order, 1, struct.pack(order + "HHI", linktype, 0, 0) + options)


def packet(order: str, index: int, ticks: int, data: bytes) -> bytes:
    head = struct.pack(order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(order, 6, head + data + bytes(-len(data) % 4) + option(order, 1, b"a comment"))


def pcapng(order: str) -> bytes:
    """Two interfaces, one counting microseconds, one 2**-20 seconds after an offset; unknown blocks between."""
    first = interface(order, 1, option(order, 2, b"eth0") + option(order, 0, b""))
    second = interface(
        order,
        113,
        option(order, 2, b"any")
        + option(order, 9, b"\x94")
        + option(order, 14, struct.pack(order + "q", 1_700_000_000)),
    )
    return (
        section(order)
        + first
        + second
        + packet(order, 0, FRAMES[0][0] // 1000, FRAMES[0][1])
        + block(order, 5, bytes(12))
        + packet(order, 1, 2 << 20, FRAMES[1][1])
    )


def frames(data: bytes) -> list[Frame]:
    return list(read_frames(io.BytesIO(data)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap(order: str, nanoseconds: bool) -> None:
    assert frames(pcap(order, nanoseconds)) == [Frame(at, 1, data) for at, data in FRAMES]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(order: str) -> None:
    assert frames(pcapng(order)) == [
        Frame(FRAMES[0][0], 1, b"first", "eth0"),
        Frame(1_700_000_002_000_000_000, 113, b"second!", "any"),
    ]


def test_pcapng_sections_may_change_byte_order() -> None:
    assert frames(pcapng("<") + pcapng(">")) == frames(pcapng("<")) * 2


def test_simple_packets_have_no_time() -> None:
    data = section("<") + interface("<", 101, b"") + block("<", 3, struct.pack("<I", 5) + b"first")
    assert frames(data) == [Frame(0, 101, b"first")]


@pytest.mark.parametrize("whole", [pcap("<", False), pcapng("<")], ids=["pcap", "pcapng"])
def test_cut_off_anywhere_gives_what_came_before(whole: bytes) -> None:
    complete = frames(whole)
    for size in range(4, len(whole)):
        found: list[Frame] = []
        ended = False
        try:
            for frame in read_frames(io.BytesIO(whole[:size])):
                found.append(frame)
            ended = True
        except TruncatedCapture:
            pass
        assert found == complete[: len(found)]
        assert ended is False or len(found) < len(complete)


def test_nothing_is_allocated_for_a_length_that_lies() -> None:
    head = pcap("<", False)[:24]
    with pytest.raises(TruncatedCapture, match="4294967280"):
        frames(head + struct.pack("<IIII", 0, 0, 0xFFFFFFF0, 0))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"#!/bin/sh\n", b"\x0a\x0d\x0d\x0a" + bytes(30)])
def test_no_capture(data: bytes) -> None:
    with pytest.raises(NotACapture):
        frames(data)


def test_errors_name_the_file_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pcap"
    with pytest.raises(CaptureError, match=r"missing\.pcap: No such file"):
        list(read_capture(missing))
    with pytest.raises(CaptureError, match="directory"):
        list(read_capture(tmp_path))
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(NotACapture, match=r"notes\.txt: neither pcap nor pcapng$"):
        list(read_capture(text))


def test_a_real_capture_cut_off(tmp_path: Path, frames_of: Callable[[str], list[Frame]]) -> None:
    source = Path(__file__).parents[2] / "vectors" / "captures" / "epc-attach.pcap"
    short = tmp_path / "short.pcap"
    short.write_bytes(source.read_bytes()[:-5])
    found: list[Frame] = []
    with pytest.raises(TruncatedCapture, match=r"short\.pcap: cut off"):
        found.extend(read_capture(short))
    assert found == frames_of("epc-attach")[:-1]


def test_packet_blocks_of_old() -> None:
    head = struct.pack("<HHIIII", 0, 7, 0, 5_000_000, 5, 5)
    whole = section("<") + interface("<", 1, b"") + block("<", 2, head + b"older")
    assert frames(whole) == [Frame(5_000_000_000, 1, b"older")]


@pytest.mark.parametrize(("offset", "at"), [(1 << 62, (1 << 63) - 1), (-(1 << 62), 0)])
def test_times_outside_of_all_calendars(offset: int, at: int) -> None:
    options = option("<", 9, b"\0") + option("<", 14, struct.pack("<q", offset))
    [frame] = frames(section("<") + interface("<", 1, options) + packet("<", 0, (1 << 64) - 1 if at else 0, b"x"))
    assert frame.at == at


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    whole = pcapng("<") + pcapng(">")
    writer = threading.Thread(target=pipe.write_bytes, args=(whole,))
    writer.start()
    assert [frame.data for frame in read_capture(pipe)] == [data for _, data in FRAMES * 2]
    writer.join()
