"""What a fuzzer throws octets at: one target a decoder, and real signalling to begin with.

A target may meet a DecodeError (or a CaptureError); everything else that comes out of it is a bug. Targets that keep
state take a series of records, each behind a head of one octet of choice and two of length.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from epc_monitor import aper, gtpv2, nas, s1ap
from epc_monitor.capture import CaptureError, read_capture, read_frames
from epc_monitor.frames import LINKTYPE_ETHERNET, SCTP, UDP, Frame, FrameDecoder, Packet
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.sctp import Association, AssociationDown, Endpoint, Message, SctpDecoder, SctpLimits
from epc_monitor.ue_tracker import Limits, UeTracker
from mobiscud.bus.cloudevents import Envelopes, encode
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import Event

Target = Callable[[bytes], None]

_KEYS: Final = UeKeys(bytes(32))
_ADDRESSES: Final = tuple(bytes((10, 0, 0, last)) for last in range(4))
_LINKTYPES: Final = (0, 1, 12, 101, 108, 113, 228, 229, 276, 147)
_LIMITS: Final = Limits(ues=20, half_open=10, transactions=10)
_APER: Final[tuple[Callable[[bytes, int], object], ...]] = (
    aper.open_type,
    aper.defragment,
    aper.length_determinant,
    aper.skip_extension_container,
    aper.skip_extension_additions,
    aper.octet_string,
    aper.small_number,
    aper.extended_integer,
)
_SEED_FRAMES: Final = 60
_HEAD: Final = struct.Struct(">BH")


def aper_target(data: bytes) -> None:
    """Lengths, fragments and extensions, without a message around them; its caller takes an IndexError for the end."""
    for read in _APER:
        try:
            read(data, 0)
        except (DecodeError, IndexError):
            pass


def s1ap_target(data: bytes) -> None:
    """One S1AP PDU."""
    try:
        s1ap.decode(data)
    except DecodeError:
        pass


def nas_target(data: bytes) -> None:
    """One NAS PDU; the first octet chooses its direction, and whether the algorithm is known."""
    choice = data[0] if data else 0
    try:
        nas.decode(data[1:], uplink=bool(choice & 1), readable=(None, True, False, True)[choice >> 1 & 3])
    except DecodeError:
        pass


def gtpv2_target(data: bytes) -> None:
    """One GTPv2-C datagram."""
    try:
        gtpv2.decode(data)
    except DecodeError:
        pass


def frames_target(data: bytes) -> None:
    """A series of frames of any link layer."""
    decoder = FrameDecoder()
    for number, (choice, record) in enumerate(records(data)):
        try:
            decoder.receive(Frame(number, _LINKTYPES[choice % len(_LINKTYPES)], record))
        except DecodeError:
            pass


def sctp_target(data: bytes) -> None:
    """A series of SCTP packets between a few addresses."""
    decoder = SctpDecoder(limits=SctpLimits(associations=4, handshakes=4, closed=4, octets=4000))
    for choice, record in records(data):
        source, destination = _ADDRESSES[choice & 3], _ADDRESSES[choice >> 2 & 3]
        decoder.receive(Packet(SCTP, source, destination, record))
    if decoder._octets > 4000:
        raise AssertionError("more is held back than is allowed")


def capture_target(data: bytes) -> None:
    """A capture file."""
    try:
        for _ in read_frames(io.BytesIO(data)):
            pass
    except CaptureError:
        pass


def tracker_target(data: bytes) -> None:
    """A series of S1AP PDUs and GTPv2-C datagrams, over two associations; every event can be published."""
    tracker = UeTracker(_KEYS, _LIMITS)
    associations = [_association(number) for number in (1, 2)]
    for number, (choice, record) in enumerate(records(data)):
        sender, association = choice & 1, associations[choice >> 1 & 1]
        try:
            if choice & 0x80:
                packet = Packet(UDP, _ADDRESSES[choice & 3], _ADDRESSES[choice >> 2 & 3], b"")
                events = tracker.receive_gtp(packet, record, number)[0]
            elif choice & 0x40:
                events = tracker.association_down(AssociationDown(association, b"%d" % number), number)
            else:
                events = tracker.receive_s1ap(Message(association, sender, b"%d" % number, record), number)
        except DecodeError:
            continue
        _publish(events)


def monitor_target(data: bytes) -> None:
    """A capture file through the whole monitor, to the events on the bus."""
    monitor = Monitor(_KEYS, _LIMITS)
    try:
        for frame in read_frames(io.BytesIO(data)):
            _publish(monitor.receive(frame))
    except CaptureError:
        pass


TARGETS: Final[dict[str, Target]] = {
    "aper": aper_target,
    "s1ap": s1ap_target,
    "nas": nas_target,
    "gtpv2": gtpv2_target,
    "frames": frames_target,
    "sctp": sctp_target,
    "capture": capture_target,
    "tracker": tracker_target,
    "monitor": monitor_target,
}


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Take a series apart; the last record may be short."""
    offset = 0
    while offset + _HEAD.size <= len(data):
        choice, size = _HEAD.unpack_from(data, offset)
        offset += _HEAD.size
        yield choice, data[offset : offset + size]
        offset += size


def _record(choice: int, octets: bytes) -> bytes:
    return _HEAD.pack(choice, len(octets)) + octets


def _association(number: int) -> Association:
    association = Association(Endpoint(40000, [bytes((10, 0, 0, number))]), Endpoint(36412, [bytes((10, 0, 0, 9))]))
    for sender, direction in enumerate(association.directions):
        direction.tag = bytes((0, 0, number, sender))
    return association


def _publish(events: list[Event]) -> None:
    envelopes = Envelopes("/mobiscud/fuzz/monitor", show_imsi=True)
    for event in events:
        encode(envelopes.wrap(event))


# --- seeds ------------------------------------------------------------------------------------------------------------


class _Parts(NamedTuple):
    """What a capture is made of, the beginning of it."""

    frames: list[Frame]
    packets: list[Packet]
    messages: list[Message]


def seeds(target: str, captures: Path) -> Iterator[bytes]:
    """Inputs for a target, made of the captures in a folder."""
    for path in sorted(captures.glob("*.pcap")):
        parts = _taken_apart(path)
        if target in ("capture", "monitor"):
            yield pcap(parts.frames)
            yield pcapng(parts.frames)
        elif target == "frames":
            yield b"".join(_record(_LINKTYPES.index(frame.linktype), frame.data) for frame in parts.frames)
        elif target == "sctp":
            yield b"".join(_record(1 if ours else 4, packet.payload) for packet, ours in _directed(parts.packets))
        elif target == "tracker":
            yield b"".join(_record(message.sender, message.payload) for message in parts.messages)
        elif target == "gtpv2":
            yield from (packet.payload[8:] for packet in parts.packets if packet.protocol == UDP)
        elif target == "nas":
            yield from (b"\2" + message for message in _nas(parts.messages))
        else:
            yield from (message.payload for message in parts.messages)


def pcap(frames: list[Frame]) -> bytes:
    """Write frames as a classic capture file."""
    linktype = frames[0].linktype if frames else LINKTYPE_ETHERNET
    written = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, linktype)]
    for frame in frames:
        seconds, nanoseconds = divmod(frame.at, 1_000_000_000)
        written.append(struct.pack("<IIII", seconds, nanoseconds, len(frame.data), len(frame.data)) + frame.data)
    return b"".join(written)


def pcapng(frames: list[Frame]) -> bytes:
    """Write frames as a pcapng file of one interface that counts nanoseconds."""
    linktype = frames[0].linktype if frames else LINKTYPE_ETHERNET
    written = [_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    written.append(_block(1, struct.pack("<HHI", linktype, 0, 0) + struct.pack("<HHB3x", 9, 1, 9)))
    for frame in frames:
        size = len(frame.data)
        head = struct.pack("<IIIII", 0, frame.at >> 32, frame.at & 0xFFFF_FFFF, size, size)
        written.append(_block(6, head + frame.data))
    return b"".join(written)


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def _taken_apart(path: Path) -> _Parts:
    frames, sctp = FrameDecoder(), SctpDecoder()
    parts = _Parts(list(read_capture(path))[:_SEED_FRAMES], [], [])
    for frame in parts.frames:
        packet = frames.receive(frame)
        if packet is not None:
            parts.packets.append(packet)
            if packet.protocol == SCTP:
                parts.messages.extend(item for item in sctp.receive(packet) if isinstance(item, Message))
    return parts


def _directed(packets: list[Packet]) -> Iterator[tuple[Packet, bool]]:
    for packet in packets:
        if packet.protocol == SCTP:
            yield packet, packet.payload[2:4] == b"\x8e\x3c"


def _nas(messages: list[Message]) -> Iterator[bytes]:
    for message in messages:
        try:
            pdu = s1ap.decode(message.payload)
        except DecodeError:
            continue
        carried = [pdu.nas, *(item.nas for item in pdu.e_rabs_to_setup)]
        yield from (octets for octets in carried if octets is not None)
