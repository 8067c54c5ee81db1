"""GTP-U (TS 29.281) as all hops of the user plane speak it: headers, and a socket that takes packets apart."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

GTPU_PORT: Final = 2152

_G_PDU: Final = 255
_END_MARKER: Final = 254
_ECHO_REQUEST: Final = 1
_ECHO_RESPONSE: Final = 2

_HEADER: Final = struct.Struct("!BBHI")
_VERSION_1: Final = 0x30
_OPTIONAL_FIELDS: Final = 0x07
_EXTENSION: Final = 0x04
_SEQUENCE: Final = 0x02

BURST: Final = 64
"""Packets read in one turn, so that signalling waits a few milliseconds at most."""

Address = tuple[str, int]


@dataclass(slots=True)
class Counters:
    """What a hop has seen."""

    uplink: int = 0
    downlink: int = 0
    forwarded: int = 0
    """Downlink that followed its UE to another eNodeB."""
    dropped: int = 0


def gpdu_header(teid: int, length: int) -> bytes:
    """The eight octets before a user packet of ``length`` octets, without optional fields (5.1)."""
    return _HEADER.pack(_VERSION_1, _G_PDU, length, teid)


def end_marker(teid: int) -> bytes:
    """The last packet of a path that has moved (7.3.2)."""
    return _HEADER.pack(_VERSION_1, _END_MARKER, 0, teid)


def payload_offset(packet: bytes) -> int:
    """Where the user packet begins behind the header, its optional fields and extension headers; 0 if it does not."""
    if not packet[0] & _OPTIONAL_FIELDS:
        return 8
    at = 12
    following = packet[11] if len(packet) > 11 and packet[0] & _EXTENSION else 0
    while following:
        if at >= len(packet) or not packet[at]:
            return 0
        at += 4 * packet[at]
        following = packet[at - 1] if at <= len(packet) else 0
    return at if at <= len(packet) else 0


def echo_response(request: bytes) -> bytes:
    """Answer an Echo Request with its sequence number and the Recovery IE (7.2.2)."""
    sequence = request[8:10] if request[0] & _SEQUENCE and len(request) >= 10 else b"\0\0"
    return _HEADER.pack(_VERSION_1 | _SEQUENCE, _ECHO_RESPONSE, 6, 0) + sequence + b"\0\0\x0e\0"


class GtpuSocket:
    """A UDP socket that takes GTP-U apart: user packets go to ``on_packet(teid, packet, offset)``, echo is answered."""

    def __init__(self, udp: socket.socket) -> None:
        self._udp = udp
        self.on_packet: Callable[[int, bytes, int], None] = lambda teid, packet, offset: None
        self.on_end_marker: Callable[[int], None] = lambda teid: None
        asyncio.get_running_loop().add_reader(udp, self._readable)

    def _readable(self) -> None:
        for _ in range(BURST):
            try:
                packet, sender = self._udp.recvfrom(65_535)
            except (BlockingIOError, ConnectionError):
                return
            if len(packet) < 8 or packet[0] >> 4 != 3:
                continue
            if packet[1] == _G_PDU:
                offset = payload_offset(packet)
                if offset:
                    self.on_packet(int.from_bytes(packet[4:8], "big"), packet, offset)
            elif packet[1] == _END_MARKER:
                self.on_end_marker(int.from_bytes(packet[4:8], "big"))
            elif packet[1] == _ECHO_REQUEST:
                self.send(echo_response(packet), sender)

    def send(self, packet: bytes, to: Address) -> None:
        """Send a datagram; what the kernel does not take is lost, as on a full wire."""
        try:
            self._udp.sendto(packet, to)
        except OSError:
            pass

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._udp)
        self._udp.close()
