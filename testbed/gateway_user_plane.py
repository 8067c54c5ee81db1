"""The way of user packets through the S-GW and the P-GW, one short Python path per hop.

Each hop owns its sockets and its tunnels; the control plane adds, moves and removes tunnels. A packet of an unknown
tunnel is dropped and counted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from mobiscud.core.ids import FTeid
from testbed.gtpu_socket import BURST, GTPU_PORT, Address, Counters, GtpuSocket, end_marker, gpdu_header
from testbed.tft import Template

_BUFFERED_WHILE_IDLE: Final = 64
"""Downlink packets kept per tunnel until the UE is there."""


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
        self._forwarding: dict[int, FTeid] = {}
        self._s1u.on_end_marker = self._forward_end
        self._s5u.on_end_marker = self._end

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

    def forward(self, teid: int, enb: FTeid) -> None:
        """Open an indirect tunnel: what comes by ``teid`` from the source of a handover goes on to its target."""
        self._forwarding[teid] = enb

    def stop_forwarding(self, teid: int) -> None:
        """Close an indirect tunnel; harmless when there is none."""
        self._forwarding.pop(teid, None)

    def _forward_end(self, teid: int) -> None:
        enb = self._forwarding.get(teid)
        if enb is not None:
            self._s1u.send(end_marker(enb.teid), (enb.address, GTPU_PORT))

    def _end(self, teid: int) -> None:
        """The P-GW sends to another S-GW from now on, and the eNodeB is to know (TS 23.401 5.7.3)."""
        session = self._by_s5u.get(teid)
        if session is not None and session.enb is not None:
            self._s1u.send(end_marker(session.enb.teid), (session.enb.address, GTPU_PORT))

    def _uplink(self, teid: int, packet: bytes, offset: int) -> None:
        session = self._by_s1u.get(teid)
        if session is None:
            enb = self._forwarding.get(teid)
            if enb is None:
                self.counters.dropped += 1
            else:
                self.counters.forwarded += 1
                self._send_downlink(enb, packet[offset:])
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


@dataclass(frozen=True, slots=True)
class _Tunnel:
    """A bearer at the P-GW: ours is ``teid``, the S-GW's end is ``sgw`` with ``sgw_teid``."""

    teid: int
    sgw: Address
    sgw_teid: int
    traffic: Template | None


class PgwUserPlane:
    """Between S5-U and the packet network behind a TUN device; tunnels by UE address and by what they carry."""

    def __init__(self, s5u: socket.socket, tun: int) -> None:
        self.counters = Counters()
        self._tun = tun
        self._s5u = GtpuSocket(s5u)
        self._s5u.on_packet = self._uplink
        self._ue_by_teid: dict[int, bytes] = {}
        self._tunnels: dict[bytes, list[_Tunnel]] = {}
        """By UE; the default bearer's is the last."""
        asyncio.get_running_loop().add_reader(tun, self._downlink)

    def add(self, ue_address: bytes, teid: int, sgw: Address, sgw_teid: int, traffic: Template | None = None) -> None:
        """Open a tunnel: ours is ``teid``, the S-GW's end is ``sgw`` with ``sgw_teid``. ``traffic``: a dedicated
        bearer's; the default one takes what no other does."""
        self._ue_by_teid[teid] = ue_address
        others = self._tunnels.get(ue_address, ())
        self._tunnels[ue_address] = sorted((*others, _Tunnel(teid, sgw, sgw_teid, traffic)), key=_precedence)

    def turn(self, teid: int, sgw: Address, sgw_teid: int) -> bytes | None:
        """Send what goes by our tunnel ``teid`` to this S-GW from now on, and an End Marker to the one before; gives
        the UE's address, ``None`` without such a tunnel."""
        ue_address = self._ue_by_teid.get(teid)
        if ue_address is None:
            return None
        tunnels = self._tunnels[ue_address]
        before = next(tunnel for tunnel in tunnels if tunnel.teid == teid)
        self._tunnels[ue_address] = [
            replace(tunnel, sgw=sgw, sgw_teid=sgw_teid) if tunnel is before else tunnel for tunnel in tunnels
        ]
        self._s5u.send(end_marker(before.sgw_teid), before.sgw)
        return ue_address

    def remove(self, ue_address: bytes, teid: int) -> None:
        """Close a tunnel."""
        self._ue_by_teid.pop(teid, None)
        left = [tunnel for tunnel in self._tunnels.pop(ue_address, ()) if tunnel.teid != teid]
        if left:
            self._tunnels[ue_address] = left

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
        for _ in range(BURST):
            try:
                user = os.read(self._tun, 65_535)
            except OSError:
                return
            for tunnel in self._tunnels.get(user[16:20], ()):
                if tunnel.traffic is None or tunnel.traffic.holds(user):
                    self.counters.downlink += 1
                    self._s5u.send(gpdu_header(tunnel.sgw_teid, len(user)) + user, tunnel.sgw)
                    break
            else:
                self.counters.dropped += 1

    def close(self) -> None:
        """Close the socket and with it the device."""
        asyncio.get_running_loop().remove_reader(self._tun)
        os.close(self._tun)
        self._s5u.close()


def _precedence(tunnel: _Tunnel) -> int:
    return 256 if tunnel.traffic is None else tunnel.traffic.precedence
