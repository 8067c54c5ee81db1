"""The bus on a real Mosquitto, and on the embedded broker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from mobiscud.bus import topics
from mobiscud.bus.embedded import EmbeddedBroker
from mobiscud.bus.mqtt import IN_FLIGHT, Broker, MqttBus
from mobiscud.bus.requests import Requests
from mobiscud.bus.spool import Message
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, ConfigError
from testbed.mosquitto import Mosquitto, free_port

pytestmark = pytest.mark.system
LIMIT_S = 30


def bus_at(url: str, will: Message | None = None) -> MqttBus:
    return MqttBus(Broker.from_config(BusConfig(), url), will=will)


@pytest.fixture(params=["mosquitto-tcp", "mosquitto-unix", "embedded"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "embedded":
        async with EmbeddedBroker(free_port()) as embedded:
            yield embedded.url
    else:
        async with Mosquitto(tmp_path) as mosquitto:
            yield mosquitto.url if request.param == "mosquitto-tcp" else mosquitto.unix_url


async def test_messages_arrive_in_order(url: str) -> None:
    seen: list[bytes] = []
    done = asyncio.Event()

    def take(topic: str, payload: bytes) -> None:
        seen.append(payload)
        if len(seen) == 1000:
            done.set()

    async with bus_at(url) as listener, bus_at(url) as speaker:
        await listener.subscribe("mobiscud/v1/ue/+/+", take)
        for number in range(1000):
            speaker.publish("mobiscud/v1/ue/ue-1/ue.idle", b"%d" % number)
        await asyncio.wait_for(done.wait(), LIMIT_S)
    assert seen == [b"%d" % number for number in range(1000)]


async def test_what_is_held_waits_in_order_and_elsewhere(url: str) -> None:
    seen: list[bytes] = []
    done = asyncio.Event()
    expected = [b"%06d" % number + bytes(4000) for number in range(4000)]  # more than all sockets on the way hold

    def take(topic: str, payload: bytes) -> None:
        seen.append(payload)
        if len(seen) == 100:
            listener.hold()
        if len(seen) == len(expected):
            done.set()

    async with bus_at(url) as listener, bus_at(url) as speaker:
        await listener.subscribe("t", take)
        for payload in expected:
            speaker.publish("t", payload)
        async with asyncio.timeout(LIMIT_S):
            while len(seen) < 100:  # noqa: ASYNC110  # nobody tells when it comes
                await asyncio.sleep(0)
        await speaker.flush(5)
        assert len(seen) == 100
        assert listener._held is not None
        assert len(listener._held) < 1000
        listener.go_on()
        await asyncio.wait_for(done.wait(), LIMIT_S)
    assert seen == expected


async def test_many_are_on_their_way_at_once_and_none_waits_for_the_others_to_fill_a_packet(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as mosquitto, bus_at(mosquitto.url) as speaker:
        assert speaker._client is not None
        line: Any = speaker._client._client.socket()
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        for number in range(1000):
            speaker.publish("t", b"%d" % number)
        assert len(speaker._in_flight) == IN_FLIGHT  # before the broker has confirmed a single one
        assert await speaker.flush(LIMIT_S)
        assert speaker.waiting == 0


async def test_a_question_gets_its_answer(url: str) -> None:
    async with bus_at(url) as one, bus_at(url) as other:
        asker, answerer = Requests(one, "lab", "n1"), Requests(other, "lab", "n2")
        await asker.start()
        await answerer.start()

        async def double(body: dict[str, object]) -> dict[str, object]:
            if body["number"] == 13:
                raise AdapterError("not that one")
            return {"number": int(str(body["number"])) * 2}

        answerer.answer("double", double)
        assert await asker.ask("n2", "double", {"number": 4}, timeout_s=LIMIT_S) == {"number": 8}
        with pytest.raises(AdapterError, match="refused double: not that one"):
            await asker.ask("n2", "double", {"number": 13}, timeout_s=LIMIT_S)
        with pytest.raises(AdapterError, match="n3 gave no answer"):
            await asker.ask("n3", "double", {}, timeout_s=0.05)


async def test_what_is_asked_twice_is_done_once(url: str) -> None:
    async with bus_at(url) as one, bus_at(url) as other:
        asker, answerer = Requests(one, "lab", "n1"), Requests(other, "lab", "n2")
        await asker.start()
        await answerer.start()
        done: list[dict[str, object]] = []

        async def do(body: dict[str, object]) -> dict[str, object]:
            done.append(body)
            return {"times": len(done)}

        answerer.answer("do", do)
        for _ in range(2):
            assert await asker.ask("n2", "do", {}, timeout_s=LIMIT_S, correlation="c-1") == {"times": 1}
        assert await asker.ask("n2", "do", {}, timeout_s=LIMIT_S) == {"times": 2}


async def test_nothing_is_lost_while_the_broker_is_away(tmp_path: Path) -> None:
    port = free_port()
    seen: list[bytes] = []
    half_there, all_there = asyncio.Event(), asyncio.Event()

    def take(topic: str, payload: bytes) -> None:
        if payload not in seen:  # at least once: a repeat is allowed
            seen.append(payload)
        if len(seen) == 100:
            half_there.set()
        if len(seen) == 200:
            all_there.set()

    first = Mosquitto(tmp_path, port)
    await first.__aenter__()
    async with bus_at(first.url) as listener, bus_at(first.url) as speaker:
        reconnected = asyncio.Event()
        await listener.subscribe("t", take)
        for number in range(100):
            speaker.publish("t", b"%d" % number)
        await asyncio.wait_for(half_there.wait(), LIMIT_S)
        listener.on_connect(reconnected.set)
        reconnected.clear()
        await first.stop()
        async with Mosquitto(tmp_path, port):
            await asyncio.wait_for(reconnected.wait(), LIMIT_S)
            for number in range(100, 200):
                speaker.publish("t", b"%d" % number)
            await asyncio.wait_for(all_there.wait(), LIMIT_S)
    assert seen == [b"%d" % number for number in range(200)]


async def test_a_subscriber_whose_line_was_cut_misses_nothing(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as mosquitto:
        seen: list[bytes] = []
        done = asyncio.Event()

        def take(topic: str, payload: bytes) -> None:
            seen.append(payload)
            if payload == b"last":
                done.set()

        async with bus_at(mosquitto.url) as listener, bus_at(mosquitto.url) as speaker:
            await listener.subscribe("t", take)
            cut(listener)
            for number in range(100):
                speaker.publish("t", b"%d" % number)
            assert await speaker.flush(LIMIT_S)
            speaker.publish("t", b"last")
            await asyncio.wait_for(done.wait(), LIMIT_S)
    assert seen == [b"%d" % number for number in range(100)] + [b"last"]


def cut(bus: MqttBus) -> None:
    """The line is cut, nobody says goodbye."""
    assert bus._client is not None
    raw: Any = bus._client._client.socket()
    raw.shutdown(socket.SHUT_RDWR)


async def test_the_broker_speaks_the_last_will(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as mosquitto:
        gone = asyncio.Event()
        will = Message(topics.health("lab", "n1"), b"offline", retain=True)
        async with bus_at(mosquitto.url) as listener:
            await listener.subscribe(will.topic, lambda topic, payload: gone.set())
            dying = bus_at(mosquitto.url, will)
            await dying.__aenter__()
            cut(dying)
            await asyncio.wait_for(gone.wait(), LIMIT_S)
            await dying.__aexit__(None, None, None)


async def test_the_content_type_is_told(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as mosquitto, bus_at(mosquitto.url) as speaker:
        async with aiomqtt.Client("127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.subscribe("t", qos=1)
            speaker.publish("t", b"{}", content_type="application/cloudevents+json")
            message = await asyncio.wait_for(anext(aiter(client.messages)), LIMIT_S)
        properties: Any = message.properties
        assert properties.ContentType == "application/cloudevents+json"


async def test_no_broker_is_one_clear_error() -> None:
    with pytest.raises(AdapterError, match=r"no MQTT broker at mqtt://127\.0\.0\.1:\d+: .*refused"):
        async with bus_at(f"mqtt://127.0.0.1:{free_port()}"):
            pass


async def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as mosquitto:
        with pytest.raises(AdapterError, match=r"bus\.embedded_port"):
            async with EmbeddedBroker(mosquitto.port):
                pass


def test_a_missing_secret_is_a_wrong_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bus\.password_file"):
        Broker.from_config(BusConfig(password_file=tmp_path / "none"), "mqtt://localhost")
