"""The messages of a capture as the rungs of a ladder: S1AP, the NAS messages inside it, and GTPv2-C on S11. Pure.

Needs nothing but the monitor's decoders, so that ``mobiscud ladder`` works with the base install.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from epc_monitor import gtpv2, s1ap
from epc_monitor.frames import SCTP, Frame, FrameDecoder
from epc_monitor.gtpv2 import GTPV2_PORT
from epc_monitor.s1ap.message import S1apMessage
from epc_monitor.s1ap.types import MessageType
from epc_monitor.sctp import S1AP_PORT, Message, SctpDecoder
from mobiscud.core.errors import DecodeError
from testbed.report.ladder import MME, SGW, UE, Rung

_ACRONYMS: Final = ("UE", "NAS", "MME", "ENB", "S1", "TAU", "GUTI")
_AS_WRITTEN: Final = {"E Rab": "E-RAB", "ENB": "eNB"}
_S11_MME: Final = 10
"""The interface type of the MME's F-TEID on S11 (TS 29.274 8.22)."""
_ASKED_BY_MME: Final = frozenset({32, 34, 36, 68, 96, 98, 100, 166, 168, 170, 177})
"""GTPv2-C messages that go from the MME to the S-GW (TS 29.274 6.1)."""
_PROVISIONAL: Final = "eNB "
_EMM: Final = 7
_ESM: Final = 2
_NAS_NAMES: Final = {
    0x41: "Attach Request",
    0x42: "Attach Accept",
    0x43: "Attach Complete",
    0x44: "Attach Reject",
    0x45: "Detach Request",
    0x46: "Detach Accept",
    0x48: "Tracking Area Update Request",
    0x49: "Tracking Area Update Accept",
    0x4A: "Tracking Area Update Complete",
    0x4B: "Tracking Area Update Reject",
    0x4C: "Extended Service Request",
    0x4E: "Service Reject",
    0x50: "GUTI Reallocation Command",
    0x51: "GUTI Reallocation Complete",
    0x52: "Authentication Request",
    0x53: "Authentication Response",
    0x54: "Authentication Reject",
    0x55: "Identity Request",
    0x56: "Identity Response",
    0x5C: "Authentication Failure",
    0x5D: "Security Mode Command",
    0x5E: "Security Mode Complete",
    0x5F: "Security Mode Reject",
    0x60: "EMM Status",
    0x61: "EMM Information",
}
"""EMM messages (TS 24.301 9.8)."""
_ESM_NAMES: Final = {
    0xC1: "Activate Default EPS Bearer",
    0xC2: "Activate Default EPS Bearer Accept",
    0xC5: "Activate Dedicated EPS Bearer",
    0xC6: "Activate Dedicated EPS Bearer Accept",
    0xC9: "Modify EPS Bearer",
    0xCA: "Modify EPS Bearer Accept",
    0xCD: "Deactivate EPS Bearer",
    0xCE: "Deactivate EPS Bearer Accept",
    0xD0: "PDN Connectivity Request",
    0xD2: "PDN Disconnect Request",
    0xD4: "Bearer Resource Allocation Request",
    0xD6: "Bearer Resource Modification Request",
    0xD9: "ESM Information Request",
    0xDA: "ESM Information Response",
}
"""ESM messages (TS 24.301 9.8)."""


def rungs(frames: Iterable[Frame]) -> list[Rung]:
    """Every message that can be read, in the order of the capture. eNodeBs are numbered by their addresses."""
    reader = _Reader()
    found = list(reader.read(frames))
    names = {f"{_PROVISIONAL}{place}": f"eNB{n}" for n, place in enumerate(reader.enbs_by_address(), start=1)}

    def named(lane: str | None) -> str | None:
        return names.get(lane, lane) if lane is not None else None

    return [
        replace(rung, source=named(rung.source) or "", target=named(rung.target) or "", via=named(rung.via))
        for rung in found
    ]


class _Reader:
    def __init__(self) -> None:
        self._packets = FrameDecoder()
        self._sctp = SctpDecoder()
        self._enbs: dict[tuple[bytes, int], int] = {}
        self._mme_s11: set[bytes] = set()
        self._seen: set[tuple[bytes, ...]] = set()

    def read(self, frames: Iterable[Frame]) -> Iterator[Rung]:
        for frame in frames:
            try:
                packet = self._packets.receive(frame)
                if packet is None:
                    continue
                if packet.protocol == SCTP:
                    for item in self._sctp.receive(packet):
                        if isinstance(item, Message):
                            yield from self._s1ap(item, frame.at)
                elif GTPV2_PORT in (int.from_bytes(packet.payload[:2]), int.from_bytes(packet.payload[2:4])):
                    yield from self._gtp(packet.source, packet.destination, packet.payload[8:], frame.at)
            except DecodeError:
                continue  # what cannot be read is no message

    # S1AP -----------------------------------------------------------------------------------------------------------

    def _s1ap(self, item: Message, at: int) -> Iterator[Rung]:
        ends = item.association.ends
        mme = next((n for n, end in enumerate(ends) if end.port == S1AP_PORT), 1)
        enb = self._enb(ends[1 - mme].addresses[0], ends[1 - mme].port)
        try:
            message = s1ap.decode(item.payload)
            name = _words(MessageType(message.type).name)
        except (DecodeError, ValueError):
            return
        up = item.sender != mme
        for nas in _nas_of(message):
            source, target = (UE, MME) if up else (MME, UE)
            yield Rung(at, source, target, f"{nas} ({name})", "nas", via=enb)
            return
        source, target = (enb, MME) if up else (MME, enb)
        label = name if message.cause is None else f"{name} [{message.cause.name}]"
        yield Rung(at, source, target, label, "signal")

    def _enb(self, address: bytes, port: int) -> str:
        """eNodeBs may share an address, and then differ by their port. Numbered as they appear, for now."""
        return f"{_PROVISIONAL}{self._enbs.setdefault((address, port), len(self._enbs))}"

    def enbs_by_address(self) -> list[int]:
        """Their provisional numbers, in the order of their addresses."""
        return [self._enbs[key] for key in sorted(self._enbs)]

    # GTPv2-C --------------------------------------------------------------------------------------------------------

    def _gtp(self, source: bytes, destination: bytes, datagram: bytes, at: int) -> Iterator[Rung]:
        """Only S11: on one host S5 uses the same port, and its F-TEIDs say so."""
        if (source, destination, datagram) in self._seen:
            return  # on the loopback interface every frame is seen twice
        self._seen.add((source, destination, datagram))
        for message in gtpv2.decode(datagram):
            for f_teid in message.f_teids:
                if f_teid.interface == _S11_MME:
                    self._mme_s11.add(f_teid.address)
            from_mme = source in self._mme_s11
            if not from_mme and destination not in self._mme_s11:
                continue
            if from_mme and destination in self._mme_s11:  # both on one address: the kind of message must tell
                from_mme = message.type in _ASKED_BY_MME
            try:
                name = _words(gtpv2.GtpType(message.type).name)
            except ValueError:
                continue
            yield Rung(at, *((MME, SGW) if from_mme else (SGW, MME)), name, "signal")


def _nas_of(message: S1apMessage) -> Iterator[str]:
    """The names of the NAS messages that an S1AP message carries."""
    if message.nas is not None and (name := nas_name(message.nas)) is not None:
        yield name
        return
    for e_rab in message.e_rabs_to_setup:
        if e_rab.nas is not None and (name := nas_name(e_rab.nas)) is not None:
            yield name


def nas_name(pdu: bytes) -> str | None:
    """The name of a NAS message, as far as it can be read: a ciphered one may look like anything."""
    if not pdu:
        return None
    header, discriminator = pdu[0] >> 4, pdu[0] & 15
    if discriminator == _EMM and header == 12:
        return "Service Request"
    if discriminator == _EMM and header:
        return nas_name(pdu[6:]) or "NAS, ciphered"
    if discriminator == _EMM and len(pdu) > 1:
        return _NAS_NAMES.get(pdu[1])
    if discriminator == _ESM and len(pdu) > 2:
        return _ESM_NAMES.get(pdu[2])
    return None


def _words(name: str) -> str:
    text = " ".join(word if word in _ACRONYMS else word.capitalize() for word in name.split("_"))
    for wrong, right in _AS_WRITTEN.items():
        text = text.replace(wrong, right)
    return text
