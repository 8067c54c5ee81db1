"""The way of user packets: GTP-U (TS 29.281) in the eNodeBs, the S-GW and the P-GW, one short Python path per hop.

Each hop owns its sockets and its tunnels; the control plane adds, moves and removes tunnels. A packet of an unknown
tunnel is dropped and counted.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mobiscud.core.ids import FTeid

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

_ETH_P_IP: Final = 0x0800
_BURST: Final = 64
"""Packets read in one turn, so that signalling waits a few milliseconds at most."""

_BUFFERED_WHILE_IDLE: Final = 64
"""Downlink packets kept per tunnel until the UE is there."""

Address = tuple[str, int]


@dataclass(slots=True)
class Counters:
    """What a hop has seen."""

    uplink: int = 0
    downlink: int = 0
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
        for _ in range(_BURST):
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


@dataclass(slots=True)
class RadioBearer:
    """A UE's bearer at one eNodeB.

    ``forward_to``: where downlink goes once the UE has left, ``None`` to drop it.
    """

    ue_address: bytes
    uplink_teid: int
    uplink_to: Address
    downlink_teid: int
    present: bool
    forward_to: tuple[Address, int] | None = None
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=_BUFFERED_WHILE_IDLE))


class EnbUserPlane:
    """Between the radio (whole IPv4 packets on a veth) and S1-U."""

    def __init__(self, radio: socket.socket, device: str, ue_mac: bytes, s1u: socket.socket) -> None:
        self.counters = Counters()
        self._radio = radio
        self._over_radio = (device, _ETH_P_IP, 0, 0, ue_mac)
        self._s1u = GtpuSocket(s1u)
        self._s1u.on_packet = self._downlink
        self._by_ue: dict[bytes, RadioBearer] = {}
        self._by_teid: dict[int, RadioBearer] = {}
        asyncio.get_running_loop().add_reader(radio, self._uplink)

    def add(self, bearer: RadioBearer) -> None:
        """Open a bearer. Downlink waits in it until the UE is present."""
        self._by_teid[bearer.downlink_teid] = bearer
        self._by_ue[bearer.ue_address] = bearer

    def arrive(self, bearer: RadioBearer) -> None:
        """The UE is here: deliver what has waited."""
        bearer.present = True
        while bearer.waiting:
            self._deliver(bearer.waiting.popleft())

    def leave(self, bearer: RadioBearer) -> None:
        """The UE has been sent away; uplink that is still on its way is taken."""
        bearer.present = False

    def remove(self, bearer: RadioBearer) -> None:
        """Close a bearer; a newer one of the same UE stays."""
        if self._by_teid.get(bearer.downlink_teid) is bearer:
            del self._by_teid[bearer.downlink_teid]
        if self._by_ue.get(bearer.ue_address) is bearer:
            del self._by_ue[bearer.ue_address]

    def _uplink(self) -> None:
        for _ in range(_BURST):
            try:
                packet = self._radio.recv(65_535)
            except OSError:
                return
            bearer = self._by_ue.get(packet[12:16])
            if bearer is None:
                self.counters.dropped += 1
                continue
            self.counters.uplink += 1
            self._s1u.send(gpdu_header(bearer.uplink_teid, len(packet)) + packet, bearer.uplink_to)

    def _downlink(self, teid: int, packet: bytes, offset: int) -> None:
        bearer = self._by_teid.get(teid)
        if bearer is None:
            self.counters.dropped += 1
        elif bearer.present:
            self.counters.downlink += 1
            self._deliver(packet[offset:])
        elif bearer.forward_to is not None:
            address, forward_teid = bearer.forward_to
            self._s1u.send(gpdu_header(forward_teid, len(packet) - offset) + packet[offset:], address)
        else:
            bearer.waiting.append(packet[offset:])

    def _deliver(self, packet: bytes) -> None:
        try:
            self._radio.sendto(packet, self._over_radio)
        except OSError:
            self.counters.dropped += 1

    def close(self) -> None:
        """Close both sockets."""
        asyncio.get_running_loop().remove_reader(self._radio)
        self._radio.close()
        self._s1u.close()


@dataclass(slots=True)
class Session:
    """A UE's bearer at the S-GW. ``enb`` is ``None`` while the UE is idle."""

    s1u_teid: int
    s5u_teid: int
    pgw: Address
    pgw_teid: int
    enb: FTeid | None = None
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=_BUFFERED_WHILE_IDLE))


class SgwUserPlane:
    """Between S1-U and S5-U: only TEIDs and addresses change, optional header fields are dropped."""

    def __init__(self, s1u: socket.socket, s5u: socket.socket) -> None:
        self.counters = Counters()
        self.on_data_for_idle: Callable[[Session], None] = lambda session: None
        self._s1u = GtpuSocket(s1u)
        self._s5u = GtpuSocket(s5u)
        self._s1u.on_packet = self._uplink
        self._s5u.on_packet = self._downlink
        self._by_s1u: dict[int, Session] = {}
        self._by_s5u: dict[int, Session] = {}

    def add(self, session: Session) -> None:
        """Open a session; downlink waits until an eNodeB is known."""
        self._by_s1u[session.s1u_teid] = session
        self._by_s5u[session.s5u_teid] = session

    def remove(self, session: Session) -> None:
        """Close a session."""
        self._by_s1u.pop(session.s1u_teid, None)
        self._by_s5u.pop(session.s5u_teid, None)

    def point_to(self, session: Session, enb: FTeid) -> None:
        """Send downlink to this eNodeB from now on, with an End Marker to the one before (TS 29.281 7.3.2)."""
        before, session.enb = session.enb, enb
        if before is not None and before != enb:
            self._s1u.send(end_marker(before.teid), (before.address, GTPU_PORT))
        while session.waiting:
            self._send_downlink(enb, session.waiting.popleft())

    def release(self, session: Session) -> None:
        """Keep downlink back, as the UE goes idle."""
        session.enb = None

    def _uplink(self, teid: int, packet: bytes, offset: int) -> None:
        session = self._by_s1u.get(teid)
        if session is None:
            self.counters.dropped += 1
            return
        self.counters.uplink += 1
        user = packet[offset:]
        self._s5u.send(gpdu_header(session.pgw_teid, len(user)) + user, session.pgw)

    def _downlink(self, teid: int, packet: bytes, offset: int) -> None:
        session = self._by_s5u.get(teid)
        if session is None:
            self.counters.dropped += 1
            return
        self.counters.downlink += 1
        if session.enb is not None:
            self._send_downlink(session.enb, packet[offset:])
            return
        first = not session.waiting
        session.waiting.append(packet[offset:])
        if first:
            self.on_data_for_idle(session)

    def _send_downlink(self, enb: FTeid, user: bytes) -> None:
        self._s1u.send(gpdu_header(enb.teid, len(user)) + user, (enb.address, GTPU_PORT))

    def close(self) -> None:
        """Close both sockets."""
        self._s1u.close()
        self._s5u.close()


class PgwUserPlane:
    """Between S5-U and the packet network behind a TUN device; tunnels by UE address."""

    def __init__(self, s5u: socket.socket, tun: int) -> None:
        self.counters = Counters()
        self._tun = tun
        self._s5u = GtpuSocket(s5u)
        self._s5u.on_packet = self._uplink
        self._ue_by_teid: dict[int, bytes] = {}
        self._sgw_by_ue: dict[bytes, tuple[Address, int]] = {}
        asyncio.get_running_loop().add_reader(tun, self._downlink)

    def add(self, ue_address: bytes, teid: int, sgw: Address, sgw_teid: int) -> None:
        """Open a tunnel: ours is ``teid``, the S-GW's end is ``sgw`` with ``sgw_teid``."""
        self._ue_by_teid[teid] = ue_address
        self._sgw_by_ue[ue_address] = (sgw, sgw_teid)

    def remove(self, ue_address: bytes, teid: int) -> None:
        """Close a tunnel."""
        self._ue_by_teid.pop(teid, None)
        self._sgw_by_ue.pop(ue_address, None)

    def _uplink(self, teid: int, packet: bytes, offset: int) -> None:
        if self._ue_by_teid.get(teid) != packet[offset + 12 : offset + 16]:
            self.counters.dropped += 1  # no such tunnel, or a source address that is not the UE's
            return
        self.counters.uplink += 1
        try:
            os.write(self._tun, packet[offset:])
        except OSError:
            self.counters.dropped += 1

    def _downlink(self) -> None:
        for _ in range(_BURST):
            try:
                user = os.read(self._tun, 65_535)
            except OSError:
                return
            path = self._sgw_by_ue.get(user[16:20])
            if path is None:
                self.counters.dropped += 1
                continue
            self.counters.downlink += 1
            self._s5u.send(gpdu_header(path[1], len(user)) + user, path[0])

    def close(self) -> None:
        """Close the socket and with it the device."""
        asyncio.get_running_loop().remove_reader(self._tun)
        os.close(self._tun)
        self._s5u.close()
