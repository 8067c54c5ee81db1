"""An EPC that is not ours: MobiScud's monitor watches the interfaces that the scenario names, and nothing is emulated.

What is recorded are the events; what is computed from them, with the map of cells to cloudlets, is what the cloudlets
would have seen: how long UEs stay with one, and how often they change.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from mobiscud.bus import topics
from mobiscud.bus.cloudevents import TYPE_PREFIX, decode, encode, nanoseconds
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError, DecodeError
from testbed import results, sweep
from testbed.mosquitto import Mosquitto
from testbed.report import machine
from testbed.scenario.figures import NS, RUN_FILE, Run
from testbed.scenario.schema import External, Scenario
from testbed.spawn import PYTHON, spawn

ONLINE_LIMIT_S: Final = 30.0
SITE: Final = "external"


async def watch(scenario: Scenario, epc: External, directory: Path, say: Any) -> None:
    """Watch for the length of the scenario; leaves the raw data in ``directory``.

    :raises AdapterError: the monitor does not start, or ends
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    events: list[dict[str, Any]] = []
    online = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        place = sweep.RunDirectory.create()
        stack.push_async_callback(place.remove)
        broker = await stack.enter_async_context(Mosquitto(place.path / "mosquitto"))
        bus = await stack.enter_async_context(MqttBus(Broker.from_config(BusConfig(), broker.url)))
        recording = stack.enter_context((directory / "events.jsonl").open("wb"))

        def on_event(topic: str, payload: bytes) -> None:
            if topic.endswith(f"/{topics.STATE}"):
                return
            with contextlib.suppress(DecodeError):
                events.append(event := decode(payload))
                recording.write(encode(event) + b"\n")

        def on_health(topic: str, payload: bytes) -> None:
            if json.loads(payload)["status"] == "online":
                online.set()

        for topic_filter in topics.ALL_EVENTS:
            await bus.subscribe(topic_filter, on_event)
        await bus.subscribe(topics.health(SITE, "+"), on_health)
        config = {
            "site": {"name": SITE, "node": "monitor", "state_dir": str(place.path / "state")},
            "bus": {"url": broker.url},
            "monitor": {"interfaces": list(epc.interfaces)},
        }
        file = place.path / "monitor.yaml"
        file.write_text(yaml.safe_dump(config))
        node = await spawn("monitor", *PYTHON, "mobiscud", "run", "-c", str(file), log=directory / "monitor.log")
        stack.push_async_callback(node.stop)
        try:
            await asyncio.wait_for(online.wait(), ONLINE_LIMIT_S)
        except TimeoutError:
            raise AdapterError(f"the monitor did not start: {node.last_words()}") from None
        say(f"watching {', '.join(epc.interfaces)} for {scenario.duration_s:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(node.wait(), scenario.duration_s)
            raise AdapterError(f"the monitor ended: {node.last_words()}")
        say(f"{len(events)} events")
    about = {
        "variant": "only",
        "repetition": 1,
        "ues": {},
        "faults": [],
        "failures": [],
        "load": {"after": os.getloadavg()},
        "environment": {"machine": machine.describe(), "commit": machine.commit()},
    }
    (directory / "truths.jsonl").write_text("")
    (directory / RUN_FILE).write_text(json.dumps(about, indent=1) + "\n")


def compute(scenario: Scenario, runs: Sequence[Run]) -> dict[str, Any]:
    """What was seen, and what it would have been for cloudlets."""
    if scenario.external is None:
        raise ValueError("not a scenario with an EPC that is not ours")
    events = [event for run in runs for event in run.events]
    kinds = Counter(str(event["type"]).removeprefix(TYPE_PREFIX) for event in events)
    stays, changes = _stays(events, scenario.external.cells)
    return {
        "events": dict(sorted(kinds.items())),
        "ues": len({event["data"]["ue"] for event in events if event["data"].get("ue")}),
        "handovers": kinds["handover.completed"],
        "cloudlet_changes": changes,
        "stay_s": results.quantiles(stays),
    }


def _stays(events: Sequence[Mapping[str, Any]], cells: Mapping[int, str]) -> tuple[list[float], int]:
    """How long UEs that moved on had stayed with one cloudlet, in seconds, and how often they moved on."""
    here: dict[str, tuple[str | None, int]] = {}
    stays, changes = [], 0
    for event in sorted(events, key=lambda event: nanoseconds(event["time"])):
        ue, enb = event["data"].get("ue"), event["data"].get("enb")
        arrives = str(event["type"]).removeprefix(TYPE_PREFIX) in ("ue.attached", "ue.connected", "handover.completed")
        if not (ue and enb and arrives):
            continue
        at, cloudlet = nanoseconds(event["time"]), cells.get(enb.get("enb_id"))
        before, since = here.get(ue, (cloudlet, at))
        if before != cloudlet:
            changes += 1
            stays.append((at - since) / NS)
            since = at
        here[ue] = (cloudlet, since)
    return stays, changes
