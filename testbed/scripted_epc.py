"""An EPC in a few words, for scripts: what its nodes say goes straight to the tracker, and its events come back.

No wire, no time, no state of its own: the script says who says what, and with which ids.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any

from epc_monitor.frames import UDP, Packet
from epc_monitor.identity import UeKeys
from epc_monitor.sctp import Association, AssociationDown, Endpoint, Message
from epc_monitor.ue_tracker import Limits, UeTracker
from mobiscud.core.events import Event
from testbed.s1ap_build import encode

PLMN = bytes.fromhex("99f907")
SGW_U = "10.1.0.6"
MME, SGW, PGW = (IPv4Address(f"10.1.0.{last}").packed for last in (2, 3, 4))
QOS = {
    "qCI": 9,
    "allocationRetentionPriority": {
        "priorityLevel": 8,
        "pre-emptionCapability": "shall-not-trigger-pre-emption",
        "pre-emptionVulnerability": "not-pre-emptable",
    },
}
IDLE = ("radioNetwork", "user-inactivity")
NORMAL = ("nas", "normal-release")
DETACH = ("nas", "detach")
HANDED_OVER = ("radioNetwork", "successful-handover")


def tbcd(digits: str) -> bytes:
    padded = digits + "f" * (len(digits) % 2)
    return bytes.fromhex("".join(padded[i + 1] + padded[i] for i in range(0, len(padded), 2)))


def imsi_identity(imsi: str) -> bytes:
    return bytes((int(imsi[0]) << 4 | len(imsi) % 2 << 3 | 1,)) + tbcd(imsi[1:])


def guti_identity(m_tmsi: int) -> bytes:
    return b"\xf6" + PLMN + b"\0\2\1" + m_tmsi.to_bytes(4, "big")


def lv(value: bytes) -> bytes:
    return bytes((len(value),)) + value


class Nas:
    """NAS messages; protected ones wear the header of a ciphered message."""

    SERVICE_REQUEST = bytes.fromhex("c7000000")
    TAU_REQUEST = bytes.fromhex("074800") + lv(guti_identity(1))
    TAU_ACCEPT = bytes.fromhex("074900")
    DETACH_ACCEPT = bytes.fromhex("0746")
    IDENTITY_REQUEST = bytes.fromhex("075501")

    @staticmethod
    def attach(identity: bytes) -> bytes:
        return b"\x07\x41\x71" + lv(identity) + lv(b"\xf0\xf0") + b"\0\4\2\1\xd0\x11"

    @staticmethod
    def identity(imsi: str) -> bytes:
        return b"\x07\x56" + lv(imsi_identity(imsi))

    @staticmethod
    def security_mode(eea: int) -> bytes:
        return b"\x37" + bytes(5) + bytes((7, 0x5D, eea << 4 | 2, 0)) + lv(b"\xf0\xf0")

    @staticmethod
    def attach_accept(m_tmsi: int) -> bytes:
        return b"\x07\x42\x02\x49" + lv(bytes(6)) + b"\0\0" + b"\x50" + lv(guti_identity(m_tmsi))

    @staticmethod
    def ciphered(plain: bytes) -> bytes:
        return b"\x27" + bytes(5) + plain

    @staticmethod
    def unreadable() -> bytes:
        return b"\x27" + bytes(5) + b"\xa5\x17\x33" * 9


class Enb:
    """An eNodeB with its association; ids are given by whoever speaks."""

    def __init__(self, network: Network, number: int, mme: bytes) -> None:
        self.network = network
        self.number = number
        self.address = f"10.0.0.{number}"
        self.cell = number << 8 | 1
        packed = IPv4Address(self.address).packed
        self.association = Association(Endpoint(40000, [packed]), Endpoint(36412, [mme]))
        for sender, direction in enumerate(self.association.directions):
            direction.tag = bytes((number, sender, *mme[2:]))

    def says(self, name: str, **elements: Any) -> list[Event]:
        return self.network.carry(self, 0, encode(name, **elements))

    def hears(self, name: str, **elements: Any) -> list[Event]:
        return self.network.carry(self, 1, encode(name, **elements))

    def setup(self) -> list[Event]:
        self.says(
            "S1SetupRequest",
            Global_ENB_ID={"pLMNidentity": PLMN, "eNB-ID": ("macroENB-ID", (self.number, 20))},
            SupportedTAs=[{"tAC": b"\0\1", "broadcastPLMNs": [PLMN]}],
            DefaultPagingDRX="v64",
        )
        return self.hears(
            "S1SetupResponse",
            ServedGUMMEIs=[{"servedPLMNs": [PLMN], "servedGroupIDs": [b"\0\2"], "servedMMECs": [b"\1"]}],
            RelativeMMECapacity=255,
        )

    def shuts_down(self) -> list[Event]:
        self.network.now += 1
        down = AssociationDown(self.association, self.association.place)
        return self.network.tracker.association_down(down, self.network.now)

    @property
    def where(self) -> dict[str, Any]:
        return {
            "EUTRAN_CGI": {"pLMNidentity": PLMN, "cell-ID": (self.cell, 28)},
            "TAI": {"pLMNidentity": PLMN, "tAC": b"\0\1"},
        }

    def initial(self, enb_id: int, nas: bytes, s_tmsi: int | None = None) -> list[Event]:
        elements = dict(self.where)
        if s_tmsi is not None:
            elements["S_TMSI"] = {"mMEC": b"\1", "m-TMSI": s_tmsi.to_bytes(4, "big")}
        return self.says(
            "InitialUEMessage", eNB_UE_S1AP_ID=enb_id, NAS_PDU=nas, RRC_Establishment_Cause="mo-Data", **elements
        )

    def context_request(self, mme_id: int, enb_id: int, uplink: int, nas: bytes | None = None) -> list[Event]:
        item = {"e-RAB-ID": 5, "e-RABlevelQoSParameters": QOS, **end(SGW_U, uplink)}
        if nas is not None:
            item["nAS-PDU"] = nas
        return self.hears(
            "InitialContextSetupRequest",
            MME_UE_S1AP_ID=mme_id,
            eNB_UE_S1AP_ID=enb_id,
            uEaggregateMaximumBitrate={"uEaggregateMaximumBitRateDL": 1, "uEaggregateMaximumBitRateUL": 1},
            E_RABToBeSetupListCtxtSUReq=[item],
            UESecurityCapabilities={"encryptionAlgorithms": (0, 16), "integrityProtectionAlgorithms": (0, 16)},
            SecurityKey=(0, 256),
        )

    def context_response(self, mme_id: int, enb_id: int, downlink: int) -> list[Event]:
        return self.says(
            "InitialContextSetupResponse",
            MME_UE_S1AP_ID=mme_id,
            eNB_UE_S1AP_ID=enb_id,
            E_RABSetupListCtxtSURes=[{"e-RAB-ID": 5, **end(self.address, downlink)}],
        )

    def context(self, mme_id: int, enb_id: int, uplink: int, nas: bytes | None = None) -> list[Event]:
        """Initial Context Setup, both messages; the downlink TEID is the uplink's + 0x1000."""
        return self.context_request(mme_id, enb_id, uplink, nas) + self.context_response(
            mme_id, enb_id, uplink + 0x1000
        )

    def release(self, mme_id: int, enb_id: int, cause: tuple[str, str] = IDLE) -> list[Event]:
        ids = ("uE-S1AP-ID-pair", {"mME-UE-S1AP-ID": mme_id, "eNB-UE-S1AP-ID": enb_id})
        return self.hears("UEContextReleaseCommand", UE_S1AP_IDs=ids, Cause=cause) + self.released(mme_id, enb_id)

    def released(self, mme_id: int, enb_id: int) -> list[Event]:
        return self.says("UEContextReleaseComplete", MME_UE_S1AP_ID=mme_id, eNB_UE_S1AP_ID=enb_id)


def end(address: str, teid: int) -> dict[str, Any]:
    return {"transportLayerAddress": (int(IPv4Address(address)), 32), "gTP-TEID": teid.to_bytes(4, "big")}


def gtp_element(kind: int, value: bytes, instance: int = 0) -> bytes:
    return struct.pack(">BHB", kind, len(value), instance) + value


def gtp_f_teid(interface: int, address: bytes, teid: int, instance: int = 0) -> bytes:
    return gtp_element(87, struct.pack(">BI", 0x80 | interface, teid) + address, instance)


def gtp_message(kind: int, teid: int, sequence: int, *elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack(">BBHII", 0x48, kind, 8 + len(body), teid, sequence << 8) + body


class Network:
    """Nodes that talk, and the tracker that listens. ``sequence`` counts GTP requests, ``tsn`` S1AP messages."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.tracker = UeTracker(UeKeys(bytes(32)), limits)
        self.now = 1_000_000_000
        self.tsn = 0
        self.sequence = 0

    def enb(self, number: int, mme: bytes = MME, *, setup: bool = True) -> Enb:
        made = Enb(self, number, mme)
        if setup:
            made.setup()
        return made

    def carry(self, enb: Enb, sender: int, pdu: bytes) -> list[Event]:
        self.now += 1_000_000
        self.tsn += 1
        place = enb.association.directions[sender].tag + struct.pack(">HI", 1, self.tsn)
        return self.tracker.receive_s1ap(Message(enb.association, sender, place, pdu), self.now)

    def gtp(self, source: bytes, destination: bytes, kind: int, teid: int, *elements: bytes) -> list[Event]:
        self.now += 1_000_000
        packet = Packet(UDP, source, destination, b"")
        return self.tracker.receive_gtp(packet, gtp_message(kind, teid, self.sequence, *elements), self.now)[0]

    def session(
        self,
        imsi: str,
        mme_teid: int,
        sgw_teid: int,
        uplink: int,
        ue_ip: str | None = "10.45.0.2",
        ebi: int = 5,
        *,
        sgw: bytes = SGW,
        header: int = 0,
        cause: int = 16,
        apn: bytes = b"\x08internet",
    ) -> list[Event]:
        """Create Session on S11, both messages; no address: the S-GW takes the session over."""
        self.sequence += 1
        context = gtp_element(73, bytes((ebi,)))
        events = self.gtp(
            MME,
            sgw,
            32,
            header,
            gtp_element(1, tbcd(imsi)),
            gtp_f_teid(10, MME, mme_teid),
            gtp_f_teid(7, PGW, 0, 1),
            gtp_element(71, apn),
            gtp_element(93, context),
        )
        created = context + gtp_element(2, b"\x10\0") + gtp_f_teid(1, IPv4Address(SGW_U).packed, uplink)
        return events + self.gtp(
            sgw,
            MME,
            33,
            mme_teid,
            gtp_element(2, bytes((cause, 0))),
            gtp_f_teid(11, sgw, sgw_teid),
            gtp_f_teid(7, PGW, 99, 1),
            *([] if ue_ip is None else [gtp_element(79, b"\1" + IPv4Address(ue_ip).packed)]),
            gtp_element(93, created),
        )

    def delete_session(
        self, mme_teid: int, sgw_teid: int, ebi: int = 5, *, sgw: bytes = SGW, cause: int = 16
    ) -> list[Event]:
        """Delete Session on S11, both messages."""
        self.sequence += 1
        events = self.gtp(MME, sgw, 36, sgw_teid, gtp_element(73, bytes((ebi,))))
        return events + self.gtp(sgw, MME, 37, mme_teid, gtp_element(2, bytes((cause, 0))))

    def attach(
        self, enb: Enb, imsi: str, ids: Sequence[int] = (1, 1), uplink: int = 0x100, s_tmsi: int = 0xC001
    ) -> list[Event]:
        """A whole attach by IMSI; the S11 TEIDs are made of the MME's id."""
        mme_id, enb_id = ids
        events = enb.initial(enb_id, Nas.attach(imsi_identity(imsi)))
        events += self.session(imsi, 0x500 + mme_id, 0x600 + mme_id, uplink)
        return events + enb.context(mme_id, enb_id, uplink, Nas.attach_accept(s_tmsi))
