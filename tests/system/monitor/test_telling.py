"""What arrives on the bus, when there are two monitors, and when the broker is away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from epc_monitor.capture import read_capture
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.app.node import _tell_losses
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.publisher import EventPublisher
from mobiscud.core.config import BusConfig
from mobiscud.core.events import UeEvent
from testbed.mosquitto import Mosquitto
from tests.system.monitor.parts import (
    CAPTURE,
    KEY,
    LIMIT_S,
    PROGRAM,
    Json,
    Listener,
    Process,
    Wire,
    configuration,
    eventually,
    frames_of,
    has_said,
    ids,
    listening,
    monitor,
    replayed,
    statuses,
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]


async def test_two_monitors_on_one_wire_tell_the_same_facts(wire: Wire, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        configs = [configuration(tmp_path, broker.unix_url, node) for node in ("m1", "m2")]
        expected = replayed(CAPTURE, configs[0])
        async with monitor(wire, configs[0], ["two"]), monitor(wire, configs[1], ["four"]):
            await heard.until(lambda: heard.is_online("m1") and heard.is_online("m2"))
            wire.send(frames_of(CAPTURE))
            await heard.until(lambda: len(heard.told()) >= 2 * len(expected))
    assert sorted(heard.told()) == sorted(2 * ids(expected))


async def test_a_broker_that_was_away_costs_nothing(wire: Wire, tmp_path: Path) -> None:
    frames = frames_of(CAPTURE)
    half = len(frames) // 2
    broker = Mosquitto(tmp_path)
    await broker.__aenter__()
    config = configuration(tmp_path, broker.unix_url, "m1")
    expected = replayed(CAPTURE, config)
    tail = Process(tmp_path, "tail")
    await tail.start(*PROGRAM, "events", "--bus", broker.url)
    try:
        async with listening(broker.url) as heard, monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            await eventually(has_said(tail.log, "waiting for events"))
            wire.send(frames[:half])
            await settled(heard, tail)
            assert 0 < len(heard.events) < len(expected)
            await broker.stop(kill=True)
            await eventually(has_said(process.log, "connection to the broker lost"))
            wire.send(frames[half:])
            await eventually(lambda: wire.unread() == 0)
            os.kill(process.pid, signal.SIGSTOP)  # a broker keeps nothing for subscribers that it does not know yet
            heard.health.clear()
            connections = heard.connections
            async with Mosquitto(tmp_path, broker.port):
                await heard.until(lambda: heard.connections > connections)
                await eventually(has_said(tail.log, "connected to the broker again"))
                os.kill(process.pid, signal.SIGCONT)
                await heard.until(lambda: len(heard.events) >= len(expected) and heard.is_online("m1"))
                await eventually(has_said(tail.printed, expected[-1]["id"]))
                async with listening(broker.url) as later:
                    await later.until(lambda: later.is_online("m1") and set(later.states) >= set(statuses(expected)))
                assert later.events == []
                await process.stop()
    finally:
        await tail.stop(signal.SIGINT)
    assert ids(heard.events) == ids(expected)
    assert ids(map(json.loads, tail.printed.read_text().splitlines())) == ids(expected)
    assert {ue: without_time(state) for ue, state in heard.states.items() if state} == {
        ue: without_time(state) for ue, state in later.states.items()
    }


def without_time(state: Json) -> Json:
    """A state as it is told again to a broker that was away has another."""
    return {key: value for key, value in state.items() if key != "time"}


async def settled(heard: Listener, tail: Process) -> None:
    """Until all that has been sent was told, to everybody: the wire falls silent, and both have heard the same."""
    async with asyncio.timeout(LIMIT_S):
        before = -1
        while not (len(heard.events) == before > 0 and tail.printed.read_text().count("\n") == before):
            before = len(heard.events)
            await asyncio.sleep(0.5)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")  # paho leaves a socket that finds no door to the GC
async def test_what_the_spool_cannot_hold_is_counted_and_told(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    await broker.__aenter__()
    door = tmp_path / "door"  # which stays shut for the speaker until the listener is back
    door.symlink_to(tmp_path / "mqtt.sock")
    watching = Monitor(UeKeys(KEY.encode()))
    seen = [event for frame in read_capture(CAPTURE) for event in watching.receive(frame)]
    made = [event for event in seen if isinstance(event, UeEvent)]
    expected = replayed(CAPTURE, configuration(tmp_path, broker.url, "m1"))
    speaker = MqttBus(Broker.from_config(BusConfig(), f"unix://{door}"), spool_bytes=20_000)
    async with listening(broker.url) as heard, speaker as bus:
        publisher = EventPublisher(bus, "lab", "monitor", show_imsi=False, states=watching.tracker)
        telling = asyncio.create_task(_tell_losses(bus, publisher.publish))
        door.unlink()
        await broker.stop()
        await eventually(lambda: not bus.connected)
        for event in made:
            publisher.publish(event)
        assert bus.lost > 0
        connections = heard.connections
        async with Mosquitto(tmp_path, broker.port):
            await heard.until(lambda: heard.connections > connections)
            door.symlink_to(tmp_path / "mqtt.sock")
            await heard.until(lambda: any(e["type"].endswith("monitor.dropped") for e in heard.events))
            assert await bus.flush(LIMIT_S)
            telling.cancel()
    [dropped] = [event for event in heard.events if event["type"].endswith("monitor.dropped")]
    assert dropped["data"]["where"] == {"interface": None, "reason": "spool"}
    assert dropped["data"]["count"] + len(heard.events) - 1 == len(made)
    complete = [event for event in expected if "subject" in event]
    assert {ue: state["status"] for ue, state in heard.states.items() if state} == statuses(complete)


async def test_it_says_that_it_lives_and_the_broker_when_not(wire: Wire, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            first = heard.health["m1"]["time"]
            await heard.until(lambda: heard.health["m1"]["time"] > first)
            await process.stop(signal.SIGKILL)
            await heard.until(lambda: heard.health["m1"]["status"] == "offline")
