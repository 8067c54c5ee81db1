"""One direction of an SCTP association: every DATA chunk once, fragments joined, streams in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

_MODULUS = 0xFFFF_FFFF
_HALF = 0x8000_0000
_WINDOW = 0x1_0000
"""A TSN this far from what is expected is no repetition and no reordering: the numbering has jumped."""
_MOST_AHEAD = 4096
_MOST_HELD = 256
_MOST_FORGIVEN = 1024
_MOST_FRAGMENTS = 1024
_MOST_OCTETS = 1 << 20
_MOST_STREAMS = 1024
_TSN_OCTETS = 96
"""What a remembered TSN weighs."""

_UNORDERED, _BEGIN, _END = 4, 2, 1
_WHOLE = _BEGIN | _END


@dataclass(slots=True, init=False)
class Delivery:
    """A user message; ``tsn`` is that of its first fragment."""

    tsn: int
    stream: int
    ppid: int
    data: bytes

    def __init__(self, tsn: int, stream: int, ppid: int, data: bytes) -> None:
        self.tsn = tsn
        self.stream = stream
        self.ppid = ppid
        self.data = data


class _Fragment(NamedTuple):
    flags: int
    stream: int
    ssn: int
    ppid: int
    data: bytes


class Direction:
    """What one end has sent.

    ``tag`` is the verification tag its packets carry. ``lost`` counts chunks that were acknowledged but never seen,
    beginning at ``lost_from``; who reads it sets it back to 0. ``weight`` is about how many octets it holds back,
    ``weighed`` belongs to who sums that up.
    """

    __slots__ = (
        "_ahead",
        "_forgiven",
        "_fragments",
        "_from_start",
        "_held",
        "_next",
        "_octets",
        "_streams",
        "lost",
        "lost_from",
        "tag",
        "weighed",
        "weight",
    )

    def __init__(self) -> None:
        self.tag = b""
        self.lost = 0
        self.lost_from = 0
        self.weight = 0
        self.weighed = 0
        self._next: int | None = None  # the first TSN that has not been seen
        self._ahead: set[int] = set()  # those seen beyond it
        self._forgiven: set[int] = set()  # those given up, still welcome
        self._streams: dict[int, int] = {}  # stream -> the SSN that comes next
        self._from_start = False  # every stream not met yet begins at 0; otherwise anywhere
        self._held: dict[
            int, tuple[int, Delivery]
        ] = {}  # TSN -> SSN and message, waiting for an earlier one of its stream
        self._fragments: dict[int, _Fragment] = {}
        self._octets = 0

    @property
    def waiting(self) -> bool:
        """Whether an acknowledgement could tell us that something is lost."""
        return bool(self._ahead)

    def begin(self, tsn: int) -> None:
        """The INIT has told the first TSN: nothing before it exists, and all streams begin at 0."""
        self._next = tsn
        self._from_start = True

    def receive(self, tsn: int, flags: int, stream: int, ssn: int, ppid: int, data: bytes) -> list[Delivery]:
        """Take one DATA chunk; give the messages that are complete and in order now."""
        if tsn == self._next and flags & _WHOLE == _WHOLE and not self._octets and not self._ahead:
            self._next = (tsn + 1) & _MODULUS
            message = Delivery(tsn, stream, ppid, data)
            return [message] if flags & _UNORDERED else self._in_order(ssn, message)
        return self._receive(tsn, flags, stream, ssn, ppid, data)

    def _receive(self, tsn: int, flags: int, stream: int, ssn: int, ppid: int, data: bytes) -> list[Delivery]:
        """A chunk that is only a part, or has something missing or waiting before it."""
        if not self._is_new(tsn):
            return []
        message: Delivery | None = Delivery(tsn, stream, ppid, data)
        if flags & _WHOLE != _WHOLE:
            message = self._join(tsn, _Fragment(flags, stream, ssn, ppid, data))
        if message is None:
            deliveries = []
        elif flags & _UNORDERED:
            deliveries = [message]
        else:
            deliveries = self._in_order(ssn, message)
        if len(self._ahead) > _MOST_AHEAD or len(self._held) > _MOST_HELD or self._octets > _MOST_OCTETS:
            deliveries += self.give_up()
        if self._ahead or self._fragments or self.weight:
            self._weigh()
        return deliveries

    def give_up(self) -> list[Delivery]:
        """Wait no longer for what is missing: it is lost, with all messages that it was a part of."""
        deliveries = self.acknowledged(max(self._ahead, key=self._distance)) if self._ahead else []
        self._fragments.clear()
        self._octets = sum(len(message.data) for _, message in self._held.values())
        self._weigh()
        return deliveries

    def _weigh(self) -> None:
        self.weight = self._octets + _TSN_OCTETS * (len(self._ahead) + len(self._fragments))

    def acknowledged(self, tsn: int) -> list[Delivery]:
        """The peer has everything up to ``tsn``: what we have not seen of it, we never will."""
        if self._next is None or self._distance(tsn) >= _HALF:
            return []
        span = self._distance(tsn) + 1
        seen = {number for number in self._ahead if self._distance(number) < span}
        if span > len(seen):
            self.lost, self.lost_from = self.lost + span - len(seen), self._next
            if span <= _MOST_FORGIVEN:
                missing = {(self._next + i) & _MODULUS for i in range(span)} - seen
                self._forgiven = missing if len(self._forgiven) > _MOST_FORGIVEN else self._forgiven | missing
        self._ahead -= seen
        self._advance((tsn + 1) & _MODULUS)
        deliveries = self._release()
        self._weigh()
        return deliveries

    def _distance(self, tsn: int) -> int:
        """How far ``tsn`` is after the next expected one, in serial arithmetic (RFC 1982)."""
        return (tsn - (self._next or 0)) & _MODULUS

    def _is_new(self, tsn: int) -> bool:
        if self._next is None or tsn == self._next:
            self._advance((tsn + 1) & _MODULUS)
            return True
        ahead = self._distance(tsn)
        if ahead < _WINDOW:
            if tsn in self._ahead:
                return False
            self._ahead.add(tsn)
            return True
        if ahead > _MODULUS - _WINDOW:
            if tsn not in self._forgiven:
                return False
            self._forgiven.discard(tsn)
            return True
        self._jump(tsn, ahead)
        return True

    def _jump(self, tsn: int, ahead: int) -> None:
        """The numbering goes on far from where we are: forward, we missed that much; backward, we were led astray."""
        if ahead < _HALF:
            self.lost, self.lost_from = self.lost + ahead - len(self._ahead), self._next or 0
        self._ahead.clear()
        self._forgiven.clear()
        self._fragments.clear()
        self._held.clear()
        self._octets = 0
        self._streams.clear()
        self._from_start = False
        self._next = (tsn + 1) & _MODULUS

    def _advance(self, tsn: int) -> None:
        ahead = self._ahead
        while tsn in ahead:
            ahead.remove(tsn)
            tsn = (tsn + 1) & _MODULUS
        self._next = tsn

    def _in_order(self, ssn: int, message: Delivery) -> list[Delivery]:
        """Deliver, or hold until what the stream still lacks has come (RFC 9260 6.6)."""
        expected = self._streams.get(message.stream, 0 if self._from_start else ssn)
        ahead = (ssn - expected) & 0xFFFF
        if self._ahead and 0 < ahead < 0x8000:
            self._held[message.tsn] = (ssn, message)
            self._octets += len(message.data)
            return []
        if ahead < 0x8000:
            self._streams[message.stream] = (ssn + 1) & 0xFFFF
            if len(self._streams) > _MOST_STREAMS:
                del self._streams[next(iter(self._streams))]
                self._from_start = False
        return [message, *self._release()] if self._held else [message]

    def _release(self) -> list[Delivery]:
        """Messages held back that may go now: next in their stream, or with nothing missing before them."""
        released: list[Delivery] = []
        for tsn in sorted(self._held, key=self._distance_signed):
            ssn, message = self._held[tsn]
            if ssn == self._streams.get(message.stream) or self._distance(tsn) >= _HALF:
                del self._held[tsn]
                self._octets -= len(message.data)
                self._streams[message.stream] = (ssn + 1) & 0xFFFF
                released.append(message)
        return released

    def _distance_signed(self, tsn: int) -> int:
        return (self._distance(tsn) + _HALF & _MODULUS) - _HALF

    def _join(self, tsn: int, fragment: _Fragment) -> Delivery | None:
        """Fragments of one message carry consecutive TSNs (RFC 9260 6.9). What waits stays small: the oldest goes."""
        fragments = self._fragments
        fragments[tsn] = fragment
        self._octets += len(fragment.data)
        first = last = tsn
        while first in fragments and not fragments[first].flags & _BEGIN:
            first = (first - 1) & _MODULUS
        while last in fragments and not fragments[last].flags & _END:
            last = (last + 1) & _MODULUS
        if first in fragments and last in fragments:
            parts = [fragments.pop((first + i) & _MODULUS) for i in range(((last - first) & _MODULUS) + 1)]
            data = b"".join(part.data for part in parts)
            self._octets -= len(data)
            return Delivery(first, parts[0].stream, parts[0].ppid, data)
        while len(fragments) > _MOST_FRAGMENTS or (fragments and self._octets > _MOST_OCTETS):
            self._octets -= len(fragments.pop(next(iter(fragments))).data)
        return None
