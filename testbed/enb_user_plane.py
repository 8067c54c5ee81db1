"""The user plane of an emulated eNodeB: between the radio and S1-U, and what a handover needs so that nothing is lost.

The source forwards the downlink it still gets to the target (TS 36.300 10.1.2.3); the target keeps it until the UE is
there, and keeps what comes by the new path behind it until the End Marker has come by the old one. Uplink that the UE
has in its buffers while it is between cells waits with the target too: the radio here has no other place for it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from mobiscud.core.ids import FTeid
from testbed.gtpu_socket import BURST, GTPU_PORT, Address, Counters, GtpuSocket, end_marker, gpdu_header
from testbed.tft import Template

_ETH_P_IP: Final = 0x0800

HELD_PACKETS: Final = 2048
"""How many packets one queue of a bearer holds; more are dropped and counted."""
END_MARKER_LIMIT_S: Final = 0.1
"""How long after the UE's arrival fresh downlink waits for an End Marker that may have been lost."""
FORWARDING_LIMIT_S: Final = 0.3
"""How long the source goes on forwarding when its context of the UE is released (TS 36.300 10.1.2.1.1, step 18)."""

_END: Final = b""
"""Stands for an End Marker among packets that wait."""


class Stage(Enum):
    """What an eNodeB is to the UE of a bearer."""

    EXPECTED = auto()  # the UE is told to come here
    PRESENT = auto()
    LEFT = auto()  # the UE was sent elsewhere


@dataclass(eq=False, slots=True)
class RadioBearer:
    """A UE's bearer at one eNodeB.

    ``traffic``: what a dedicated bearer carries; the default one (``None``) carries the rest.
    ``forwarding_teid``: by which downlink comes that the source of a handover still got; fresh downlink waits for its
    end. ``forward_to``: where downlink goes once the UE has left, ``None`` to drop it.
    """

    ue_address: bytes
    uplink_teid: int
    uplink_to: Address
    downlink_teid: int
    stage: Stage = Stage.PRESENT
    forwarding_teid: int | None = None
    forward_to: FTeid | None = None
    traffic: Template | None = None
    end_awaited: bool = field(init=False)
    uplink: deque[bytes] = field(default_factory=deque)
    forwarded: deque[bytes] = field(default_factory=deque)
    fresh: deque[bytes] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.end_awaited = self.forwarding_teid is not None

    @property
    def teids(self) -> list[int]:
        """Those by which its downlink comes."""
        return [self.downlink_teid] if self.forwarding_teid is None else [self.downlink_teid, self.forwarding_teid]

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        """Have this timer and no other."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


class EnbUserPlane:
    """Between the radio (whole IPv4 packets on a veth) and S1-U."""

    def __init__(self, radio: socket.socket, device: str, ue_mac: bytes, s1u: socket.socket) -> None:
        self.counters = Counters()
        self._radio = radio
        self._over_radio = (device, _ETH_P_IP, 0, 0, ue_mac)
        self._s1u = GtpuSocket(s1u)
        self._s1u.on_packet = self._downlink
        self._s1u.on_end_marker = self._end_of_path
        self._by_ue: dict[bytes, list[RadioBearer]] = {}
        """The default bearer is the last."""
        self._by_teid: dict[int, RadioBearer] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(radio, self._uplink)

    # -- the life of a bearer ------------------------------------------------------------------------------------------

    def add(self, bearer: RadioBearer) -> None:
        """Open a bearer."""
        for teid in bearer.teids:
            self._by_teid[teid] = bearer
        others = self._by_ue.get(bearer.ue_address, []) if bearer.traffic is not None else []
        self._by_ue[bearer.ue_address] = sorted((bearer, *others), key=_precedence)

    def arrive(self, bearer: RadioBearer) -> None:
        """The UE is here: let go what has waited, each direction in its order."""
        bearer.stage = Stage.PRESENT
        while bearer.uplink:
            self._send_uplink(bearer, bearer.uplink.popleft())
        while bearer.forwarded:
            self._pass_on(bearer, bearer.forwarded.popleft())
        if bearer.end_awaited:
            bearer.set_timer(self._loop.call_later(END_MARKER_LIMIT_S, self._let_go_fresh, bearer))
        else:
            self._let_go_fresh(bearer)

    def leave(self, bearer: RadioBearer, forward_to: FTeid | None) -> None:
        """The UE has been sent away; uplink that is still on its way is taken, downlink is forwarded."""
        bearer.stage = Stage.LEFT
        bearer.forward_to = forward_to

    def remove(self, bearer: RadioBearer) -> None:
        """Close a bearer, a little later while it forwards; a newer one of the same UE stays."""
        left = [other for other in self._by_ue.pop(bearer.ue_address, ()) if other is not bearer]
        if left:
            self._by_ue[bearer.ue_address] = left
        self._let_go_fresh(bearer)
        if bearer.stage is Stage.LEFT and bearer.forward_to is not None:
            bearer.set_timer(self._loop.call_later(FORWARDING_LIMIT_S, self._forget, bearer))
        else:
            self._forget(bearer)

    def _forget(self, bearer: RadioBearer) -> None:
        bearer.set_timer(None)
        for teid in bearer.teids:
            if self._by_teid.get(teid) is bearer:
                del self._by_teid[teid]

    def close(self) -> None:
        """Close both sockets."""
        for bearer in self._by_teid.values():
            bearer.set_timer(None)
        self._loop.remove_reader(self._radio)
        self._radio.close()
        self._s1u.close()

    # -- up ------------------------------------------------------------------------------------------------------------

    def _uplink(self) -> None:
        for _ in range(BURST):
            try:
                packet = self._radio.recv(65_535)
            except OSError:
                return
            bearer = self._bearer_for(packet)
            if bearer is None:
                self.counters.dropped += 1
            elif bearer.stage is Stage.EXPECTED:
                self._hold(bearer.uplink, packet)
            else:
                self._send_uplink(bearer, packet)

    def _bearer_for(self, packet: bytes) -> RadioBearer | None:
        """What the UE's modem would do (TS 23.401 4.7.2.1)."""
        for bearer in self._by_ue.get(packet[12:16], ()):
            if bearer.traffic is None or bearer.traffic.holds(packet):
                return bearer
        return None

    def _send_uplink(self, bearer: RadioBearer, packet: bytes) -> None:
        self.counters.uplink += 1
        self._s1u.send(gpdu_header(bearer.uplink_teid, len(packet)) + packet, bearer.uplink_to)

    # -- down ----------------------------------------------------------------------------------------------------------

    def _downlink(self, teid: int, packet: bytes, offset: int) -> None:
        bearer = self._by_teid.get(teid)
        if bearer is None:
            self.counters.dropped += 1
        elif teid == bearer.forwarding_teid:
            if bearer.stage is Stage.EXPECTED:
                self._hold(bearer.forwarded, packet[offset:])
            else:
                self._pass_on(bearer, packet[offset:])
        elif bearer.end_awaited or bearer.stage is Stage.EXPECTED:
            self._hold(bearer.fresh, packet[offset:])
        else:
            self._pass_on(bearer, packet[offset:])

    def _end_of_path(self, teid: int) -> None:
        """An End Marker: the last forwarded packet has come, or the last that there was to forward (10.1.2.2)."""
        bearer = self._by_teid.get(teid)
        if bearer is None:
            return
        if teid == bearer.forwarding_teid:
            if bearer.stage is Stage.EXPECTED:
                bearer.end_awaited = False
            else:
                self._let_go_fresh(bearer)
        elif bearer.stage is Stage.LEFT:
            if bearer.end_awaited:
                self._hold(bearer.fresh, _END)
            else:
                self._pass_on(bearer, _END)

    def _let_go_fresh(self, bearer: RadioBearer) -> None:
        bearer.end_awaited = False
        bearer.set_timer(None)
        while bearer.fresh:
            self._pass_on(bearer, bearer.fresh.popleft())

    def _hold(self, queue: deque[bytes], packet: bytes) -> None:
        if len(queue) < HELD_PACKETS:
            queue.append(packet)
        else:
            self.counters.dropped += 1

    def _pass_on(self, bearer: RadioBearer, packet: bytes) -> None:
        """To the UE, or after it."""
        if bearer.stage is Stage.PRESENT:
            self._deliver(packet)
        elif bearer.forward_to is None:
            self.counters.dropped += 1
        else:
            address, teid = bearer.forward_to.address, bearer.forward_to.teid
            if packet == _END:
                self._s1u.send(end_marker(teid), (address, GTPU_PORT))
                return
            self.counters.forwarded += 1
            self._s1u.send(gpdu_header(teid, len(packet)) + packet, (address, GTPU_PORT))

    def _deliver(self, packet: bytes) -> None:
        try:
            self._radio.sendto(packet, self._over_radio)
            self.counters.downlink += 1
        except OSError:
            self.counters.dropped += 1


def _precedence(bearer: RadioBearer) -> int:
    return 256 if bearer.traffic is None else bearer.traffic.precedence
