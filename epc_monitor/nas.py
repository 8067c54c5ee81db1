"""EPS NAS (TS 24.301), as far as a bystander can read it.

Integrity protection hides nothing. Ciphering with EEA0 only wears the header of a ciphered message; real ciphering
hides all that comes after security mode but the initial messages (Attach, TAU, Service, Detach Request of an idle UE).
Which algorithm is in use is told by the Security Mode Command, which is never ciphered.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from mobiscud.core.errors import DecodeError

EMM, ESM = 7, 2
_PLAIN = 0
_CIPHERED = frozenset((2, 4))
_INTEGRITY_ONLY = frozenset((1, 3))
_SERVICE_REQUEST = 12
_IMSI, _GUTI = 1, 6
_ACTIVATE_DEFAULT_BEARER = 0xC1


class NasType(IntEnum):
    """EMM message types (TS 24.301 9.8); the Service Request has none of its own and gets 0."""

    SERVICE_REQUEST = 0x00
    ATTACH_REQUEST = 0x41
    ATTACH_ACCEPT = 0x42
    ATTACH_COMPLETE = 0x43
    ATTACH_REJECT = 0x44
    DETACH_REQUEST = 0x45
    DETACH_ACCEPT = 0x46
    TAU_REQUEST = 0x48
    TAU_ACCEPT = 0x49
    TAU_COMPLETE = 0x4A
    TAU_REJECT = 0x4B
    EXTENDED_SERVICE_REQUEST = 0x4C
    SERVICE_REJECT = 0x4E
    GUTI_REALLOCATION_COMMAND = 0x50
    GUTI_REALLOCATION_COMPLETE = 0x51
    IDENTITY_RESPONSE = 0x56
    SECURITY_MODE_COMMAND = 0x5D


class NasMessage(NamedTuple):
    """What was read. ``guti``: PLMN, MME group, MME code, M-TMSI, 10 octets. ``ciphering``: the EEA that is chosen.

    ``cs_only``: a detach from circuit-switched services alone; the UE stays (9.9.3.7).
    """

    type: NasType
    imsi: str | None = None
    guti: bytes | None = None
    m_tmsi: bytes | None = None
    ciphering: int | None = None
    addresses: tuple[bytes, ...] = ()
    cs_only: bool = False


def decode(pdu: bytes, *, uplink: bool, readable: bool | None = None) -> NasMessage | None:
    """Read a NAS PDU; None when it is ciphered, or nothing that concerns us.

    ``readable`` says whether messages with the header of a ciphered one are in clear (EEA0). Where that is not known
    (None), such a message counts only if it is sound to its last octet, which ciphered octets are not.

    :raises DecodeError: a message in clear is not what it claims to be
    """
    try:
        return _decode(pdu, uplink, readable)
    except IndexError:
        raise DecodeError("NAS message cut short", len(pdu)) from None


def _decode(pdu: bytes, uplink: bool, readable: bool | None) -> NasMessage | None:
    head = pdu[0]
    if head & 15 != EMM:
        return None
    security = head >> 4
    if security == _PLAIN:
        return _plain(pdu, uplink)
    if security == _SERVICE_REQUEST:
        return NasMessage(NasType.SERVICE_REQUEST)
    if security in _INTEGRITY_ONLY:
        return _plain(pdu[6:], uplink) if pdu[6] == EMM else None
    if security not in _CIPHERED or readable is False or pdu[6] != EMM:
        return None
    if readable:
        return _plain(pdu[6:], uplink)
    try:
        message = _plain(pdu[6:], uplink, strict=True)
    except (DecodeError, IndexError):
        return None
    return message if message is not None and _is_convincing(message) else None


def _is_convincing(message: NasMessage) -> bool:
    """Whether ciphered octets could hardly have become this message by chance."""
    if message.type in (NasType.ATTACH_ACCEPT, NasType.GUTI_REALLOCATION_COMMAND):
        return message.guti is not None
    if message.type is NasType.IDENTITY_RESPONSE:
        return message.imsi is not None
    return message.type is NasType.TAU_ACCEPT


def _plain(data: bytes, uplink: bool, strict: bool = False) -> NasMessage | None:
    """A plain EMM message: protocol discriminator, type, contents. ``strict``: its end must be where it says."""
    kind = data[1]
    message_type = _KNOWN.get(kind)
    if message_type is None:
        return None
    imsi: str | None = None
    guti: bytes | None = None
    m_tmsi: bytes | None = None
    ciphering: int | None = None
    addresses: tuple[bytes, ...] = ()
    end = 2
    if kind in (NasType.ATTACH_REQUEST, NasType.TAU_REQUEST) or (kind == NasType.DETACH_REQUEST and uplink):
        identity, end = _length_value(data, 3)
        imsi, guti = _identity(identity)
    elif kind in (NasType.IDENTITY_RESPONSE, NasType.GUTI_REALLOCATION_COMMAND):
        identity, end = _length_value(data, 2)
        imsi, guti = _identity(identity)
    elif kind == NasType.EXTENDED_SERVICE_REQUEST:
        identity, end = _length_value(data, 3)
        if len(identity) == 5:
            m_tmsi = identity[1:]
    elif kind == NasType.ATTACH_ACCEPT:
        _, end = _length_value(data, 4)
        container, end = _long_length_value(data, end)
        addresses = _pdn_addresses(container)
        guti = _assigned_guti(data, end, strict)
        return NasMessage(message_type, guti=guti, addresses=addresses)
    elif kind == NasType.TAU_ACCEPT:
        if data[2] & 0xF0 or data[2] & 7 > 5:
            raise DecodeError("TAU result that does not exist", 2)
        return NasMessage(message_type, guti=_assigned_guti(data, 3, strict))
    elif kind == NasType.SECURITY_MODE_COMMAND:
        ciphering = data[2] >> 4 & 7
        end = 3
    if strict and len(data) > end:
        raise DecodeError("octets after a message that has none", end)
    cs_only = kind == NasType.DETACH_REQUEST and data[2] & 7 == (2 if uplink else 3)
    return NasMessage(message_type, imsi, guti, m_tmsi, ciphering, addresses, cs_only)


_KNOWN = {int(member): member for member in NasType if member}


def _length_value(data: bytes, offset: int) -> tuple[bytes, int]:
    """A length octet and that many octets; and what follows."""
    end = offset + 1 + data[offset]
    if end > len(data):
        raise IndexError
    return data[offset + 1 : end], end


def _long_length_value(data: bytes, offset: int) -> tuple[bytes, int]:
    end = offset + 2 + (data[offset] << 8 | data[offset + 1])
    if end > len(data):
        raise IndexError
    return data[offset + 2 : end], end


def _identity(value: bytes) -> tuple[str | None, bytes | None]:
    """EPS mobile identity (9.9.3.12) or mobile identity (TS 24.008 10.5.1.4): an IMSI or a GUTI; None for others."""
    kind = value[0] & 7
    if kind == _GUTI and len(value) == 11:
        return None, value[1:]
    if kind != _IMSI:
        return None, None
    digits = f"{value[0] >> 4:x}" + "".join(f"{octet & 15:x}{octet >> 4:x}" for octet in value[1:])
    if not value[0] & 8:
        digits = digits[:-1]
    if not (6 <= len(digits) <= 15 and digits.isdecimal()):
        raise DecodeError("an IMSI that has not 6 to 15 digits")
    return digits, None


_SHORT = frozenset((0x53, 0x17, 0x59, 0x5A))  # type and one octet
_LAI = 0x13  # type and five octets
_LONG = frozenset((0x78, 0x79, 0x7B, 0x7C))  # two octets of length
_GUTI_ELEMENT = 0x50
_OTHERS = frozenset((0x50, 0x54, 0x57, 0x23, 0x4A, 0x34, 0x64, 0x5E, 0x6A, 0x68, 0x65, 0x6B, 0x6C))
_HALVES = frozenset((0x80, 0xC0, 0xD0, 0xE0, 0xF0))  # a type in the upper four bits, a value in the lower


_KNOWN_ELEMENTS = _SHORT | {_LAI} | _LONG | _OTHERS


def _assigned_guti(data: bytes, offset: int, strict: bool) -> bytes | None:
    """Walk the optional elements of an Accept (8.2.1, 8.2.26) and pick the GUTI."""
    guti: bytes | None = None
    while offset < len(data):
        element = data[offset]
        if strict and element not in _KNOWN_ELEMENTS and element & 0xF0 not in _HALVES:
            raise DecodeError("an element that no Accept has", offset)
        if element & 0x80:
            offset += 1
        elif element in _SHORT:
            offset += 2
        elif element == _LAI:
            offset += 6
        elif element in _LONG:
            _, offset = _long_length_value(data, offset + 1)
        else:
            value, offset = _length_value(data, offset + 1)
            if element == _GUTI_ELEMENT:
                _, guti = _identity(value)
                if strict and guti is None:
                    raise DecodeError("a GUTI that is none", offset)
    if strict and offset != len(data):
        raise DecodeError("optional elements beyond the end", offset)
    return guti


def _pdn_addresses(container: bytes) -> tuple[bytes, ...]:
    """The IPv4 address in an Activate Default EPS Bearer Context Request (8.3.6); of IPv6 it tells only the suffix."""
    if len(container) < 3 or container[0] & 15 != ESM or container[2] != _ACTIVATE_DEFAULT_BEARER:
        return ()
    _, offset = _length_value(container, 3)
    _, offset = _length_value(container, offset)
    address, _ = _length_value(container, offset)
    kind = address[0] & 7
    if kind == 1 and len(address) == 5:
        return (address[1:],)
    if kind == 3 and len(address) == 13:
        return (address[9:],)
    return ()
