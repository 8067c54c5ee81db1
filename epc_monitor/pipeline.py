"""The whole way of the data in one object: frames in, events out, everything on the way counted. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from epc_monitor import values
from epc_monitor.bpf import SCTP_OVER_UDP_PORT
from epc_monitor.frames import SCTP, FragmentLimits, Frame, FrameDecoder, Packet, Reassembly
from epc_monitor.gtpv2 import GTPV2_PORT
from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from epc_monitor.sctp import (
    S1AP_PORT,
    AssociationDown,
    AssociationForgotten,
    Endpoint,
    Gap,
    Message,
    SctpDecoder,
    SctpLimits,
)
from epc_monitor.ue_tracker import UeTracker
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import Event
from mobiscud.core.ue import EnbState, SctpEnd, UeState

_EVICTIONS_EVERY_NS = 1_000_000_000
"""Evictions are told together, at most once in a second: under a flood they would be a flood themselves."""
_TAKE_STOCK_MASK = 63
"""Every so many frames, less one, the evictions are looked at."""


@dataclass(slots=True)
class Stats:
    """What has passed. ``messages``: S1AP and GTPv2-C; ``gaps``: DATA chunks that reached their receiver and not us.

    ``evicted`` had to give way to a limit, ``expired`` was not heard of for too long.
    """

    frames: int = 0
    bytes: int = 0
    messages: int = 0
    events: int = 0
    decode_errors: int = 0
    gaps: int = 0
    evicted: int = 0
    expired: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Monitor:
    """Watches one network."""

    def __init__(self, keys: UeKeys, limits: Limits | None = None, s1ap_port: int = S1AP_PORT) -> None:
        self._stats = Stats()
        self.limits = limits = limits or Limits()
        self.tracker = UeTracker(keys, limits)
        fragments = FragmentLimits(packets=limits.fragments, age_s=limits.fragment_age_s)
        self._fragments = Reassembly(fragments)
        self._frames = FrameDecoder(self._fragments)
        self._sctp = SctpDecoder(s1ap_port, SctpLimits(associations=limits.associations, octets=limits.waiting_octets))
        self._unreadable = 0
        self.kernel_drops = 0
        self._evictions_told = 0
        self._evictions_told_at = 0

    @property
    def stats(self) -> Stats:
        """What has passed until now."""
        stats = self._stats
        stats.decode_errors = self._unreadable + self._sctp.malformed + self.tracker.malformed
        stats.evicted = self.tracker.evicted + self._sctp.evicted + self._fragments.evicted
        stats.expired = self.tracker.expired + self._fragments.expired
        return stats

    def resume(self, enbs: Iterable[EnbState], ues: Iterable[tuple[UeState, int]], *, trusted: bool) -> int:
        """Go on from what was known before a restart; how many UEs are known again.

        Before the first frame. Each UE comes with when it was so; ``trusted``: what leads to them still holds. A state
        that no monitor can have written is passed over.
        """
        for state in enbs:
            with contextlib.suppress(ValueError):
                ends = [_endpoint(end) for end in (state.enb_end, state.mme_end)]
                tags = bytes.fromhex(state.enb_end.tag), bytes.fromhex(state.mme_end.tag)
                self.tracker.resume_enb(state, self._sctp.adopt(ends[0], ends[1], tags))
        return self.tracker.resume(ues, trusted=trusted)

    def receive(self, frame: Frame) -> list[Event]:
        """Take one frame; give the events that it completed. What cannot be read is counted, never raised."""
        stats = self._stats
        stats.frames += 1
        stats.bytes += len(frame.data)
        events: list[Event] = []
        try:
            packet = self._frames.receive(frame)
            if packet is None:
                pass
            elif packet.protocol == SCTP:
                self._receive_sctp(packet, frame, events)
            else:
                self._receive_udp(packet, frame, events)
        except DecodeError:
            self._unreadable += 1
        if not stats.frames & _TAKE_STOCK_MASK:
            self._tell_evictions(frame, events)
        stats.events += len(events)
        return events

    def _tell_evictions(self, frame: Frame, events: list[Event]) -> None:
        evicted = self.stats.evicted
        count = evicted - self._evictions_told
        if not count or abs(frame.at - self._evictions_told_at) < _EVICTIONS_EVERY_NS:
            return
        self._evictions_told, self._evictions_told_at = evicted, frame.at
        place = f"limit:{frame.interface}:{frame.at}:{evicted}".encode()
        events += self.tracker.dropped(frame.at, place, count, frame.interface, "limit")

    def dropped(self, count: int, interface: str | None, at: int) -> list[Event]:
        """The kernel had no room for ``count`` frames."""
        self.kernel_drops += count
        place = f"kernel:{interface}:{at}:{self.kernel_drops}".encode()
        events = self.tracker.dropped(at, place, count, interface, "kernel")
        self._stats.events += len(events)
        return events

    def _receive_sctp(self, packet: Packet, frame: Frame, events: list[Event]) -> None:
        stats, tracker = self._stats, self.tracker
        for item in self._sctp.receive(packet):
            if isinstance(item, Message):
                stats.messages += 1
                try:
                    events += tracker.receive_s1ap(item, frame.at)
                except DecodeError:
                    self._unreadable += 1
            elif isinstance(item, AssociationDown):
                events += tracker.association_down(item, frame.at)
            elif isinstance(item, AssociationForgotten):
                events += tracker.association_forgotten(item, frame.at)
            elif isinstance(item, Gap):
                stats.gaps += item.chunks
                events += tracker.dropped(frame.at, item.place, item.chunks, frame.interface, "tsn_gap")

    def _receive_udp(self, packet: Packet, frame: Frame, events: list[Event]) -> None:
        payload = packet.payload
        if len(payload) < 8:
            raise DecodeError("UDP datagram cut short")
        source, destination = payload[0] << 8 | payload[1], payload[2] << 8 | payload[3]
        if GTPV2_PORT in (source, destination):
            found, messages = self.tracker.receive_gtp(packet, payload[8:], frame.at)
            self._stats.messages += messages
            events += found
        elif SCTP_OVER_UDP_PORT in (source, destination):
            inner = Packet(packet.protocol, packet.source, packet.destination, payload[8:])
            self._receive_sctp(inner, frame, events)


def _endpoint(end: SctpEnd) -> Endpoint:
    if not 0 <= end.port <= 0xFFFF or len(end.tag) != 8 or not end.addresses:
        raise ValueError("no end of an association")
    return Endpoint(end.port, [values.address_octets(address) for address in end.addresses])
