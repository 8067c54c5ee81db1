"""Two kinds of site for one suite: fake hypervisors, and real libvirtd with QEMU in namespaces."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Protocol

import pytest

from migration.lifecycle import Notice
from migration.service import PersonalVmHost
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig, ImageConfig
from testbed import netns
from testbed.cloudlet_host import CloudletHost
from testbed.fake_hypervisor import FakeHypervisor, FakeSite
from testbed.guest import image
from testbed.guest.client import GuestClient

GATEWAY = IPv4Interface("10.91.0.1/16")
WITH_DISK = "with-disk"
"""The image of the catalogue whose PVMs have a disk."""
MAKE_CERTIFICATES = Path(__file__).parents[3] / "scripts/make-certificates.sh"
DISK_MIB = 4
BASE_MIB = 16
PRIVATE_DISKS = Path("/var/lib/libvirt/images/pvms")
"""A path that is another directory on every host."""


@dataclass(slots=True)
class Cloudlet:
    """One host of a site, and all that it said."""

    vms: PersonalVmHost
    migration_uri: str
    config: HypervisorConfig
    gateway: IPv4Interface
    hypervisor: FakeHypervisor | None = None
    """None: the one of ``config``."""
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

    async def write_disk(self, pvm: Pvm, seed: int) -> None:
        """Have the guest fill the beginning of its disk with what follows from ``seed``."""

    async def disk(self, pvm: Pvm) -> str:
        """Have the guest read that again; equal where the same was written."""

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

    async def write_disk(self, pvm: Pvm, seed: int) -> None:
        (here,) = (h for h in self.site.hypervisors.values() if pvm.id in h.guests)
        here.write_disk(pvm.id, f"written with {seed}")

    async def disk(self, pvm: Pvm) -> str:
        (guest,) = self.site.running_copies(pvm.id)
        assert guest.disk is not None
        return guest.disk

    async def restart_daemon(self, cloudlet: Cloudlet) -> None:
        self.site.hypervisors[cloudlet.migration_uri].restart()


@asynccontextmanager
async def open_fake_site(cloudlets: int, **settings: Any) -> AsyncIterator[Site]:
    site = FakeSite()
    opened = FakedSite([], site)
    shared: dict[PvmId, str] = {}
    async with AsyncExitStack() as stack:
        for number in range(1, cloudlets + 1):
            uri = f"fake://c{number}"
            config = HypervisorConfig(cloudlet=f"c{number}", kernel=Path("/k"), initrd=Path("/i"), **settings)
            hypervisor = site.add(uri, with_disk=frozenset({WITH_DISK}))
            if config.shared_disks:
                hypervisor.disks = shared
            opened.cloudlets.append(await _enter(stack, config, uri, hypervisor, {}, GATEWAY))
        yield opened


@dataclass(slots=True)
class LibvirtSite:
    """A site of real parts."""

    cloudlets: list[Cloudlet]
    hosts: list[CloudletHost]
    client_namespace: str
    nowhere: str = "qemu+tcp://10.90.0.99/system"

    async def boot_id(self, pvm: Pvm) -> str:
        return (await self._client(pvm).wait_until_up()).boot_id

    async def write_disk(self, pvm: Pvm, seed: int) -> None:
        await self._client(pvm).wait_until_up()
        await self._client(pvm).write_disk(seed, DISK_MIB)

    async def disk(self, pvm: Pvm) -> str:
        await self._client(pvm).wait_until_up()
        return await self._client(pvm).sum_disk(DISK_MIB)

    def _client(self, pvm: Pvm) -> GuestClient:
        return GuestClient(self.client_namespace, pvm.address, timeout_s=20)

    async def restart_daemon(self, cloudlet: Cloudlet) -> None:
        host = self.hosts[self.cloudlets.index(cloudlet)]
        await host.kill_daemon()
        await host.start_daemon()


@asynccontextmanager
async def open_libvirt_site(
    directory: Path,
    cloudlets: int,
    *,
    authorities: Sequence[str] = (),
    gateway: IPv4Interface = GATEWAY,
    **settings: Any,
) -> AsyncIterator[Site]:
    """``gateway``: as the guests know it. ``authorities``: who signs each host's certificate; none: no TLS."""
    prefix = f"mt{os.getpid():x}-"
    built = await asyncio.to_thread(image.build)
    opened = LibvirtSite([], [], f"{prefix}net")
    base = directory / "base.qcow2"
    await netns.command("qemu-img", "create", "-q", "-f", "qcow2", str(base), f"{BASE_MIB}M")
    images = {WITH_DISK: ImageConfig(kernel=built.kernel, initrd=built.initrd, disk=base)}
    settings.setdefault("disks", directory / "shared" if settings.get("shared_disks") else PRIVATE_DISKS)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(netns.delete, await _wire(prefix, cloudlets))
        for number in range(1, cloudlets + 1):
            address = f"10.90.0.{number}"
            pki = await certified(directory, authorities[number - 1], f"c{number}", address) if authorities else None
            host = CloudletHost(
                f"c{number}",
                netns=f"{prefix}c{number}",
                management_address=address,
                run_dir=directory,
                bridge_ports=("data",),
                pki=pki,
            )
            stack.push_async_callback(host.stop)
            await host.start()
            opened.hosts.append(host)
            config = HypervisorConfig(
                cloudlet=host.name, uri=host.uri, kernel=built.kernel, initrd=built.initrd, **settings
            )
            opened.cloudlets.append(await _enter(stack, config, host.migration_uri, None, images, gateway))
        yield opened


async def certified(directory: Path, authority: str, name: str, address: str) -> Path:
    """Make a host's certificates as an operator does, and the authority if there is none yet; gives their directory."""
    place = directory / authority
    if not place.exists():
        await netns.command(str(MAKE_CERTIFICATES), "ca", str(place))
    await netns.command(str(MAKE_CERTIFICATES), "host", str(place), name, address)
    return place / "hosts" / name


async def _enter(
    stack: AsyncExitStack,
    config: HypervisorConfig,
    uri: str,
    hypervisor: FakeHypervisor | None,
    images: dict[str, ImageConfig],
    gateway: IPv4Interface,
) -> Cloudlet:
    notices: list[Notice] = []
    vms = PersonalVmHost(config, gateway, notices.append, images=images, hypervisor=hypervisor)
    return Cloudlet(await stack.enter_async_context(vms), uri, config, gateway, hypervisor, notices)


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
