"""``mobiscud events``: what is on the bus, as it comes, each event once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection

from mobiscud.app.replay import describe
from mobiscud.bus import topics
from mobiscud.bus.cloudevents import TYPE_PREFIX, decode
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.repeats import Repeats
from mobiscud.core.config import Config
from mobiscud.core.errors import ConfigError, DecodeError


def run(config: Config, *, url: str | None, types: Collection[str], ues: Collection[str], form: str) -> None:
    """Print the events until interrupted.

    :raises ConfigError: no broker is named
    :raises AdapterError: it is not there
    """
    url = url or config.bus.url
    if url is None:
        raise ConfigError("bus.url: name the broker, in the configuration or with --bus mqtt://HOST:1883")
    asyncio.run(_tail(Broker.from_config(config.bus, url), types, ues, form))


async def _tail(broker: Broker, types: Collection[str], ues: Collection[str], form: str) -> None:
    repeats = Repeats()
    wanted = {name.removeprefix(TYPE_PREFIX) for name in types}

    def show(topic: str, payload: bytes) -> None:
        if topic.endswith(f"/{topics.STATE}"):
            return
        try:
            envelope = decode(payload)
        except DecodeError:
            return  # somebody else's message
        kind = str(envelope["type"]).removeprefix(TYPE_PREFIX)
        if (wanted and kind not in wanted) or (ues and envelope.get("subject") not in ues):
            return
        if not repeats.is_new(envelope["id"]):
            return
        print(payload.decode() if form == "jsonl" else describe(envelope), flush=True)

    async with MqttBus(broker) as bus:
        for topic_filter in topics.ALL_EVENTS:
            await bus.subscribe(topic_filter, show)
        print("waiting for events; Ctrl-C ends it", file=sys.stderr)
        await asyncio.Event().wait()
