"""MQTT packets: what a client says, octet by octet, and what it makes of what a broker says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiscud.bus import packets
from mobiscud.bus.packets import Connack, Disconnect, Packet, Pong, Puback, Publish, Reader, Suback, Version, Will
from mobiscud.bus.topics import matches
from mobiscud.core.errors import DecodeError

V311, V5 = Version.V311, Version.V5

HEARD: list[tuple[Version, str, Packet]] = [
    (V311, "20 02 00 00", Connack(0, 65535, None)),
    (V311, "20 02 00 05", Connack(5, 65535, None)),
    (V5, "20 02 00 01", Connack(1, 65535, None)),  # of a broker that knows 3.1.1 only
    (V5, "20 09 00 00 06 21 00 14 13 00 1e", Connack(0, 20, 30)),
    # with an assigned client id, a pair, and a maximum packet size
    (V5, "20 17 00 00 14 12 00 02 61 62 26 00 01 6b 00 01 76 27 00 01 00 00 22 00 0a", Connack(0, 65535, None)),
    (V311, "30 06 00 01 74 41 42 43", Publish("t", b"ABC", None)),
    (V311, "32 06 00 01 74 00 07 41", Publish("t", b"A", 7)),
    (V5, "3b 0b 00 01 74 00 07 03 03 00 00 41 42", Publish("t", b"AB", 7)),  # repeated, retained, with a content type
    (V5, "32 06 00 01 74 01 00 00", Publish("t", b"", 256)),
    (V5, "40 02 01 02", Puback(258, 0)),
    (V5, "40 04 01 02 87 00", Puback(258, 0x87)),
    (V311, "90 04 00 05 01 80", Suback(5, b"\x01\x80")),
    (V5, "90 05 00 05 00 01 87", Suback(5, b"\x01\x87")),
    (V5, "d0 00", Pong()),
    (V5, "e0 00", Disconnect(0)),
    (V5, "e0 02 8e 00", Disconnect(0x8E)),
]


def read(version: Version, *pieces: bytes) -> list[Packet]:
    reader = Reader(version)
    return [packet for piece in pieces for packet in reader.feed(piece)]


@pytest.mark.parametrize(("version", "octets", "packet"), HEARD)
def test_what_a_broker_says_is_understood(version: Version, octets: str, packet: Packet) -> None:
    assert read(version, bytes.fromhex(octets)) == [packet]


@pytest.mark.parametrize("version", Version)
def test_packets_may_come_in_any_pieces(version: Version) -> None:
    stream = b"".join(bytes.fromhex(octets) for of, octets, _ in HEARD if of is version)
    expected = [packet for of, _, packet in HEARD if of is version]
    assert read(version, *(bytes((octet,)) for octet in stream)) == expected
    for cut in range(len(stream)):
        assert read(version, stream[:cut], stream[cut:]) == expected


@pytest.mark.parametrize(("version", "octets", "packet"), HEARD)
def test_a_shortened_packet_is_told_or_awaited(version: Version, octets: str, packet: Packet) -> None:
    whole = bytes.fromhex(octets)
    for size in range(len(whole)):
        assert read(version, whole[:size]) == []
        if size > 2:  # the same with a length that says so
            try:
                read(version, bytes((whole[0], size - 2)) + whole[2:size])
            except DecodeError:
                pass


@given(st.sampled_from(Version), st.lists(st.binary(max_size=64), max_size=8))
def test_any_octets_give_packets_or_an_error(version: Version, pieces: list[bytes]) -> None:
    try:
        read(version, *pieces)
    except DecodeError:
        pass


@pytest.mark.parametrize("octets", ["34 06 00 01 74 00 07 41", "00 00", "50 02 00 01", "30 ff ff ff ff 01"])
def test_what_no_broker_should_say_is_an_error(octets: str) -> None:
    with pytest.raises(DecodeError):
        read(V5, bytes.fromhex(octets))


@given(st.sampled_from(Version), st.text(min_size=1, max_size=300), st.binary(max_size=20_000), st.booleans())
def test_a_message_reads_as_it_was_written(version: Version, topic: str, payload: bytes, retain: bool) -> None:
    content_type = "application/json" if version is V5 else None
    octets = packets.publish(version, 99, topic, payload, retain=retain, content_type=content_type)
    assert read(version, octets) == [Publish(topic, payload, 99)]
    assert octets[0] == 0x32 | retain


def test_what_we_say() -> None:
    will = Will("w", b"off", True)
    assert packets.connect(V311, "me", keep_alive_s=15, clean=True) == bytes.fromhex(
        "10 0e 00 04 4d 51 54 54 04 02 00 0f 00 02 6d 65"
    )
    said = packets.connect(
        V5,
        "me",
        keep_alive_s=15,
        clean=False,
        session_s=300,
        receive_maximum=500,
        username="u",
        password="p",
        will=will,
    )
    assert said == bytes.fromhex(
        "10 2b 00 04 4d 51 54 54 05 ec 00 0f  0d 11 00 00 01 2c 21 01 f4 27 01 00 00 00"
        "00 02 6d 65  00 00 01 77 00 03 6f 66 66  00 01 75 00 01 70"
    )
    assert packets.puback(258) == bytes.fromhex("40 02 01 02")
    assert packets.subscribe(V311, 3, ["a", "b"]) == bytes.fromhex("82 0a 00 03 00 01 61 01 00 01 62 01")
    assert packets.subscribe(V5, 3, ["a"]) == bytes.fromhex("82 07 00 03 00 00 01 61 01")
    assert packets.disconnect(V311) == bytes.fromhex("e0 00")
    assert packets.disconnect(V5) == bytes.fromhex("e0 07 00 05 11 00 00 00 00")


@pytest.mark.parametrize(
    ("topic_filter", "topic", "does"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a/b", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "a/b", True),
        ("a/b", "a/b", True),
    ],
)
def test_which_topics_a_filter_takes(topic_filter: str, topic: str, does: bool) -> None:
    assert matches(topic_filter, topic.split("/")) is does
