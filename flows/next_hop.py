"""The core's next hop: found by ARP over the switch, so that a router that is exchanged is found again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import structlog

from flows.arp import question, sender_of_answer
from flows.encode import AddFlow
from flows.openflow import OpenFlowChannel
from flows.pipeline import CORE, Layout, core_rules, link_mac
from flows.rules import FlowRule, SetEthernet
from mobiscud.core.errors import AdapterError, DecodeError

ASK_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class NextHop:
    """Where packets for UEs that no cloudlet has are sent; nowhere while it is not known, or where there is no port."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._mac = ""
        self._told = asyncio.Event()

    def rules(self) -> frozenset[FlowRule]:
        """The way there as far as it is known."""
        return core_rules(self._layout, self._mac) if self._mac else frozenset()

    def adopt(self, found: Iterable[FlowRule]) -> None:
        """Go on with what the switch was told before: no packet waits for an answer after a restart."""
        for rule in found:
            for action in rule.actions:
                if rule.table == CORE and isinstance(action, SetEthernet):
                    self._mac = action.destination

    async def keep(self, channel: OpenFlowChannel, changing: asyncio.Lock) -> None:
        """Ask until the connection is lost, and have the switch follow the answers."""
        asking = asyncio.create_task(self._ask(channel, changing), name="next hop")
        try:
            await channel.lost.wait()
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    async def _ask(self, channel: OpenFlowChannel, changing: asyncio.Lock) -> None:
        if not self._layout.sgi_port:
            return
        channel.on_frame = self._hear
        asked = question(self._layout.sgi_gateway, link_mac(self._layout.cloudlet))
        try:
            await channel.listen()
            while True:
                channel.inject(asked, self._layout.sgi_port)
                with suppress(TimeoutError):
                    async with asyncio.timeout(ASK_EVERY_S):
                        await self._told.wait()
                    await self._install(channel, changing)
        except AdapterError as error:
            log.warning("no next hop to the core", cloudlet=self._layout.cloudlet, reason=str(error))

    async def _install(self, channel: OpenFlowChannel, changing: asyncio.Lock) -> None:
        self._told.clear()
        log.info(
            "next hop to the core", cloudlet=self._layout.cloudlet, address=self._layout.sgi_gateway, mac=self._mac
        )
        async with changing:
            await channel.commit([AddFlow(rule) for rule in sorted(self.rules(), key=lambda rule: rule.id)])

    def _hear(self, frame: bytes) -> None:
        try:
            address, at = sender_of_answer(frame)
        except DecodeError:
            return
        if address == self._layout.sgi_gateway and at != self._mac:
            self._mac = at
            self._told.set()
