"""NAS messages (TS 24.301) between the emulated UEs and the emulated MME, coded by pycrate.

The security context is null on purpose (EEA0, EIA0): after Security Mode the messages wear the headers of integrity
protection and ciphering, their MAC is the four zero octets of EIA0, and what is inside can be read. The emulated UE
has no USIM; its RES is a hash of RAND, which the emulated MME knows too.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import logging
from dataclasses import dataclass
from typing import Any, Final

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import Imsi, Plmn, Tai
from testbed import tft
from testbed.s1ap_build import plmn_octets
from testbed.tft import Template

# pycrate warns, when it is loaded, that it cannot cipher; nothing is ciphered here.
logging.getLogger("pycrate_mobile.TS24301_EMM").setLevel(logging.ERROR)
from pycrate_mobile import TS24301_EMM as EMM  # noqa: E402
from pycrate_mobile import TS24301_ESM as ESM  # noqa: E402

DEFAULT_BEARER: Final = 5
"""EPS bearer identity of the first default bearer, the lowest there is (TS 24.007 11.2.3.1.5)."""

UE_CAPABILITY: Final = bytes.fromhex("f0f0")
"""UE network capability: EEA0..3 and EIA0..3."""

_IMSI_TYPE: Final = 1
_GUTI_TYPE: Final = 6
_NULL_MAC: Final = bytes(4)


class SecurityHeader(enum.IntEnum):
    """TS 24.301 9.3.1."""

    PLAIN = 0
    INTEGRITY = 1
    INTEGRITY_AND_CIPHER = 2
    INTEGRITY_NEW = 3
    INTEGRITY_AND_CIPHER_NEW = 4


class EmmType(enum.IntEnum):
    """TS 24.301 9.8; SERVICE_REQUEST has no type octet, its number here is our own."""

    SERVICE_REQUEST = 0
    ATTACH_REQUEST = 65
    ATTACH_ACCEPT = 66
    ATTACH_COMPLETE = 67
    DETACH_REQUEST = 69
    DETACH_ACCEPT = 70
    TAU_REQUEST = 72
    TAU_ACCEPT = 73
    AUTHENTICATION_REQUEST = 82
    AUTHENTICATION_RESPONSE = 83
    SECURITY_MODE_COMMAND = 93
    SECURITY_MODE_COMPLETE = 94


class EsmType(enum.IntEnum):
    """TS 24.301 9.8, of bearers."""

    ACTIVATE_DEDICATED_REQUEST = 197
    ACTIVATE_DEDICATED_ACCEPT = 198
    DEACTIVATE_REQUEST = 205
    DEACTIVATE_ACCEPT = 206
    RESOURCE_ALLOCATION_REQUEST = 212
    RESOURCE_MODIFICATION_REQUEST = 214


_CLASSES: Final[dict[EmmType | EsmType, Any]] = {
    EmmType.ATTACH_REQUEST: EMM.EMMAttachRequest,
    EmmType.ATTACH_ACCEPT: EMM.EMMAttachAccept,
    EmmType.ATTACH_COMPLETE: EMM.EMMAttachComplete,
    EmmType.DETACH_REQUEST: EMM.EMMDetachRequestMO,
    EmmType.DETACH_ACCEPT: EMM.EMMDetachAccept,
    EmmType.TAU_REQUEST: EMM.EMMTrackingAreaUpdateRequest,
    EmmType.TAU_ACCEPT: EMM.EMMTrackingAreaUpdateAccept,
    EmmType.AUTHENTICATION_REQUEST: EMM.EMMAuthenticationRequest,
    EmmType.AUTHENTICATION_RESPONSE: EMM.EMMAuthenticationResponse,
    EmmType.SECURITY_MODE_COMMAND: EMM.EMMSecurityModeCommand,
    EmmType.SECURITY_MODE_COMPLETE: EMM.EMMSecurityModeComplete,
    EsmType.ACTIVATE_DEDICATED_REQUEST: ESM.ESMActDediEPSBearerCtxtRequest,
    EsmType.ACTIVATE_DEDICATED_ACCEPT: ESM.ESMActDediEPSBearerCtxtAccept,
    EsmType.DEACTIVATE_REQUEST: ESM.ESMDeactEPSBearerCtxtRequest,
    EsmType.DEACTIVATE_ACCEPT: ESM.ESMDeactEPSBearerCtxtAccept,
    EsmType.RESOURCE_ALLOCATION_REQUEST: ESM.ESMBearerResourceAllocRequest,
    EsmType.RESOURCE_MODIFICATION_REQUEST: ESM.ESMBearerResourceModifRequest,
}
_ESM: Final = 2
"""The protocol discriminator of bearers' messages (TS 24.007 11.2.3.1.1)."""
_PTI: Final = 2
"""Procedure transaction identity of the UE's request for a bearer; the attach has 1."""
_DELETE_TFT: Final = b"\x40"
_REGULAR_DEACTIVATION: Final = 36
LAST_GUARANTEED_QCI: Final = 4
"""Up to here a QCI has a guaranteed bit rate (TS 23.203 table 6.1.7)."""


@dataclass(frozen=True, slots=True)
class Guti:
    """A temporary identity (TS 23.003 2.8)."""

    plmn: Plmn
    mme_group_id: int
    mme_code: int
    m_tmsi: int


@dataclass(frozen=True, slots=True)
class Nas:
    """A message that has been read; ``layer`` is pycrate's, ``bearer`` the EPS bearer identity, where there is one."""

    type: EmmType | EsmType
    layer: Any
    bearer: int = 0


def protect(plain: bytes, header: SecurityHeader, count: int) -> bytes:
    """Put a plain message under a security header; ``count`` is the NAS count, of which 8 bits are sent."""
    return bytes((header << 4 | 7,)) + _NULL_MAC + bytes((count & 0xFF,)) + plain


def read(octets: bytes) -> Nas:
    """Read a message, under a security header or not.

    :raises DecodeError: for what the testbed does not speak
    """
    if len(octets) < 2:
        raise DecodeError("NAS message is cut")
    header = octets[0] >> 4
    if octets[0] & 15 != _ESM:
        if header == 12:
            return Nas(EmmType.SERVICE_REQUEST, None)
        if header != SecurityHeader.PLAIN:
            return read(octets[6:])
    of_bearer = octets[0] & 15 == _ESM
    try:
        kind = EsmType(octets[2]) if of_bearer else EmmType(octets[1])
        layer = _CLASSES[kind]()
        layer.from_bytes(octets)
    except Exception as error:  # pycrate raises errors of many kinds on bad input
        raise DecodeError(f"NAS: {error}") from error
    return Nas(kind, layer, octets[0] >> 4 if of_bearer else 0)


def response_to(challenge: bytes) -> bytes:
    """Answer a RAND with the eight octets of RES."""
    return hashlib.sha256(challenge).digest()[:8]


# -- from the UE -------------------------------------------------------------------------------------------------


def attach_request(imsi: Imsi) -> bytes:
    """Attach by IMSI, asking for one IPv4 PDN connection."""
    connectivity = ESM.ESMPDNConnectivityRequest(val={"ESMHeader": {"PTI": 1}, "PDNType": 1, "RequestType": 1})
    message = EMM.EMMAttachRequest(
        val={
            "EPSAttachType": 1,
            "EPSID": _imsi_octets(imsi),
            "UENetCap": UE_CAPABILITY,
            "ESMContainer": connectivity.to_bytes(),
        }
    )
    return _octets(message)


def imsi_of(attach: Nas) -> Imsi:
    """Read the IMSI of an Attach Request.

    :raises DecodeError: when it carries another identity
    """
    octets = _value(attach, "EPSID")
    if octets[0] & 7 != _IMSI_TYPE:
        raise DecodeError("attach without IMSI")
    digits = f"{octets[0] >> 4:x}" + "".join(f"{octet & 15:x}{octet >> 4:x}" for octet in octets[1:])
    return Imsi(digits.removesuffix("f"))


def authentication_response(res: bytes) -> bytes:
    """The UE is whom it says."""
    return _octets(EMM.EMMAuthenticationResponse(val={"RES": res}))


def security_mode_complete() -> bytes:
    """The security context stands."""
    return protect(_octets(EMM.EMMSecurityModeComplete()), SecurityHeader.INTEGRITY_AND_CIPHER_NEW, 0)


def attach_complete(count: int) -> bytes:
    """The default bearer stands."""
    bearer = ESM.ESMActDefaultEPSBearerCtxtAccept(val={"ESMHeader": {"EPSBearerId": DEFAULT_BEARER}})
    message = EMM.EMMAttachComplete(val={"ESMContainer": bearer.to_bytes()})
    return protect(_octets(message), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def service_request(count: int) -> bytes:
    """Wake up (8.2.25); the short MAC of EIA0 is zero."""
    return _octets(EMM.EMMServiceRequest(val={"KSI": 0, "SeqnShort": count & 31}))


def detach_request(guti: Guti, count: int, *, switch_off: bool) -> bytes:
    """Leave the network."""
    message = EMM.EMMDetachRequestMO(
        val={"NAS_KSI": 0, "EPSDetachType": 8 * switch_off + 1, "EPSID": _guti_octets(guti)}
    )
    return protect(_octets(message), SecurityHeader.INTEGRITY, count)


def is_switch_off(detach: Nas) -> bool:
    """Whether a Detach Request expects no answer."""
    return bool(int(detach.layer["EPSDetachType"][-1].to_uint()) & 8)


def tau_request(guti: Guti, count: int, *, active: bool) -> bytes:
    """Tell the tracking area; ``active`` asks for the connection to stay."""
    message = EMM.EMMTrackingAreaUpdateRequest(
        val={"NAS_KSI": 0, "EPSUpdateType": 8 * active, "OldGUTI": _guti_octets(guti), "UENetCap": UE_CAPABILITY}
    )
    return protect(_octets(message), SecurityHeader.INTEGRITY, count)


def is_active(tau: Nas) -> bool:
    """Whether a Tracking Area Update Request asks for the connection to stay."""
    return bool(int(tau.layer["EPSUpdateType"][-1].to_uint()) & 8)


def bearer_request(qci: int, traffic: Template, count: int) -> bytes:
    """Ask for a dedicated bearer beside the default one (8.3.8)."""
    message = ESM.ESMBearerResourceAllocRequest(
        val={
            "ESMHeader": {"PTI": _PTI},
            "LinkedEPSBearerId": DEFAULT_BEARER,
            "TFAggregate": traffic.encode(),
            "EPSQoS": _qos(qci),
        }
    )
    return protect(_octets(message), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def qci_of(request: Nas) -> int:
    """Read the QCI that a request for a bearer, or its activation, has."""
    return _value(request, "EPSQoS")[0]


def traffic_asked_of(request: Nas) -> Template:
    """Read what a requested bearer is to carry."""
    return tft.decode(_value(request, "TFAggregate"))


def traffic_granted_of(activation: Nas) -> Template:
    """Read what a bearer that is set up carries."""
    return tft.decode(_value(activation, "TFT"))


def bearer_release_request(bearer: int, count: int) -> bytes:
    """Ask for the end of a dedicated bearer (8.3.10)."""
    message = ESM.ESMBearerResourceModifRequest(
        val={
            "ESMHeader": {"PTI": _PTI},
            "LinkedEPSBearerId": bearer,
            "TFAggregate": _DELETE_TFT,
            "ESMCause": bytes((_REGULAR_DEACTIVATION,)),
        }
    )
    return protect(_octets(message), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def released_bearer_of(request: Nas) -> int:
    """Read which bearer a UE wants to end."""
    return int(request.layer["LinkedEPSBearerId"].to_uint())


def bearer_accept(bearer: int, count: int) -> bytes:
    """The dedicated bearer stands."""
    return _about_bearer(ESM.ESMActDediEPSBearerCtxtAccept, bearer, count)


def bearer_released(bearer: int, count: int) -> bytes:
    """The dedicated bearer is no more."""
    return _about_bearer(ESM.ESMDeactEPSBearerCtxtAccept, bearer, count)


def _about_bearer(message: Any, bearer: int, count: int) -> bytes:
    octets = _octets(message(val={"ESMHeader": {"EPSBearerId": bearer}}))
    return protect(octets, SecurityHeader.INTEGRITY_AND_CIPHER, count)


def _qos(qci: int) -> bytes:
    """EPS quality of service (9.9.4.3); those with a guaranteed rate have 64 kbit/s for all four rates."""
    return bytes((qci,)) + (bytes((64, 64, 64, 64)) if qci <= LAST_GUARANTEED_QCI else b"")


# -- from the MME ------------------------------------------------------------------------------------------------


def authentication_request(challenge: bytes, token: bytes) -> bytes:
    """Ask for RES; ``token`` is AUTN, which the emulated UE takes on trust."""
    return _octets(EMM.EMMAuthenticationRequest(val={"NAS_KSI": 0, "RAND": challenge, "AUTN": token}))


def challenge_of(request: Nas) -> bytes:
    """Read RAND."""
    return _value(request, "RAND")


def res_of(response: Nas) -> bytes:
    """Read RES."""
    return _value(response, "RES")


def security_mode_command() -> bytes:
    """Choose EEA0 and EIA0, and repeat the UE's capability."""
    message = EMM.EMMSecurityModeCommand(val={"NASSecAlgo": b"\0", "NAS_KSI": 0, "UESecCap": UE_CAPABILITY})
    return protect(_octets(message), SecurityHeader.INTEGRITY_NEW, 0)


def attach_accept(guti: Guti, tai: Tai, apn: str, ue_address: str, count: int) -> bytes:
    """Accept, with a GUTI, a list of one tracking area, and the default bearer with the UE's address."""
    bearer = ESM.ESMActDefaultEPSBearerCtxtRequest(
        val={
            "ESMHeader": {"EPSBearerId": DEFAULT_BEARER, "PTI": 1},
            "EPSQoS": b"\x09",
            "APN": apn_octets(apn),
            "PDNAddr": b"\x01" + ipaddress.IPv4Address(ue_address).packed,
        }
    )
    message = EMM.EMMAttachAccept(
        val={
            "EPSAttachResult": 1,
            "T3412": b"\x29",
            "TAIList": b"\0" + plmn_octets(tai.plmn) + tai.tac.to_bytes(2, "big"),
            "ESMContainer": bearer.to_bytes(),
            "GUTI": _guti_octets(guti),
        }
    )
    return protect(_octets(message), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def guti_of(accept: Nas) -> Guti:
    """Read the GUTI of an Attach Accept."""
    octets = _value(accept, "GUTI")
    return Guti(
        Plmn.from_bytes(octets[1:4]),
        int.from_bytes(octets[4:6], "big"),
        octets[6],
        int.from_bytes(octets[7:11], "big"),
    )


def ue_address_of(accept: Nas) -> str:
    """Read the IPv4 address that an Attach Accept gives to the UE."""
    bearer = ESM.ESMActDefaultEPSBearerCtxtRequest()
    bearer.from_bytes(_value(accept, "ESMContainer"))
    address = bearer["PDNAddr"][-1].to_bytes()
    return str(ipaddress.IPv4Address(address[1:5]))


def tau_accept(count: int) -> bytes:
    """Note the tracking area; the GUTI stays."""
    return protect(_octets(EMM.EMMTrackingAreaUpdateAccept()), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def activate_dedicated(bearer: int, qci: int, traffic: Template, count: int) -> bytes:
    """Have the UE set a dedicated bearer up (8.3.3)."""
    message = ESM.ESMActDediEPSBearerCtxtRequest(
        val={
            "ESMHeader": {"EPSBearerId": bearer, "PTI": _PTI},
            "LinkedEPSBearerId": DEFAULT_BEARER,
            "EPSQoS": _qos(qci),
            "TFT": traffic.encode(),
        }
    )
    return protect(_octets(message), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def deactivate(bearer: int, count: int) -> bytes:
    """Have the UE give a dedicated bearer up (8.3.12)."""
    message = ESM.ESMDeactEPSBearerCtxtRequest(
        val={"ESMHeader": {"EPSBearerId": bearer, "PTI": _PTI}, "ESMCause": bytes((_REGULAR_DEACTIVATION,))}
    )
    return protect(_octets(message), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def detach_accept(count: int) -> bytes:
    """Let the UE go."""
    return protect(_octets(EMM.EMMDetachAccept()), SecurityHeader.INTEGRITY_AND_CIPHER, count)


def apn_octets(apn: str) -> bytes:
    """Write an access point name as labels with their lengths (TS 23.003 9.1)."""
    return b"".join(bytes((len(label),)) + label.encode() for label in apn.split("."))


def tbcd(digits: str) -> bytes:
    """Write digits two an octet, the first in the low half, padded with 15."""
    padded = digits + "f" * (len(digits) % 2)
    return bytes.fromhex("".join(padded[i + 1] + padded[i] for i in range(0, len(padded), 2)))


def _imsi_octets(imsi: Imsi) -> bytes:
    odd = len(imsi) % 2
    return bytes((int(imsi[0]) << 4 | odd << 3 | _IMSI_TYPE,)) + tbcd(imsi[1:])


def _guti_octets(guti: Guti) -> bytes:
    return (
        bytes((0xF0 | _GUTI_TYPE,))
        + plmn_octets(guti.plmn)
        + guti.mme_group_id.to_bytes(2, "big")
        + guti.mme_code.to_bytes(1, "big")
        + guti.m_tmsi.to_bytes(4, "big")
    )


def _octets(message: Any) -> bytes:
    encoded: bytes = message.to_bytes()
    return encoded


def _value(message: Nas, element: str) -> bytes:
    """The octets of an element's value, without its tag and length."""
    value: bytes = message.layer[element][-1].to_bytes()
    return value
