"""The wire of a cloudlet without any rule: everything between eNodeB and core passes as it came."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

import structlog

from flows.gtp_datapath.datapath import GtpDatapath, WirePorts
from flows.pipeline import link_mac
from mobiscud.core.config import SwitchConfig
from mobiscud.core.ids import CloudletId

log = structlog.get_logger(__name__)


class BareWire:
    """Use as a context manager. Where the ports of the wire are not there, nothing has to pass, and nothing is done.

    Rules that an earlier process had to leave (it was killed) are removed: nobody would keep them in line.
    """

    def __init__(self, switch: SwitchConfig) -> None:
        self._ports = WirePorts(switch.enb_port, switch.core_port, switch.gi_port)
        self._cloudlet = switch.cloudlet
        self._datapath = GtpDatapath(switch.cloudlet, self._ports, switch.bpffs, link_mac(CloudletId(switch.cloudlet)))

    async def __aenter__(self) -> Self:
        """Let the wire pass.

        :raises SetupError: a program or a privilege is missing, or another process has this wire
        """
        ports = (self._ports.enb, self._ports.core, self._ports.gi)
        there = {name for _, name in socket.if_nameindex()}  # of this network namespace, as /sys may not be
        if not there.issuperset(ports):
            log.info("no wire here that would have to pass", cloudlet=self._cloudlet)
            return self
        self._datapath.claim()
        try:
            await self._datapath.attach()
            for rule in tuple(self._datapath.rules()):
                self._datapath.delete(rule)
        except BaseException:
            self._datapath.leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It goes on passing."""
        self._datapath.leave()
