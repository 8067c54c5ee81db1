"""The whole path: what is counted, what is left alone, and SCTP inside UDP."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from epc_monitor.frames import LINKTYPE_RAW, SCTP, UDP, Frame, FrameDecoder
from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from epc_monitor.pipeline import Monitor
from mobiscud.core.events import Event, MonitorDropped

Watch = Callable[[str], tuple[list[Event], Monitor]]
FramesOf = Callable[[str], list[Frame]]


def ipv4(protocol: int, payload: bytes) -> bytes:
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + bytes(8) + payload


def udp(source: int, destination: int, payload: bytes) -> Frame:
    datagram = struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload
    return Frame(0, LINKTYPE_RAW, ipv4(UDP, datagram))


def test_everything_is_counted(frames_of: FramesOf, watch: Watch) -> None:
    frames = frames_of("epc-attach")
    events, monitor = watch("epc-attach")
    assert monitor.stats.as_dict() == {
        "frames": len(frames),
        "bytes": sum(len(frame.data) for frame in frames),
        "messages": 29,
        "events": len(events),
        "decode_errors": 0,
        "gaps": 0,
        "evicted": 0,
        "expired": 0,
    }


@pytest.mark.parametrize(
    "frame",
    [
        Frame(0, LINKTYPE_RAW, b"\x45"),
        Frame(0, 147, bytes(60)),
        Frame(0, LINKTYPE_RAW, ipv4(UDP, b"\0\1")),
        Frame(0, LINKTYPE_RAW, ipv4(SCTP, b"short")),
        udp(2123, 2123, b"\x48\x20\0\xff"),
    ],
)
def test_what_cannot_be_read_is_counted(monitor: Monitor, frame: Frame) -> None:
    assert monitor.receive(frame) == []
    assert monitor.stats.decode_errors == 1


@pytest.mark.parametrize(
    "frame", [Frame(0, LINKTYPE_RAW, ipv4(6, bytes(20))), udp(2152, 2152, b"\x30\xff"), udp(53, 40000, b"\xff")]
)
def test_what_is_no_signalling_is_left_alone(monitor: Monitor, frame: Frame) -> None:
    assert monitor.receive(frame) == []
    assert monitor.stats.decode_errors == monitor.stats.messages == 0
    assert monitor.stats.frames == 1


def test_a_pdu_that_cannot_be_read_does_not_hide_its_neighbours(monitor: Monitor) -> None:
    def data(tsn: int, text: bytes) -> bytes:
        chunk = struct.pack(">BBHIHHI", 0, 3, 16 + len(text), tsn, 0, tsn, 18) + text
        return chunk + bytes(-len(chunk) % 4)

    packet = struct.pack(">HHII", 40000, 36412, 1, 0) + data(1, b"\xff\xff") + data(2, b"\0\x0f\x40\x03\0\0\0")
    monitor.receive(Frame(0, LINKTYPE_RAW, ipv4(SCTP, packet)))
    assert (monitor.stats.messages, monitor.stats.decode_errors) == (2, 1)


def test_sctp_inside_udp_is_the_same(frames_of: FramesOf, watch: Watch) -> None:
    """RFC 6951: the same packets behind a UDP header give the same events."""
    expected, _ = watch("epc-attach")
    decoder, monitor = FrameDecoder(), Monitor(UeKeys(bytes(range(32))))
    events = []
    for frame in frames_of("epc-attach"):
        packet = decoder.receive(frame)
        if packet is not None and packet.protocol == SCTP:
            inner = struct.pack(">HHHH", 9899, 9899, 8 + len(packet.payload), 0) + packet.payload
            head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(inner), 1, 0, 64, UDP, 0)
            frame = Frame(frame.at, LINKTYPE_RAW, head + packet.source + packet.destination + inner)
        events += monitor.receive(frame)
    assert events == expected


def test_a_lost_frame_is_told_and_nothing_is_made_up(frames_of: FramesOf) -> None:
    frames = frames_of("epc-multi-ue-a")
    decoder = FrameDecoder()
    carrying = [
        i
        for i, frame in enumerate(frames)
        if (packet := decoder.receive(frame)) is not None
        and packet.protocol == SCTP
        and packet.payload[12:14] == b"\0\3"
        and 100 < i < 700
    ]
    monitor = Monitor(UeKeys(bytes(32)))
    lost = carrying[len(carrying) // 2]
    events = [event for i, frame in enumerate(frames) if i != lost for event in monitor.receive(frame)]
    dropped = [event for event in events if isinstance(event, MonitorDropped)]
    assert monitor.stats.gaps == sum(event.count for event in dropped) == 1
    assert dropped[0].where.reason == "tsn_gap"


def test_kernel_drops_are_events_of_their_own(monitor: Monitor) -> None:
    first, second = monitor.dropped(5, "eth0", 1) + monitor.dropped(5, "eth0", 1)
    assert isinstance(first, MonitorDropped)
    assert (first.count, first.where.interface, first.where.reason) == (5, "eth0", "kernel")
    assert first.origin != second.origin


def test_what_gives_way_to_a_limit_is_told_now_and_then() -> None:
    monitor = Monitor(UeKeys(bytes(32)), Limits(fragments=10))
    told = []
    for number in range(6400):
        first = struct.pack(">BBHHHBBH", 0x45, 0, 28, number, 0x2000, 64, SCTP, 0) + bytes(16)
        told += monitor.receive(Frame(2_000_000_000 + number * 1_000_000, LINKTYPE_RAW, first))
    assert monitor.stats.evicted == 6390
    assert all(isinstance(event, MonitorDropped) and event.where.reason == "limit" for event in told)
    assert 5 <= len(told) <= 7
    assert 5000 < sum(event.count for event in told if isinstance(event, MonitorDropped)) <= 6390
    assert len({event.origin for event in told}) == len(told)


def test_an_association_that_gives_way_leaves_nothing_behind(captured_pdus: list[bytes]) -> None:
    monitor = Monitor(UeKeys(bytes(32)), Limits(associations=5))
    setup = next(pdu for pdu in captured_pdus if pdu[:2] == b"\0\x11")
    for port in range(2000, 2200):
        body = struct.pack(">BBHIHHI", 0, 3, 16 + len(setup), port, 1, 0, 18) + setup
        packet = struct.pack(">HHII", port, 36412, port, 0) + body + bytes(-len(body) % 4)
        assert monitor.receive(Frame(0, LINKTYPE_RAW, ipv4(SCTP, packet))) == []
    assert monitor.stats.decode_errors == 0
    assert monitor.stats.evicted == 195
    assert len(monitor.tracker._registry._associations) == 5
