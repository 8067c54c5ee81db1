"""NAS: what can be read is read, what cannot is None, what is broken is DecodeError."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from epc_monitor import nas, s1ap
from epc_monitor.nas import NasMessage, NasType
from mobiscud.core.errors import DecodeError

IMSI = bytes.fromhex("9999070000000010")
GUTI = bytes.fromhex("f699f907000201c0000123")
ATTACH = bytes.fromhex("074171") + bytes((len(IMSI),)) + IMSI + bytes.fromhex("02f0f00004020111d1")
ATTACH_GUTI = bytes.fromhex("0741710b") + GUTI + bytes.fromhex("02f0f0000402010000")
ACTIVATE = bytes.fromhex("5201c1 0109 09 08696e7465726e6574 05 010a2d0002".replace(" ", ""))
ACCEPT = (
    bytes.fromhex("07420249 06 0099f9070001".replace(" ", ""))
    + len(ACTIVATE).to_bytes(2, "big")
    + ACTIVATE
    + bytes.fromhex("500b")
    + GUTI
    + bytes.fromhex("1399f907000153124a03000004 5949".replace(" ", ""))
)
TAU_ACCEPT = bytes.fromhex("0749005a49500b") + GUTI + bytes.fromhex("57022000e2")

READABLE: dict[str, tuple[bytes, bool, NasMessage]] = {
    "attach by imsi": (ATTACH, True, NasMessage(NasType.ATTACH_REQUEST, imsi="999700000000001")),
    "attach by guti": (ATTACH_GUTI, True, NasMessage(NasType.ATTACH_REQUEST, guti=GUTI[1:])),
    "identity response": (
        bytes.fromhex("075608") + bytes.fromhex("2199999907000010"),
        True,
        NasMessage(NasType.IDENTITY_RESPONSE, imsi="29999997000000"),
    ),
    "identity response with imei": (
        bytes.fromhex("075608") + bytes.fromhex("3a99999907000010"),
        True,
        NasMessage(NasType.IDENTITY_RESPONSE),
    ),
    "attach accept": (
        ACCEPT,
        False,
        NasMessage(NasType.ATTACH_ACCEPT, guti=GUTI[1:], addresses=(bytes((10, 45, 0, 2)),)),
    ),
    "tau accept": (TAU_ACCEPT, False, NasMessage(NasType.TAU_ACCEPT, guti=GUTI[1:])),
    "guti reallocation": (
        bytes.fromhex("07500b") + GUTI,
        False,
        NasMessage(NasType.GUTI_REALLOCATION_COMMAND, guti=GUTI[1:]),
    ),
    "detach of the ue": (bytes.fromhex("0745090b") + GUTI, True, NasMessage(NasType.DETACH_REQUEST, guti=GUTI[1:])),
    "detach of the network": (bytes.fromhex("074501"), False, NasMessage(NasType.DETACH_REQUEST)),
    "security mode": (bytes.fromhex("075d220002f0f0"), False, NasMessage(NasType.SECURITY_MODE_COMMAND, ciphering=2)),
    "extended service": (
        bytes.fromhex("074c0005f4c0000123"),
        True,
        NasMessage(NasType.EXTENDED_SERVICE_REQUEST, m_tmsi=bytes.fromhex("c0000123")),
    ),
}


def protected(header: int, plain: bytes) -> bytes:
    return bytes((header << 4 | 7, 1, 2, 3, 4, 5)) + plain


@pytest.mark.parametrize("name", READABLE)
def test_plain_and_protected_messages_read_the_same(name: str) -> None:
    pdu, uplink, message = READABLE[name]
    assert nas.decode(pdu, uplink=uplink) == message
    for header in (1, 3):
        assert nas.decode(protected(header, pdu), uplink=uplink, readable=False) == message
    for header in (2, 4):
        assert nas.decode(protected(header, pdu), uplink=uplink, readable=True) == message
        assert nas.decode(protected(header, pdu), uplink=uplink, readable=False) is None


@pytest.mark.parametrize("name", READABLE)
def test_cut_short_anywhere(name: str) -> None:
    pdu, uplink, _ = READABLE[name]
    for whole in (pdu, protected(1, pdu), protected(2, pdu)):
        for size in range(len(whole)):
            for readable in (None, True, False):
                try:
                    nas.decode(whole[:size], uplink=uplink, readable=readable)
                except DecodeError:
                    continue


def test_service_request_and_esm_and_unknown_types() -> None:
    assert nas.decode(bytes.fromhex("c7050102"), uplink=True) == NasMessage(NasType.SERVICE_REQUEST)
    assert nas.decode(bytes.fromhex("0201d0"), uplink=True) is None
    assert nas.decode(bytes.fromhex("0761"), uplink=False) is None


def test_a_broken_message_in_clear_is_an_error() -> None:
    for pdu in ("", "07", "074171ff", "0756080f", "07500b", "07420249ff", "075608210a999907000010"):
        with pytest.raises(DecodeError):
            nas.decode(bytes.fromhex(pdu), uplink=pdu[2:4] != "42")


def test_ciphered_octets_are_not_taken_for_a_message() -> None:
    """Where the algorithm is not known, only what is sound to its end counts."""
    chance = random.Random(1)
    taken = 0
    for _ in range(20000):
        octets = bytes((7,)) + chance.randbytes(chance.randrange(10, 60))  # the worst case: the first octet fits
        message = nas.decode(protected(2, octets), uplink=False)
        taken += message is not None and (message.guti is not None or message.type == NasType.TAU_ACCEPT)
    assert taken == 0


@pytest.mark.parametrize("name", ["attach accept", "tau accept", "guti reallocation"])
def test_a_sound_message_counts_where_the_algorithm_is_not_known(name: str) -> None:
    pdu, uplink, message = READABLE[name]
    assert nas.decode(protected(2, pdu), uplink=uplink) == message


def test_captured_messages(captured_pdus: list[bytes]) -> None:
    found: dict[NasType, int] = {}
    for pdu in captured_pdus:
        message = s1ap.decode(pdu)
        for octets in _nas_of(message):
            read = nas.decode(octets, uplink=message.type in (12, 13), readable=True)
            if read is not None:
                found[read.type] = found.get(read.type, 0) + 1
    assert {
        NasType.ATTACH_REQUEST,
        NasType.ATTACH_ACCEPT,
        NasType.TAU_ACCEPT,
        NasType.SERVICE_REQUEST,
        NasType.DETACH_REQUEST,
        NasType.IDENTITY_RESPONSE,
        NasType.SECURITY_MODE_COMMAND,
    } <= found.keys()


def _nas_of(message: s1ap.S1apMessage) -> Iterator[bytes]:
    if message.nas is not None:
        yield message.nas
    yield from (item.nas for item in message.e_rabs_to_setup if item.nas is not None)
