"""NAS between the emulated UE and the emulated MME."""

from __future__ import annotations

import pytest

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import Imsi, Plmn, Tac, Tai
from testbed import nas_build as nas

PLMN = Plmn("999", "70")
GUTI = nas.Guti(PLMN, 2, 1, 0xC000_01B6)


@pytest.mark.parametrize("digits", ["999700000000001", "99970000000002", "001010"])
def test_imsi_of_an_attach(digits: str) -> None:
    read = nas.read(nas.attach_request(Imsi(digits)))
    assert read.type is nas.EmmType.ATTACH_REQUEST
    assert str(nas.imsi_of(read)) == digits


def test_real_attach_is_read() -> None:
    # From a capture of Open5GS 2.7.7.
    octets = "17000000000007417208999907374600000607f0f0c04001001000050201d031d15c20003103e5e0349011035f58a65d0105"
    assert nas.imsi_of(nas.read(bytes.fromhex(octets))) == "999707364000060"


def test_attach_by_guti_is_refused() -> None:
    octets = bytearray(nas.attach_request(Imsi("999700000000001")))
    octets[4] = 0xF6
    with pytest.raises(DecodeError):
        nas.imsi_of(nas.read(bytes(octets)))


def test_accept_carries_guti_and_address() -> None:
    octets = nas.attach_accept(GUTI, Tai(PLMN, Tac(1)), "internet", "45.45.0.2", 1)
    accept = nas.read(octets)
    assert nas.guti_of(accept) == GUTI
    assert nas.ue_address_of(accept) == "45.45.0.2"


def test_security_headers() -> None:
    headers = {
        nas.security_mode_command()[0] >> 4: nas.SecurityHeader.INTEGRITY_NEW,
        nas.security_mode_complete()[0] >> 4: nas.SecurityHeader.INTEGRITY_AND_CIPHER_NEW,
        nas.attach_complete(1)[0] >> 4: nas.SecurityHeader.INTEGRITY_AND_CIPHER,
        nas.detach_request(GUTI, 2, switch_off=True)[0] >> 4: nas.SecurityHeader.INTEGRITY,
    }
    assert all(seen == meant for seen, meant in headers.items())
    assert len(headers) == 4


def test_count_is_sent() -> None:
    assert nas.attach_complete(0x105)[5] == 5
    assert nas.service_request(37) == bytes.fromhex("c7050000")


def test_service_request_has_no_type() -> None:
    assert nas.read(nas.service_request(3)).type is nas.EmmType.SERVICE_REQUEST


@pytest.mark.parametrize("switch_off", [True, False])
def test_switch_off_is_told(switch_off: bool) -> None:
    octets = nas.detach_request(GUTI, 3, switch_off=switch_off)
    assert nas.is_switch_off(nas.read(octets)) is switch_off


def test_authentication_round() -> None:
    challenge = bytes(range(16))
    asked = nas.challenge_of(nas.read(nas.authentication_request(challenge, bytes(16))))
    assert asked == challenge
    answered = nas.res_of(nas.read(nas.authentication_response(nas.response_to(asked))))
    assert answered == nas.response_to(challenge)


@pytest.mark.parametrize("octets", ["", "07", "07ff", "0742", "27000000"])
def test_rubbish_is_refused(octets: str) -> None:
    with pytest.raises(DecodeError):
        nas.read(bytes.fromhex(octets))


def test_digits_and_names() -> None:
    assert nas.tbcd("12345") == bytes.fromhex("2143f5")
    assert nas.apn_octets("internet.mnc070") == b"\x08internet\x06mnc070"
