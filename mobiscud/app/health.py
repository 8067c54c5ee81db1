"""What a node says of itself on the bus: retained, so that whoever asks later knows too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Final, NoReturn

from mobiscud.bus import topics
from mobiscud.bus.cloudevents import rfc3339
from mobiscud.bus.mqtt import MqttBus
from mobiscud.bus.spool import Message
from mobiscud.core.config import Config

EVERY_S: Final = 5.0

Counters = Callable[[], Mapping[str, int]]


class Health:
    """``counters`` gives what the node has counted, by name.

    ``online`` at every connection and every few seconds, ``offline`` by the node's own hand or the broker's.
    """

    counters: Counters = dict

    def __init__(self, config: Config) -> None:
        self._config = config
        self._topic = topics.health(config.site.name, config.site.node)
        self._since = rfc3339(time.time_ns())
        self.will = Message(self._topic, self._payload("offline"), retain=True)

    @contextlib.contextmanager
    def reported_on(self, bus: MqttBus) -> Iterator[None]:
        """Online while the context lasts."""
        bus.on_connect(lambda: self._report(bus, "online"))
        try:
            yield
        finally:
            self._report(bus, "offline")

    async def beat(self, bus: MqttBus) -> NoReturn:
        """Report again and again what has been counted."""
        while True:
            await asyncio.sleep(EVERY_S)
            if bus.connected:
                self._report(bus, "online")

    def _report(self, bus: MqttBus, status: str) -> None:
        bus.publish(self._topic, self._payload(status), retain=True)

    def _payload(self, status: str) -> bytes:
        roles = ["monitor"] if self._config.monitor.interfaces else []
        if self._config.own_cloudlet() is not None:
            roles.append("controller")
        health = {
            "status": status,
            "site": self._config.site.name,
            "node": self._config.site.node,
            "roles": roles,
            "since": self._since,
            "time": rfc3339(time.time_ns()),
            "version": version("mobiscud"),
            "counters": dict(self.counters()),
        }
        return json.dumps(health).encode()
