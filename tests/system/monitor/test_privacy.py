"""No identity leaves the process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mobiscud.core.events import UeEvent
from testbed.mosquitto import Mosquitto
from tests.system.monitor.parts import (
    CAPTURE,
    CAPTURES,
    PROGRAM,
    Process,
    Wire,
    configuration,
    events_of,
    eventually,
    frames_of,
    listening,
    monitor,
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]


def imsis() -> set[str]:
    """Every IMSI that can be learnt from the captures."""
    found = {
        event.imsi
        for capture in sorted(CAPTURES.glob("*.pcap"))
        for event in events_of(capture)
        if isinstance(event, UeEvent) and event.imsi is not None
    }
    for truth in CAPTURES.glob("*.truth.jsonl"):
        found |= {line["imsi"] for line in map(json.loads, truth.read_text().splitlines()) if "imsi" in line}
    return {str(imsi) for imsi in found}


def encoded(imsi: str) -> bytes:
    """As it stands in a message: two digits an octet, the earlier one in the low half (TS 23.003, TBCD)."""
    digits = imsi + "f"
    return bytes(int(digits[i + 1] + digits[i], 16) for i in range(0, len(digits), 2))


async def test_no_identity_leaves_the_process(wire: Wire, tmp_path: Path) -> None:
    secret = imsis()
    assert len(secret) >= 5
    captures = sorted(CAPTURES.glob("*.pcap"))
    async with Mosquitto(tmp_path) as broker, listening(broker.url, "#") as heard:
        for form, output in (("console", "table"), ("json", "jsonl")):
            config = configuration(tmp_path, broker.unix_url, f"replay-{form}")
            process = Process(tmp_path, f"replay-{form}")
            options = ("--publish", "--stats", "--output", output, "--log-level", "debug", "--log-format", form)
            await process.start(*PROGRAM, "replay", "-c", str(config), *options, *map(str, captures))
            assert await process.stop(0) == 0
        async with monitor(wire, configuration(tmp_path, broker.unix_url, "m1"), ["two"]):
            await heard.until(lambda: heard.is_online("m1"))
            for capture in captures:
                wire.send(frames_of(capture))
            wire.send(damaged(frame) for frame in frames_of(CAPTURE))
            await eventually(lambda: wire.unread() == 0)
        await heard.until(lambda: heard.health["m1"]["status"] == "offline")
    assert heard.health["m1"]["counters"]["decode_errors"] > 0
    assert len(heard.told()) > 2 * len(heard.events) > 0
    said = b"\n".join(topic.encode() + b" " + payload for topic, payload in heard.all) + everything_below(tmp_path)
    for imsi in secret:
        assert imsi.encode() not in said
        assert encoded(imsi) not in said
        assert encoded(imsi).hex().encode() not in said.lower()


def damaged(frame: bytes) -> bytes:
    """The frame with an IP packet that says it is longer than it is."""
    return frame[:16] + b"\xff\xff" + frame[18:]


def everything_below(directory: Path) -> bytes:
    """What the files are called, and what is in them."""
    paths = list(directory.rglob("*"))
    names = [str(path.relative_to(directory)).encode() for path in paths]
    return b"\n".join(names + [path.read_bytes() for path in paths if path.is_file()])
