"""Two guests on one host reach the network, but neither each other nor their host."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from migration import bandwidth
from migration.bandwidth import NetworkCard
from migration.isolation import Confinement, confinements
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId
from testbed import netns
from testbed.guest.client import ECHO_PORT, GuestClient
from testbed.spawn import spawn

pytestmark = pytest.mark.system

PVM = Pvm(PvmId("pvm-1"), "10.91.0.50", "52:54:00:00:00:32")
OTHER = replace(PVM, id=PvmId("pvm-2"), address="10.91.0.51", mac="52:54:00:00:00:33")
ROUTER, MANAGEMENT = "10.91.0.1", "10.90.0.1"
ON_ONE_LINK = IPv4Interface(f"{ROUTER}/8")
"""Of the guests: they ask on their own link for the host's address, as one that attacks would."""

ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", {ECHO_PORT}))
print("READY", flush=True)
while True:
    data, sender = s.recvfrom(2048)
    s.sendto(data, sender)
"""

OpenSite = Callable[..., AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def echo_in(namespace: str, directory: Path) -> AsyncIterator[None]:
    log = directory / f"echo-{namespace}.log"
    child = await spawn("echo", sys.executable, "-c", ECHO, log=log, namespace=namespace, ready=True)
    try:
        await child.ready()
        yield
    finally:
        await child.stop()


async def test_a_guest_reaches_neither_its_neighbour_nor_its_host(open_real_site: OpenSite, tmp_path: Path) -> None:
    async with open_real_site(1, gateway=ON_ONE_LINK) as site:
        (here,), (host,) = site.cloudlets, site.hosts
        async with echo_in(host.netns, tmp_path), echo_in(site.client_namespace, tmp_path):
            for pvm in (PVM, OTHER):
                await here.vms.start(pvm)
                await site.boot_id(pvm)
            guest = GuestClient(site.client_namespace, PVM.address, timeout_s=20)
            close = f"from migration.isolation import close_host; assert close_host({host.bridge!r}) == []"
            await netns.command("nsenter", f"--net={netns.path(host.netns)}", sys.executable, "-c", close)
            assert await guest.reaches(ROUTER, ECHO_PORT)
            assert not await guest.reaches(OTHER.address, ECHO_PORT)
            assert not await guest.reaches(MANAGEMENT, ECHO_PORT)

            # Without what keeps them apart they do meet: the tests above can fail.
            for tap in ("vnet0", "vnet1"):
                await netns.run_in(host.netns, "bridge", "link", "set", "dev", tap, "isolated", "off")
            for setting in (f"{host.bridge}/rp_filter", f"{host.bridge}/arp_ignore", "all/arp_ignore"):
                await netns.run_in(host.netns, "sh", stdin=f"echo 0 > /proc/sys/net/ipv4/conf/{setting}\n")
            await netns.run_in(host.netns, "ip", "route", "add", "10.91.0.0/16", "dev", host.bridge)
            assert await guest.reaches(OTHER.address, ECHO_PORT)
            assert await guest.reaches(MANAGEMENT, ECHO_PORT)


def confined_in(namespace: str) -> list[Confinement]:
    return [found for found in confinements() if Path(f"/proc/{found.pid}/ns/net").samefile(netns.path(namespace))]


async def test_qemu_may_make_only_the_system_calls_it_needs(open_real_site: OpenSite) -> None:
    async with open_real_site(1) as site:
        (here,) = site.cloudlets
        await here.vms.start(PVM)
        await site.boot_id(PVM)
        (host,) = site.hosts
        found = await asyncio.to_thread(confined_in, host.netns)
        assert [confinement.filters_calls for confinement in found] == [True]


async def test_a_guest_gets_and_sends_no_more_than_it_may(open_real_site: OpenSite) -> None:
    """There and back, each way once at 1 Mbit/s: on any machine it takes at least as long as that takes."""
    octets = 1 << 18
    async with open_real_site(1) as site:
        (here,), (host,) = site.cloudlets, site.hosts
        await here.vms.start(PVM)
        await site.boot_id(PVM)
        guest = GuestClient(site.client_namespace, PVM.address, timeout_s=60)
        await guest.echo_stream(octets)
        for card in (
            NetworkCard("vnet0", PVM.mac, down_mbit_s=1),
            NetworkCard("vnet0", PVM.mac, up_mbit_s=1),
        ):
            await asyncio.to_thread(limit, host.netns, host.bridge, card)
            assert await guest.echo_stream(octets) > (octets - bandwidth.SMALLEST_BURST) * 8 / 1e6
            if card.down_mbit_s is not None:
                await netns.run_in(host.netns, "tc", "qdisc", "del", "dev", "vnet0", "root")


def limit(namespace: str, bridge: str, card: NetworkCard) -> None:
    """As the node of the host does, which is in its namespace."""
    program = f"""
import asyncio
from migration.bandwidth import NetworkCard, TrafficLimits

class Cards:
    async def network_card(self, pvm_id):
        return {card!r}

asyncio.run(TrafficLimits({bridge!r}, Cards()).begin(["pvm-1"]))
"""
    command = ("nsenter", f"--net={netns.path(namespace)}", sys.executable, "-c", program)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "traffic limited" in done.stdout + done.stderr, done.stdout + done.stderr
