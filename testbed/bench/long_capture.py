"""A long capture made of a short one: many networks, one after the other, each a copy with names of its own.

Addresses are replaced wherever they stand, in IP headers and in what S1AP, GTP and SCTP say of tunnels and end
points; so are the verification tags of SCTP. A copy has nothing in common with another but its subscribers.
Checksums stay as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from epc_monitor.capture import read_capture
from epc_monitor.frames import SCTP, Frame, FrameDecoder
from mobiscud.core.errors import AdapterError, DecodeError
from testbed.bench.wire import write_capture

BETWEEN_COPIES_NS: Final = 60_000_000_000
_FIRST_ADDRESS: Final = 0x0B00_0000
_SPACE: Final = 0x2000_0000
_TAG_STEP: Final = 0x9E37_79B1
_HANDSHAKE: Final = (1, 2)
"""INIT and INIT ACK tell the tag of their sender (RFC 9260 3.3.2)."""


def write(source: Path, target: Path, least_frames: int) -> tuple[int, int]:
    """Repeat a capture until it has at least so many frames; how many copies, and how many frames.

    :raises CaptureError: the source is no capture
    :raises AdapterError: it has nothing in it that could be repeated
    """
    frames = list(read_capture(source))
    network = _Network(frames)
    if not network.addresses:
        raise AdapterError(f"{source}: no SCTP or UDP over IPv4 in it")
    if len({frame.linktype for frame in frames}) > 1:
        raise AdapterError(f"{source}: interfaces of several kinds cannot go into one pcap file")
    copies = -(-least_frames // len(frames))
    return copies, write_capture(target, network.copies(copies), frames[0].linktype)


class _Network:
    """What is to be replaced: ``addresses`` anywhere, tags at their places in each frame."""

    def __init__(self, frames: list[Frame]) -> None:
        self._frames: list[tuple[Frame, list[int]]] = [(frame, []) for frame in frames]
        self.addresses: list[bytes] = []
        decoder = FrameDecoder()
        for frame, tags in self._frames:
            try:
                packet = decoder.receive(frame)
            except DecodeError:
                continue
            if packet is None or len(packet.source) != 4:
                continue
            self.addresses += {packet.source, packet.destination}.difference(self.addresses)
            start = frame.data.find(packet.payload)
            if packet.protocol == SCTP and start >= 0 and len(packet.payload) >= 20:
                tags.append(start + 4)
                if packet.payload[12] in _HANDSHAKE:
                    tags.append(start + 16)

    def copies(self, count: int) -> Iterator[Frame]:
        anywhere = re.compile(b"|".join(map(re.escape, self.addresses)), re.DOTALL)
        length = self._frames[-1][0].at - self._frames[0][0].at + BETWEEN_COPIES_NS
        for copy in range(count):
            first = _FIRST_ADDRESS + copy * len(self.addresses) % _SPACE
            mine = {address: (first + i).to_bytes(4, "big") for i, address in enumerate(self.addresses)}

            def renamed(match: re.Match[bytes], mine: dict[bytes, bytes] = mine) -> bytes:
                return mine[match[0]]

            for frame, tags in self._frames:
                data = bytearray(anywhere.sub(renamed, frame.data))
                for offset in tags:
                    tag = int.from_bytes(data[offset : offset + 4], "big")
                    if tag:  # an INIT goes out without one
                        data[offset : offset + 4] = (tag + copy * _TAG_STEP & 0xFFFF_FFFF).to_bytes(4, "big")
                yield Frame(frame.at + copy * length, frame.linktype, bytes(data))
