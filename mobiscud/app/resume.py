"""What a monitor that is started again finds on the bus: the UEs as they were, and how long nobody has watched them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from typing import Final

import structlog

from epc_monitor.pipeline import Monitor
from mobiscud.bus import topics
from mobiscud.bus.cloudevents import nanoseconds
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.publisher import read_enb, read_known
from mobiscud.core.config import SiteConfig
from mobiscud.core.errors import DecodeError
from mobiscud.core.ue import EnbState, UeState

TRUSTED_S: Final = 300
"""Tunnels and ids of a time longer ago may belong to others by now."""
READ_WITHIN_S: Final = 10.0
SETTLES_WITHIN_S: Final = 1.0
QUIET_S: Final = 0.2
"""Nothing retained has come for so long, and the broker has answered since: that was all."""

log = structlog.get_logger(__name__)


async def resume(monitor: Monitor, broker: Broker, site: SiteConfig) -> None:
    """Give the monitor what is retained on the bus. What cannot be read is passed over."""
    found = _Found()
    async with MqttBus(broker) as bus:
        await _read(bus, site, found)
    states = found.states.values()
    unwatched_s = time.time() - max([found.watched, *(at for _, at in states)]) / 1e9
    count = monitor.resume(found.enbs.values(), states, trusted=unwatched_s <= TRUSTED_S)
    if states:
        log.info("UEs known from before", count=count, trusted=unwatched_s <= TRUSTED_S, unwatched_s=round(unwatched_s))


class _Found:
    """What has come: states by topic, and when a monitor of this site last said that it was there.

    One that was killed has left its last will, which is as old as that monitor; then the newest state tells.
    """

    def __init__(self) -> None:
        self.states: dict[str, tuple[UeState, int]] = {}
        self.enbs: dict[str, EnbState] = {}
        self.watched = 0
        self.answered = asyncio.Event()
        self.news = asyncio.Event()

    def state(self, topic: str, payload: bytes) -> None:
        self.news.set()
        self.states.pop(topic, None)
        if not payload:
            return
        try:
            self.states[topic] = read_known(payload)
        except DecodeError as error:
            log.warning("retained state not understood", topic=topic, error=str(error))

    def enb(self, topic: str, payload: bytes) -> None:
        self.news.set()
        self.enbs.pop(topic, None)
        if not payload:
            return
        try:
            self.enbs[topic] = read_enb(payload)
        except DecodeError as error:
            log.warning("retained state not understood", topic=topic, error=str(error))

    def health(self, topic: str, payload: bytes) -> None:
        try:
            health = json.loads(payload)
            if "monitor" in health["roles"]:
                self.watched = max(self.watched, nanoseconds(health["time"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            log.warning("health not understood", topic=topic)


async def _read(bus: MqttBus, site: SiteConfig, found: _Found) -> None:
    """Read until a message of our own has come back, and no state after it for a while."""
    mark = topics.request(site.name, site.node, f"resume-{secrets.token_hex(8)}")
    await bus.subscribe(topics.health(site.name, "+"), found.health)
    await bus.subscribe(topics.enb_state(site.name, "+"), found.enb)
    await bus.subscribe(topics.ALL_STATES, found.state)
    await bus.subscribe(mark, lambda _topic, _payload: found.answered.set())
    bus.publish(mark, b"")
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            await found.answered.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLES_WITHIN_S):  # a second monitor may go on telling all the time
                    while await _comes(found.news):
                        found.news.clear()
    except TimeoutError:
        log.warning("the broker was slow with what it retains; UEs it has not told are met anew")


async def _comes(news: asyncio.Event) -> bool:
    """Whether there are news within a while."""
    try:
        async with asyncio.timeout(QUIET_S):
            await news.wait()
    except TimeoutError:
        return False
    return True
