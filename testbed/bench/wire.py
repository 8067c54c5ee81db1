"""Signalling as frames: Ethernet, IPv4 and SCTP or UDP around messages, and capture files of frames.

The checksum of SCTP is left empty, as offload and loopback leave it; nobody who is measured here verifies it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from epc_monitor.frames import LINKTYPE_ETHERNET, SCTP, UDP, Frame
from epc_monitor.gtpv2 import GTPV2_PORT
from epc_monitor.sctp import S1AP_PORT, S1AP_PPID

MOST_DATA: Final = 1400
"""A longer PDU is sent in fragments, as an SCTP stack does on a wire with an MTU of 1500."""

_DATA, _BEGIN, _END = 0, 2, 1
_FILE: Final = struct.Struct("<IHHiIII")
_RECORD: Final = struct.Struct("<IIII")
_NANOSECONDS: Final = 0xA1B2_3C4D
_MACS: Final = bytes.fromhex("020000000002 020000000001 0800")


def ipv4(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet, header checksum included."""
    head = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(payload), 0x4000, 64, protocol, 0) + source + destination
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    packet: bytes = head[:10] + checksum.to_bytes(2, "big") + head[12:] + payload
    return _MACS + packet


def gtp(source: bytes, destination: bytes, datagram: bytes) -> bytes:
    """A frame with a GTPv2-C datagram."""
    head = struct.pack("!HHHH", GTPV2_PORT, GTPV2_PORT, 8 + len(datagram), 0)
    return ipv4(source, destination, UDP, head + datagram)


class S1Wire:
    """One S1 association on the wire: PDUs in, frames out, every DATA chunk numbered."""

    def __init__(self, enb: IPv4Address, mme: IPv4Address, number: int) -> None:
        self._addresses = enb.packed, mme.packed
        self._ports = 32768 + number % 28000, S1AP_PORT
        self._tags = 0x1000_0000 + number, 0x2000_0000 + number
        self._tsns = [1, 1]
        self._ssns = [0, 0]

    def frames(self, pdu: bytes, *, downlink: bool) -> Iterator[bytes]:
        """The frame of a PDU, or those of its fragments."""
        sender = int(downlink)
        ssn = self._ssns[sender]
        self._ssns[sender] = ssn + 1 & 0xFFFF
        for start in range(0, len(pdu), MOST_DATA):
            part = pdu[start : start + MOST_DATA]
            flags = (_BEGIN if start == 0 else 0) | (_END if start + MOST_DATA >= len(pdu) else 0)
            yield self._frame(sender, flags, ssn, part)

    def _frame(self, sender: int, flags: int, ssn: int, part: bytes) -> bytes:
        tsn = self._tsns[sender]
        self._tsns[sender] = tsn + 1 & 0xFFFF_FFFF
        head = struct.pack("!HHII", self._ports[sender], self._ports[1 - sender], self._tags[sender], 0)
        chunk = struct.pack("!BBHIHHI", _DATA, flags, 16 + len(part), tsn, 1, ssn, S1AP_PPID) + part
        packet = head + chunk + bytes(-len(chunk) % 4)
        return ipv4(self._addresses[sender], self._addresses[1 - sender], SCTP, packet)


def write_capture(path: Path, frames: Iterable[Frame], linktype: int = LINKTYPE_ETHERNET) -> int:
    """Write a pcap file with times in nanoseconds; how many frames it has."""
    count = 0
    with path.open("wb") as file:
        file.write(_FILE.pack(_NANOSECONDS, 2, 4, 0, 0, 1 << 18, linktype))
        for frame in frames:
            seconds, nanoseconds = divmod(frame.at, 1_000_000_000)
            size = len(frame.data)
            file.write(_RECORD.pack(seconds, nanoseconds, size, size) + frame.data)
            count += 1
    return count
