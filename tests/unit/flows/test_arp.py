"""ARP frames of our own, as scapy reads them, and answers from anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from flows.arp import announcement, question, sender_of_answer
from mobiscud.core.errors import DecodeError

MAC, ROUTER = "52:54:00:00:00:10", "02:00:00:00:00:fe"


def test_a_question_claims_no_address() -> None:
    frame = Ether(question("172.16.255.254", MAC))
    assert (frame.src, frame.dst, frame[ARP].op) == (MAC, "ff:ff:ff:ff:ff:ff", 1)
    assert (frame[ARP].psrc, frame[ARP].pdst, frame[ARP].hwsrc) == ("0.0.0.0", "172.16.255.254", MAC)


def test_an_announcement_asks_nobody() -> None:
    frame = Ether(announcement("172.16.1.10", MAC))
    assert (frame.src, frame.dst, frame[ARP].op) == (MAC, "ff:ff:ff:ff:ff:ff", 2)
    assert (frame[ARP].psrc, frame[ARP].pdst, frame[ARP].hwsrc) == ("172.16.1.10", "172.16.1.10", MAC)


def test_an_answer_tells_who_and_where() -> None:
    answer = ARP(op=2, hwsrc=ROUTER, psrc="172.16.255.254", hwdst=MAC, pdst="0.0.0.0")
    assert sender_of_answer(bytes(Ether(src=ROUTER, dst=MAC) / answer)) == ("172.16.255.254", ROUTER)


def test_a_question_is_no_answer() -> None:
    with pytest.raises(DecodeError):
        sender_of_answer(question("172.16.255.254", MAC))


@given(st.binary(max_size=64))
def test_any_octets_are_an_answer_or_an_error(octets: bytes) -> None:
    try:
        sender_of_answer(octets)
    except DecodeError:
        pass
