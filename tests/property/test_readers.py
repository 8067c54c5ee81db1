"""Whatever the octets, a reader gives what it can read, or its one error."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epc_monitor.capture import CaptureError, read_capture, read_frames
from epc_monitor.frames import Frame, FrameDecoder, Packet, Reassembly
from epc_monitor.sctp import Message, SctpDecoder
from mobiscud.core.errors import DecodeError
from testbed.fuzz_targets import TARGETS, pcap, pcapng

CAPTURE = Path(__file__).parents[1] / "vectors" / "captures" / "epc-attach.pcap"
FRAMES = list(read_capture(CAPTURE))
LINKTYPES = (0, 1, 12, 14, 101, 108, 113, 228, 229, 276)

octets = st.binary(max_size=200)


@pytest.mark.parametrize("target", TARGETS)
@given(data=octets)
def test_every_target_takes_anything(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("write", [pcap, pcapng])
@given(
    cut=st.integers(0, 1 << 16), changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)
)
@settings(max_examples=200)
def test_damaged_capture_files(write: object, cut: int, changes: list[tuple[int, int]]) -> None:
    """What comes before the damage is given."""
    whole = bytearray((pcap if write is pcap else pcapng)(FRAMES))
    for where, octet in changes:
        whole[where % len(whole)] = octet
    end = cut % (len(whole) + 1)
    found: list[Frame] = []
    try:
        for frame in read_frames(io.BytesIO(bytes(whole[:end]))):
            found.append(frame)
    except CaptureError:
        pass
    if not changes:
        assert [frame.data for frame in found] == [frame.data for frame in FRAMES[: len(found)]]


@given(linktype=st.sampled_from(LINKTYPES), data=octets, tail=octets)
def test_frames_of_any_link_layer(linktype: int, data: bytes, tail: bytes) -> None:
    decoder = FrameDecoder()
    heads = {4: b"\x45\0" + len(data).to_bytes(2, "big"), 6: b"\x60\0\0\0" + len(tail).to_bytes(2, "big")}
    for frame in (data, heads[4] + data, heads[6] + data + tail, bytes(12) + b"\x81\0\0\1\x08\0" + heads[4] + data):
        try:
            packet = decoder.receive(Frame(0, linktype, frame))
        except DecodeError:
            continue
        assert packet is None or (packet.payload in frame and len(packet.source) in (4, 16))


@given(seed=st.integers(0, 1 << 30), size=st.integers(1, 5000), data=st.data())
@settings(max_examples=100)
def test_fragments_in_any_order_and_number(seed: int, size: int, data: st.DataObject) -> None:
    """Cut anywhere, shuffled, doubled: the packet comes out whole, at the moment the last part is there."""
    chance = random.Random(seed)
    payload = chance.randbytes(size)
    cuts = sorted({8 * chance.randrange(0, size // 8 + 1) for _ in range(chance.randrange(20))} - {0, size})
    bounds = list(zip([0, *cuts], [*cuts, size], strict=True))
    parts = [(start, end < size, payload[start:end]) for start, end in bounds if end > start]
    order = chance.sample(parts, len(parts))
    order[1:1] = [chance.choice(order) for _ in range(chance.randrange(3)) if len(order) > 1 and order[0] in order]
    reassembly = Reassembly()
    seen: set[int] = set()
    for start, more, part in order:
        seen.add(start)
        whole = reassembly.add(b"key", start, more, part, 0)
        if len(seen) == len(parts):
            assert whole == payload
            break
        assert whole is None


def chunk(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


chunks = st.one_of(
    st.builds(
        lambda tsn, flags, stream, ssn, text: chunk(0, flags, struct.pack(">IHHI", tsn, stream, ssn, 18) + text),
        st.integers(0, 20).map(lambda number: number + 0xFFFF_FFF6 & 0xFFFF_FFFF),
        st.integers(0, 7),
        st.integers(0, 2),
        st.integers(0, 5),
        st.binary(min_size=1, max_size=8),
    ),
    st.builds(
        lambda number: chunk(3, 0, struct.pack(">IIHH", number + 0xFFFF_FFF6 & 0xFFFF_FFFF, 0, 0, 0)),
        st.integers(0, 25),
    ),
    st.builds(lambda kind, flags, body: chunk(kind, flags, body), st.integers(0, 20), st.integers(0, 1), octets),
)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2), st.lists(chunks, max_size=3)), max_size=30))
@settings(max_examples=300)
def test_sctp_packets_of_any_kind(packets: list[tuple[bool, int, list[bytes]]]) -> None:
    """While an association lasts, each message is told once, and only if it was carried."""
    decoder = SctpDecoder()
    carried = b""
    told: list[Message] = []
    for up, tag, content in packets:
        ports = (40000, 36412) if up else (36412, 40000)
        payload = struct.pack(">HHII", *ports, tag, 0) + b"".join(content)
        carried += payload
        source, destination = (b"\x0a\0\0\1", b"\x0a\0\0\2") if up else (b"\x0a\0\0\2", b"\x0a\0\0\1")
        told += [
            item for item in decoder.receive(Packet(132, source, destination, payload)) if isinstance(item, Message)
        ]
    for number, message in enumerate(told):
        assert message.payload[:1] in carried
        before = [(other.association, other.sender, other.place) for other in told[:number]]
        assert (message.association, message.sender, message.place) not in before
