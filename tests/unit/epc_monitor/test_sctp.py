"""SCTP as a bystander sees it: retransmitted, fragmented, reordered, lost, restarted, multi-homed, hostile."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable

import pytest

from epc_monitor.frames import SCTP, Packet
from epc_monitor.sctp import AssociationDown, AssociationForgotten, Gap, Item, Message, SctpDecoder, SctpLimits

ENB, ENB_2, MME, MME_2 = (bytes((10, 0, 0, last)) for last in (11, 12, 2, 3))
ENB_PORT, MME_PORT = 40000, 36412
UP_TAG, DOWN_TAG = 0x11111111, 0x22222222  # carried by what the eNodeB sends, and by what the MME sends
TSN = 1000


def chunk(kind: int, flags: int, body: bytes) -> bytes:
    whole = struct.pack(">BBH", kind, flags, 4 + len(body)) + body
    return whole + bytes(-len(whole) % 4)


def data(tsn: int, text: bytes, stream: int = 1, ssn: int = 0, flags: int = 3, ppid: int = 18) -> bytes:
    return chunk(0, flags, struct.pack(">IHHI", tsn & 0xFFFFFFFF, stream, ssn & 0xFFFF, ppid) + text)


def sack(cumulative: int) -> bytes:
    return chunk(3, 0, struct.pack(">IIHH", cumulative & 0xFFFFFFFF, 65535, 0, 0))


def init(kind: int, tag: int, tsn: int, addresses: Iterable[bytes] = ()) -> bytes:
    parameters = b"".join(struct.pack(">HH", 5, 8) + address for address in addresses)
    return chunk(kind, 0, struct.pack(">IIHHI", tag, 65535, 10, 10, tsn) + parameters)


def up(
    *chunks: bytes, tag: int = UP_TAG, source: bytes = ENB, destination: bytes = MME, port: int = ENB_PORT
) -> Packet:
    return Packet(SCTP, source, destination, struct.pack(">HHII", port, MME_PORT, tag, 0) + b"".join(chunks))


def down(
    *chunks: bytes, tag: int = DOWN_TAG, source: bytes = MME, destination: bytes = ENB, port: int = ENB_PORT
) -> Packet:
    return Packet(SCTP, source, destination, struct.pack(">HHII", MME_PORT, port, tag, 0) + b"".join(chunks))


def handshake(
    enb: Iterable[bytes] = (), mme: Iterable[bytes] = (), up_tag: int = UP_TAG, down_tag: int = DOWN_TAG, tsn: int = TSN
) -> list[Packet]:
    return [
        up(init(1, down_tag, tsn, enb), tag=0),
        down(init(2, up_tag, 5000, mme), tag=down_tag),
        up(chunk(10, 0, b"cookie.."), tag=up_tag),
        down(chunk(11, 0, b""), tag=down_tag),
    ]


def run(decoder: SctpDecoder, packets: Iterable[Packet]) -> list[Item]:
    return [item for packet in packets for item in decoder.receive(packet)]


def texts(items: Iterable[Item]) -> list[bytes]:
    return [item.payload for item in items if isinstance(item, Message)]


def begun() -> SctpDecoder:
    decoder = SctpDecoder()
    assert run(decoder, handshake()) == []
    return decoder


def test_both_directions_are_one_association() -> None:
    first, second = run(begun(), [up(data(TSN, b"request")), down(data(5000, b"response"))])
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert first.association is second.association
    assert (first.sender, second.sender) == (0, 1)
    assert first.place == struct.pack(">IHI", UP_TAG, 1, TSN)


def test_bundled_chunks_and_retransmissions() -> None:
    decoder = begun()
    packet = up(sack(4999), data(TSN, b"a"), data(TSN + 1, b"bb", ssn=1), data(TSN + 2, b"ccc", 7))
    assert texts(decoder.receive(packet)) == [b"a", b"bb", b"ccc"]
    assert decoder.receive(packet) == []
    assert texts(decoder.receive(up(data(TSN + 1, b"bb", ssn=1), data(TSN + 3, b"d", ssn=2)))) == [b"d"]


def test_other_payloads_are_not_s1ap() -> None:
    items = run(
        begun(),
        [up(data(TSN, b"x2ap", ppid=27), data(TSN + 1, b"s1ap", ssn=1), data(TSN + 2, b"le", ssn=2, ppid=18 << 24))],
    )
    assert texts(items) == [b"s1ap", b"le"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_fragments_in_any_order(order: tuple[int, ...]) -> None:
    parts = [
        up(data(TSN, b"one ", flags=2)),
        up(data(TSN + 1, b"two ", flags=0)),
        up(data(TSN + 2, b"three", flags=1)),
        up(data(TSN + 3, b"next", ssn=1)),
    ]
    items = run(begun(), [parts[i] for i in order])
    assert texts(items) == [b"one two three", b"next"]
    assert isinstance(items[0], Message)
    assert items[0].place[6:] == struct.pack(">I", TSN)


def test_streams_keep_their_order_and_do_not_wait_for_each_other() -> None:
    decoder = begun()
    assert texts(decoder.receive(up(data(TSN + 1, b"second", 1, 1)))) == []
    assert texts(decoder.receive(up(data(TSN + 2, b"other", 2, 0)))) == [b"other"]
    assert texts(decoder.receive(up(data(TSN + 3, b"at once", 1, 0, flags=7)))) == [b"at once"]
    assert texts(decoder.receive(up(data(TSN, b"first", 1, 0)))) == [b"first", b"second"]


def test_what_is_acknowledged_and_was_not_seen_is_lost() -> None:
    decoder = begun()
    assert run(decoder, [up(data(TSN, b"0")), up(data(TSN + 3, b"3", ssn=3))]) != []
    assert run(decoder, [down(sack(TSN))]) == []
    items = run(decoder, [down(sack(TSN + 3))])
    assert texts(items) == [b"3"]
    [gap] = [item for item in items if isinstance(item, Gap)]
    assert gap.chunks == 2
    assert run(decoder, [down(sack(TSN + 3))]) == []


def test_what_was_given_up_is_still_welcome_once() -> None:
    decoder = begun()
    run(decoder, [up(data(TSN + 1, b"1", ssn=1)), down(sack(TSN + 1))])
    assert texts(run(decoder, [up(data(TSN, b"0"))])) == [b"0"]
    assert texts(run(decoder, [up(data(TSN, b"0"))])) == []
    assert texts(run(decoder, [up(data(TSN + 2, b"2", ssn=2))])) == [b"2"]


def test_tsn_and_ssn_wrap() -> None:
    decoder = SctpDecoder()
    run(decoder, handshake(tsn=0xFFFFFFFE))
    for i in range(4):
        packet = up(data(0xFFFFFFFE + i, b"%d" % i, ssn=i))
        assert texts(run(decoder, [packet, packet])) == [b"%d" % i]
    late = SctpDecoder()
    assert texts(run(late, [up(data(TSN + i, b"x", ssn=65534 + i)) for i in range(5)])) == [b"x"] * 5


def test_joining_in_the_middle() -> None:
    decoder = SctpDecoder()
    items = run(
        decoder,
        [down(data(77, b"command", ssn=300)), up(data(88, b"complete", ssn=12)), down(data(78, b"next", ssn=301))],
    )
    assert texts(items) == [b"command", b"complete", b"next"]
    assert len({id(item.association) for item in items}) == 1
    assert [item.sender for item in items if isinstance(item, Message)] == [0, 1, 0]


def test_enbs_on_one_address() -> None:
    decoder = SctpDecoder()
    first = run(decoder, [up(data(TSN, b"a"), port=1111, tag=1)])
    second = run(decoder, [up(data(TSN, b"b"), port=2222, tag=2)])
    assert texts(first + second) == [b"a", b"b"]
    assert first[0].association is not second[0].association


def test_multi_homing_is_learnt_from_the_handshake() -> None:
    decoder = SctpDecoder()
    run(decoder, handshake(enb=(ENB, ENB_2), mme=(MME, MME_2)))
    items = run(decoder, [up(data(TSN, b"a")), up(data(TSN + 1, b"b", ssn=1), source=ENB_2, destination=MME_2)])
    assert texts(items) == [b"a", b"b"]
    assert items[0].association is items[1].association
    assert items[0].association.ends[0].addresses == [ENB, ENB_2]
    assert texts(run(decoder, [up(data(TSN, b"a"), source=ENB_2)])) == []


@pytest.mark.parametrize(
    "last",
    [
        up(chunk(6, 0, b"")),
        down(chunk(6, 0, b"")),
        up(chunk(6, 1, b""), tag=DOWN_TAG),
        down(chunk(8, 0, b"")),
        up(chunk(14, 0, b"")),
        up(chunk(14, 1, b""), tag=DOWN_TAG),
    ],
    ids=["abort", "abort of the mme", "abort reflected", "shutdown ack", "shutdown complete", "complete reflected"],
)
def test_the_end(last: Packet) -> None:
    decoder = begun()
    [message] = run(decoder, [up(data(TSN, b"a"))])
    [gone] = run(decoder, [last])
    assert isinstance(gone, AssociationDown)
    assert gone.association is message.association
    assert gone.place == struct.pack(">II", UP_TAG, DOWN_TAG)
    assert run(decoder, [last, up(data(TSN + 1, b"late", ssn=1)), *handshake()]) == []


def test_shutdown_alone_is_not_the_end() -> None:
    decoder = begun()
    assert run(decoder, [up(chunk(7, 0, bytes(4)))]) == []
    assert texts(run(decoder, [down(data(5000, b"still"))])) == [b"still"]


def test_restart_ends_the_predecessor() -> None:
    decoder = begun()
    [before] = run(decoder, [up(data(TSN, b"a"))])
    items = run(decoder, handshake(up_tag=3, down_tag=4))
    assert [type(item) for item in items] == [AssociationDown]
    assert items[0].association is before.association
    assert texts(run(decoder, [up(data(TSN, b"b"), tag=3)])) == [b"b"]


def test_a_repeated_handshake_changes_nothing() -> None:
    decoder = begun()
    [before] = run(decoder, [up(data(TSN, b"a"))])
    assert run(decoder, handshake()) == []
    [after] = run(decoder, [up(data(TSN + 1, b"b", ssn=1), source=ENB_2)])
    assert after.association is before.association


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(12),
        struct.pack(">HHII", ENB_PORT, MME_PORT, UP_TAG, 0) + b"\0\3\0\x03",
        struct.pack(">HHII", ENB_PORT, MME_PORT, UP_TAG, 0) + b"\0\3\xff\xff" + bytes(30),
        struct.pack(">HHII", ENB_PORT, MME_PORT, UP_TAG, 0) + b"\0\3\0\x10" + bytes(12),
        struct.pack(">HHII", ENB_PORT, MME_PORT, 0, 0) + b"\1\0\0\x14" + bytes(4),
    ],
)
def test_lengths_that_lie_are_counted(payload: bytes) -> None:
    decoder = begun()
    assert decoder.receive(Packet(SCTP, ENB, MME, payload)) == []
    assert decoder.malformed == 1
    assert texts(run(decoder, [up(data(TSN, b"alive"))])) == [b"alive"]


def test_a_false_tsn_far_away_does_not_deafen() -> None:
    decoder = begun()
    run(decoder, [up(data(TSN, b"a"))])
    run(decoder, [up(data(TSN + 0x40000000, b"false", ssn=9))])
    assert texts(run(decoder, [up(data(TSN + 1 + i, b"b", ssn=1 + i)) for i in range(3)])) == [b"b"] * 3


def test_everything_is_bounded() -> None:
    decoder = SctpDecoder(limits=SctpLimits(associations=20, handshakes=20, closed=20))
    for i in range(500):
        port = 1024 + i
        run(decoder, [up(init(1, i + 1, 0), tag=0, port=port)])
        run(decoder, [up(data(TSN, b"x"), tag=i, port=port), down(data(TSN, b"x"), tag=i + 7, port=port)])
    values = [getattr(decoder, name) for name in dir(decoder)]  # the compiled form has no __dict__
    sizes = [len(value) for value in values if isinstance(value, dict)]
    assert max(sizes) <= 80
    assert decoder.evicted >= 470
    stuck = begun()
    run(stuck, [up(data(TSN + 2 * i, bytes(1000), ssn=2 * i)) for i in range(1, 3000)])
    run(stuck, [up(data(TSN + 2 * i, bytes(1000), stream=i % 60000, flags=0)) for i in range(3000, 9000)])
    direction = next(iter(stuck._tags.values()))[0].directions[0]
    assert len(direction._ahead) <= 4097
    assert len(direction._held) <= 257
    assert len(direction._fragments) <= 1025


def test_what_gives_way_is_told_and_met_anew() -> None:
    decoder = SctpDecoder(limits=SctpLimits(associations=1))
    [first] = run(decoder, [up(data(TSN, b"a"), port=1111, tag=1)])
    forgotten, other = run(decoder, [up(data(TSN, b"b"), port=2222, tag=2)])
    assert isinstance(forgotten, AssociationForgotten)
    assert forgotten.association is first.association
    assert texts([other]) == [b"b"]
    again = run(decoder, [up(data(TSN + 1, b"c", ssn=1), port=1111, tag=1)])
    assert texts(again) == [b"c"]
    assert again[-1].association is not first.association


def test_handshakes_without_traffic_displace_nobody() -> None:
    decoder = SctpDecoder(limits=SctpLimits(associations=2, handshakes=10))
    run(decoder, handshake())
    for port in range(1024, 1224):
        run(decoder, [up(init(1, port, 0), tag=0, port=port), down(init(2, port, 0), tag=port, port=port)])
    assert decoder.evicted == 190
    assert texts(run(decoder, [up(data(TSN, b"still"))])) == [b"still"]
    assert len(decoder._tags) <= 2 * 12


def test_who_knows_the_tag_cannot_be_everywhere() -> None:
    decoder = begun()
    for i in range(1000):
        source = bytes((172, 16, i >> 8, i & 255))
        assert texts(run(decoder, [up(data(TSN + i, b"x", ssn=i), source=source)])) == [b"x"]
    association = next(iter(decoder._associations))
    assert len(association.ends[0].addresses) <= 64
    assert len(decoder._paths) <= 64


def test_waiting_is_bounded_over_all_associations() -> None:
    decoder = SctpDecoder(limits=SctpLimits(octets=100_000))
    items = []
    for port in range(1024, 1124):
        packets = [up(data(TSN, b"0"), tag=port, port=port)]
        packets += [up(data(TSN + 1 + i, bytes(1000), ssn=1 + i), tag=port, port=port) for i in range(1, 20)]
        items += run(decoder, packets)
    assert decoder.evicted >= 90
    assert decoder._octets <= 100_000
    assert sum(isinstance(item, Gap) for item in items) == decoder.evicted
    held = sum(direction.weight for association in decoder._associations for direction in association.directions)
    assert held == decoder._octets
    assert len(texts(items)) == 100 + 19 * decoder.evicted


def test_what_waited_is_forgotten_with_its_association() -> None:
    decoder = begun()
    run(decoder, [up(data(TSN, b"0")), up(data(TSN + 2, b"2", ssn=2)), up(data(TSN + 3, b"part", flags=2))])
    assert decoder._octets > 0
    run(decoder, [up(chunk(6, 0, b""))])
    assert (decoder._octets, decoder._waiting) == (0, {})


def test_streams_without_number() -> None:
    decoder = begun()
    for i in range(5000):
        assert texts(run(decoder, [up(data(TSN + i, b"x", stream=i))])) == [b"x"]
    [association] = decoder._associations
    assert len(association.directions[0]._streams) <= 1024
