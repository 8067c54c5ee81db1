"""Our S1AP decoder against pycrate's full one: the same fields, for captured and for generated PDUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pycrate_asn1dir import S1AP

from epc_monitor import s1ap
from epc_monitor.s1ap import (
    ERabAdmitted,
    ERabCause,
    ERabEnd,
    ERabForwarding,
    ERabModify,
    ERabSetup,
    MessageType,
    S1apMessage,
)
from epc_monitor.s1ap.types import CAUSE_GROUPS, ConnectionIds, GlobalEnbId, ServedGummeis, TargetEnb, Tunnel
from mobiscud.core.ue import Cause
from testbed import s1ap_corpus

PDU = S1AP.S1AP_PDU_Descriptions.S1AP_PDU
OUTCOMES = ("initiatingMessage", "successfulOutcome", "unsuccessfulOutcome")
ASN1_GROUPS = ("radioNetwork", "transport", "nas", "protocol", "misc")
CAUSE_VALUES = {
    "radioNetwork": S1AP.S1AP_IEs.CauseRadioNetwork,
    "transport": S1AP.S1AP_IEs.CauseTransport,
    "nas": S1AP.S1AP_IEs.CauseNas,
    "protocol": S1AP.S1AP_IEs.CauseProtocol,
    "misc": S1AP.S1AP_IEs.CauseMisc,
}
HANDOVER_TYPES = list(S1AP.S1AP_IEs.HandoverType._cont)
FIELDS = tuple(name for name in vars(S1apMessage) if not name.startswith("_"))
ABSENT = S1apMessage()

Value = Any
Item = Mapping[str, Any]


def bit_string(value: tuple[int, int]) -> bytes:
    number, size = value
    return (number << -size % 8).to_bytes((size + 7) // 8, "big")


def cause(value: tuple[str, str]) -> Cause | None:
    group, name = value
    if group not in ASN1_GROUPS:
        return None
    return Cause(CAUSE_GROUPS[ASN1_GROUPS.index(group)], list(CAUSE_VALUES[group]._cont).index(name), name)


def tunnel(item: Item, address: str = "transportLayerAddress", teid: str = "gTP-TEID") -> Tunnel | None:
    if address not in item or teid not in item:
        return None
    return Tunnel(bit_string(item[address]), int.from_bytes(item[teid], "big"))


def forwarding(item: Item) -> tuple[Tunnel | None, Tunnel | None]:
    return (
        tunnel(item, "dL-transportLayerAddress", "dL-gTP-TEID"),
        tunnel(item, "uL-TransportLayerAddress", "uL-GTP-TEID"),
    )


def setup(item: Item) -> tuple[Any, ...]:
    qos = next(value for name, value in item.items() if name.lower() == "e-rablevelqosparameters")
    return ERabSetup(item["e-RAB-ID"], qos["qCI"], tunnel(item), item.get("nAS-PDU"))  # type: ignore[arg-type]


def end(item: Item) -> tuple[Any, ...]:
    return ERabEnd(item["e-RAB-ID"], tunnel(item))  # type: ignore[arg-type]


def moved(item: Item) -> tuple[Any, ...]:
    return ERabEnd(item["e-RAB-ID"], tunnel(item, teid="dL-GTP-TEID"))  # type: ignore[arg-type]


def admitted(item: Item) -> tuple[Any, ...]:
    return ERabAdmitted(item["e-RAB-ID"], tunnel(item), *forwarding(item))  # type: ignore[arg-type]


def forwarded(item: Item) -> tuple[Any, ...]:
    return ERabForwarding(item["e-RAB-ID"], *forwarding(item))


def modify(item: Item) -> tuple[Any, ...]:
    return ERabModify(item["e-RAB-ID"], item["e-RABLevelQoSParameters"]["qCI"], item["nAS-PDU"])


def number(item: Item) -> int:
    return int(item["e-RAB-ID"])


def with_cause(item: Item) -> tuple[Any, ...]:
    return ERabCause(item["e-RAB-ID"], cause(item["cause"]))


def enb_id(value: Item) -> GlobalEnbId:
    number, size = value["eNB-ID"][1]
    return GlobalEnbId(value["pLMNidentity"], size, number)


def tai(value: Item) -> bytes:
    return bytes(value["pLMNidentity"] + value["tAC"])


def target(value: tuple[str, Item]) -> TargetEnb | None:
    kind, content = value
    if kind != "targeteNB-ID":
        return None
    return TargetEnb(enb_id(content["global-ENB-ID"]), tai(content["selected-TAI"]))


def connections(elements: list[Item]) -> tuple[ConnectionIds, ...]:
    items = [element["value"][1] for element in elements]
    return tuple(ConnectionIds(item.get("mME-UE-S1AP-ID"), item.get("eNB-UE-S1AP-ID")) for item in items)


def served(value: list[Item]) -> tuple[ServedGummeis, ...]:
    return tuple(
        ServedGummeis(
            tuple(entry["servedPLMNs"]),
            tuple(int.from_bytes(group, "big") for group in entry["servedGroupIDs"]),
            tuple(code[0] for code in entry["servedMMECs"]),
        )
        for entry in value
    )


def supported(value: list[Item]) -> tuple[bytes, ...]:
    return tuple(plmn + area["tAC"] for area in value for plmn in area["broadcastPLMNs"])


ELEMENTS: dict[int, tuple[str, Callable[[Any], Any]]] = {
    0: ("mme_ue_s1ap_id", int),
    1: ("handover_type", HANDOVER_TYPES.index),
    2: ("cause", cause),
    4: ("target", target),
    8: ("enb_ue_s1ap_id", int),
    26: ("nas", bytes),
    59: ("global_enb_id", enb_id),
    61: ("mme_name", str),
    64: ("supported_tais", supported),
    67: ("tai", tai),
    75: ("gummei", lambda value: value["pLMN-Identity"] + value["mME-Group-ID"] + value["mME-Code"]),
    88: ("source_mme_ue_s1ap_id", int),
    93: ("connections", connections),
    96: ("s_tmsi", lambda value: value["mMEC"] + value["m-TMSI"]),
    100: ("ecgi", lambda value: value["pLMNidentity"] + bit_string(value["cell-ID"])),
    105: ("served_gummeis", served),
    158: ("mme_ue_s1ap_id_2", int),
}
LISTS: dict[int, tuple[str, Callable[[Item], Any]]] = {
    24: ("e_rabs_to_setup", setup),
    16: ("e_rabs_to_setup", setup),
    53: ("e_rabs_to_setup", setup),
    51: ("e_rabs_set_up", end),
    28: ("e_rabs_set_up", end),
    22: ("e_rabs_switched_downlink", end),
    95: ("e_rabs_switched_uplink", end),
    18: ("e_rabs_admitted", admitted),
    12: ("e_rabs_forwarded", forwarded),
    30: ("e_rabs_to_modify", modify),
    31: ("e_rabs_modified", number),
    199: ("e_rabs_moved", moved),
    203: ("e_rabs_modified", number),
    69: ("e_rabs_released", number),
    33: ("e_rabs_to_release", with_cause),
    110: ("e_rabs_to_release", with_cause),
    29: ("e_rabs_failed", with_cause),
    48: ("e_rabs_failed", with_cause),
    19: ("e_rabs_failed", with_cause),
    32: ("e_rabs_failed", with_cause),
    34: ("e_rabs_failed", with_cause),
    205: ("e_rabs_failed", with_cause),
}


def reference(pdu: bytes) -> dict[str, Any]:
    """The fields of a PDU as pycrate reads them."""
    PDU.from_aper(pdu)
    return fields_of(PDU.get_val())


def fields_of(value: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What we would read of a PDU, absent fields left out; ``value`` is the PDU in pycrate's form."""
    outcome, body = value
    content: Any
    fields: dict[str, Any] = {"type": OUTCOMES.index(outcome) << 8 | body["procedureCode"]}
    for element in body["value"][1]["protocolIEs"]:
        identity, given = element["id"], element["value"][1]
        if identity in ELEMENTS:
            name, read = ELEMENTS[identity]
            fields[name] = read(given)
        elif identity in LISTS:
            name, read = LISTS[identity]
            fields[name] = tuple(read(item["value"][1]) for item in given)
        elif identity == 99:
            kind, content = given
            if kind == "uE-S1AP-ID-pair":
                fields["mme_ue_s1ap_id"] = content["mME-UE-S1AP-ID"]
                fields["enb_ue_s1ap_id"] = content["eNB-UE-S1AP-ID"]
            else:
                fields["mme_ue_s1ap_id"] = content
        elif identity == 92:
            kind, content = given
            fields["reset_all"] = kind == "s1-Interface"
            fields["connections"] = () if kind == "s1-Interface" else connections(content)
    return fields


def ours(pdu: bytes) -> dict[str, Any]:
    message = s1ap.decode(pdu)
    return {name: getattr(message, name) for name in FIELDS}


def expected(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields.get(name, getattr(ABSENT, name)) for name in FIELDS}


def test_captured_pdus(captured_pdus: list[bytes]) -> None:
    kinds = set()
    for pdu in captured_pdus:
        fields = reference(pdu)
        assert ours(pdu) == expected(fields), pdu.hex()
        kinds.add(fields["type"])
    assert len(captured_pdus) > 1500
    assert len(kinds) >= 30


@pytest.mark.parametrize("seed", range(4))
def test_generated_pdus(seed: int) -> None:
    """Every S1AP message with everything in it: extensions, long lengths, fragmented open types, unknown elements."""
    kinds: Counter[int] = Counter()
    for pdu, value in s1ap_corpus.generate(seed, 1500):
        fields = fields_of(value)
        assert ours(pdu) == expected(fields), pdu.hex()
        kinds[fields["type"]] += 1
    assert len(kinds) == len(s1ap_corpus.NAMES)


def test_causes_have_the_names_of_the_asn1() -> None:
    for group, name in zip(s1ap.types.CAUSES, ASN1_GROUPS, strict=True):
        assert [known.name for known in group] == list(CAUSE_VALUES[name]._cont)


def test_message_types_are_those_of_the_asn1() -> None:
    procedures = S1AP.S1AP_PDU_Descriptions.S1AP_ELEMENTARY_PROCEDURES._val
    codes = {row["procedureCode"] for row in procedures.root + procedures.ext}
    assert {kind & 0xFF for kind in MessageType} <= codes
