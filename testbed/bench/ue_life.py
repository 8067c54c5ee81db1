"""Any number of UEs that attach and fall idle, cheaply: one life is spoken by the scripted EPC, the others are patched.

pycrate would need minutes to encode what a hundred thousand UEs say. So the messages of one UE are made with numbers
that stand out, and for every other UE these are replaced by its own; the lengths stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from mobiscud.core.events import Event
from testbed import scripted_epc
from testbed.bench import wire
from testbed.bench.wire import S1Wire
from testbed.scripted_epc import Enb, Network, imsi_identity, tbcd

_IMSI: Final = 999_700_531_000_000
_MME_ID: Final = 0x5A00_0000
_ENB_ID: Final = 0x3D_0000
_UPLINK: Final = 0x6B00_0000
_M_TMSI: Final = 0x7C00_0000
_UE_IP: Final = int(IPv4Address("10.45.0.2"))
_NUMBERS: Final = (
    (_MME_ID, 4),
    (_MME_ID + 0x500, 4),  # the TEIDs on S11, as the scripted EPC makes them
    (_MME_ID + 0x600, 4),
    (_ENB_ID, 3),
    (_UPLINK, 4),
    (_UPLINK + 0x1000, 4),  # the eNodeB's end
    (_M_TMSI, 4),
    (_UE_IP, 4),
)
MOST_UES: Final = 0xFFFF_FF - _ENB_ID


class _Said(NamedTuple):
    """A PDU of S1AP, or a datagram between two nodes on S11."""

    downlink: bool
    octets: bytes
    nodes: tuple[bytes, bytes] | None = None


class _Recorder(Network):
    """A network that only takes down what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[_Said] = []

    def carry(self, enb: Enb, sender: int, pdu: bytes) -> list[Event]:
        self.said.append(_Said(sender == 1, pdu))
        return []

    def gtp(self, source: bytes, destination: bytes, kind: int, teid: int, *elements: bytes) -> list[Event]:
        self.said.append(_Said(False, scripted_epc.gtp_message(kind, teid, 0, *elements), (source, destination)))
        return []

    def take(self) -> list[_Said]:
        said, self.said = self.said, []
        return said


class _Template:
    """One message, and where the numbers of its UE stand in it."""

    def __init__(self, said: _Said) -> None:
        self.said = said
        self._numbers = [
            (offset, value, size)
            for value, size in _NUMBERS
            for offset in _find(said.octets, value.to_bytes(size, "big"))
        ]
        self._identities = [
            (offset, write) for write in (imsi_identity, tbcd) for offset in _find(said.octets, write(str(_IMSI)))
        ]

    def of(self, number: int) -> bytes:
        """What UE ``number`` says."""
        data = bytearray(self.said.octets)
        for offset, value, size in self._numbers:
            data[offset : offset + size] = (value + number).to_bytes(size, "big")
        for offset, write in self._identities:
            identity = write(str(_IMSI + number))
            data[offset : offset + len(identity)] = identity
        if self.said.nodes is not None:
            data[8:11] = (number & 0xFF_FFFF).to_bytes(3, "big")  # GTPv2 sequence number
        return bytes(data)


def _find(octets: bytes, what: bytes) -> Iterator[int]:
    offset = octets.find(what)
    while offset >= 0:
        yield offset
        offset = octets.find(what, offset + len(what))


class UeLives:
    """Frames of a network with ``enbs`` eNodeBs, to which the UEs come in turn."""

    def __init__(self, enbs: int) -> None:
        recorder = _Recorder()
        mme = IPv4Address(scripted_epc.MME)
        self._wires = [S1Wire(IPv4Address("10.2.0.0") + i, mme, i) for i in range(enbs)]
        self._setups: list[list[_Said]] = []
        for i in range(enbs):
            recorder.enb(i % 250 + 1)
            self._setups.append(recorder.take())
        enb = recorder.enb(1, setup=False)
        recorder.attach(enb, str(_IMSI), (_MME_ID, _ENB_ID), _UPLINK, _M_TMSI)
        self._attach = list(map(_Template, recorder.take()))
        enb.release(_MME_ID, _ENB_ID)
        self._idle = list(map(_Template, recorder.take()))

    def setups(self) -> Iterator[bytes]:
        """Every eNodeB connects."""
        for s1, setup in zip(self._wires, self._setups, strict=True):
            for said in setup:
                yield from s1.frames(said.octets, downlink=said.downlink)

    def attach(self, number: int) -> Iterator[bytes]:
        """UE ``number`` attaches: one event, at the last frame."""
        return self._frames(self._attach, number)

    def idle(self, number: int) -> Iterator[bytes]:
        """It falls idle: one event, at the last frame."""
        return self._frames(self._idle, number)

    def _frames(self, templates: list[_Template], number: int) -> Iterator[bytes]:
        s1 = self._wires[number % len(self._wires)]
        for template in templates:
            octets = template.of(number)
            if template.said.nodes is None:
                yield from s1.frames(octets, downlink=template.said.downlink)
            else:
                yield wire.gtp(*template.said.nodes, octets)
