"""S1AP by name: what Open5GS's emulated eNodeBs and MME sent must come out again octet by octet."""

from __future__ import annotations

import pytest

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import CellId, Ecgi, FTeid, Plmn, Tac, Tai, Teid
from testbed import s1ap_build as s1ap
from testbed.rrc_samples import source_to_target, target_to_source

PLMN = Plmn("999", "70")

# From captures of Open5GS 2.7.7 with its own eNodeB test library.
SEEN = {
    "S1SetupRequest": "0011001f000003003b00080099f9070054f640004000070000004099f9070089400120",
    "S1SetupResponse": "201100170000020069000b000099f90700000002000100574001ff",
    "InitialContextSetupResponse": (
        "200900320000030000400200010008400200010033401f000032401a0a9f7f000015fd69f21d873c00fa000000000000000200000001"
    ),
    "UEContextReleaseCommand": "0017001000000200630004000100010002400120",
    "HandoverFailure": "4001000f000002000040020002000240020000",
    "ENBStatusTransfer": (
        "00184033000003000000020001000800020001005a002000010059400b0500004b000000001100000059400b0600004b00000000110000"
    ),
    "HandoverNotify": "00024025000004000000020002000800020002006440080099f9070abcdef0004340060099f9070001",
    "HandoverCancel": "00040015000003000000020003000800020003000240020120",
}


@pytest.mark.parametrize("name", SEEN)
def test_real_message_comes_out_again(name: str) -> None:
    octets = bytes.fromhex(SEEN[name])
    message = s1ap.decode(octets)
    assert message.name == name
    assert s1ap.encode(name, **message.ies) == octets


def test_items_of_a_list_lose_their_wrapping() -> None:
    ies = s1ap.decode(bytes.fromhex(SEEN["InitialContextSetupResponse"])).ies
    (item,) = ies["E_RABSetupListCtxtSURes"]
    assert item["e-RAB-ID"] == 5
    assert item["gTP-TEID"] == bytes.fromhex("00000001")


def test_fields_read_as_identifiers() -> None:
    ies = s1ap.decode(bytes.fromhex(SEEN["HandoverNotify"])).ies
    assert s1ap.ecgi_of(ies["EUTRAN_CGI"]) == Ecgi(PLMN, CellId(0xABCDEF))
    assert s1ap.tai_of(ies["TAI"]) == Tai(PLMN, Tac(1))


def test_tunnel_survives() -> None:
    end = FTeid("10.0.0.11", Teid(0x0102_0304))
    assert s1ap.tunnel_of(s1ap.tunnel_value(end)) == end


@pytest.mark.parametrize(("plmn", "octets"), [(PLMN, "99f907"), (Plmn("001", "010"), "000110")])
def test_plmn_octets(plmn: Plmn, octets: str) -> None:
    assert s1ap.plmn_octets(plmn).hex() == octets
    if plmn.mnc == "70":
        assert Plmn.from_bytes(bytes.fromhex(octets)) == plmn


def test_unknown_ie_is_refused() -> None:
    with pytest.raises(KeyError, match="Cuase"):
        s1ap.encode("HandoverCancel", MME_UE_S1AP_ID=1, Cuase=("misc", "unspecified"))


@pytest.mark.parametrize("octets", [b"", b"\xff", bytes.fromhex(SEEN["HandoverNotify"])[:-3]])
def test_rubbish_is_refused(octets: bytes) -> None:
    with pytest.raises(DecodeError):
        s1ap.decode(octets)


def test_containers_carry_the_radio_messages() -> None:
    source, target = Ecgi(PLMN, CellId(1)), Ecgi(PLMN, CellId(2))
    assert bytes.fromhex("0f1014c5") in source_to_target(source, target, 5)
    assert bytes.fromhex("0bf900d8") in target_to_source()
