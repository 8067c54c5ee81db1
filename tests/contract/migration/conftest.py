"""Two kinds of site for one suite: fake hypervisors, and real libvirtd with QEMU in namespaces."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Protocol

import pytest

from migration.lifecycle import Notice
from migration.service import PersonalVmHost
from mobiscud.core.config import HypervisorConfig
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from testbed import netns
from testbed.cloudlet_host import CloudletHost
from testbed.fake_hypervisor import FakeHypervisor, FakeSite
from testbed.guest import image
from testbed.guest.client import GuestClient

GATEWAY = IPv4Interface("10.91.0.1/16")


@dataclass(slots=True)
class Cloudlet:
    """One host of a site, and all that it said."""

    vms: PersonalVmHost
    migration_uri: str
    notices: list[Notice] = field(default_factory=list)

    def heard(self, kind: type[Notice]) -> list[Notice]:
        """The notices of one kind so far."""
        return [notice for notice in self.notices if isinstance(notice, kind)]


class Site(Protocol):
    """Cloudlets that reach each other, with an observer that asks the guests themselves."""

    cloudlets: list[Cloudlet]
    nowhere: str

    async def boot_id(self, pvm: Pvm) -> str:
        """Have the guest answer; waits for it to boot."""

    async def restart_daemon(self, cloudlet: Cloudlet) -> None:
        """Break the connection to the hypervisor of a cloudlet; its guests run on."""


OpenSite = Callable[..., AbstractAsyncContextManager[Site]]


@dataclass(slots=True)
class FakedSite:
    """A site of fakes."""

    cloudlets: list[Cloudlet]
    site: FakeSite
    nowhere: str = "fake://nowhere"

    async def boot_id(self, pvm: Pvm) -> str:
        (guest,) = self.site.running_copies(pvm.id)
        return guest.boot_id

    async def restart_daemon(self, cloudlet: Cloudlet) -> None:
        self.site.hypervisors[cloudlet.migration_uri].restart()


@asynccontextmanager
async def open_fake_site(cloudlets: int, **settings: Any) -> AsyncIterator[Site]:
    site = FakeSite()
    opened = FakedSite([], site)
    async with AsyncExitStack() as stack:
        for number in range(1, cloudlets + 1):
            uri = f"fake://c{number}"
            config = HypervisorConfig(cloudlet=f"c{number}", kernel=Path("/k"), initrd=Path("/i"), **settings)
            opened.cloudlets.append(await _enter(stack, config, uri, site.add(uri)))
        yield opened


@dataclass(slots=True)
class LibvirtSite:
    """A site of real parts."""

    cloudlets: list[Cloudlet]
    hosts: list[CloudletHost]
    client_namespace: str
    nowhere: str = "qemu+tcp://10.90.0.99/system"

    async def boot_id(self, pvm: Pvm) -> str:
        return (await GuestClient(self.client_namespace, pvm.address).wait_until_up()).boot_id

    async def restart_daemon(self, cloudlet: Cloudlet) -> None:
        host = self.hosts[self.cloudlets.index(cloudlet)]
        await host.kill_daemon()
        await host.start_daemon()


@asynccontextmanager
async def open_libvirt_site(directory: Path, cloudlets: int, **settings: Any) -> AsyncIterator[Site]:
    prefix = f"mt{os.getpid():x}-"
    built = await asyncio.to_thread(image.build)
    opened = LibvirtSite([], [], f"{prefix}net")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(netns.delete, await _wire(prefix, cloudlets))
        for number in range(1, cloudlets + 1):
            host = CloudletHost(
                f"c{number}",
                netns=f"{prefix}c{number}",
                management_address=f"10.90.0.{number}",
                run_dir=directory,
                bridge_ports=("data",),
            )
            stack.push_async_callback(host.stop)
            await host.start()
            opened.hosts.append(host)
            config = HypervisorConfig(
                cloudlet=host.name, uri=host.uri, kernel=built.kernel, initrd=built.initrd, **settings
            )
            opened.cloudlets.append(await _enter(stack, config, host.migration_uri, None))
        yield opened


async def _enter(
    stack: AsyncExitStack, config: HypervisorConfig, uri: str, hypervisor: FakeHypervisor | None
) -> Cloudlet:
    notices: list[Notice] = []
    vms = PersonalVmHost(config, GATEWAY, notices.append, hypervisor=hypervisor)
    return Cloudlet(await stack.enter_async_context(vms), uri, notices)


async def _wire(prefix: str, cloudlets: int) -> list[str]:
    """Make a namespace that all cloudlets are plugged into, by one wire for libvirt and one for the guests."""
    hub = f"{prefix}net"
    names = [hub, *(f"{prefix}c{number}" for number in range(1, cloudlets + 1))]
    await netns.delete(names)
    await netns.create(names)
    lines = [f"link add {bridge} type bridge" for bridge in ("mgmt", "data")]
    lines += [f"link set {bridge} up" for bridge in ("mgmt", "data")]
    lines += [f"addr add {GATEWAY} dev data"]
    for number in range(1, cloudlets + 1):
        for wire in ("mgmt", "data"):
            lines += [f"link add {wire}{number} type veth peer name {wire} netns {prefix}c{number}"]
            lines += [f"link set {wire}{number} master {wire} up"]
    await netns.ip_batch(lines, hub)
    for number in range(1, cloudlets + 1):
        lines = [f"addr add 10.90.0.{number}/24 dev mgmt", "link set mgmt up", "link set data up"]
        await netns.ip_batch(lines, f"{prefix}c{number}")
    return names


def missing_parts() -> str | None:
    """Say why real hypervisors cannot be had here."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in ("libvirtd", "virsh", "qemu-system-x86_64", "nsenter", "gcc") if not shutil.which(name)]
    return f"needs {', '.join(absent)}" if absent else None


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.system)])
def open_site(request: pytest.FixtureRequest, tmp_path: Path) -> OpenSite:
    """How to open a site: ``async with open_site(CLOUDLETS, **SETTINGS_OF_THE_HYPERVISORS) as site``."""
    if request.param == "fake":
        return open_fake_site
    reason = missing_parts()
    if reason is not None:
        pytest.skip(reason)
    return lambda cloudlets, **settings: open_libvirt_site(tmp_path, cloudlets, **settings)


@pytest.fixture
def open_real_site(tmp_path: Path) -> OpenSite:
    """How to open a site of real parts alone, whose ``hosts`` can be broken."""
    reason = missing_parts()
    if reason is not None:
        pytest.skip(reason)
    return lambda cloudlets, **settings: open_libvirt_site(tmp_path, cloudlets, **settings)


Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds."""

    async def wait(condition: Callable[[], Awaitable[bool]], limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            try:
                if await condition():
                    return
            except AdapterError:
                pass
            assert time.monotonic() < deadline, "the condition did not come true"
            await asyncio.sleep(0.02)

    return wait
