"""A flood of UEs that begin to attach and never go on, and one that is real: ``python -m testbed.attach_flood COUNT``.

Runs the whole monitor on frames made by patching a template, in a process of its own, so that its memory is its own;
prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from ipaddress import IPv4Address
from typing import Any, Final

from epc_monitor.frames import LINKTYPE_RAW, SCTP, Frame
from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from epc_monitor.pipeline import Monitor
from mobiscud.core.events import Event, MonitorDropped
from testbed.s1ap_build import encode
from testbed.scripted_epc import IDLE, PLMN, QOS, Nas, end, guti_identity, imsi_identity

LIMITS: Final = Limits(ues=2000, half_open=1000)

_BUNDLED: Final = 8
_FRAME_NS: Final = 100_000
_FIRST_ID: Final = 0x10000
_M_TMSI: Final = 0xAAAAAAAA
_REAL: Final = {"MME_UE_S1AP_ID": 1, "eNB_UE_S1AP_ID": 0xFFFFFF}
_ENDS: Final = (
    (40000, IPv4Address("10.0.0.11").packed, b"\0\0\0\1"),
    (36412, IPv4Address("10.0.0.2").packed, b"\0\0\0\2"),
)
"""Port, address and verification tag of the eNodeB and of the MME."""


class Wire:
    """One association, watched."""

    def __init__(self) -> None:
        self.monitor = Monitor(UeKeys(bytes(32)), LIMITS)
        self.events: list[Event] = []
        self._now = 0
        self._tsn = [0xFFFF_0000, 0]

    def carry(self, sender: int, *pdus: bytes) -> None:
        """Send S1AP PDUs in one packet; end 0 is the eNodeB."""
        (port, source, tag), (peer, destination, _) = _ENDS[sender], _ENDS[1 - sender]
        payload = struct.pack(">HH", port, peer) + tag + bytes(4)
        for pdu in pdus:
            payload += struct.pack(">BBHIHHI", 0, 7, 16 + len(pdu), self._tsn[sender], 1, 0, 18)
            payload += pdu + bytes(-len(pdu) % 4)
            self._tsn[sender] = self._tsn[sender] + 1 & 0xFFFF_FFFF
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, SCTP, 0)
        self._now += _FRAME_NS
        frame = Frame(self._now, LINKTYPE_RAW, head + source + destination + payload)
        self.events += self.monitor.receive(frame)


def run(count: int) -> dict[str, Any]:
    """One UE connects, ``count`` others begin to attach, the one is released."""
    wire = Wire()
    _connect(wire)
    template = bytearray(_initial(_FIRST_ID, Nas.attach(guti_identity(_M_TMSI))))
    id_at = template.index(_FIRST_ID.to_bytes(3, "big"))
    m_tmsi_at = template.index(_M_TMSI.to_bytes(4, "big"))
    warm = 0
    for first in range(0, count, _BUNDLED):
        bundle = []
        for number in range(first, min(first + _BUNDLED, count)):
            template[id_at : id_at + 3] = (_FIRST_ID + number).to_bytes(3, "big")
            template[m_tmsi_at : m_tmsi_at + 4] = number.to_bytes(4, "big")
            bundle.append(bytes(template))
        wire.carry(0, *bundle)
        if not warm and first >= count // 10:
            warm = _memory_kib()
    grown = _memory_kib() - warm
    ids = {"mME-UE-S1AP-ID": 1, "eNB-UE-S1AP-ID": 0xFFFFFF}
    wire.carry(1, encode("UEContextReleaseCommand", UE_S1AP_IDs=("uE-S1AP-ID-pair", ids), Cause=IDLE))
    wire.carry(0, encode("UEContextReleaseComplete", **_REAL))
    told = [event.count for event in wire.events if isinstance(event, MonitorDropped)]
    return {
        **wire.monitor.stats.as_dict(),
        "facts": [event.TYPE for event in wire.events if not isinstance(event, MonitorDropped)],
        "told": sum(told),
        "times_told": len(told),
        "grown_kib": grown,
    }


def _initial(enb_id: int, nas: bytes) -> bytes:
    return encode(
        "InitialUEMessage",
        eNB_UE_S1AP_ID=enb_id,
        NAS_PDU=nas,
        RRC_Establishment_Cause="mo-Data",
        EUTRAN_CGI={"pLMNidentity": PLMN, "cell-ID": (11 << 8, 28)},
        TAI={"pLMNidentity": PLMN, "tAC": b"\0\1"},
    )


def _connect(wire: Wire) -> None:
    wire.carry(0, _initial(0xFFFFFF, Nas.attach(imsi_identity("999700000000001"))))
    request = encode(
        "InitialContextSetupRequest",
        uEaggregateMaximumBitrate={"uEaggregateMaximumBitRateDL": 1, "uEaggregateMaximumBitRateUL": 1},
        E_RABToBeSetupListCtxtSUReq=[{"e-RAB-ID": 5, "e-RABlevelQoSParameters": QOS, **end("10.1.0.6", 0x100)}],
        UESecurityCapabilities={"encryptionAlgorithms": (0, 16), "integrityProtectionAlgorithms": (0, 16)},
        SecurityKey=(0, 256),
        **_REAL,
    )
    wire.carry(1, request)
    ends = [{"e-RAB-ID": 5, **end("10.0.0.11", 0x200)}]
    wire.carry(0, encode("InitialContextSetupResponse", E_RABSetupListCtxtSURes=ends, **_REAL))


def _memory_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    json.dump(run(int(sys.argv[1])), sys.stdout)
