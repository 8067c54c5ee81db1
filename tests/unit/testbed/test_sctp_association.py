"""Two ends of an association on a wire of lists, in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from testbed.sctp_association import (
    Association,
    Closed,
    CloseReason,
    Connected,
    Event,
    Received,
    State,
    answer_init,
    refuse,
)
from testbed.sctp_packet import (
    Abort,
    CookieAck,
    CookieEcho,
    Data,
    Heartbeat,
    HeartbeatAck,
    Init,
    InitAck,
    Packet,
    Sack,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    decode_packet,
)

SECRET = b"secret"
PORTS = (36_412, 40_000)


def numbers(start: int) -> Callable[[], int]:
    counter = itertools.count(start)
    return lambda: next(counter) & 0xFFFF_FFFF


def packets(end: Association, now: float = 0.0) -> list[Packet]:
    return [decode_packet(octets) for octets in end.packets(now)]


def only_packet(end: Association, now: float = 0.0) -> Packet:
    (packet,) = packets(end, now)
    return packet


def alarm(end: Association) -> float:
    """When the end wants to be called next."""
    assert end.deadline is not None
    return end.deadline


def joined(first_tsn: int = 1000) -> tuple[Association, Association]:
    """Two ends after their handshake."""
    client = Association(PORTS[1], PORTS[0], random=numbers(first_tsn))
    client.connect(0.0)
    init = only_packet(client)
    assert isinstance(init.chunks[0], Init)
    client.receive(decode_packet(answer_init(init, init.chunks[0], SECRET, 0.0, random=numbers(first_tsn))), 0.0)
    echo = only_packet(client)
    assert isinstance(echo.chunks[0], CookieEcho)
    server = Association.accept(echo.chunks[0].cookie, PORTS, SECRET, 0.0)
    assert server is not None
    client.receive(only_packet(server), 0.0)
    assert client.events() == server.events() == [Connected()]
    return client, server


def exchange(a: Association, b: Association, now: float = 0.0) -> tuple[list[Event], list[Event]]:
    """Carry everything across until the wire is silent."""
    while True:
        to_b, to_a = packets(a, now), packets(b, now)
        if not to_a and not to_b:
            return a.events(), b.events()
        for packet in to_b:
            b.receive(packet, now)
        for packet in to_a:
            a.receive(packet, now)


def test_messages_arrive_in_order_on_their_streams() -> None:
    client, server = joined()
    for number in range(4):
        client.send(bytes((number,)), stream=number % 2, ppid=18)
    server.send(b"answer", stream=5, ppid=18)

    at_client, at_server = exchange(client, server)

    assert at_server == [Received(number % 2, 18, bytes((number,))) for number in range(4)]
    assert at_client == [Received(5, 18, b"answer")]


def test_acknowledgement_rides_with_data() -> None:
    client, server = joined()
    client.send(b"question", stream=1, ppid=18)
    server.receive(only_packet(client), 0.0)
    server.send(b"answer", stream=1, ppid=18)
    assert [type(chunk) for chunk in only_packet(server).chunks] == [Sack, Data]


def test_stream_waits_for_what_is_missing_and_others_do_not() -> None:
    client, server = joined()
    sent = []
    for stream, payload in ((1, b"lost"), (1, b"held"), (2, b"free")):
        client.send(payload, stream=stream, ppid=18)
        sent.append(only_packet(client))
    server.receive(sent[1], 0.0)
    server.receive(sent[2], 0.0)
    assert server.events() == [Received(2, 18, b"free")]
    (sack,) = only_packet(server).chunks
    assert isinstance(sack, Sack)
    assert sack.gaps == ((2, 3),)

    server.receive(sent[0], 0.0)
    assert server.events() == [Received(1, 18, b"lost"), Received(1, 18, b"held")]


def test_duplicate_is_reported_and_not_delivered() -> None:
    client, server = joined()
    client.send(b"once", stream=0, ppid=18)
    packet = only_packet(client)
    server.receive(packet, 0.0)
    server.receive(packet, 0.0)
    assert server.events() == [Received(0, 18, b"once")]
    (sack,) = only_packet(server).chunks
    assert isinstance(sack, Sack)
    assert sack.duplicates == (1001,)


def test_tsn_wraps() -> None:
    client, server = joined(first_tsn=0xFFFF_FFFD)
    payloads = [bytes((number,)) for number in range(6)]
    for payload in payloads:
        client.send(payload, stream=0, ppid=18)
        exchange_events = exchange(client, server)[1]
        assert exchange_events == [Received(0, 18, payload)]
    assert alarm(client) >= 5.0  # the heartbeat's; no data waits for acknowledgement


def test_lost_data_is_repeated_by_timer() -> None:
    client, server = joined()
    client.send(b"again", stream=0, ppid=18)
    client.packets(0.0)
    deadline = alarm(client)
    assert deadline == pytest.approx(1.0)

    client.handle_timer(deadline)
    server.receive(only_packet(client, deadline), deadline)
    assert server.events() == [Received(0, 18, b"again")]


def test_third_missing_report_repeats_before_the_timer() -> None:
    client, server = joined()
    client.send(b"lost", stream=0, ppid=18)
    client.packets(0.0)
    for number in range(3):
        client.send(bytes((number,)), stream=1, ppid=18)
        server.receive(only_packet(client), 0.0)
        client.receive(only_packet(server), 0.0)
    (again,) = only_packet(client).chunks
    assert isinstance(again, Data)
    assert again.payload == b"lost"


def test_peer_that_never_answers_is_lost() -> None:
    client, _ = joined()
    client.send(b"hello?", stream=0, ppid=18)
    client.packets(0.0)
    for _ in range(50):
        if client.deadline is None:
            break
        client.handle_timer(client.deadline)
        client.packets(0.0)
    assert client.events() == [Closed(CloseReason.LOST)]


def test_handshake_is_repeated_and_given_up() -> None:
    client = Association(1, 2, random=numbers(1))
    client.connect(0.0)
    first = only_packet(client)
    client.handle_timer(alarm(client))
    assert only_packet(client) == first
    for _ in range(50):
        if client.deadline is None:
            break
        client.handle_timer(client.deadline)
    assert client.events() == [Closed(CloseReason.LOST)]


def test_silence_is_filled_with_heartbeats() -> None:
    client, server = joined()
    deadline = alarm(client)
    assert deadline == pytest.approx(5.0)
    client.handle_timer(deadline)
    beat = only_packet(client, deadline)
    assert isinstance(beat.chunks[0], Heartbeat)
    server.receive(beat, deadline)
    answer = only_packet(server, deadline)
    assert answer.chunks == (HeartbeatAck(beat.chunks[0].info),)


def test_shutdown_waits_for_what_is_under_way() -> None:
    client, server = joined()
    client.send(b"last words", stream=0, ppid=18)
    data = only_packet(client)
    client.shutdown(0.0)
    assert packets(client) == []
    server.receive(data, 0.0)
    client.receive(only_packet(server), 0.0)
    shutdown = only_packet(client)
    assert isinstance(shutdown.chunks[0], Shutdown)
    server.receive(shutdown, 0.0)
    ack = only_packet(server)
    assert ack.chunks == (ShutdownAck(),)
    client.receive(ack, 0.0)
    complete = only_packet(client)
    assert complete.chunks == (ShutdownComplete(),)
    server.receive(complete, 0.0)
    assert client.events() == [Closed(CloseReason.SHUTDOWN)]
    assert server.events() == [Received(0, 18, b"last words"), Closed(CloseReason.SHUTDOWN)]


def test_lost_shutdown_is_repeated() -> None:
    client, server = joined()
    client.shutdown(0.0)
    client.packets(0.0)
    now = alarm(client)
    client.handle_timer(now)
    exchange(client, server, now)
    assert client.state is server.state is State.CLOSED


def test_both_ends_may_shut_down_at_once() -> None:
    client, server = joined()
    client.shutdown(0.0)
    server.shutdown(0.0)
    exchange(client, server)
    assert client.state is server.state is State.CLOSED


def test_abort_ends_both() -> None:
    client, server = joined()
    client.abort()
    at_client, at_server = exchange(client, server)
    assert at_client == at_server == [Closed(CloseReason.ABORT)]


def test_wrong_verification_tag_changes_nothing() -> None:
    client, server = joined()
    server.receive(Packet(PORTS[1], PORTS[0], server.local_tag ^ 1, (Abort(),)), 0.0)
    assert server.state is State.ESTABLISHED
    assert exchange(client, server) == ([], [])


def test_early_messages_wait_for_the_handshake() -> None:
    client = Association(PORTS[1], PORTS[0], random=numbers(1))
    client.connect(0.0)
    client.send(b"eager", stream=0, ppid=18)
    assert [type(chunk) for chunk in only_packet(client).chunks] == [Init]


@pytest.mark.parametrize(
    ("age", "secret", "ports"),
    [(61.0, SECRET, PORTS), (0.0, b"other", PORTS), (0.0, SECRET, (36_412, 40_001))],
    ids=["stale", "not ours", "another's"],
)
def test_cookie_is_checked(age: float, secret: bytes, ports: tuple[int, int]) -> None:
    init = Init(7, 1000, 30, 30, 1)
    packet = Packet(PORTS[1], PORTS[0], 0, (init,))
    (ack,) = decode_packet(answer_init(packet, init, SECRET, 0.0, random=numbers(1))).chunks
    assert isinstance(ack, InitAck)
    assert Association.accept(ack.cookie, ports, secret, age) is None
    assert Association.accept(ack.cookie[:-1], PORTS, SECRET, 0.0) is None
    assert Association.accept(ack.cookie, PORTS, SECRET, 0.0) is not None


def test_stranger_is_refused_but_an_abort_is_not_answered() -> None:
    stray = Packet(1, 2, 99, (Data(1, 0, 0, 18, b"?"),))
    answer = refuse(stray)
    assert answer is not None
    assert decode_packet(answer) == Packet(2, 1, 99, (Abort(reflected=True),))
    assert refuse(Packet(1, 2, 99, (Abort(),))) is None


def test_late_shutdown_ack_is_completed() -> None:
    answer = refuse(Packet(1, 2, 99, (ShutdownAck(),)))
    assert answer is not None
    assert decode_packet(answer).chunks == (ShutdownComplete(reflected=True),)


def test_too_long_or_misdirected_messages_are_refused() -> None:
    client, _ = joined()
    with pytest.raises(ValueError, match="fragmentation"):
        client.send(bytes(1_450), stream=0, ppid=18)
    with pytest.raises(ValueError, match="stream"):
        client.send(b"", stream=30, ppid=18)


def test_full_window_holds_data_back() -> None:
    client, server = joined()
    for _ in range(200):
        client.send(bytes(1_000), stream=0, ppid=18)
    sent = packets(client)
    assert len(sent) == 131
    for packet in sent:
        server.receive(packet, 0.0)
    client.receive(packets(server)[0], 0.0)
    assert len(packets(client)) == 69


def test_cookie_ack_twice_is_harmless() -> None:
    client, _ = joined()
    client.receive(Packet(PORTS[0], PORTS[1], client.local_tag, (CookieAck(),)), 0.0)
    assert client.events() == []
