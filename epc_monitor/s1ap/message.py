"""S1AP PDUs: the elements that are read, and the walk through everything else (TS 36.413 9.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from epc_monitor.aper import bits, defragment, length_determinant, octet_string, open_type, ranged_integer, skip_tail
from epc_monitor.s1ap.erabs import (
    LISTS,
    ERabAdmitted,
    ERabCause,
    ERabEnd,
    ERabForwarding,
    ERabModify,
    ERabSetup,
    cause,
    e_rab_list,
)
from epc_monitor.s1ap.types import ConnectionIds, GlobalEnbId, ServedGummeis, TargetEnb
from mobiscud.core.errors import DecodeError
from mobiscud.core.ue import Cause


class S1apMessage:
    """What was read of one PDU; a field is None, or empty, where the PDU has no such element.

    Octets stay raw: ``tai`` is PLMN and TAC (5), ``ecgi`` PLMN and 28 bits of cell identity (7), ``s_tmsi`` MME code
    and M-TMSI (5), ``gummei`` PLMN, group and code (6).
    """

    type: int = 0
    mme_ue_s1ap_id: int | None = None
    enb_ue_s1ap_id: int | None = None
    source_mme_ue_s1ap_id: int | None = None
    mme_ue_s1ap_id_2: int | None = None
    cause: Cause | None = None
    handover_type: int | None = None
    nas: bytes | None = None
    tai: bytes | None = None
    ecgi: bytes | None = None
    s_tmsi: bytes | None = None
    gummei: bytes | None = None
    target: TargetEnb | None = None
    global_enb_id: GlobalEnbId | None = None
    supported_tais: tuple[bytes, ...] = ()
    mme_name: str | None = None
    served_gummeis: tuple[ServedGummeis, ...] = ()
    reset_all: bool = False
    connections: tuple[ConnectionIds, ...] = ()
    e_rabs_to_setup: tuple[ERabSetup, ...] = ()
    e_rabs_set_up: tuple[ERabEnd, ...] = ()
    e_rabs_switched_downlink: tuple[ERabEnd, ...] = ()
    e_rabs_switched_uplink: tuple[ERabEnd, ...] = ()
    e_rabs_admitted: tuple[ERabAdmitted, ...] = ()
    e_rabs_forwarded: tuple[ERabForwarding, ...] = ()
    e_rabs_to_modify: tuple[ERabModify, ...] = ()
    e_rabs_modified: tuple[int, ...] = ()
    e_rabs_moved: tuple[ERabEnd, ...] = ()
    e_rabs_released: tuple[int, ...] = ()
    e_rabs_to_release: tuple[ERabCause, ...] = ()
    e_rabs_failed: tuple[ERabCause, ...] = ()


def decode(pdu: bytes) -> S1apMessage:
    """Read one S1AP PDU; octets after it are ignored, as every S1AP node does.

    :raises DecodeError: it is no S1AP PDU, is cut short, or an element is not what it claims to be
    """
    try:
        return _decode(pdu)
    except IndexError:
        raise DecodeError("S1AP PDU cut short", len(pdu)) from None


def _decode(data: bytes) -> S1apMessage:
    head = data[0]
    if head & 0x80 or head >> 5 > 2:
        raise DecodeError("neither initiating message nor outcome")
    message = S1apMessage()
    message.type = head >> 5 << 8 | data[1]
    data, offset, end, _ = open_type(data, 3)
    if end > len(data):
        raise DecodeError("S1AP PDU cut short", len(data))
    count = data[offset + 1] << 8 | data[offset + 2]
    offset += 3
    readers, lists = _READERS, LISTS
    for _ in range(count):
        element = data[offset] << 8 | data[offset + 1]
        length = data[offset + 3]
        if length < 128:
            start = offset + 4
            following = start + length
        elif length < 192:
            start = offset + 5
            following = start + ((length & 63) << 8 | data[offset + 4])
        else:
            whole, offset = defragment(data, offset + 3)
            if offset > end:
                raise DecodeError("element longer than its message", offset)
            _read_element(message, element, whole, 0, len(whole))
            continue
        if following > end:
            raise DecodeError("element longer than its message", offset)
        read = readers[element] if element < 256 else None
        if read is not None:
            if read(message, data, start) > following:
                raise DecodeError(f"element {element} longer than it says", start)
        elif element in lists:
            _read_element(message, element, data, start, following)
        offset = following
    return message


def _read_element(message: S1apMessage, element: int, data: bytes, start: int, end: int) -> None:
    """Read an element between ``start`` and ``end``, if it is one of those we read."""
    read = _READERS[element] if element < 256 else None
    if read is not None:
        after = read(message, data, start)
    elif element in LISTS:
        field, item_id, read_item = LISTS[element]
        items, after = e_rab_list(data, start, item_id, read_item)
        setattr(message, field, items)
    else:
        return
    if after > end:
        raise DecodeError(f"element {element} longer than it says", start)


# --- one element each: store it, and give the octet after what was read -----------------------------------------------


def _mme_ue_s1ap_id(message: S1apMessage, data: bytes, offset: int) -> int:
    """INTEGER (0..4294967295)."""
    end = offset + 2 + (data[offset] >> 6)
    message.mme_ue_s1ap_id = int.from_bytes(data[offset + 1 : end], "big")
    return end


def _enb_ue_s1ap_id(message: S1apMessage, data: bytes, offset: int) -> int:
    """INTEGER (0..16777215)."""
    length = (data[offset] >> 6) + 1
    if length > 3:
        raise DecodeError("eNB UE S1AP ID of four octets", offset)
    end = offset + 1 + length
    message.enb_ue_s1ap_id = int.from_bytes(data[offset + 1 : end], "big")
    return end


def _source_mme_ue_s1ap_id(message: S1apMessage, data: bytes, offset: int) -> int:
    end = offset + 2 + (data[offset] >> 6)
    message.source_mme_ue_s1ap_id = int.from_bytes(data[offset + 1 : end], "big")
    return end


def _mme_ue_s1ap_id_2(message: S1apMessage, data: bytes, offset: int) -> int:
    end = offset + 2 + (data[offset] >> 6)
    message.mme_ue_s1ap_id_2 = int.from_bytes(data[offset + 1 : end], "big")
    return end


def _ue_s1ap_ids(message: S1apMessage, data: bytes, offset: int) -> int:
    """UE S1AP IDs (9.2.3.18): both, or the MME's alone."""
    head = data[offset]
    if head & 0x80:
        raise DecodeError("UE S1AP IDs of an unknown form", offset)
    bit = offset << 3
    if head & 0x40:
        message.mme_ue_s1ap_id, bit = ranged_integer(data, bit + 2, 2)
        return bit >> 3
    message.mme_ue_s1ap_id, bit = ranged_integer(data, bit + 4, 2)
    return _enb_ue_s1ap_id(message, data, bit >> 3)


def _cause(message: S1apMessage, data: bytes, offset: int) -> int:
    message.cause, bit = cause(data, offset << 3)
    return bit + 7 >> 3


def _handover_type(message: S1apMessage, data: bytes, offset: int) -> int:
    """ENUMERATED, 5 values and an extension."""
    head = data[offset]
    if head & 0xC0 == 0xC0 or (head & 0xF0 > 0x40 and not head & 0x80):
        raise DecodeError("handover type that does not exist", offset)
    message.handover_type = 5 + (head & 0x3F) if head & 0x80 else head >> 4
    return offset + 1


def _nas(message: S1apMessage, data: bytes, offset: int) -> int:
    message.nas, bit = octet_string(data, offset << 3)
    return bit >> 3


def _tai(message: S1apMessage, data: bytes, offset: int) -> int:
    message.tai = data[offset + 1 : offset + 6]
    return offset + 6


def _ecgi(message: S1apMessage, data: bytes, offset: int) -> int:
    message.ecgi = data[offset + 1 : offset + 8]
    return offset + 8


def _s_tmsi(message: S1apMessage, data: bytes, offset: int) -> int:
    code = (data[offset] & 0x3F) << 2 | data[offset + 1] >> 6
    message.s_tmsi = bytes((code,)) + data[offset + 2 : offset + 6]
    return offset + 6


def _gummei(message: S1apMessage, data: bytes, offset: int) -> int:
    message.gummei = data[offset + 1 : offset + 7]
    return offset + 7


def _global_enb_id_at(data: bytes, bit: int) -> tuple[GlobalEnbId, int]:
    """Global eNB ID, and the bit after it."""
    preamble = bits(data, bit, 2)
    offset = bit + 9 >> 3
    plmn = data[offset : offset + 3]
    choice = data[offset + 3]
    offset += 4
    if choice & 0x80:
        if choice & 0x7F > 1:
            raise DecodeError("eNB ID of an unknown form", offset)
        width = 21 if choice & 1 else 18
        length, offset = length_determinant(data, offset)
        value = int.from_bytes(data[offset : offset + 3], "big") >> 24 - width
        if length < 3:
            raise DecodeError("eNB ID cut short", offset)
        bit = offset + length << 3
    else:
        width = 28 if choice & 0x40 else 20
        octets = data[offset : offset + 4]
        if len(octets) < (width + 7 >> 3):
            raise IndexError
        value = int.from_bytes(octets, "big") >> 8 * len(octets) - width
        bit = (offset << 3) + width
    return GlobalEnbId(plmn, width, value), skip_tail(data, bit, preamble & 2, preamble & 1)


def _global_enb_id(message: S1apMessage, data: bytes, offset: int) -> int:
    message.global_enb_id, bit = _global_enb_id_at(data, offset << 3)
    return bit + 7 >> 3


def _target_id(message: S1apMessage, data: bytes, offset: int) -> int:
    """Target ID (9.2.1.6); a target that is no eNodeB is left unread."""
    if data[offset] & 0xE0:
        return offset + 1
    enb, bit = _global_enb_id_at(data, (offset << 3) + 5)
    offset = bit + 9 >> 3
    message.target = TargetEnb(enb, data[offset : offset + 5])
    return offset + 5


def _supported_tas(message: S1apMessage, data: bytes, offset: int) -> int:
    """Supported TAs (9.1.8.4): each TAC with its broadcast PLMNs."""
    tais = []
    count = data[offset] + 1
    bit = offset + 1 << 3
    for _ in range(count):
        preamble = bits(data, bit, 2)
        tac = bits(data, bit + 2, 16).to_bytes(2, "big")
        plmns = bits(data, bit + 18, 3) + 1
        offset = bit + 28 >> 3
        for _ in range(plmns):
            tais.append(data[offset : offset + 3] + tac)
            offset += 3
        bit = skip_tail(data, offset << 3, preamble & 2, preamble & 1)
    message.supported_tais = tuple(tais)
    return bit + 7 >> 3


def _mme_name(message: S1apMessage, data: bytes, offset: int) -> int:
    """PrintableString (SIZE (1..150, ...))."""
    if data[offset] & 0x80:
        length, offset = length_determinant(data, offset + 1)
    else:
        length, offset = bits(data, (offset << 3) + 1, 8) + 1, offset + 2
    message.mme_name = data[offset : offset + length].decode("ascii", "replace")
    return offset + length


def _served_gummeis(message: S1apMessage, data: bytes, offset: int) -> int:
    entries = []
    bit = offset << 3
    count = bits(data, bit, 3) + 1
    bit += 3
    for _ in range(count):
        preamble = bits(data, bit, 2)
        size = bits(data, bit + 2, 5) + 1
        offset = bit + 14 >> 3
        plmns = tuple(data[offset + 3 * i : offset + 3 * i + 3] for i in range(size))
        offset += 3 * size
        size = (data[offset] << 8 | data[offset + 1]) + 1
        offset += 2
        if offset + 2 * size > len(data):
            raise IndexError
        groups = tuple(int.from_bytes(data[offset + 2 * i : offset + 2 * i + 2], "big") for i in range(size))
        offset += 2 * size
        size = data[offset] + 1
        codes = tuple(data[offset + 1 : offset + 1 + size])
        offset += 1 + size
        entries.append(ServedGummeis(plmns, groups, codes))
        bit = skip_tail(data, offset << 3, preamble & 2, preamble & 1)
    message.served_gummeis = tuple(entries)
    return bit + 7 >> 3


def _reset_type(message: S1apMessage, data: bytes, offset: int) -> int:
    head = data[offset]
    if head & 0x80:
        raise DecodeError("reset of an unknown form", offset)
    if head & 0x40:
        return _connections(message, data, offset + 1)
    message.reset_all = True
    return offset + 1


def _connections(message: S1apMessage, data: bytes, offset: int) -> int:
    """UE-associated logical S1-connections of Reset and its acknowledgement."""
    found = []
    count = data[offset] + 1
    offset += 1
    for _ in range(count):
        holder, start, end, offset = open_type(data, offset + 3)
        bit = start << 3
        present = bits(holder, bit, 4)
        mme_id, enb_id = None, None
        bit += 4
        if present & 4:
            mme_id, bit = ranged_integer(holder, bit, 2)
        if present & 2:
            enb_id, bit = ranged_integer(holder, bit, 2)
        if bit + 7 >> 3 > end:
            raise DecodeError("a connection that is longer than it says", start)
        found.append(ConnectionIds(mme_id, enb_id))
    message.connections = tuple(found)
    return offset


Reader = Callable[[S1apMessage, bytes, int], int]

_BY_ID: Final[dict[int, Reader]] = {
    0: _mme_ue_s1ap_id,
    1: _handover_type,
    2: _cause,
    4: _target_id,
    8: _enb_ue_s1ap_id,
    26: _nas,
    59: _global_enb_id,
    61: _mme_name,
    64: _supported_tas,
    67: _tai,
    75: _gummei,
    88: _source_mme_ue_s1ap_id,
    92: _reset_type,
    93: _connections,
    96: _s_tmsi,
    99: _ue_s1ap_ids,
    100: _ecgi,
    105: _served_gummeis,
    158: _mme_ue_s1ap_id_2,
}
_READERS: Final[list[Any]] = [_BY_ID.get(element) for element in range(256)]
