"""What a dedicated bearer carries: traffic flow templates."""

from __future__ import annotations

import pytest

from mobiscud.core.errors import DecodeError
from testbed import tft
from testbed.tft import NUMBERS, Template


@pytest.mark.parametrize("protocol", NUMBERS.values())
@pytest.mark.parametrize("precedence", [0, 1, 255])
def test_a_template_comes_back_as_it_was(protocol: int, precedence: int) -> None:
    template = Template(protocol, precedence)
    assert tft.decode(template.encode()) == template


def test_the_octets_are_the_specification_s() -> None:
    # TS 24.008 10.5.6.12: create, one filter; both directions; precedence; length; protocol identifier, UDP.
    assert Template(17, precedence=3).encode().hex() == "21" + "30" + "03" + "02" + "3011"


@pytest.mark.parametrize("octets", ["", "40", "2130000230", "223000023011", "2110000230110000", "213000025011"])
def test_another_kind_of_template_is_refused(octets: str) -> None:
    with pytest.raises(DecodeError):
        tft.decode(bytes.fromhex(octets))


def test_packets_are_told_apart_by_their_protocol() -> None:
    packet = bytearray(28)
    packet[9] = NUMBERS["udp"]
    assert Template(NUMBERS["udp"]).holds(bytes(packet))
    assert not Template(NUMBERS["tcp"]).holds(bytes(packet))
    assert not Template(0).holds(b"short")
