"""SCTP overheard (RFC 9260): packets in, whole messages out, each once and in the order of its stream.

We are not an end of the association, so nothing is acknowledged or asked for again. What the receiver acknowledges
and we have not seen is lost to us: a Gap says how much. Checksums are never verified: offload and loopback leave them
empty.

The place of a message on the wire is the verification tag, the stream and the TSN of its first octet: equal for
everyone who sees it, however often it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from epc_monitor.frames import Packet
from epc_monitor.sctp_stream import Delivery, Direction

S1AP_PORT = 36412
S1AP_PPID = 18
_S1AP_PPIDS = frozenset((S1AP_PPID, S1AP_PPID << 24))  # some stacks forget the network byte order

_DATA, _INIT, _INIT_ACK, _SACK, _ABORT = 0, 1, 2, 3, 6
_SHUTDOWN_ACK, _COOKIE_ECHO, _COOKIE_ACK, _SHUTDOWN_COMPLETE = 8, 10, 11, 14
_ESTABLISHED = frozenset((_DATA, _COOKIE_ECHO, _COOKIE_ACK))
_CLOSING = frozenset((_ABORT, _SHUTDOWN_ACK, _SHUTDOWN_COMPLETE))
_MOST_WAYS = 64
"""Pairs of addresses that one association is known by; who knows its tag could else show it under any address."""
_REFLECTED = 1
"""T bit of ABORT and SHUTDOWN COMPLETE: the verification tag is the one that the peer's own packets carry."""

_data_chunk = Struct(">BBHIHHI").unpack_from
_init_chunk = Struct(">IIHHI").unpack_from


class Endpoint:
    """One end of an association: its port, and its addresses, packed, the first one seen first."""

    __slots__ = ("addresses", "port")

    def __init__(self, port: int, addresses: list[bytes]) -> None:
        self.port = port
        self.addresses = addresses


class Association:
    """One SCTP association. ``ends[n]`` sends ``directions[n]``; end 0 is the one that began, or was seen first."""

    __slots__ = ("directions", "ends", "keys")

    def __init__(self, first: Endpoint, second: Endpoint) -> None:
        self.ends = (first, second)
        self.directions = (Direction(), Direction())
        self.keys: list[bytes] = []

    @property
    def place(self) -> bytes:
        """What names the association to every observer: the verification tag of each direction, lowest first."""
        return b"".join(sorted(direction.tag for direction in self.directions))

    def ports_and_tag(self, sender: int) -> bytes:
        """How the packets of one end begin."""
        source, destination = self.ends[sender], self.ends[1 - sender]
        return source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big") + self.directions[sender].tag


@dataclass(slots=True, init=False)
class Message:
    """An S1AP PDU. ``sender`` indexes ``association.ends``; ``place`` is its place on the wire."""

    association: Association
    sender: int
    place: bytes
    payload: bytes

    def __init__(self, association: Association, sender: int, place: bytes, payload: bytes) -> None:
        self.association = association
        self.sender = sender
        self.place = place
        self.payload = payload


class AssociationDown(NamedTuple):
    """The association was shut down, aborted, or replaced by a new one between the same ends."""

    association: Association
    place: bytes


class Gap(NamedTuple):
    """``chunks`` DATA chunks reached their receiver and not us."""

    association: Association
    place: bytes
    chunks: int


class AssociationForgotten(NamedTuple):
    """The association had to give way to a limit. It may well go on, and will then be met anew."""

    association: Association


Item = Message | AssociationDown | AssociationForgotten | Gap
"""What a packet can complete."""


class SctpLimits(NamedTuple):
    """How much may be remembered; ``octets`` is for messages that wait for a fragment or for an earlier message."""

    associations: int = 16384
    handshakes: int = 4096
    closed: int = 4096
    octets: int = 64 << 20


class SctpDecoder:
    """Keeps the associations of one network.

    ``malformed`` counts packets that lied about their lengths, ``evicted`` what had to give way to a limit.
    """

    def __init__(self, port: int = S1AP_PORT, limits: SctpLimits | None = None) -> None:
        self.malformed = 0
        self.evicted = 0
        self._port = port.to_bytes(2, "big")
        self._limits = limits or SctpLimits()
        self._paths: dict[bytes, tuple[Association, int]] = {}  # ports, tag, addresses of a packet -> whose it is
        self._tags: dict[bytes, tuple[Association, int]] = {}  # ports and tag alone: any address of the ends
        self._ends: dict[bytes, Association] = {}  # ports and addresses -> the association now between them
        self._handshakes: dict[bytes, tuple[Endpoint, int]] = {}  # ports and tag of an INIT -> its sender, first TSN
        self._closed: dict[bytes, None] = {}
        self._unproven: dict[Association, None] = {}  # of handshakes that were not completed
        self._associations: dict[Association, None] = {}
        self._waiting: dict[Direction, tuple[Association, int]] = {}  # those that hold something back
        self._octets = 0  # of all that is held back

    def adopt(self, first: Endpoint, second: Endpoint, tags: tuple[bytes, bytes]) -> Association:
        """An association from before a restart. ``tags`` are those of what each end sends."""
        association = Association(first, second)
        for sender, tag in enumerate(tags):
            association.directions[sender].tag = tag
            self._tags[association.ports_and_tag(sender)] = association, sender
        for ends in _all_ends(association):
            self._ends[ends] = association
        self._associations[association] = None
        return association

    def receive(self, packet: Packet) -> list[Item]:
        """Take one SCTP packet; give what it completed."""
        payload = packet.payload
        if len(payload) < 16:
            self.malformed += 1
            return []
        out: list[Item] = []
        found = self._paths.get(payload[:8] + packet.source + packet.destination)
        if found is None:
            found = self._find(packet, out)
            if found is None:
                return out
        association, sender = found
        direction = association.directions[sender]
        offset, end = 12, len(payload)
        while offset + 4 <= end:
            kind = payload[offset]
            length = payload[offset + 2] << 8 | payload[offset + 3]
            if length < 4 or offset + length > end:
                self.malformed += 1
                break
            if kind == _DATA:
                if length <= 16:
                    self.malformed += 1
                    break
                _, flags, _, tsn, stream, ssn, ppid = _data_chunk(payload, offset)
                data = payload[offset + 16 : offset + length]
                deliveries = direction.receive(tsn, flags, stream, ssn, ppid, data)
                if deliveries:
                    self._deliver(association, sender, deliveries, out)
                if direction.lost:
                    self._report_loss(association, direction, out)
                if direction.weight != direction.weighed:
                    self._weigh(association, sender, out)
            elif kind == _SACK and length >= 8:
                other = association.directions[1 - sender]
                if other.waiting:
                    cumulative = int.from_bytes(payload[offset + 4 : offset + 8], "big")
                    self._deliver(association, 1 - sender, other.acknowledged(cumulative), out)
                    if other.lost:
                        self._report_loss(association, other, out)
                    if other.weight != other.weighed:
                        self._weigh(association, 1 - sender, out)
            elif kind in _CLOSING:
                self._close(association)
                out.append(AssociationDown(association, association.place))
                break
            offset += length + 3 & ~3
        return out

    @staticmethod
    def _deliver(association: Association, sender: int, deliveries: list[Delivery], out: list[Item]) -> None:
        tag = association.directions[sender].tag
        for found in deliveries:
            if found.ppid in _S1AP_PPIDS:
                place = tag + found.stream.to_bytes(2, "big") + found.tsn.to_bytes(4, "big")
                out.append(Message(association, sender, place, found.data))

    @staticmethod
    def _report_loss(association: Association, direction: Direction, out: list[Item]) -> None:
        place = direction.tag + direction.lost_from.to_bytes(4, "big")
        out.append(Gap(association, place, direction.lost))
        direction.lost = 0

    def _weigh(self, association: Association, sender: int, out: list[Item]) -> None:
        """One end holds back more, or less, than before; when all is too much, who waits longest gives up."""
        direction = association.directions[sender]
        self._octets += direction.weight - direction.weighed
        direction.weighed = direction.weight
        if not direction.weight:
            self._waiting.pop(direction, None)
            return
        self._waiting.setdefault(direction, (association, sender))
        while self._octets > self._limits.octets:
            oldest, (whose, end) = next(iter(self._waiting.items()))
            self._stop_waiting(oldest)
            self._deliver(whose, end, oldest.give_up(), out)
            if oldest.lost:
                self._report_loss(whose, oldest, out)
            self.evicted += 1

    def _stop_waiting(self, direction: Direction) -> None:
        if self._waiting.pop(direction, None) is not None:
            self._octets -= direction.weighed
            direction.weighed = 0

    # --- which association is it -------------------------------------------------------------------------------------

    def _find(self, packet: Packet, out: list[Item]) -> tuple[Association, int] | None:
        """The association and sending end of a packet that comes by a new way; None if there is nothing to read."""
        payload = packet.payload
        if payload[0:2] != self._port and payload[2:4] != self._port:
            return None
        kind, flags = payload[12], payload[13]
        if kind == _INIT:
            self._init(packet)
            return None
        if kind == _INIT_ACK:
            self._init_ack(packet)
            return None
        found = self._tags.get(payload[:8])
        if found is None and kind in _CLOSING and flags & _REFLECTED:
            mirrored = self._tags.get(payload[2:4] + payload[0:2] + payload[4:8])
            if mirrored is None:
                return None
            association, other = mirrored
            return association, 1 - other
        if found is None:
            if not _carries_data(payload) or payload[:8] in self._closed:
                return None
            found = self._join(packet)
        association, sender = found
        if kind in _ESTABLISHED or association.keys or _carries_data(payload):
            self._register(association, sender, packet, out)
        return found

    def _register(self, association: Association, sender: int, packet: Packet, out: list[Item]) -> None:
        """Remember the way this packet came; a predecessor between the same ends is over."""
        if len(association.keys) >= _MOST_WAYS:
            return
        ports, tag = packet.payload[:4], packet.payload[:8]
        key = tag + packet.source + packet.destination
        self._paths[key] = (association, sender)
        association.keys.append(key)
        for end, address in ((sender, packet.source), (1 - sender, packet.destination)):
            if address not in association.ends[end].addresses:
                association.ends[end].addresses.append(address)
        for ends in (
            ports + packet.source + packet.destination,
            ports[2:] + ports[:2] + packet.destination + packet.source,
        ):
            predecessor = self._ends.get(ends)
            if predecessor is not None and predecessor is not association:
                self._close(predecessor)
                out.append(AssociationDown(predecessor, predecessor.place))
            self._ends[ends] = association
        self._unproven.pop(association, None)
        self._associations[association] = None
        while len(self._associations) > self._limits.associations:
            oldest = next(iter(self._associations))
            self._forget(oldest)
            self.evicted += 1
            out.append(AssociationForgotten(oldest))

    def _join(self, packet: Packet) -> tuple[Association, int]:
        """An association that was there before us: the other direction of one we know, or a new one."""
        payload = packet.payload
        known = self._ends.get(payload[:4] + packet.source + packet.destination)
        if known is not None:
            for sender, direction in enumerate(known.directions):
                if not direction.tag and packet.source in known.ends[sender].addresses:
                    return self._name(known, sender, payload)
        source = Endpoint(payload[0] << 8 | payload[1], [packet.source])
        destination = Endpoint(payload[2] << 8 | payload[3], [packet.destination])
        return self._name(Association(source, destination), 0, payload)

    def _name(self, association: Association, sender: int, payload: bytes) -> tuple[Association, int]:
        association.directions[sender].tag = payload[4:8]
        self._tags[payload[:8]] = association, sender
        return association, sender

    def _init(self, packet: Packet) -> None:
        payload = packet.payload
        if len(payload) < 32:
            self.malformed += 1
            return
        tag, _, _, _, tsn = _init_chunk(payload, 16)
        sender = Endpoint(payload[0] << 8 | payload[1], _addresses(packet))
        self._handshakes[payload[2:4] + payload[0:2] + tag.to_bytes(4, "big")] = (sender, tsn)
        while len(self._handshakes) > self._limits.handshakes:
            del self._handshakes[next(iter(self._handshakes))]
            self.evicted += 1

    def _init_ack(self, packet: Packet) -> None:
        payload = packet.payload
        if len(payload) < 32:
            self.malformed += 1
            return
        begun = self._handshakes.pop(payload[:8], None)
        if begun is None or payload[:8] in self._tags or payload[:8] in self._closed:
            return
        initiator, initiator_tsn = begun
        tag, _, _, _, tsn = _init_chunk(payload, 16)
        responder = Endpoint(payload[0] << 8 | payload[1], _addresses(packet))
        association = Association(initiator, responder)
        association.directions[0].begin(initiator_tsn)
        association.directions[1].begin(tsn)
        self._name(association, 0, payload[2:4] + payload[0:2] + tag.to_bytes(4, "big"))
        self._name(association, 1, payload)
        self._unproven[association] = None
        while len(self._unproven) > self._limits.handshakes:
            self._forget(next(iter(self._unproven)))
            self.evicted += 1

    def _close(self, association: Association) -> None:
        """An association is over; late repetitions of its packets do not bring it back."""
        self._forget(association)
        for sender in (0, 1):
            self._closed[association.ports_and_tag(sender)] = None
        while len(self._closed) > self._limits.closed:
            del self._closed[next(iter(self._closed))]

    def _forget(self, association: Association) -> None:
        self._unproven.pop(association, None)
        self._associations.pop(association, None)
        for direction in association.directions:
            self._stop_waiting(direction)
        for key in association.keys:
            self._paths.pop(key, None)
        for ends in _all_ends(association):
            if self._ends.get(ends) is association:
                del self._ends[ends]
        for sender in (0, 1):
            tag = association.ports_and_tag(sender)
            if self._tags.get(tag, (None, 0))[0] is association:
                del self._tags[tag]


def _all_ends(association: Association) -> list[bytes]:
    """Every key under which the association can stand between its ends."""
    first, second = association.ends
    ports = first.port.to_bytes(2, "big"), second.port.to_bytes(2, "big")
    keys = []
    for one in first.addresses:
        for two in second.addresses:
            keys.append(ports[0] + ports[1] + one + two)
            keys.append(ports[1] + ports[0] + two + one)
    return keys


def _carries_data(payload: bytes) -> bool:
    """Whether a DATA chunk is among the chunks of a packet."""
    offset = 12
    while offset + 4 <= len(payload):
        if payload[offset] == _DATA:
            return True
        offset += max(4, (payload[offset + 2] << 8 | payload[offset + 3]) + 3 & ~3)
    return False


def _addresses(packet: Packet) -> list[bytes]:
    """The addresses of who sent an INIT or INIT ACK: the packet's own first, then those it lists (RFC 9260 3.3.2.1)."""
    payload = packet.payload
    found = [packet.source]
    end = min(len(payload), 12 + (payload[14] << 8 | payload[15]))
    offset = 32
    while offset + 4 <= end and len(found) < 32:
        kind = payload[offset] << 8 | payload[offset + 1]
        length = payload[offset + 2] << 8 | payload[offset + 3]
        if length < 4 or offset + length > end:
            break
        if (kind, length) in ((5, 8), (6, 20)):
            address = payload[offset + 4 : offset + length]
            if address not in found:
                found.append(address)
        offset += length + 3 & ~3
    return found
