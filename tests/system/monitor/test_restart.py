"""A monitor that begins again, asked to or killed."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from testbed.mosquitto import Mosquitto
from tests.system.monitor.parts import (
    CAPTURE,
    CAPTURES,
    Wire,
    configuration,
    events_of,
    eventually,
    facts,
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


async def test_a_restart_tells_nothing_twice_and_nothing_false(wire: Wire, tmp_path: Path) -> None:
    frames = frames_of(CAPTURE)
    half = len(frames) // 2
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[:half])
            await eventually(lambda: wire.unread() == 0)
            await process.stop()
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
        before = len(heard.events)
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[half:])
            await eventually(lambda: wire.unread() == 0)
            await process.stop()
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
    assert 0 < before < len(heard.events)
    assert len(heard.told()) == len(heard.events), "nothing twice"
    known = {event.get("subject") for event in expected}
    # It was cut in the middle of procedures: how a UE came, or where it went meanwhile, was not seen, and that is said.
    late = tuple(f"org.mobiscud.{kind}" for kind in ("ue.connected", "ue.identified", "monitor.desynchronised"))
    told = [event for event in heard.events if event.get("subject") in known and event["type"] not in late]
    assert set(ids(told)) <= set(ids(expected)), "nothing false"
    sequences = [int(event["sequence"]) for event in heard.events]
    assert sequences == sorted(set(sequences))


@pytest.mark.parametrize("is_doubled", [False, True], ids=["alone", "doubled"])
async def test_a_monitor_that_was_killed_goes_on_where_it_was(wire: Wire, tmp_path: Path, is_doubled: bool) -> None:
    """Killed where no procedure is under way (tests/property/test_resumption.py finds such places)."""
    capture, cut = CAPTURES / "epc-attach-eea2.pcap", 203
    frames = frames_of(capture)
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard, AsyncExitStack() as stack:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(capture, config)
        told_before = len(events_of(capture, cut))
        if is_doubled:
            other = configuration(tmp_path, broker.unix_url, "m2")
            await stack.enter_async_context(monitor(wire, other, ["four"]))
            await heard.until(lambda: heard.is_online("m2"))
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[:cut])
            await heard.until(lambda: len(heard.events) >= told_before)
            await eventually(lambda: wire.unread() == 0)
            await process.stop(signal.SIGKILL)
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.send(frames[cut:])
            await heard.until(lambda: len(heard.events) >= len(expected))
            await eventually(lambda: wire.unread() == 0)
            assert await process.stop() == 0
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
        assert "UEs known from before" in process.log.read_text()
    assert 0 < told_before < len(expected)
    assert sorted(map(str, facts(heard.events))) == sorted(map(str, facts(expected)))
    assert {ue: state["status"] for ue, state in heard.states.items() if state} == statuses(expected)


async def test_a_broker_that_has_forgotten_knows_all_again(wire: Wire, tmp_path: Path) -> None:
    """First the broker dies, with what it retained, then the monitor: the next one goes on all the same."""
    capture, cut = CAPTURES / "epc-attach-eea2.pcap", 203
    frames = frames_of(capture)
    broker = Mosquitto(tmp_path)
    await broker.__aenter__()
    config = configuration(tmp_path, broker.unix_url, "m1")
    expected = replayed(capture, config)
    async with listening(broker.url) as heard, monitor(wire, config, ["two"]) as process:
        await heard.until(lambda: heard.is_online("m1"))
        wire.send(frames[:cut])
        await heard.until(lambda: len(heard.events) >= len(events_of(capture, cut)))
        await eventually(lambda: wire.unread() == 0)
        before = {ue: state["status"] for ue, state in heard.states.items() if state}
        await broker.stop(kill=True)
        await eventually(has_said(process.log, "connection to the broker lost"))
        async with Mosquitto(tmp_path, broker.port):
            async with listening(broker.url) as later:
                await later.until(lambda: later.states.keys() >= before.keys())
                await process.stop(signal.SIGKILL)
                await later.until(lambda: later.health["m1"]["status"] == "offline")
            async with monitor(wire, config, ["two"]) as process:
                await heard.until(lambda: heard.is_online("m1"))
                wire.send(frames[cut:])
                await heard.until(lambda: len(heard.events) >= len(expected))
                await eventually(lambda: wire.unread() == 0)
                assert await process.stop() == 0
            await heard.until(lambda: heard.health["m1"]["status"] == "offline")
    assert before
    assert sorted(map(str, facts(heard.events))) == sorted(map(str, facts(expected)))
