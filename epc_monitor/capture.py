"""Capture files: pcap and pcapng, any byte order, micro- or nanoseconds, several interfaces.

A file that is no capture raises NotACapture at once; one that was cut off gives every frame before the cut and then
raises TruncatedCapture, so that nothing readable is lost and nobody is told it was whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from epc_monitor.frames import Frame
from mobiscud.core.errors import MobiScudError

_PCAP_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
_PCAPNG_SECTION = b"\x0a\x0d\x0d\x0a"
_LAST_MOMENT = (1 << 63) - 1
_LARGEST_FRAME = 1 << 24
"""A longer record is taken as damage: reading on would only allocate memory."""


class CaptureError(MobiScudError):
    """A capture file cannot be read."""


class NotACapture(CaptureError):
    """The file is neither pcap nor pcapng."""


class TruncatedCapture(CaptureError):
    """The file ends, or is damaged, in the middle; what came before has been given."""


def read_capture(path: str | Path) -> Iterator[Frame]:
    """Give the frames of a pcap or pcapng file in the order of the file.

    :raises CaptureError: it cannot be opened, is no capture (NotACapture), or is cut off (TruncatedCapture, at the end)
    """
    try:
        with open(path, "rb") as file:
            yield from read_frames(file)
    except CaptureError as error:
        raise type(error)(f"{path}: {error}") from None
    except OSError as failure:
        raise CaptureError(f"{path}: {failure.strerror}") from failure


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """Give the frames of an open pcap or pcapng file (see ``read_capture``)."""
    magic = file.read(4)
    if magic in _PCAP_MAGICS:
        order, nanoseconds = _PCAP_MAGICS[magic]
        return _pcap(file, order, nanoseconds)
    if magic == _PCAPNG_SECTION:
        return _pcapng(file)
    raise NotACapture("neither pcap nor pcapng" if magic else "the file is empty")


def _take(file: BinaryIO, size: int, what: str) -> bytes:
    if not 0 <= size <= _LARGEST_FRAME:
        raise TruncatedCapture(f"damaged: a {what} of {size} octets")
    data = file.read(size)
    if len(data) != size:
        raise TruncatedCapture(f"cut off in the middle of a {what}")
    return data


def _pcap(file: BinaryIO, order: str, nanoseconds: int) -> Iterator[Frame]:
    """The classic format (draft-ietf-opsawg-pcap)."""
    linktype = struct.unpack(order + "HHiIII", _take(file, 20, "file header"))[5] & 0x0FFF_FFFF
    record = struct.Struct(order + "IIII").unpack
    read = file.read
    while header := read(16):
        if len(header) != 16:
            raise TruncatedCapture("cut off in the middle of a record header")
        seconds, fraction, captured, _ = record(header)
        data = read(captured) if captured <= _LARGEST_FRAME else _take(file, captured, "frame")
        if len(data) != captured:
            raise TruncatedCapture("cut off in the middle of a frame")
        yield Frame(seconds * 1_000_000_000 + fraction * nanoseconds, linktype, data)


@dataclass(frozen=True, slots=True)
class _Interface:
    """An interface of a pcapng section. Times are ``ticks`` of ``1/resolution`` seconds after ``offset`` seconds."""

    linktype: int
    name: str | None
    resolution: int
    offset: int

    def time(self, ticks: int) -> int:
        """Nanoseconds since the epoch; what a damaged file puts outside of 1970 to 2262 comes to its edge."""
        at = self.offset * 1_000_000_000 + ticks * 1_000_000_000 // self.resolution
        return min(max(at, 0), _LAST_MOMENT)


def _pcapng(file: BinaryIO) -> Iterator[Frame]:
    """Blocks of draft-ietf-opsawg-pcapng; those that carry no frame are stepped over."""
    order = _section(file, _take(file, 4, "section header"))
    interfaces: list[_Interface] = []
    while head := file.read(8):
        if len(head) != 8:
            raise TruncatedCapture("cut off in the middle of a block header")
        if head[:4] == _PCAPNG_SECTION:
            order, interfaces = _section(file, head[4:]), []
            continue
        kind, length = struct.unpack(order + "II", head)
        if length < 12 or length % 4:
            raise TruncatedCapture(f"damaged: a block of {length} octets")
        body = _take(file, length - 8, "block")[:-4]
        try:
            frame = _block(kind, body, order, interfaces)
        except (struct.error, IndexError):
            raise TruncatedCapture("damaged: a block shorter than its contents") from None
        if frame is not None:
            yield frame


def _section(file: BinaryIO, size: bytes) -> str:
    """Read a Section Header Block after its type and size; its byte order. The file may be a pipe."""
    mark = _take(file, 4, "section header")
    if mark == b"\x1a\x2b\x3c\x4d":
        order = ">"
    elif mark == b"\x4d\x3c\x2b\x1a":
        order = "<"
    else:
        raise NotACapture("a pcapng section without its byte-order mark")
    (length,) = struct.unpack(order + "I", size)
    _take(file, length - 12, "section header")
    return order


def _block(kind: int, body: bytes, order: str, interfaces: list[_Interface]) -> Frame | None:
    if kind == 1:
        interfaces.append(_interface(body, order))
    elif kind == 6:  # Enhanced Packet Block
        index, high, low, captured, _ = struct.unpack_from(order + "IIIII", body)
        interface = interfaces[index]
        return Frame(interface.time(high << 32 | low), interface.linktype, _inside(body, 20, captured), interface.name)
    elif kind == 2:  # Packet Block, which the Enhanced one has replaced
        index, _, high, low, captured, _ = struct.unpack_from(order + "HHIIII", body)
        interface = interfaces[index]
        return Frame(interface.time(high << 32 | low), interface.linktype, _inside(body, 20, captured), interface.name)
    elif kind == 3:  # Simple Packet Block: no time, the first interface
        (original,) = struct.unpack_from(order + "I", body)
        interface = interfaces[0]
        return Frame(0, interface.linktype, body[4 : 4 + original], interface.name)
    return None


def _inside(body: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(body):
        raise IndexError
    return body[offset : offset + size]


def _interface(body: bytes, order: str) -> _Interface:
    """Interface Description Block: link type, name, and how its times are to be read."""
    (linktype,) = struct.unpack_from(order + "H", body)
    name, resolution, seconds = None, 1_000_000, 0
    offset = 8
    while offset + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, offset)
        value = body[offset + 4 : offset + 4 + length]
        if code == 0:
            break
        if code == 2:
            name = value.decode("utf-8", "replace")
        elif code == 9:
            resolution = 2 ** (value[0] & 127) if value[0] & 128 else 10 ** value[0]
        elif code == 14:
            (seconds,) = struct.unpack(order + "q", value)
        offset += 4 + (length + 3 & ~3)
    return _Interface(linktype, name, resolution, seconds)
