"""GTPv2-C (TS 29.274) on S11, read selectively: who the UE is, which addresses and S1-U tunnels it has.

S11 and S5 may share addresses and port; the interface type inside each F-TEID tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mobiscud.core.errors import DecodeError

GTPV2_PORT = 2123

S1U_ENB, S1U_SGW = 0, 1
S11_MME, S11_SGW = 10, 11

ACCEPTED = frozenset((16, 17))
"""Causes of success, whole and partial (8.4)."""

CONTEXT_NOT_FOUND = 64

_IMSI, _CAUSE, _APN, _EBI, _PAA, _F_TEID, _BEARER_CONTEXT, _BEARER_QOS = 1, 2, 71, 73, 79, 87, 93, 80
_READ = frozenset((_IMSI, _CAUSE, _APN, _EBI, _PAA, _F_TEID, _BEARER_CONTEXT))


class GtpType(IntEnum):
    """Message types (TS 29.274 6.1) that we follow."""

    CREATE_SESSION_REQUEST = 32
    CREATE_SESSION_RESPONSE = 33
    MODIFY_BEARER_REQUEST = 34
    MODIFY_BEARER_RESPONSE = 35
    DELETE_SESSION_REQUEST = 36
    DELETE_SESSION_RESPONSE = 37
    CREATE_BEARER_REQUEST = 95
    CREATE_BEARER_RESPONSE = 96
    UPDATE_BEARER_REQUEST = 97
    UPDATE_BEARER_RESPONSE = 98
    DELETE_BEARER_REQUEST = 99
    DELETE_BEARER_RESPONSE = 100
    CREATE_INDIRECT_TUNNEL_REQUEST = 166
    CREATE_INDIRECT_TUNNEL_RESPONSE = 167
    DELETE_INDIRECT_TUNNEL_REQUEST = 168
    DELETE_INDIRECT_TUNNEL_RESPONSE = 169
    RELEASE_ACCESS_BEARERS_REQUEST = 170
    RELEASE_ACCESS_BEARERS_RESPONSE = 171
    DOWNLINK_DATA_NOTIFICATION = 176
    DOWNLINK_DATA_NOTIFICATION_ACKNOWLEDGE = 177


_FOLLOWED = frozenset(int(member) for member in GtpType)


@dataclass(slots=True, init=False)
class GtpFTeid:
    """An F-TEID (8.22); addresses packed, either may be missing."""

    interface: int
    teid: int
    ipv4: bytes | None
    ipv6: bytes | None

    def __init__(self, interface: int, teid: int, ipv4: bytes | None, ipv6: bytes | None) -> None:
        self.interface = interface
        self.teid = teid
        self.ipv4 = ipv4
        self.ipv6 = ipv6

    @property
    def address(self) -> bytes:
        """The address by which S1AP would know the same tunnel end: IPv4 where there is one."""
        return self.ipv4 or self.ipv6 or b""

    @property
    def packed(self) -> bytes:
        """That address, and 4 octets of TEID."""
        return self.address + self.teid.to_bytes(4, "big")


@dataclass(slots=True, init=False)
class GtpBearer:
    """A bearer context (8.28)."""

    ebi: int | None
    f_teids: tuple[GtpFTeid, ...]
    qci: int | None

    def __init__(self, ebi: int | None, f_teids: tuple[GtpFTeid, ...], qci: int | None) -> None:
        self.ebi = ebi
        self.f_teids = f_teids
        self.qci = qci


@dataclass(slots=True, init=False)
class GtpMessage:
    """What was read of one message. ``ebi`` is the linked bearer, where the message itself carries one."""

    type: int
    teid: int | None
    sequence: int
    imsi: str | None
    cause: int | None
    ebi: int | None
    f_teids: tuple[GtpFTeid, ...]
    addresses: tuple[bytes, ...]
    bearers: tuple[GtpBearer, ...]
    apn: str | None

    def __init__(self, type: int, teid: int | None, sequence: int) -> None:
        self.type = type
        self.teid = teid
        self.sequence = sequence
        self.imsi = None
        self.cause = None
        self.ebi = None
        self.f_teids = ()
        self.addresses = ()
        self.bearers = ()
        self.apn = None

    def f_teid(self, interface: int) -> GtpFTeid | None:
        """The first F-TEID of an interface type, outside of bearer contexts."""
        return next((f_teid for f_teid in self.f_teids if f_teid.interface == interface), None)


def decode(datagram: bytes) -> list[GtpMessage]:
    """Read a datagram: one message, or two where the second rides on the first (5.5.1).

    :raises DecodeError: it is not GTPv2-C, or lies about its lengths
    """
    try:
        messages = []
        offset = 0
        while True:
            message, offset, another = _message(datagram, offset)
            messages.append(message)
            if not another:
                return messages
    except IndexError:
        raise DecodeError("GTPv2 message cut short", len(datagram)) from None


def _message(data: bytes, offset: int) -> tuple[GtpMessage, int, bool]:
    """One message (5.5): what was read, where it ends, whether another one follows."""
    flags, kind = data[offset], data[offset + 1]
    if flags >> 5 != 2:
        raise DecodeError("not GTP version 2", offset)
    end = offset + 4 + (data[offset + 2] << 8 | data[offset + 3])
    if end > len(data):
        raise IndexError
    teid: int | None = None
    start = offset + 4
    if flags & 8:
        teid = int.from_bytes(data[start : start + 4], "big")
        start += 4
    sequence = int.from_bytes(data[start : start + 3], "big")
    start += 4
    if start > end:
        raise DecodeError("GTPv2 header longer than its message", offset)
    message = GtpMessage(kind, teid, sequence)
    if kind in _FOLLOWED:
        _elements(message, data, start, end)
    return message, end, bool(flags & 16)


def _elements(message: GtpMessage, data: bytes, offset: int, end: int) -> None:
    f_teids: list[GtpFTeid] = []
    bearers: list[GtpBearer] = []
    while offset < end:
        element, length = data[offset], data[offset + 1] << 8 | data[offset + 2]
        start = offset + 4
        offset = start + length
        if offset > end:
            raise DecodeError("information element longer than its message", start)
        if element not in _READ:
            continue
        value = data[start:offset]
        if element == _F_TEID:
            f_teids.append(_f_teid(value))
        elif element == _BEARER_CONTEXT:
            bearers.append(_bearer(value))
        elif element == _CAUSE:
            message.cause = value[0]
        elif element == _EBI:
            if not data[start - 1] & 15:  # instance 1 lists dedicated bearers (TS 29.274 7.2.9.2)
                message.ebi = value[0] & 15
        elif element == _IMSI:
            message.imsi = _digits(value)
        elif element == _APN:
            message.apn = _apn(value)
        elif element == _PAA:
            message.addresses = _paa(value)
    message.f_teids = tuple(f_teids)
    message.bearers = tuple(bearers)


def _bearer(value: bytes) -> GtpBearer:
    ebi: int | None = None
    qci: int | None = None
    f_teids: list[GtpFTeid] = []
    offset, end = 0, len(value)
    while offset < end:
        element, length = value[offset], value[offset + 1] << 8 | value[offset + 2]
        start = offset + 4
        offset = start + length
        if offset > end:
            raise DecodeError("information element longer than its bearer context", start)
        if element == _F_TEID:
            f_teids.append(_f_teid(value[start:offset]))
        elif element == _EBI:
            ebi = value[start:offset][0] & 15
        elif element == _BEARER_QOS and length >= 2:
            qci = value[start + 1]
    return GtpBearer(ebi, tuple(f_teids), qci)


def _f_teid(value: bytes) -> GtpFTeid:
    flags = value[0]
    if len(value) < 5 + (4 if flags & 0x80 else 0) + (16 if flags & 0x40 else 0):
        raise IndexError
    offset = 5
    ipv4: bytes | None = None
    ipv6: bytes | None = None
    if flags & 0x80:
        ipv4, offset = value[5:9], 9
    if flags & 0x40:
        ipv6 = value[offset : offset + 16]
    return GtpFTeid(flags & 63, int.from_bytes(value[1:5], "big"), ipv4, ipv6)


_TWO_DIGITS = tuple(f"{octet & 15:x}{octet >> 4:x}" for octet in range(256))
"""Of each octet, the low half first."""


def _digits(value: bytes) -> str:
    """IMSI (8.3): decimal digits, the low half of an octet first, filled up with 15."""
    digits = "".join([_TWO_DIGITS[octet] for octet in value]).rstrip("f")
    if not (6 <= len(digits) <= 15 and digits.isdecimal()):
        raise DecodeError("an IMSI that has not 6 to 15 digits")
    return digits


def _apn(value: bytes) -> str:
    """APN (8.6): labels with their lengths; without the operator identifier, which no operator's file names."""
    labels: list[str] = []
    offset = 0
    while offset < len(value):
        end = offset + 1 + value[offset]
        if end > len(value):
            raise DecodeError("an APN label longer than its APN", offset)
        labels.append(value[offset + 1 : end].decode("ascii", "replace").lower())
        offset = end
    if len(labels) > 3 and labels[-1] == "gprs" and labels[-2].startswith("mcc") and labels[-3].startswith("mnc"):
        del labels[-3:]  # TS 23.003 9.1.2
    return ".".join(labels)


def _paa(value: bytes) -> tuple[bytes, ...]:
    """PDN Address Allocation (8.14): the UE's IPv4 address, and its IPv6 prefix as allocated."""
    kind = value[0] & 7
    if kind == 1:
        found: tuple[bytes, ...] = (value[1:5],)
    elif kind == 2:
        found = (value[2:18],)
    elif kind == 3:
        found = (value[18:22], value[2:18])
    else:
        return ()
    if any(len(address) not in (4, 16) for address in found):
        raise IndexError
    return tuple(address for address in found if any(address))
