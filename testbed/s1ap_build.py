"""S1AP messages (TS 36.413) as plain values, coded by pycrate.

``encode("HandoverNotify", MME_UE_S1AP_ID=1, ...)`` writes a PDU; ``decode`` gives back the same name and the same IEs.
IEs go by the names of their ids in the ASN.1 (``id-eNB-UE-S1AP-ID`` is ``eNB_UE_S1AP_ID``); their criticality and
order come from the ASN.1 too. Values have pycrate's forms: sequences are dicts, choices pairs, bit strings
``(value, length)``; a list whose elements each wrap one IE is a list of what is wrapped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pycrate_asn1dir import S1AP

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import CellId, Ecgi, FTeid, Plmn, Tac, Tai, Teid

_PDU: Final = S1AP.S1AP_PDU_Descriptions.S1AP_PDU
_OUTCOMES: Final = {
    "InitiatingMessage": "initiatingMessage",
    "SuccessfulOutcome": "successfulOutcome",
    "UnsuccessfulOutcome": "unsuccessfulOutcome",
}


@dataclass(frozen=True, slots=True)
class S1apMessage:
    """A decoded PDU: the name of its message and its IEs."""

    name: str
    ies: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Ie:
    number: int
    name: str
    criticality: str
    type_name: str
    wrapped: _Ie | None
    """The one IE that each element of this list wraps, where it is such a list."""


@dataclass(frozen=True, slots=True)
class _Form:
    outcome: str
    procedure_code: int
    criticality: str
    ies: Mapping[str, _Ie]


_IE_NAMES: Final = {
    constant.get_val(): name.removeprefix("id_")
    for name, constant in vars(S1AP.S1AP_Constants).items()
    if name.startswith("id_") and constant._typeref.called[1] == "ProtocolIE-ID"
}


def _ie(row: Mapping[str, Any]) -> _Ie:
    value = row["Value"]
    wrapped = None
    if value.TYPE == "SEQUENCE OF" and value._cont.TYPE == "SEQUENCE" and "id" in value._cont._cont:
        wrapped = _ie(value._cont._cont["id"]._const_tab._val.root[0])
    return _Ie(row["id"], _IE_NAMES[row["id"]], row["criticality"], value._typeref.called[1], wrapped)


def _forms() -> dict[str, _Form]:
    forms = {}
    for procedure in S1AP.S1AP_PDU_Descriptions.S1AP_ELEMENTARY_PROCEDURES._val.root:
        for key, outcome in _OUTCOMES.items():
            sequence = procedure.get(key)
            if sequence is None or "protocolIEs" not in sequence._cont:
                continue  # no such outcome, or the Private Message, which has no ids
            rows = sequence._cont["protocolIEs"]._cont._cont["id"]._const_tab._val.root
            ies = {ie.name: ie for ie in map(_ie, rows)}
            forms[sequence._typeref.called[1]] = _Form(
                outcome, procedure["procedureCode"], procedure["criticality"], ies
            )
    return forms


_FORMS: Final = _forms()


def encode(name: str, **ies: Any) -> bytes:
    """Write a PDU in aligned PER.

    :raises KeyError: for a message or an IE of that message that the ASN.1 does not have
    """
    form = _FORMS[name]
    unknown = ies.keys() - form.ies.keys()
    if unknown:
        raise KeyError(f"{name} has no {', '.join(sorted(unknown))}")
    fields = [_wrap(ie, ies[ie.name]) for ie in form.ies.values() if ie.name in ies]
    body = {
        "procedureCode": form.procedure_code,
        "criticality": form.criticality,
        "value": (name, {"protocolIEs": fields}),
    }
    _PDU.set_val((form.outcome, body))
    encoded: bytes = _PDU.to_aper()
    return encoded


def decode(octets: bytes) -> S1apMessage:
    """Read a PDU.

    :raises DecodeError: when pycrate cannot
    """
    try:
        _PDU.from_aper(octets)
        _, body = _PDU.get_val()
        name, sequence = body["value"]
        form = _FORMS[name]
        ies = {_IE_NAMES[field["id"]]: field["value"][1] for field in sequence["protocolIEs"]}
    except Exception as error:  # pycrate raises errors of many kinds on bad input
        raise DecodeError(f"not S1AP: {error}") from error
    for ie_name, value in ies.items():
        ie = form.ies.get(ie_name)
        if ie is not None and ie.wrapped is not None:
            ies[ie_name] = [element["value"][1] for element in value]
    return S1apMessage(name, ies)


def _wrap(ie: _Ie, value: Any) -> dict[str, Any]:
    if ie.wrapped is not None:
        value = [_wrap(ie.wrapped, element) for element in value]
    return {"id": ie.number, "criticality": ie.criticality, "value": (ie.type_name, value)}


def plmn_octets(plmn: Plmn) -> bytes:
    """Write a PLMN identity (TS 24.008 10.5.1.3)."""
    mcc, mnc = plmn.mcc, plmn.mnc
    third = mnc[2] if len(mnc) == 3 else "f"
    return bytes.fromhex(mcc[1] + mcc[0] + third + mcc[2] + mnc[1] + mnc[0])


def tai_value(tai: Tai) -> dict[str, Any]:
    """TAI (9.2.3.16)."""
    return {"pLMNidentity": plmn_octets(tai.plmn), "tAC": tai.tac.to_bytes(2, "big")}


def tai_of(value: Mapping[str, Any]) -> Tai:
    """Read back :func:`tai_value`."""
    return Tai(Plmn.from_bytes(value["pLMNidentity"]), Tac(int.from_bytes(value["tAC"], "big")))


def ecgi_value(ecgi: Ecgi) -> dict[str, Any]:
    """E-UTRAN CGI (9.2.1.38)."""
    return {"pLMNidentity": plmn_octets(ecgi.plmn), "cell-ID": (int(ecgi.cell_id), 28)}


def ecgi_of(value: Mapping[str, Any]) -> Ecgi:
    """Read back :func:`ecgi_value`."""
    return Ecgi(Plmn.from_bytes(value["pLMNidentity"]), CellId(value["cell-ID"][0]))


def macro_enb_value(plmn: Plmn, enb_id: int) -> dict[str, Any]:
    """Global eNB ID of a macro eNodeB (9.2.1.37)."""
    return {"pLMNidentity": plmn_octets(plmn), "eNB-ID": ("macroENB-ID", (enb_id, 20))}


def tunnel_value(f_teid: FTeid) -> dict[str, Any]:
    """The two fields by which an E-RAB item names a tunnel's end (9.2.2.1, 9.2.2.2)."""
    return {
        "transportLayerAddress": (int(ipaddress.IPv4Address(f_teid.address)), 32),
        "gTP-TEID": f_teid.teid.to_bytes(4, "big"),
    }


def forwarding_value(f_teid: FTeid | None) -> dict[str, Any]:
    """The two fields by which an E-RAB item names where forwarded downlink goes (9.2.1.36, 9.2.2.4); none for none."""
    if f_teid is None:
        return {}
    tunnel = tunnel_value(f_teid)
    return {"dL-transportLayerAddress": tunnel["transportLayerAddress"], "dL-gTP-TEID": tunnel["gTP-TEID"]}


def forwarding_of(item: Mapping[str, Any]) -> FTeid | None:
    """Read back :func:`forwarding_value`."""
    if "dL-gTP-TEID" not in item:
        return None
    return tunnel_of({"transportLayerAddress": item["dL-transportLayerAddress"], "gTP-TEID": item["dL-gTP-TEID"]})


def tunnel_of(item: Mapping[str, Any]) -> FTeid:
    """Read back :func:`tunnel_value`."""
    address = str(ipaddress.IPv4Address(item["transportLayerAddress"][0]))
    return FTeid(address, Teid(int.from_bytes(item["gTP-TEID"], "big")))
