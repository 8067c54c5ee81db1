"""Lists of E-RABs in S1AP messages (TS 36.413 9.1): what is set up, admitted, switched, modified, released.

A list is an octet of count - 1 and then, for each E-RAB, its own IE id, criticality and open type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from epc_monitor.aper import (
    bits,
    extended_integer,
    length_determinant,
    octet_string,
    open_type,
    skip_tail,
)
from epc_monitor.s1ap.types import CAUSE_ROOTS, Tunnel, cause_of
from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import ERabId
from mobiscud.core.ue import Cause


class ERabSetup(NamedTuple):
    """An E-RAB to be set up, ``tunnel`` being the S-GW's end."""

    e_rab_id: int
    qci: int
    tunnel: Tunnel
    nas: bytes | None


class ERabEnd(NamedTuple):
    """One end of an E-RAB: of the eNodeB, except in Path Switch Request Acknowledge, where it is the S-GW's."""

    e_rab_id: int
    tunnel: Tunnel


class ERabAdmitted(NamedTuple):
    """An E-RAB that the target eNodeB admits: its end, and where it takes forwarded data."""

    e_rab_id: int
    tunnel: Tunnel
    downlink: Tunnel | None
    uplink: Tunnel | None


class ERabForwarding(NamedTuple):
    """Where the source eNodeB is to forward the data of an E-RAB."""

    e_rab_id: int
    downlink: Tunnel | None
    uplink: Tunnel | None


class ERabModify(NamedTuple):
    """An E-RAB whose quality of service is to change."""

    e_rab_id: int
    qci: int
    nas: bytes


class ERabCause(NamedTuple):
    """An E-RAB that failed, or is released, and why."""

    e_rab_id: int
    cause: Cause | None


def _e_rab_id(data: bytes, bit: int) -> tuple[int, int]:
    """INTEGER (0..15, ...)."""
    value = bits(data, bit, 5)
    if value < 16:
        return value, bit + 5
    value, bit = extended_integer(data, bit + 1)
    if not 0 <= value <= ERabId.high:
        raise DecodeError("E-RAB ID that no E-RAB can have", bit >> 3)
    return value, bit


def transport_layer_address(data: bytes, bit: int) -> tuple[bytes, int]:
    """BIT STRING (SIZE (1..160, ...)); unused bits of the last octet are cleared."""
    offset = bit >> 3
    head = (data[offset] << 8 | data[offset + 1]) << (bit & 7)
    if head & 0x8000:
        size, offset = length_determinant(data, bit + 8 >> 3)
    else:
        size = (head >> 7 & 255) + 1
        offset = bit + 16 >> 3
    address = data[offset : offset + (size + 7 >> 3)]
    if size & 7 and address:
        address = address[:-1] + bytes((address[-1] & 0xFF00 >> (size & 7) & 0xFF,))
    return address, (offset << 3) + size


def _teid(data: bytes, bit: int) -> tuple[int, int]:
    offset = bit + 7 >> 3
    return int.from_bytes(data[offset : offset + 4], "big"), offset + 4 << 3


def _tunnel(data: bytes, bit: int) -> tuple[Tunnel, int]:
    address, bit = transport_layer_address(data, bit)
    offset = bit + 7 >> 3
    return Tunnel(address, int.from_bytes(data[offset : offset + 4], "big")), offset + 4 << 3


def _optional_tunnel(data: bytes, bit: int, present: int) -> tuple[Tunnel | None, int]:
    """Address and TEID, each of them optional; without both there is no end point."""
    address, teid = None, None
    if present & 2:
        address, bit = transport_layer_address(data, bit)
    if present & 1:
        teid, bit = _teid(data, bit)
    return (None if address is None or teid is None else Tunnel(address, teid)), bit


def _bit_rate(data: bytes, bit: int) -> int:
    """Step over a bit rate, INTEGER (0..10000000000)."""
    return (bit + 10 >> 3) + bits(data, bit, 3) + 1 << 3


def _qci(data: bytes, bit: int) -> tuple[int, int]:
    """E-RAB Level QoS Parameters (9.2.1.15): the QCI, and what follows all of them."""
    preamble = bits(data, bit, 3)
    offset = bit + 10 >> 3
    qci = data[offset]
    priority = data[offset + 1]
    bit = offset + 2 << 3
    if priority & 0xC0:
        bit = skip_tail(data, bit, priority & 0x80, priority & 0x40)
    if preamble & 2:
        rates = bits(data, bit, 2)
        bit += 2
        for _ in range(4):
            bit = _bit_rate(data, bit)
        bit = skip_tail(data, bit, rates & 2, rates & 1)
    return qci, skip_tail(data, bit, preamble & 4, preamble & 1)


def cause(data: bytes, bit: int) -> tuple[Cause | None, int]:
    """Cause (9.2.1.3); None for a group that is newer than this decoder, which then ends nothing we read on."""
    head = bits(data, bit, 5)
    if head & 16:
        return None, bit + 5
    group = head >> 1
    if group >= len(CAUSE_ROOTS):
        raise DecodeError("cause group that does not exist", bit >> 3)
    root = CAUSE_ROOTS[group]
    if head & 1:
        if bits(data, bit + 5, 1):
            raise DecodeError("cause value beyond all versions", bit >> 3)
        return cause_of(group, root + bits(data, bit + 6, 6)), bit + 12
    width = (root - 1).bit_length()
    value = bits(data, bit + 5, width)
    if value >= root:
        raise DecodeError("cause value that does not exist", bit >> 3)
    return cause_of(group, value), bit + 5 + width


# --- one item each: data and its first bit in, the item and the bit after what was read out ---------------------------


def _setup_with_optional_nas(data: bytes, bit: int) -> tuple[ERabSetup, int]:
    """E-RAB to Be Setup Item of Initial Context Setup Request."""
    has_nas = bits(data, bit, 2) & 1
    e_rab_id, bit = _e_rab_id(data, bit + 3)
    qci, bit = _qci(data, bit)
    tunnel, bit = _tunnel(data, bit)
    if not has_nas:
        return ERabSetup(e_rab_id, qci, tunnel, None), bit
    nas, bit = octet_string(data, bit)
    return ERabSetup(e_rab_id, qci, tunnel, nas), bit


def _setup_with_nas(data: bytes, bit: int) -> tuple[ERabSetup, int]:
    """E-RAB to Be Setup Item of E-RAB Setup Request."""
    e_rab_id, bit = _e_rab_id(data, bit + 2)
    qci, bit = _qci(data, bit)
    tunnel, bit = _tunnel(data, bit)
    nas, bit = octet_string(data, bit)
    return ERabSetup(e_rab_id, qci, tunnel, nas), bit


def _setup_at_target(data: bytes, bit: int) -> tuple[ERabSetup, int]:
    """E-RABs To Be Setup Item of Handover Request."""
    e_rab_id, bit = _e_rab_id(data, bit + 2)
    tunnel, bit = _tunnel(data, bit)
    qci, bit = _qci(data, bit)
    return ERabSetup(e_rab_id, qci, tunnel, None), bit


def _end(data: bytes, bit: int) -> tuple[ERabEnd, int]:
    offset = bit >> 3
    if not data[offset] & 0x21 and data[offset + 1] == 31 and not bit & 7:  # no extension anywhere, IPv4
        tunnel = Tunnel(data[offset + 2 : offset + 6], int.from_bytes(data[offset + 6 : offset + 10], "big"))
        return ERabEnd(data[offset] >> 1 & 15, tunnel), offset + 10 << 3
    e_rab_id, bit = _e_rab_id(data, bit + 2)
    tunnel, bit = _tunnel(data, bit)
    return ERabEnd(e_rab_id, tunnel), bit


def _admitted(data: bytes, bit: int) -> tuple[ERabAdmitted, int]:
    present = bits(data, bit, 6) >> 1
    e_rab_id, bit = _e_rab_id(data, bit + 6)
    tunnel, bit = _tunnel(data, bit)
    downlink, bit = _optional_tunnel(data, bit, present >> 2 & 3)
    uplink, bit = _optional_tunnel(data, bit, present & 3)
    return ERabAdmitted(e_rab_id, tunnel, downlink, uplink), bit


def _forwarding(data: bytes, bit: int) -> tuple[ERabForwarding, int]:
    present = bits(data, bit, 6) >> 1
    e_rab_id, bit = _e_rab_id(data, bit + 6)
    downlink, bit = _optional_tunnel(data, bit, present >> 2 & 3)
    uplink, bit = _optional_tunnel(data, bit, present & 3)
    return ERabForwarding(e_rab_id, downlink, uplink), bit


def _modify(data: bytes, bit: int) -> tuple[ERabModify, int]:
    e_rab_id, bit = _e_rab_id(data, bit + 2)
    qci, bit = _qci(data, bit)
    nas, bit = octet_string(data, bit)
    return ERabModify(e_rab_id, qci, nas), bit


def _id_alone(data: bytes, bit: int) -> tuple[int, int]:
    return _e_rab_id(data, bit + 2)


def _with_cause(data: bytes, bit: int) -> tuple[ERabCause, int]:
    e_rab_id, bit = _e_rab_id(data, bit + 2)
    why, bit = cause(data, bit)
    return ERabCause(e_rab_id, why), bit


ItemReader = Callable[[bytes, int], tuple[Any, int]]

LISTS: Final[dict[int, tuple[str, int, ItemReader]]] = {
    24: ("e_rabs_to_setup", 52, _setup_with_optional_nas),
    16: ("e_rabs_to_setup", 17, _setup_with_nas),
    53: ("e_rabs_to_setup", 27, _setup_at_target),
    51: ("e_rabs_set_up", 50, _end),
    28: ("e_rabs_set_up", 39, _end),
    22: ("e_rabs_switched_downlink", 23, _end),
    95: ("e_rabs_switched_uplink", 94, _end),
    18: ("e_rabs_admitted", 20, _admitted),
    12: ("e_rabs_forwarded", 14, _forwarding),
    30: ("e_rabs_to_modify", 36, _modify),
    31: ("e_rabs_modified", 37, _id_alone),
    199: ("e_rabs_moved", 200, _end),
    203: ("e_rabs_modified", 204, _id_alone),
    69: ("e_rabs_released", 15, _id_alone),
    33: ("e_rabs_to_release", 35, _with_cause),
    110: ("e_rabs_to_release", 35, _with_cause),
    29: ("e_rabs_failed", 35, _with_cause),
    48: ("e_rabs_failed", 35, _with_cause),
    19: ("e_rabs_failed", 21, _with_cause),
    32: ("e_rabs_failed", 35, _with_cause),
    34: ("e_rabs_failed", 35, _with_cause),
    205: ("e_rabs_failed", 35, _with_cause),
}
"""By IE id: the field of the message, the IE id of its items, and what reads an item."""


def e_rab_list(data: bytes, offset: int, item_id: int, read: ItemReader) -> tuple[tuple[Any, ...], int]:
    """Read a list of E-RABs; each item is held inside its open type."""
    items = []
    count = data[offset] + 1
    offset += 1
    for _ in range(count):
        holder, start, end, following = open_type(data, offset + 3)
        if data[offset] << 8 | data[offset + 1] == item_id:
            item, bit = read(holder, start << 3)
            if bit + 7 >> 3 > end:
                raise DecodeError("an E-RAB that is longer than it says", offset)
            items.append(item)
        offset = following
    return tuple(items), offset
