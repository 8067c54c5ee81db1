"""GTPv2-C on S11."""

from __future__ import annotations

import pytest

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import CellId, Ecgi, FTeid, Imsi, Plmn, Tac, Tai, Teid
from testbed import gtpv2_build as gtp
from testbed.gtpv2_build import Gtpv2Message, Ie, IeType, Interface, MessageType

ENB = FTeid("10.0.0.11", Teid(0x1234_5678))


def test_message_survives_the_wire() -> None:
    message = Gtpv2Message(
        MessageType.MODIFY_BEARER_REQUEST,
        0x55,
        0xABCDEF,
        (gtp.cause(), gtp.bearer_context(gtp.ebi(5), gtp.f_teid(Interface.S1U_ENB, ENB))),
    )
    assert gtp.decode(gtp.encode(message)) == message


def test_real_release_access_bearers() -> None:
    # From a capture of Open5GS 2.7.7.
    octets = bytes.fromhex("48aa000d0000033300000300" + "8700010000")
    message = gtp.decode(octets)
    assert message == Gtpv2Message(MessageType.RELEASE_ACCESS_BEARERS_REQUEST, 0x333, 3, (Ie(IeType.NODE_TYPE, b"\0"),))
    assert gtp.encode(message) == octets


def test_f_teid_tells_its_interface() -> None:
    ie = gtp.f_teid(Interface.S11_MME, ENB, instance=1)
    assert ie.value[0] == 0x80 | 10
    assert gtp.f_teid_of(ie.value) == ENB


def test_session_identity() -> None:
    ies = gtp.session_identity(Imsi("999700000000001"), Plmn("999", "70"), "internet")
    assert gtp.find(ies, IeType.IMSI) == bytes.fromhex("99790000000000f1")
    assert gtp.find(ies, IeType.SERVING_NETWORK) == bytes.fromhex("99f907")


def test_location() -> None:
    plmn = Plmn("999", "70")
    value = gtp.user_location(Tai(plmn, Tac(1)), Ecgi(plmn, CellId(0x01079BAF & 0xFFF_FFFF))).value
    assert value.hex() == "18" + "99f907" + "0001" + "99f907" + "01079baf"


def test_other_ies_are_stepped_over() -> None:
    recovery = bytes.fromhex("0300010007")
    octets = gtp.encode_ies((gtp.ebi(5),)) + recovery + gtp.encode_ies((gtp.cause(),))
    assert gtp.decode_ies(octets) == (gtp.ebi(5), gtp.cause())


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param("", id="empty"),
        pytest.param("4001000400000000" + "00000000", id="no TEID"),
        pytest.param("48aa00ff0000033300000300", id="length lies"),
        pytest.param("4801000800000000" + "00000100", id="type of another"),
        pytest.param("48aa000d0000033300000300" + "8700090000", id="IE length lies"),
        pytest.param("48aa000a0000033300000300" + "8700", id="IE is cut"),
    ],
)
def test_rubbish_is_refused(octets: str) -> None:
    with pytest.raises(DecodeError):
        gtp.decode(bytes.fromhex(octets))


def test_missing_ie_is_named() -> None:
    with pytest.raises(DecodeError, match="PAA"):
        gtp.find((), IeType.PAA)
