"""The S1AP decoder's bounds: cut short anywhere, octets behind, lengths and choices that lie."""

from __future__ import annotations

import pytest

from epc_monitor import s1ap
from epc_monitor.s1ap import MessageType
from mobiscud.core.errors import DecodeError
from testbed import s1ap_corpus
from testbed.s1ap_build import encode
from testbed.scripted_epc import end


def element(number: int, value: str) -> bytes:
    content = bytes.fromhex(value)
    return number.to_bytes(2, "big") + b"\x40" + bytes((len(content),)) + content


def pdu(*elements: bytes, head: str = "000d40") -> bytes:
    body = b"\0" + len(elements).to_bytes(2, "big") + b"".join(elements)
    return bytes.fromhex(head) + bytes((len(body),)) + body


def fields(message: s1ap.S1apMessage) -> dict[str, object]:
    return {name: getattr(message, name) for name in vars(s1ap.S1apMessage) if not name.startswith("_")}


def test_cut_short_anywhere_is_an_error_and_octets_behind_are_not(captured_pdus: list[bytes]) -> None:
    seen: set[int] = set()
    for whole in captured_pdus:
        message = s1ap.decode(whole)
        if message.type in seen:
            continue
        seen.add(message.type)
        for size in range(len(whole)):
            with pytest.raises(DecodeError):
                s1ap.decode(whole[:size])
        assert fields(s1ap.decode(whole + b"\0\xff\x80")) == fields(message)
    assert len(seen) >= 30


def test_generated_pdus_cut_short() -> None:
    for whole, _ in s1ap_corpus.generate(7, 2 * len(s1ap_corpus.NAMES), long=False):
        for size in range(0, len(whole), max(1, len(whole) // 60)):
            with pytest.raises(DecodeError):
                s1ap.decode(whole[:size])


@pytest.mark.parametrize(
    ("what", "octets"),
    [
        ("an extended PDU choice", "800d4003000000"),
        ("a fourth choice", "600d4003000000"),
        ("element beyond its message", "000d400a000001 0000 40 ff 0001"),
        ("message beyond the PDU", "000d407f000000"),
        ("element count that lies", "000d4003000005"),
        ("fragments of a length that does not exist", "000d40c5000000"),
        ("no fragments at all", "000d40c0000000"),
    ],
)
def test_framing_that_lies(what: str, octets: str) -> None:
    with pytest.raises(DecodeError):
        s1ap.decode(bytes.fromhex(octets))


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0, ""),
        (0, "c00102"),
        (8, "c001020304"),
        (1, "50"),
        (1, "ff"),
        (2, "5400"),
        (2, "37"),
        (2, "07e0"),
        (2, "46"),
        (4, "00"),
        (26, "05aabb"),
        (59, "0099f907"),
        (59, "0099f90740a42d"),
        (59, "0099f907ff"),
        (61, "ff"),
        (64, "ff"),
        (67, "0099f907"),
        (92, "80"),
        (92, "40ff"),
        (96, "0000"),
        (99, "80"),
        (99, "00"),
        (100, "0099f90700"),
        (105, "ff"),
        (24, "ff"),
        (24, "00003440020045"),
        (51, "00003240050a1f0a0000"),
        (22, "000017400145"),
    ],
)
def test_an_element_stays_inside_its_bounds(number: int, value: str) -> None:
    """What follows in the PDU belongs to others, and there is enough of it to be led astray."""
    behind = element(999, "00" * 60)
    with pytest.raises(DecodeError):
        s1ap.decode(pdu(element(number, value), behind))


def test_the_last_of_repeated_elements_counts() -> None:
    message = s1ap.decode(pdu(element(0, "0001"), element(0, "0002")))
    assert message.mme_ue_s1ap_id == 2


def test_items_of_another_kind_are_left_out() -> None:
    right, wrong = "0032400a0a1f0a00000b00000102", "0099400a0a1f0a00000b00000102"
    message = s1ap.decode(pdu(element(51, "01" + wrong + right), head="200900"))
    assert message.type == MessageType.INITIAL_CONTEXT_SETUP_RESPONSE
    assert [item.e_rab_id for item in message.e_rabs_set_up] == [5]


def test_an_error_tells_where() -> None:
    with pytest.raises(DecodeError) as caught:
        s1ap.decode(pdu(element(8, "c001020304")))
    assert caught.value.offset == 11
    assert "eNB UE S1AP ID" in caught.value.reason


def test_a_message_by_hand() -> None:
    message = s1ap.decode(pdu(element(0, "400102"), element(8, "80030365"), element(96, "0040c0000123"), head="000240"))
    assert message.type == MessageType.HANDOVER_NOTIFY
    assert (message.mme_ue_s1ap_id, message.enb_ue_s1ap_id) == (0x102, 0x30365)
    assert message.s_tmsi == bytes.fromhex("01c0000123")


@pytest.mark.parametrize(
    ("number", "exists"), [(15, True), (16, True), (65535, True), (65536, False), (1 << 50, False)]
)
def test_e_rab_ids_beyond_their_range(number: int, exists: bool) -> None:
    item = {"e-RAB-ID": number, **end("10.0.0.11", 0x66)}
    whole = encode("InitialContextSetupResponse", MME_UE_S1AP_ID=1, eNB_UE_S1AP_ID=1, E_RABSetupListCtxtSURes=[item])
    if exists:
        assert [found.e_rab_id for found in s1ap.decode(whole).e_rabs_set_up] == [number]
    else:
        with pytest.raises(DecodeError, match="E-RAB ID"):
            s1ap.decode(whole)
