"""The last packets that left the bridge for a personal VM, kept for the moment in which it leaves its host.

A guest stands still some milliseconds before anybody hears of it. What it was sent in these went to nobody: so while
it may stop at any moment, its packets are kept for as long as that can take, and sent once more to where it goes on.
The guest has answered some of them before it stopped: those arrive twice.

They go straight over the inter-cloudlet link, and before the path is flipped. QEMU reads one packet from a guest's port
while the guest stands still, and drops it when it lets it run; so the first to arrive must be one that was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from typing import Final

import structlog

from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError

KEPT_S: Final = 0.05
"""Longer than it takes from a guest's halt until its packets are sent again: the hypervisor tells of the halt after
1 to 5 ms, the path is flipped 2 to 10 ms later, more on a busy machine."""
KEPT_PACKETS: Final = 4096
"""At most so many for each VM: beyond 80,000 packets a second the oldest give way."""
RECEIVE_BUFFER: Final = 4 << 20
SNAP: Final = 65535

ALL_PROTOCOLS: Final = 3  # ETH_P_ALL
SO_ATTACH_FILTER: Final = 26
PACKET_OUTGOING: Final = 4
INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter
ONLY_OUTGOING: Final = b"".join(
    (
        INSTRUCTION.pack(0x20, 0, 0, 0xFFFFF004),  # ld [SKF_AD_OFF + SKF_AD_PKTTYPE]
        INSTRUCTION.pack(0x15, 0, 1, PACKET_OUTGOING),
        INSTRUCTION.pack(0x06, 0, 0, SNAP),
        INSTRUCTION.pack(0x06, 0, 0, 0),
    )
)

Mac = bytes

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Link:
    """The way to another cloudlet: a port, and the link addresses that frames between the two carry."""

    port: str
    source: str
    destination: str


class PacketKeeper:
    """Keeps what leaves ``pvm_port``; listens only while there is a VM to keep packets of."""

    def __init__(self, pvm_port: str) -> None:
        self._pvm_port = pvm_port
        self._kept: dict[Mac, deque[tuple[float, bytes]]] = {}
        self._leaving: dict[Mac, Link] = {}
        self._listening: socket.socket | None = None

    def keep(self, pvm: Pvm) -> None:
        """Keep the VM's packets from now on.

        :raises AdapterError: the port is gone, or the right to listen is missing
        """
        self._kept.setdefault(_mac(pvm), deque(maxlen=KEPT_PACKETS))
        if self._listening is None:
            try:
                self._listening = _listen(self._pvm_port)
            except OSError as error:
                self._kept.clear()
                raise AdapterError(f"packets on {self._pvm_port} are not kept: {error.strerror}") from error
            asyncio.get_running_loop().add_reader(self._listening, self._take)

    def resend(self, pvm: Pvm, link: Link) -> int:
        """Send again what was kept of the last ``KEPT_S``; gives how many packets. None kept: none.

        Until the VM is forgotten, what still comes by is sent again at once: the path is flipped a moment later.

        :raises AdapterError: the port is gone
        """
        self._take()
        mac = _mac(pvm)
        frames = [frame for _, frame in self._kept.get(mac, ())]
        if mac in self._kept:
            self._kept[mac].clear()
            self._leaving[mac] = link
        _send(link, frames)
        return len(frames)

    def forget(self, pvm: Pvm) -> None:
        """Keep no more of the VM; twice is harmless."""
        self._kept.pop(_mac(pvm), None)
        self._leaving.pop(_mac(pvm), None)
        if not self._kept:
            self.close()

    def close(self) -> None:
        """Keep nothing any more; twice is harmless."""
        self._kept.clear()
        self._leaving.clear()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _take(self) -> None:
        if self._listening is None:
            return
        now = time.monotonic()
        late: list[tuple[Link, bytes]] = []
        with contextlib.suppress(OSError):  # nothing more to read now, or the port went down for a moment
            while True:
                frame = self._listening.recv(SNAP)
                mac = frame[:6]
                if mac in self._leaving:
                    late.append((self._leaving[mac], frame))
                elif mac in self._kept:
                    self._kept[mac].append((now, frame))
        for kept in self._kept.values():
            while kept and kept[0][0] < now - KEPT_S:
                kept.popleft()
        for link, frame in late:
            try:
                _send(link, (frame,))
            except AdapterError as error:
                log.warning("a packet is lost at the switch-over", reason=str(error))


def _mac(pvm: Pvm) -> Mac:
    return _octets(pvm.mac)


def _octets(mac: str) -> Mac:
    return bytes.fromhex(mac.replace(":", ""))


def _send(link: Link, frames: Sequence[bytes]) -> None:
    """Send frames over the link, under its addresses."""
    if not frames:
        return
    addresses = _octets(link.destination) + _octets(link.source)
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sending:
            sending.bind((link.port, 0))
            for frame in frames:
                sending.send(addresses + frame[len(addresses) :])
    except OSError as error:
        raise AdapterError(f"packets are not sent again by {link.port}: {error.strerror}") from error


def _listen(port: str) -> socket.socket:
    listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        program = create_string_buffer(ONLY_OUTGOING)
        count = len(ONLY_OUTGOING) // INSTRUCTION.size
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", count, addressof(program)))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        listening.bind((port, ALL_PROTOCOLS))
    except BaseException:
        listening.close()
        raise
    return listening
