"""GTPv2-C messages on S11 (TS 29.274): values to bytes and back, as far as the emulated MME and S-GW speak it."""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import Ecgi, FTeid, Imsi, Plmn, Tai, Teid
from testbed.nas_build import LAST_GUARANTEED_QCI, apn_octets, tbcd
from testbed.s1ap_build import plmn_octets

GTPC_PORT: Final = 2123

CAUSE_ACCEPTED: Final = 16
CAUSE_CONTEXT_NOT_FOUND: Final = 64

_HEADER: Final = struct.Struct("!BBHII")
_IE: Final = struct.Struct("!BHB")
_VERSION_2_WITH_TEID: Final = 0x48


class MessageType(enum.IntEnum):
    """TS 29.274 6.1."""

    CREATE_SESSION_REQUEST = 32
    CREATE_SESSION_RESPONSE = 33
    MODIFY_BEARER_REQUEST = 34
    MODIFY_BEARER_RESPONSE = 35
    DELETE_SESSION_REQUEST = 36
    DELETE_SESSION_RESPONSE = 37
    DELETE_BEARER_COMMAND = 66
    BEARER_RESOURCE_COMMAND = 68
    CREATE_BEARER_REQUEST = 95
    CREATE_BEARER_RESPONSE = 96
    DELETE_BEARER_REQUEST = 99
    DELETE_BEARER_RESPONSE = 100
    CREATE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST = 166
    CREATE_INDIRECT_DATA_FORWARDING_TUNNEL_RESPONSE = 167
    DELETE_INDIRECT_DATA_FORWARDING_TUNNEL_REQUEST = 168
    DELETE_INDIRECT_DATA_FORWARDING_TUNNEL_RESPONSE = 169
    RELEASE_ACCESS_BEARERS_REQUEST = 170
    RELEASE_ACCESS_BEARERS_RESPONSE = 171
    DOWNLINK_DATA_NOTIFICATION = 176
    DOWNLINK_DATA_NOTIFICATION_ACK = 177


class IeType(enum.IntEnum):
    """TS 29.274 8.1."""

    IMSI = 1
    CAUSE = 2
    APN = 71
    AMBR = 72
    EBI = 73
    INDICATION = 77
    PAA = 79
    BEARER_QOS = 80
    FLOW_QOS = 81
    RAT_TYPE = 82
    SERVING_NETWORK = 83
    ULI = 86
    BEARER_TFT = 84
    TAD = 85
    F_TEID = 87
    BEARER_CONTEXT = 93
    PDN_TYPE = 99
    PTI = 100
    DELAY_VALUE = 92
    APN_RESTRICTION = 127
    SELECTION_MODE = 128
    NODE_TYPE = 135


class Interface(enum.IntEnum):
    """The interface type of an F-TEID (8.22)."""

    S1U_ENB = 0
    S1U_SGW = 1
    S5U_PGW = 5
    S5C_PGW = 7
    S11_MME = 10
    S11_SGW = 11
    ENB_DOWNLINK_FORWARDING = 19
    SGW_DOWNLINK_FORWARDING = 23


@dataclass(frozen=True, slots=True)
class Ie:
    """One information element; ``value`` of a grouped one is its members' octets."""

    type: IeType
    value: bytes
    instance: int = 0


@dataclass(frozen=True, slots=True)
class Gtpv2Message:
    """A message with the TEID of its receiver; ``teid`` 0 where the receiver has none yet."""

    type: MessageType
    teid: int
    sequence: int
    ies: tuple[Ie, ...]

    def find(self, kind: IeType, instance: int = 0) -> bytes:
        """Give the value of an IE.

        :raises DecodeError: when it is absent
        """
        return find(self.ies, kind, instance)

    def bearers(self) -> list[tuple[Ie, ...]]:
        """The members of each bearer context."""
        return [decode_ies(ie.value) for ie in self.ies if ie.type is IeType.BEARER_CONTEXT]


def find(ies: Sequence[Ie], kind: IeType, instance: int = 0) -> bytes:
    """Give the value of an IE among others.

    :raises DecodeError: when it is absent
    """
    for ie in ies:
        if ie.type == kind and ie.instance == instance:
            return ie.value
    raise DecodeError(f"GTPv2-C without {kind.name}")


def encode(message: Gtpv2Message) -> bytes:
    """Write a message."""
    body = encode_ies(message.ies)
    return _HEADER.pack(_VERSION_2_WITH_TEID, message.type, 8 + len(body), message.teid, message.sequence << 8) + body


def decode(octets: bytes) -> Gtpv2Message:
    """Read a message; IEs of other types are left out.

    :raises DecodeError: when it is none of ours
    """
    if len(octets) < _HEADER.size or octets[0] & 0xE8 != _VERSION_2_WITH_TEID:
        raise DecodeError("not GTPv2-C with a TEID")
    _, kind, length, teid, sequence = _HEADER.unpack_from(octets)
    if length + 4 > len(octets):
        raise DecodeError("GTPv2-C length lies", 2)
    try:
        message_type = MessageType(kind)
    except ValueError as error:
        raise DecodeError(f"GTPv2-C message type {kind}", 1) from error
    return Gtpv2Message(message_type, teid, sequence >> 8, decode_ies(octets[_HEADER.size : length + 4]))


def encode_ies(ies: Sequence[Ie]) -> bytes:
    """Write IEs one after the other (8.2.1)."""
    return b"".join(_IE.pack(ie.type, len(ie.value), ie.instance) + ie.value for ie in ies)


def decode_ies(octets: bytes) -> tuple[Ie, ...]:
    """Read IEs up to the end.

    :raises DecodeError: when a length lies
    """
    ies = []
    at = 0
    known = set(IeType)
    while at < len(octets):
        if at + _IE.size > len(octets):
            raise DecodeError("GTPv2-C IE is cut", at)
        kind, length, instance = _IE.unpack_from(octets, at)
        at += _IE.size
        if at + length > len(octets):
            raise DecodeError("GTPv2-C IE length lies", at)
        if kind in known:
            ies.append(Ie(IeType(kind), octets[at : at + length], instance & 15))
        at += length
    return tuple(ies)


# -- information elements ------------------------------------------------------------------------------------------


def f_teid(interface: Interface, end: FTeid, instance: int = 0) -> Ie:
    """Fully qualified TEID, IPv4 (8.22)."""
    value = struct.pack("!BI", 0x80 | interface, end.teid) + ipaddress.IPv4Address(end.address).packed
    return Ie(IeType.F_TEID, value, instance)


def f_teid_of(value: bytes) -> FTeid:
    """Read back :func:`f_teid`."""
    if len(value) < 9 or not value[0] & 0x80:
        raise DecodeError("F-TEID without IPv4 address")
    return FTeid(str(ipaddress.IPv4Address(value[5:9])), Teid(int.from_bytes(value[1:5], "big")))


def cause(value: int = CAUSE_ACCEPTED) -> Ie:
    """Cause (8.4)."""
    return Ie(IeType.CAUSE, bytes((value, 0)))


def operation_indication() -> Ie:
    """Indication with OI alone (8.12): the S-GW is to turn to the P-GW at once."""
    return Ie(IeType.INDICATION, b"\x08\0")


def bearer_context(*ies: Ie) -> Ie:
    """Bearer context, grouped (8.28)."""
    return Ie(IeType.BEARER_CONTEXT, encode_ies(ies))


def ebi(number: int) -> Ie:
    """EPS bearer identity (8.8)."""
    return Ie(IeType.EBI, bytes((number,)))


def user_location(tai: Tai, ecgi: Ecgi) -> Ie:
    """User location information with TAI and ECGI (8.21)."""
    value = (
        b"\x18"
        + plmn_octets(tai.plmn)
        + tai.tac.to_bytes(2, "big")
        + plmn_octets(ecgi.plmn)
        + ecgi.cell_id.to_bytes(4, "big")
    )
    return Ie(IeType.ULI, value)


def pdn_address(address: str) -> Ie:
    """PDN address allocation, IPv4 (8.14)."""
    return Ie(IeType.PAA, b"\x01" + ipaddress.IPv4Address(address).packed)


def pdn_address_of(value: bytes) -> str:
    """Read back :func:`pdn_address`."""
    return str(ipaddress.IPv4Address(value[1:5]))


def session_identity(imsi: Imsi, plmn: Plmn, apn: str) -> tuple[Ie, ...]:
    """What a Create Session Request says of the subscriber and the service (7.2.1), before the F-TEIDs."""
    return (
        Ie(IeType.IMSI, tbcd(imsi)),
        Ie(IeType.SERVING_NETWORK, plmn_octets(plmn)),
        Ie(IeType.RAT_TYPE, b"\x06"),
        Ie(IeType.APN, apn_octets(apn)),
        Ie(IeType.SELECTION_MODE, b"\0"),
        Ie(IeType.PDN_TYPE, b"\x01"),
        pdn_address("0.0.0.0"),
        Ie(IeType.APN_RESTRICTION, b"\0"),
        Ie(IeType.AMBR, struct.pack("!II", 1_000_000, 1_000_000)),
    )


def default_bearer_qos() -> Ie:
    """QCI 9, priority 8, not pre-emptable, no guaranteed rate (8.15)."""
    return Ie(IeType.BEARER_QOS, bytes((0x61, 9)) + bytes(20))


def dedicated_bearer_qos(qci: int) -> Ie:
    """Priority 2; 64 kbit/s each way where the QCI has a guaranteed rate."""
    return Ie(IeType.BEARER_QOS, bytes((0x09, qci)) + _rates(qci))


def flow_qos(qci: int) -> Ie:
    """What a UE asks for its flows (8.16)."""
    return Ie(IeType.FLOW_QOS, bytes((qci,)) + _rates(qci))


def _rates(qci: int) -> bytes:
    rate = (64).to_bytes(5, "big") if qci <= LAST_GUARANTEED_QCI else bytes(5)
    return 4 * rate
