"""One SCTP association as a pure machine (RFC 9260): packets and the time in, packets and events out.

It does what two well-behaved ends on a private wire need: the handshake with a sealed cookie, ordered streams,
selective acknowledgement, retransmission by timer and by missing reports, heartbeats, shutdown and abort.
It leaves out, on purpose, fragmentation, multi-homing and congestion control: S1AP messages are small, an eNodeB of
the testbed has one address, and the window of the peer is the only bound that signalling ever meets here.

After every ``receive``, ``send`` or timer, take :meth:`Association.packets` and :meth:`Association.events`, and call
:meth:`Association.handle_timer` at :attr:`Association.deadline`.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from testbed.sctp_packet import (
    HEADER,
    Abort,
    Chunk,
    CookieAck,
    CookieEcho,
    Data,
    Heartbeat,
    HeartbeatAck,
    Init,
    InitAck,
    Packet,
    Sack,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    encode_chunk,
    encode_packet,
)

STREAMS: Final = 30
"""Streams offered each way, as Open5GS does."""

WINDOW: Final = 131_072
"""Our receive window in octets; it never shrinks, since data is handed on at once."""

MAX_PACKET: Final = 1_452
"""Octets of an SCTP packet in an IPv4 packet of 1,500, rounded down to four."""

_INITIAL_RTO_S: Final = 1.0
_MIN_RTO_S: Final = 0.2
_MAX_RTO_S: Final = 5.0
_MAX_RETRANSMISSIONS: Final = 8
_HEARTBEAT_INTERVAL_S: Final = 5.0
_COOKIE_LIFE_S: Final = 60.0
_MISSING_REPORTS: Final = 3

_COOKIE: Final = struct.Struct("!IIIIIHHd")


class State(enum.Enum):
    """RFC 9260 4; CLOSED is the end here, an association never opens twice."""

    COOKIE_WAIT = enum.auto()
    COOKIE_ECHOED = enum.auto()
    ESTABLISHED = enum.auto()
    SHUTDOWN_PENDING = enum.auto()
    SHUTDOWN_SENT = enum.auto()
    SHUTDOWN_RECEIVED = enum.auto()
    SHUTDOWN_ACK_SENT = enum.auto()
    CLOSED = enum.auto()


class CloseReason(enum.Enum):
    """Why an association ended."""

    SHUTDOWN = "shutdown"
    ABORT = "abort"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Connected:
    """The handshake is over; data may flow."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message, in its place in its stream."""

    stream: int
    ppid: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more will come."""

    reason: CloseReason


Event = Connected | Received | Closed


@dataclass(slots=True)
class _InFlight:
    chunk: Data
    sent_at: float
    transmissions: int = 1
    missing_reports: int = 0


def tsn_after(a: int, b: int) -> bool:
    """Whether TSN ``a`` is later than ``b`` in serial number arithmetic (RFC 1982)."""
    return 0 < (a - b & 0xFFFF_FFFF) < 0x8000_0000


class Association:
    """One end of an association. Times are seconds of any steady clock.

    ``random`` gives the 32-bit numbers (tags, first TSN), so that a test can choose them.
    """

    def __init__(self, local_port: int, peer_port: int, *, random: Callable[[], int]) -> None:
        self.state = State.COOKIE_WAIT
        self.local_port = local_port
        self.peer_port = peer_port
        self.local_tag = random() | 1
        self.peer_tag = 0
        self._initial_tsn = self._next_tsn = random()
        self._outbound_streams = STREAMS
        self._out_ssn: dict[int, int] = {}
        self._waiting: deque[Data] = deque()
        self._in_flight: dict[int, _InFlight] = {}
        self._peer_window = WINDOW
        self._acked_tsn = self._next_tsn - 1 & 0xFFFF_FFFF

        self._cumulative_tsn = 0
        self._beyond: set[int] = set()
        self._duplicates: list[int] = []
        self._sack_due = False
        self._in_ssn: dict[int, int] = {}
        self._held: dict[tuple[int, int], Data] = {}

        self._control: list[Chunk] = []
        self._resend: deque[int] = deque()
        self._repeated: Chunk | None = None
        self._events: deque[Event] = deque()
        self._rto = _INITIAL_RTO_S
        self._srtt: float | None = None
        self._rttvar = 0.0
        self._errors = 0
        self._timer_repeat: float | None = None
        self._timer_data: float | None = None
        self._timer_heartbeat: float | None = None
        self._heartbeat_unanswered = False

    # -- opening ---------------------------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Begin the handshake."""
        self._send_repeated(Init(self.local_tag, WINDOW, STREAMS, STREAMS, self._initial_tsn), now)

    @classmethod
    def accept(cls, echoed: bytes, ports: tuple[int, int], secret: bytes, now: float) -> Association | None:
        """Rebuild, from a cookie we sealed, the association of the peer that echoed it; ``None`` if it is not ours.

        ``ports``: ours and the peer's.
        """
        body, seal = echoed[: _COOKIE.size], echoed[_COOKIE.size :]
        if len(body) < _COOKIE.size or not hmac.compare_digest(seal, _seal(body, ports, secret)):
            return None
        local_tag, peer_tag, local_tsn, peer_tsn, window, streams, _, made_at = _COOKIE.unpack(body)
        if not 0 <= now - made_at <= _COOKIE_LIFE_S:
            return None
        numbers = iter((local_tag, local_tsn))
        association = cls(*ports, random=lambda: next(numbers))
        association._learn_peer(peer_tag, peer_tsn, window, streams)
        association._establish(now)
        association._control.append(CookieAck())
        return association

    def _learn_peer(self, tag: int, initial_tsn: int, window: int, inbound_streams: int) -> None:
        self.peer_tag = tag
        self._cumulative_tsn = initial_tsn - 1 & 0xFFFF_FFFF
        self._peer_window = window
        self._outbound_streams = min(STREAMS, inbound_streams)

    def _establish(self, now: float) -> None:
        self.state = State.ESTABLISHED
        self._stop_repeating()
        self._timer_heartbeat = now + _HEARTBEAT_INTERVAL_S
        self._events.append(Connected())

    # -- what the user does ------------------------------------------------------------------------------------

    def send(self, payload: bytes, *, stream: int, ppid: int) -> None:
        """Queue one message.

        :raises ValueError: when it does not fit into one packet, or the stream does not exist
        """
        if len(payload) > MAX_PACKET - HEADER.size - 16 - 16:
            raise ValueError(f"a message of {len(payload)} octets needs fragmentation")
        if not 0 <= stream < self._outbound_streams:
            raise ValueError(f"stream {stream} of {self._outbound_streams}")
        if self.state not in (State.COOKIE_WAIT, State.COOKIE_ECHOED, State.ESTABLISHED):
            return
        ssn = self._out_ssn.get(stream, 0)
        self._out_ssn[stream] = ssn + 1 & 0xFFFF
        self._waiting.append(Data(self._next_tsn, stream, ssn, ppid, payload))
        self._next_tsn = self._next_tsn + 1 & 0xFFFF_FFFF

    def shutdown(self, now: float) -> None:
        """End gracefully, once all that was queued has been acknowledged."""
        if self.state is State.ESTABLISHED:
            self.state = State.SHUTDOWN_PENDING
            self._continue_shutdown(now)
        elif self.state in (State.COOKIE_WAIT, State.COOKIE_ECHOED):
            self.abort()

    def abort(self) -> None:
        """End at once."""
        if self.state is not State.CLOSED:
            self._control = [Abort()]
            self._close(CloseReason.ABORT)

    # -- what the wire brings ------------------------------------------------------------------------------------

    def receive(self, packet: Packet, now: float) -> None:
        """Take a packet of this association; one with the wrong verification tag is ignored (8.5)."""
        for chunk in packet.chunks:
            if not self._tag_fits(packet.tag, chunk):
                return
            self._errors = 0
            self._take(chunk, now)
            if self.state is State.CLOSED:
                return

    def _tag_fits(self, tag: int, chunk: Chunk) -> bool:
        if isinstance(chunk, Abort | ShutdownComplete) and chunk.reflected:
            return tag == self.peer_tag
        return tag == self.local_tag

    def _take(self, chunk: Chunk, now: float) -> None:
        match chunk:
            case InitAck():
                if self.state is State.COOKIE_WAIT:
                    self._learn_peer(chunk.tag, chunk.initial_tsn, chunk.window, chunk.inbound_streams)
                    self.state = State.COOKIE_ECHOED
                    self._send_repeated(CookieEcho(chunk.cookie), now)
            case CookieAck():
                if self.state is State.COOKIE_ECHOED:
                    self._establish(now)
            case Data():
                self._take_data(chunk)
            case Sack():
                self._take_sack(chunk, now)
            case Heartbeat():
                self._control.append(HeartbeatAck(chunk.info))
            case HeartbeatAck():
                self._heartbeat_unanswered = False
            case Shutdown():
                self._acknowledged(chunk.cumulative_tsn, now)
                if self.state in (State.ESTABLISHED, State.SHUTDOWN_PENDING):
                    self.state = State.SHUTDOWN_RECEIVED
                elif self.state is State.SHUTDOWN_SENT:
                    self._acknowledge_shutdown(now)
                self._continue_shutdown(now)
            case ShutdownAck():
                if self.state in (State.SHUTDOWN_SENT, State.SHUTDOWN_ACK_SENT):
                    self._control.append(ShutdownComplete())
                    self._close(CloseReason.SHUTDOWN)
            case ShutdownComplete():
                if self.state is State.SHUTDOWN_ACK_SENT:
                    self._close(CloseReason.SHUTDOWN)
            case Abort():
                self._close(CloseReason.ABORT)
            case Init() | CookieEcho():
                pass  # the endpoint answers these, since they may concern no association at all

    def _take_data(self, chunk: Data) -> None:
        if self.state not in (
            State.ESTABLISHED,
            State.SHUTDOWN_PENDING,
            State.SHUTDOWN_SENT,
        ):
            return
        self._sack_due = True
        if chunk.tsn in self._beyond or not tsn_after(chunk.tsn, self._cumulative_tsn):
            self._duplicates.append(chunk.tsn)
            return
        self._beyond.add(chunk.tsn)
        while (following := self._cumulative_tsn + 1 & 0xFFFF_FFFF) in self._beyond:
            self._beyond.remove(following)
            self._cumulative_tsn = following
        if chunk.unordered:
            self._events.append(Received(chunk.stream, chunk.ppid, chunk.payload))
            return
        self._held[chunk.stream, chunk.ssn] = chunk
        ssn = self._in_ssn.get(chunk.stream, 0)
        while (due := self._held.pop((chunk.stream, ssn), None)) is not None:
            self._events.append(Received(due.stream, due.ppid, due.payload))
            ssn = ssn + 1 & 0xFFFF
        self._in_ssn[chunk.stream] = ssn

    def _take_sack(self, sack: Sack, now: float) -> None:
        if tsn_after(self._acked_tsn, sack.cumulative_tsn):
            return  # an older SACK that was overtaken
        self._peer_window = sack.window
        highest = sack.cumulative_tsn
        for first, last in sack.gaps:
            # The peers of the testbed never take back what they reported, so a gap block frees the chunk for good.
            for offset in range(first, last + 1):
                highest = sack.cumulative_tsn + offset & 0xFFFF_FFFF
                self._forget(highest, now)
        self._acknowledged(sack.cumulative_tsn, now)
        for tsn, flight in self._in_flight.items():
            if tsn_after(highest, tsn):
                flight.missing_reports += 1
                if flight.missing_reports == _MISSING_REPORTS:
                    self._resend.append(tsn)
        self._continue_shutdown(now)

    def _acknowledged(self, cumulative_tsn: int, now: float) -> None:
        if tsn_after(cumulative_tsn, self._acked_tsn):
            self._acked_tsn = cumulative_tsn
        for tsn in [tsn for tsn in self._in_flight if not tsn_after(tsn, cumulative_tsn)]:
            self._forget(tsn, now)

    def _forget(self, tsn: int, now: float) -> None:
        flight = self._in_flight.pop(tsn, None)
        if flight is None:
            return
        if flight.transmissions == 1:  # Karn: a repeated chunk measures nothing
            self._measure(now - flight.sent_at)
        self._timer_data = now + self._rto if self._in_flight else None

    def _measure(self, rtt: float) -> None:
        if self._srtt is None:
            self._srtt, self._rttvar = rtt, rtt / 2
        else:
            self._rttvar += (abs(self._srtt - rtt) - self._rttvar) / 4
            self._srtt += (rtt - self._srtt) / 8
        self._rto = min(_MAX_RTO_S, max(_MIN_RTO_S, self._srtt + 4 * self._rttvar))

    # -- closing -------------------------------------------------------------------------------------------------

    def _continue_shutdown(self, now: float) -> None:
        if self._waiting or self._in_flight:
            return
        if self.state is State.SHUTDOWN_PENDING:
            self.state = State.SHUTDOWN_SENT
            self._send_repeated(Shutdown(self._cumulative_tsn), now)
        elif self.state is State.SHUTDOWN_RECEIVED:
            self._acknowledge_shutdown(now)

    def _acknowledge_shutdown(self, now: float) -> None:
        self.state = State.SHUTDOWN_ACK_SENT
        self._send_repeated(ShutdownAck(), now)

    def _close(self, reason: CloseReason) -> None:
        self.state = State.CLOSED
        self._stop_repeating()
        self._timer_data = self._timer_heartbeat = None
        self._waiting.clear()
        self._in_flight.clear()
        self._resend.clear()
        self._sack_due = False
        self._events.append(Closed(reason))

    # -- timers --------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When :meth:`handle_timer` wants to be called."""
        return min(
            (timer for timer in (self._timer_repeat, self._timer_data, self._timer_heartbeat) if timer is not None),
            default=None,
        )

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        repeated = self._repeated
        if repeated is not None and _due(self._timer_repeat, now) and not self._failed_once_more():
            self._send_repeated(repeated, now)
        if _due(self._timer_data, now) and not self._failed_once_more():
            self._resend = deque(self._in_flight)
            self._timer_data = now + self._rto
        if _due(self._timer_heartbeat, now) and not (self._heartbeat_unanswered and self._failed_once_more()):
            self._heartbeat_unanswered = True
            self._control.append(Heartbeat(struct.pack("!d", now)))
            self._timer_heartbeat = now + _HEARTBEAT_INTERVAL_S

    def _failed_once_more(self) -> bool:
        self._errors += 1
        self._rto = min(_MAX_RTO_S, self._rto * 2)
        if self._errors > _MAX_RETRANSMISSIONS:
            self._close(CloseReason.LOST)
            return True
        return False

    def _send_repeated(self, chunk: Chunk, now: float) -> None:
        """Send a chunk that is repeated until its answer comes."""
        self._repeated = chunk
        self._control.append(chunk)
        self._timer_repeat = now + self._rto

    def _stop_repeating(self) -> None:
        self._repeated = self._timer_repeat = None

    # -- what is to be taken -----------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Take what has happened."""
        happened = list(self._events)
        self._events.clear()
        return happened

    def packets(self, now: float) -> list[bytes]:
        """Take what is to be sent: control chunks first, acknowledgements riding with data where there is some."""
        chunks, self._control = self._control, []
        if self._sack_due:
            chunks.append(self._sack())
        if self.state is not State.COOKIE_WAIT:
            chunks += self._due_data(now)
        packets: list[list[Chunk]] = []
        room = 0
        for chunk in chunks:
            size = len(encode_chunk(chunk))
            if not packets or size > room or isinstance(chunk, Init | ShutdownComplete):
                packets.append([])
                room = MAX_PACKET - HEADER.size
            packets[-1].append(chunk)
            room -= size
        return [
            encode_packet(Packet(self.local_port, self.peer_port, self.peer_tag, tuple(bundle))) for bundle in packets
        ]

    def _due_data(self, now: float) -> list[Data]:
        due = []
        while self._resend:
            flight = self._in_flight.get(self._resend.popleft())
            if flight is not None:
                flight.transmissions += 1
                due.append(flight.chunk)
        sending = self.state in (State.ESTABLISHED, State.SHUTDOWN_PENDING, State.SHUTDOWN_RECEIVED)
        outstanding = sum(len(flight.chunk.payload) for flight in self._in_flight.values())
        while sending and self._waiting:
            chunk = self._waiting[0]
            if outstanding and outstanding + len(chunk.payload) > self._peer_window:
                break
            self._waiting.popleft()
            self._in_flight[chunk.tsn] = _InFlight(chunk, now)
            outstanding += len(chunk.payload)
            due.append(chunk)
        if due and self._timer_data is None:
            self._timer_data = now + self._rto
        return due

    def _sack(self) -> Sack:
        offsets = sorted(tsn - self._cumulative_tsn & 0xFFFF_FFFF for tsn in self._beyond)
        gaps: list[tuple[int, int]] = []
        for offset in offsets:
            if gaps and gaps[-1][1] == offset - 1:
                gaps[-1] = (gaps[-1][0], offset)
            else:
                gaps.append((offset, offset))
        sack = Sack(self._cumulative_tsn, WINDOW, tuple(gaps[:64]), tuple(self._duplicates[:16]))
        self._sack_due = False
        self._duplicates.clear()
        return sack


def answer_init(packet: Packet, init: Init, secret: bytes, now: float, *, random: Callable[[], int]) -> bytes:
    """Answer INIT without keeping anything (5.1.3): what must be remembered goes into the sealed cookie."""
    ports = (packet.destination_port, packet.source_port)
    ours = Init(random() | 1, WINDOW, STREAMS, STREAMS, random())
    body = _COOKIE.pack(
        ours.tag, init.tag, ours.initial_tsn, init.initial_tsn, init.window, init.inbound_streams, 0, now
    )
    cookie = body + _seal(body, ports, secret)
    answer = InitAck(ours.tag, ours.window, STREAMS, STREAMS, ours.initial_tsn, cookie)
    return encode_packet(Packet(*ports, init.tag, (answer,)))


def acknowledge_cookie(association: Association) -> bytes:
    """Repeat COOKIE ACK for a peer whose first one was lost (5.2.4, case D)."""
    return encode_packet(Packet(association.local_port, association.peer_port, association.peer_tag, (CookieAck(),)))


def refuse(packet: Packet) -> bytes | None:
    """Answer a packet that belongs to nothing (8.4)."""
    if any(isinstance(chunk, Abort | ShutdownComplete | InitAck) for chunk in packet.chunks):
        return None
    chunk: Chunk = Abort(reflected=True)
    if any(isinstance(chunk, ShutdownAck) for chunk in packet.chunks):
        chunk = ShutdownComplete(reflected=True)
    return encode_packet(Packet(packet.destination_port, packet.source_port, packet.tag, (chunk,)))


def _due(timer: float | None, now: float) -> bool:
    return timer is not None and now >= timer


def _seal(body: bytes, ports: tuple[int, int], secret: bytes) -> bytes:
    return hmac.digest(secret, body + struct.pack("!HH", *ports), hashlib.sha256)
