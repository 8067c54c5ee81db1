"""Link layers and IP: from a captured frame to the SCTP or UDP payload inside it.

Pure: a frame in, a packet or None out. What is not signalling (ARP, TCP ...) gives None; what claims to be and is cut
short or lies about its lengths raises DecodeError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mobiscud.core.errors import DecodeError

LINKTYPE_NULL = 0
LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
LINKTYPE_LOOP = 108
LINKTYPE_SLL = 113
LINKTYPE_IPV4 = 228
LINKTYPE_IPV6 = 229
LINKTYPE_SLL2 = 276
LINKTYPE_RAW_BSD = 12
LINKTYPE_RAW_OPENBSD = 14

UDP = 17
SCTP = 132

_ETHERTYPE_IPV4 = 0x0800
_ETHERTYPE_IPV6 = 0x86DD
_VLAN_TAGS = frozenset((0x8100, 0x88A8, 0x9100))
_LOOPBACK_FAMILIES = {2: _ETHERTYPE_IPV4} | dict.fromkeys((10, 24, 28, 30), _ETHERTYPE_IPV6)

_IPV6_EXTENSIONS = frozenset((0, 43, 60, 135))  # hop-by-hop, routing, destination options, mobility
_IPV6_FRAGMENT = 44
_IPV6_AUTHENTICATION = 51


class Frame(NamedTuple):
    """One captured frame. ``at``: nanoseconds since the epoch, UTC; ``linktype`` as tcpdump.org numbers it."""

    at: int
    linktype: int
    data: bytes
    interface: str | None = None


class Packet(NamedTuple):
    """What one IP packet carries. Addresses are packed, 4 or 16 octets; ``protocol`` is UDP or SCTP."""

    protocol: int
    source: bytes
    destination: bytes
    payload: bytes


class FrameDecoder:
    """Frames to packets; holds the fragments of IP packets that are not complete yet."""

    def __init__(self, fragments: Reassembly | None = None) -> None:
        self.fragments = fragments or Reassembly()

    def receive(self, frame: Frame) -> Packet | None:
        """Unpack one frame.

        :raises DecodeError: a length points outside the frame
        """
        try:
            return self._unpack(frame.linktype, frame.data)
        except IndexError:
            raise DecodeError("frame cut short", len(frame.data)) from None

    def _unpack(self, linktype: int, data: bytes) -> Packet | None:
        if linktype == LINKTYPE_ETHERNET:
            offset = 14
            ethertype = data[12] << 8 | data[13]
            while ethertype in _VLAN_TAGS:
                ethertype = data[offset + 2] << 8 | data[offset + 3]
                offset += 4
        else:
            header = _LINK_LAYERS.get(linktype)
            if header is None:
                raise DecodeError(f"link layer {linktype} is not known")
            ethertype, offset = header(data)
        if ethertype == _ETHERTYPE_IPV4:
            return self._ipv4(data, offset)
        if ethertype == _ETHERTYPE_IPV6:
            return self._ipv6(data, offset)
        return None

    def _ipv4(self, data: bytes, offset: int) -> Packet | None:
        """IPv4 with options (RFC 791 3.1)."""
        protocol = data[offset + 9]
        if protocol not in (SCTP, UDP):
            return None
        version_and_length = data[offset]
        start = offset + ((version_and_length & 15) << 2)
        end = offset + (data[offset + 2] << 8 | data[offset + 3])
        if version_and_length >> 4 != 4 or not offset + 20 <= start <= end:
            raise DecodeError("IPv4 header with impossible lengths", offset)
        if end > len(data):
            raise DecodeError("IPv4 packet cut short", len(data))
        source, destination = data[offset + 12 : offset + 16], data[offset + 16 : offset + 20]
        fragment = data[offset + 6] << 8 | data[offset + 7]
        if not fragment & 0x3FFF:
            return Packet(protocol, source, destination, data[start:end])
        key = source + destination + data[offset + 4 : offset + 6] + bytes((protocol,))
        whole = self.fragments.add(key, (fragment & 0x1FFF) << 3, bool(fragment & 0x2000), data[start:end])
        return None if whole is None else Packet(protocol, source, destination, whole)

    def _ipv6(self, data: bytes, offset: int) -> Packet | None:
        """IPv6 with extension headers (RFC 8200 4)."""
        end = offset + 40 + (data[offset + 4] << 8 | data[offset + 5])
        following = data[offset + 6]
        source, destination = data[offset + 8 : offset + 24], data[offset + 24 : offset + 40]
        start = offset + 40
        while following not in (SCTP, UDP):
            if following in _IPV6_EXTENSIONS:
                following, start = data[start], start + (data[start + 1] + 1 << 3)
            elif following == _IPV6_AUTHENTICATION:
                following, start = data[start], start + (data[start + 1] + 2 << 2)
            elif following == _IPV6_FRAGMENT:
                return self._ipv6_fragment(data, start, end, source + destination)
            else:
                return None
            if start > end:
                raise DecodeError("IPv6 extension headers longer than the packet", start)
        if end > len(data) or start > end:
            raise DecodeError("IPv6 packet cut short", len(data))
        return Packet(following, source, destination, data[start:end])

    def _ipv6_fragment(self, data: bytes, start: int, end: int, addresses: bytes) -> Packet | None:
        """A fragment whose unfragmentable part ends at ``start`` (RFC 8200 4.5)."""
        if end > len(data) or start + 8 > end:
            raise DecodeError("IPv6 fragment cut short", len(data))
        following = data[start]
        placement = data[start + 2] << 8 | data[start + 3]
        key = addresses + data[start + 4 : start + 8]
        whole = self.fragments.add(key, placement & 0xFFF8, bool(placement & 1), data[start + 8 : end])
        if whole is None or following not in (SCTP, UDP):
            return None
        return Packet(following, addresses[:16], addresses[16:], whole)


class Reassembly:
    """Puts fragments together; bounded by the number of packets and the octets they may hold, the oldest gives way."""

    def __init__(self, packets: int = 256, octets: int = 4 << 20) -> None:
        self.limit_packets = packets
        self.limit_octets = octets
        self.evicted = 0
        self._open: dict[bytes, _Partial] = {}
        self._octets = 0

    def add(self, key: bytes, offset: int, more: bool, data: bytes) -> bytes | None:
        """Add one fragment; the whole payload when it was the last one missing."""
        if offset + len(data) > 0xFFFF:
            raise DecodeError("IP fragment beyond 64 KiB", offset)
        partial = self._open.get(key)
        if partial is None:
            partial = self._open[key] = _Partial()
        self._octets += len(data) - len(partial.parts.get(offset, b""))
        partial.parts[offset] = data
        if not more:
            partial.end = offset + len(data)
        whole = partial.join()
        if whole is not None:
            self._forget(key)
        while len(self._open) > self.limit_packets or self._octets > self.limit_octets:
            self._forget(next(iter(self._open)))
            self.evicted += 1
        return whole

    def _forget(self, key: bytes) -> None:
        self._octets -= sum(map(len, self._open.pop(key).parts.values()))


class _Partial:
    """The fragments of one packet seen so far."""

    __slots__ = ("end", "parts")

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.end: int | None = None

    def join(self) -> bytes | None:
        if self.end is None:
            return None
        whole = bytearray()
        for offset in sorted(self.parts):
            if offset > len(whole):
                return None
            whole[offset:] = self.parts[offset]
        return bytes(whole[: self.end]) if len(whole) >= self.end else None


def _null(data: bytes) -> tuple[int, int]:
    """BSD loopback: the address family in the byte order of the machine that captured."""
    family = int.from_bytes(data[:4], "big" if data[0] == 0 and data[1] == 0 else "little")
    return _LOOPBACK_FAMILIES.get(family, 0), 4


def _raw_ip(data: bytes) -> tuple[int, int]:
    return {4: _ETHERTYPE_IPV4, 6: _ETHERTYPE_IPV6}.get(data[0] >> 4, 0), 0


def _cooked(data: bytes) -> tuple[int, int]:
    """Linux cooked capture, version 1; a VLAN tag may follow the header."""
    return _behind_tags(data, data[14] << 8 | data[15], 16)


def _cooked_2(data: bytes) -> tuple[int, int]:
    """Linux cooked capture, version 2."""
    return _behind_tags(data, data[0] << 8 | data[1], 20)


def _behind_tags(data: bytes, ethertype: int, offset: int) -> tuple[int, int]:
    while ethertype in _VLAN_TAGS:
        ethertype = data[offset + 2] << 8 | data[offset + 3]
        offset += 4
    return ethertype, offset


_LINK_LAYERS: dict[int, Callable[[bytes], tuple[int, int]]] = {
    LINKTYPE_NULL: _null,
    LINKTYPE_LOOP: _null,
    LINKTYPE_RAW: _raw_ip,
    LINKTYPE_RAW_BSD: _raw_ip,
    LINKTYPE_RAW_OPENBSD: _raw_ip,
    LINKTYPE_IPV4: _raw_ip,
    LINKTYPE_IPV6: _raw_ip,
    LINKTYPE_SLL: _cooked,
    LINKTYPE_SLL2: _cooked_2,
}
