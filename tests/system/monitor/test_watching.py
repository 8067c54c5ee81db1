"""What comes out of a live monitor, and what it needs for that."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from testbed.mosquitto import Mosquitto
from tests.system.monitor.parts import (
    CAPTURE,
    Wire,
    configuration,
    eventually,
    facts,
    frames_of,
    has_said,
    listening,
    monitor,
    replayed,
    statuses,
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]


@pytest.mark.parametrize(
    ("interfaces", "send_on"),
    [(["two"], "one"), (["two", "four"], "one"), (["lo"], "lo")],
    ids=["one port", "mirrored twice", "loopback"],
)
async def test_live_is_what_a_replay_is(wire: Wire, tmp_path: Path, interfaces: list[str], send_on: str) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, interfaces) as process:
            await heard.until(lambda: heard.is_online("m1"))
            assert "CapEff:\t0000000000000000" in process.status()
            assert "CapBnd:\t0000000000000000" in process.status()
            wire.send(frames_of(CAPTURE), send_on)
            await heard.until(lambda: len(heard.events) >= len(expected))
            assert await process.stop() == 0
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
    assert facts(heard.events) == facts(expected)
    counters = heard.health["m1"]["counters"]
    assert counters["events"] == len(expected)
    assert counters["frames"] >= len(interfaces) * 100
    assert (counters["kernel_drops"], counters["spool_lost"]) == (0, 0)
    assert {ue: state["status"] for ue, state in heard.states.items() if state} == statuses(expected)


async def test_it_prints_what_it_would_publish(wire: Wire, tmp_path: Path) -> None:
    config = configuration(tmp_path, "mqtt://127.0.0.1:1", "m1")
    expected = replayed(CAPTURE, config)
    async with monitor(wire, config, ["two"], "--stdout") as process:
        await eventually(has_said(process.log, "privileges dropped"))
        wire.send(frames_of(CAPTURE))
        await eventually(lambda: process.printed.read_text().count("\n") >= len(expected))
        assert await process.stop() == 0
    assert facts(map(json.loads, process.printed.read_text().splitlines())) == facts(expected)


async def test_the_privilege_to_capture_is_enough(wire: Wire, open_path: Path, open_program: tuple[str, ...]) -> None:
    keep = ("setpriv", "--inh-caps=-all,+net_raw", "--bounding-set=-all,+net_raw", "--ambient-caps=-all,+net_raw")
    as_nobody = (*keep, "--reuid=65534", "--regid=65534", "--clear-groups")
    async with Mosquitto(open_path) as broker, listening(broker.url) as heard:
        (open_path / "mqtt.sock").chmod(0o777)
        config = configuration(open_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, ["two"], prefix=as_nobody, program=open_program) as process:
            await heard.until(lambda: heard.is_online("m1"))
            assert "CapPrm:\t0000000000000000" in process.status()
            wire.send(frames_of(CAPTURE))
            await heard.until(lambda: len(heard.events) >= len(expected))
    assert facts(heard.events) == facts(expected)
    assert "give CAP_NET_ADMIN" in process.log.read_text()


async def test_it_becomes_the_user_it_is_told(wire: Wire, open_path: Path, open_program: tuple[str, ...]) -> None:
    async with Mosquitto(open_path) as broker, listening(broker.url) as heard:
        (open_path / "mqtt.sock").chmod(0o777)
        config = configuration(open_path, broker.unix_url, "m1", monitor="{user: nobody}")
        async with monitor(wire, config, ["two"], program=open_program) as process:
            await heard.until(lambda: heard.is_online("m1"))
            assert "Uid:\t65534\t65534\t65534\t65534" in process.status()


async def test_a_port_that_was_away_needs_no_privilege_again(wire: Wire, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, listening(broker.url) as heard:
        config = configuration(tmp_path, broker.unix_url, "m1")
        expected = replayed(CAPTURE, config)
        async with monitor(wire, config, ["two"]) as process:
            await heard.until(lambda: heard.is_online("m1"))
            wire.run("ip -n {0} link del two")
            await eventually(has_said(process.log, "interface is down or gone"))
            wire.lay()
            await eventually(has_said(process.log, "interface is back"))
            wire.send(frames_of(CAPTURE))
            await heard.until(lambda: len(heard.events) >= len(expected))
    assert facts(heard.events) == facts(expected)
