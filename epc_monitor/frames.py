"""Link layers and IP: from a captured frame to the SCTP or UDP payload inside it.

Pure: a frame in, a packet or None out. What is not signalling (ARP, TCP ...) gives None; what claims to be and is cut
short or lies about its lengths raises DecodeError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

_MOST_PARTS = 256
"""Fragments of one packet: no link takes so little that 64 KiB need more (RFC 791 3.2: 576 octets)."""


# What is made for each frame has its constructor written out, here and in the modules that follow: the compiled form
# runs it natively, and a generated one in Python, at five times the cost.


@dataclass(slots=True, init=False)
class Frame:
    """One captured frame. ``at``: nanoseconds since the epoch, UTC; ``linktype`` as tcpdump.org numbers it."""

    at: int
    linktype: int
    data: bytes
    interface: str | None

    def __init__(self, at: int, linktype: int, data: bytes, interface: str | None = None) -> None:
        self.at = at
        self.linktype = linktype
        self.data = data
        self.interface = interface


@dataclass(slots=True, init=False)
class Packet:
    """What one IP packet carries. Addresses are packed, 4 or 16 octets; ``protocol`` is UDP or SCTP."""

    protocol: int
    source: bytes
    destination: bytes
    payload: bytes

    def __init__(self, protocol: int, source: bytes, destination: bytes, payload: bytes) -> None:
        self.protocol = protocol
        self.source = source
        self.destination = destination
        self.payload = payload


class FrameDecoder:
    """Frames to packets; holds the fragments of IP packets that are not complete yet."""

    def __init__(self, fragments: Reassembly | None = None) -> None:
        self.fragments = fragments or Reassembly()

    def receive(self, frame: Frame) -> Packet | None:
        """Unpack one frame.

        :raises DecodeError: a length points outside the frame
        """
        linktype, data = frame.linktype, frame.data
        try:
            if linktype == LINKTYPE_ETHERNET:
                ethertype, offset = data[12] << 8 | data[13], 14
                if ethertype in _VLAN_TAGS:
                    ethertype, offset = _behind_tags(data, ethertype, offset)
            else:
                header = _LINK_LAYERS.get(linktype)
                if header is None:
                    raise DecodeError(f"link layer {linktype} is not known")
                ethertype, offset = header(data)
            if ethertype == _ETHERTYPE_IPV4:
                return self._ipv4(data, offset, frame.at)
            if ethertype == _ETHERTYPE_IPV6:
                return self._ipv6(data, offset, frame.at)
            return None
        except IndexError:
            raise DecodeError("frame cut short", len(data)) from None

    def _ipv4(self, data: bytes, offset: int, at: int) -> Packet | None:
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
        whole = self.fragments.add(key, (fragment & 0x1FFF) << 3, bool(fragment & 0x2000), data[start:end], at)
        return None if whole is None else Packet(protocol, source, destination, whole)

    def _ipv6(self, data: bytes, offset: int, at: int) -> Packet | None:
        """IPv6 with extension headers (RFC 8200 4)."""
        end = offset + 40 + (data[offset + 4] << 8 | data[offset + 5])
        source, destination = data[offset + 8 : offset + 24], data[offset + 24 : offset + 40]
        following, start = _behind_extensions(data, data[offset + 6], offset + 40, end)
        if following == _IPV6_FRAGMENT:
            if end > len(data) or start + 8 > end:
                raise DecodeError("IPv6 fragment cut short", len(data))
            following = data[start]
            placement = data[start + 2] << 8 | data[start + 3]
            key = source + destination + data[start + 4 : start + 8]
            whole = self.fragments.add(key, placement & 0xFFF8, bool(placement & 1), data[start + 8 : end], at)
            if whole is None:
                return None
            data, end = whole, len(whole)
            following, start = _behind_extensions(data, following, 0, end)
        if following not in (SCTP, UDP):
            return None
        if end > len(data):
            raise DecodeError("IPv6 packet cut short", len(data))
        return Packet(following, source, destination, data[start:end])


def _behind_extensions(data: bytes, following: int, start: int, end: int) -> tuple[int, int]:
    """What follows the extension headers that begin at ``start``, and where; a Fragment header is not stepped over."""
    while following in _IPV6_EXTENSIONS or following == _IPV6_AUTHENTICATION:
        size = data[start + 1] + 2 << 2 if following == _IPV6_AUTHENTICATION else data[start + 1] + 1 << 3
        following, start = data[start], start + size
        if start > end:
            raise DecodeError("IPv6 extension headers longer than the packet", start)
    return following, start


class FragmentLimits(NamedTuple):
    """How much of unfinished IP packets may be kept, and how long one may take (RFC 1122 3.3.2: 60 to 120 s)."""

    packets: int = 256
    octets: int = 4 << 20
    age_s: int = 60


class Reassembly:
    """Puts fragments together; bounded, the oldest packet gives way.

    ``evicted`` counts packets that gave way to a limit, ``expired`` those that were never completed in time.
    """

    def __init__(self, limits: FragmentLimits | None = None) -> None:
        self.evicted = 0
        self.expired = 0
        self._limits = limits or FragmentLimits()
        self._age_ns = self._limits.age_s * 1_000_000_000
        self._open: dict[bytes, _Partial] = {}
        self._octets = 0

    def add(self, key: bytes, offset: int, more: bool, data: bytes, at: int) -> bytes | None:
        """Add one fragment, seen ``at`` nanoseconds; the whole payload when it was the last one missing.

        :raises DecodeError: no fragment can be like this
        """
        if offset + len(data) > 0xFFFF:
            raise DecodeError("IP fragment beyond 64 KiB", offset)
        if not data or (more and len(data) & 7):
            raise DecodeError("IP fragment of a size that does not exist", offset)
        self._expire(at)
        partial = self._open.get(key)
        if partial is None:
            partial = self._open[key] = _Partial(at)
        self._octets += len(data) - len(partial.parts.get(offset, b""))
        partial.parts[offset] = data
        if not more:
            partial.end = offset + len(data)
        whole = partial.join()
        if whole is not None:
            self._forget(key)
        elif len(partial.parts) > _MOST_PARTS:
            self._forget(key)
            self.evicted += 1
        while len(self._open) > self._limits.packets or self._octets > self._limits.octets:
            self._forget(next(iter(self._open)))
            self.evicted += 1
        return whole

    def _expire(self, at: int) -> None:
        """Drop what is too old: the identification of its fragments is used anew by now."""
        while self._open:
            key, partial = next(iter(self._open.items()))
            if abs(at - partial.begun) <= self._age_ns:
                return
            self._forget(key)
            self.expired += 1

    def _forget(self, key: bytes) -> None:
        self._octets -= sum(map(len, self._open.pop(key).parts.values()))


class _Partial:
    """The fragments of one packet seen so far."""

    __slots__ = ("begun", "end", "parts")

    def __init__(self, begun: int) -> None:
        self.begun = begun
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
