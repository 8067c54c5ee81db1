"""``mobiscud doctor``: looks at this machine, with or without a configuration, and says what to mend.

What it finds is judged in ``checks``; here is only the looking. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import os
import re
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mobiscud.app import checks
from mobiscud.app.checks import Finding, Level, Part, ok
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.core.config import Config, SwitchConfig
from mobiscud.core.errors import MobiScudError
from mobiscud.core.vm_config import HypervisorConfig, missing_files

LIMIT_S: Final = 5.0
"""For whatever is asked: one that does not answer is as good as absent."""

BUILD_TOOLS: Final = {"clang": "clang", "bpftool": "bpftool", "tc": "iproute2"}
OPENVSWITCH: Final = {"ovs-vsctl": "openvswitch-switch"}
HYPERVISOR: Final = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}
EXTRAS: Final = {"os_ken": "OpenFlow", "libvirt": "libvirt"}
PKI: Final = Path("/etc/pki")
CERTIFICATES: Final = (
    "CA/cacert.pem",
    "libvirt/servercert.pem",
    "libvirt/clientcert.pem",
    "libvirt/private/serverkey.pem",
    "libvirt/private/clientkey.pem",
    "qemu/ca-cert.pem",
    "qemu/server-cert.pem",
    "qemu/client-cert.pem",
)
STA_UNSYNC: Final = 0x0040
SIOCGIFFLAGS, IFF_UP = 0x8913, 1


async def examine(config: Config) -> list[Finding]:
    """Look at everything; what the configuration does not use can only be a warning."""
    parts = parts_of(config)
    findings = [*_local(config, parts)]
    async for finding in _remote(config, parts):
        findings.append(finding)
    return findings


def parts_of(config: Config) -> frozenset[Part]:
    """What the node of this configuration is; nothing, where it says nothing."""
    monitor = {Part.MONITOR} if config.monitor.interfaces else set()
    return frozenset(monitor | ({Part.CONTROLLER} if config.own_cloudlet() is not None else set()))


def _local(config: Config, parts: Collection[Part]) -> Iterator[Finding]:
    """What needs nobody's answer."""
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    yield from checks.capabilities(int(effective[1], 16) if effective else 0, parts)
    yield checks.kernel(os.uname().release)
    yield from _interfaces(config)
    if _concerns(Part.CONTROLLER, parts):
        yield from _installed(config, needed=Part.CONTROLLER in parts)
    yield _state_directory(config)
    yield _clock()


def _concerns(part: Part, parts: Collection[Part]) -> bool:
    """Whether what a part needs is looked at: where nobody says what this node is, it may be anything."""
    return not parts or part in parts


def _installed(config: Config, *, needed: bool) -> Iterator[Finding]:
    """What a controller works with."""
    present = {name for name in (*BUILD_TOOLS, *OPENVSWITCH, *HYPERVISOR) if shutil.which(name)}
    yield from checks.programs("bpf", BUILD_TOOLS, present, needed=needed)
    switch = next((s for s in config.switches if _is_own(config, s.cloudlet)), None)
    bpffs = str(switch.bpffs) if switch else "/sys/fs/bpf"
    yield checks.bpf_file_system(Path("/proc/self/mounts").read_text(), bpffs, needed=needed)
    yield from checks.programs("openvswitch", OPENVSWITCH, present, needed=needed)
    yield from checks.programs("hypervisor", HYPERVISOR, present, needed=needed)
    for module, purpose in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            level = Level.FAIL if needed else Level.WARN
            yield Finding(level, "python", f"no {module}, which {purpose} takes", "pip install 'mobiscud[node]'")


def _is_own(config: Config, cloudlet: str) -> bool:
    own = config.own_cloudlet()
    return own is not None and own.id == cloudlet


def _interfaces(config: Config) -> Iterator[Finding]:
    for name in config.monitor.interfaces:
        if not _exists(name):
            yield Finding(Level.FAIL, "interfaces", f"there is no {name}", "monitor.interfaces: ip link shows them")
        elif not _is_up(name):
            yield Finding(Level.WARN, "interfaces", f"{name} is down", f"ip link set {name} up")
        else:
            yield ok("interfaces", name)


def _exists(interface: str) -> bool:
    try:
        return socket.if_nametoindex(interface) > 0
    except OSError:
        return False


def _is_up(interface: str) -> bool:
    """Ask for the interface's flags (netdevice(7)); /sys may show another network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16sH14x", interface.encode(), 0)
        _, flags = struct.unpack("16sH14x", fcntl.ioctl(asking, SIOCGIFFLAGS, request))
    return bool(flags & IFF_UP)


def _state_directory(config: Config) -> Finding:
    directory = config.site.state_dir
    there = next((path for path in (directory, *directory.parents) if path.is_dir()), Path("/"))
    if os.access(there, os.W_OK):
        return ok("state", f"{directory} can be written")
    return Finding(Level.WARN, "state", f"{directory} cannot be written", "site.state_dir names another place")


class _Timex(ctypes.Structure):
    """As far as it is read here; the kernel's has 208 octets (adjtimex(2))."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def _clock() -> Finding:
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return Finding(Level.WARN, "clock", "the kernel does not tell about it", "run chrony")
    return checks.clock(synchronised=not timex.status & STA_UNSYNC, error_ms=timex.maxerror / 1000)


async def _remote(config: Config, parts: Collection[Part]) -> AsyncIterator[Finding]:
    """What has to be asked."""
    controls = Part.CONTROLLER in parts
    for switch in config.switches:
        if _is_own(config, switch.cloudlet):
            async for finding in _switch(switch):
                yield finding
    hosts = [host for host in config.hypervisors if _is_own(config, host.cloudlet)]
    for host in (hosts or [HypervisorConfig(cloudlet="none")]) if _concerns(Part.CONTROLLER, parts) else ():
        async for finding in _hypervisor(config, host, needed=controls):
            yield finding
    yield await _broker(config)


async def _switch(switch: SwitchConfig) -> AsyncIterator[Finding]:
    """The bridge as its database has it, and whether its OpenFlow side answers."""
    if shutil.which("ovs-vsctl"):
        for finding in await _bridge(switch.bridge):
            yield finding
    kind, _, place = switch.openflow.partition(":")
    try:
        async with asyncio.timeout(LIMIT_S):
            if kind == "unix":
                _, writer = await asyncio.open_unix_connection(place)
            else:
                host, _, port = place.rpartition(":")
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
        yield ok("openflow", f"{switch.openflow} answers")
    except (OSError, ValueError, TimeoutError) as error:
        mend = f"ovs-vsctl set bridge {switch.bridge} protocols=OpenFlow13,OpenFlow14; is ovs-vswitchd running?"
        yield Finding(Level.FAIL, "openflow", f"{switch.openflow}: {error or 'no answer'}", mend)


async def _bridge(name: str) -> list[Finding]:
    words = ("--timeout=3", "--if-exists", "get", "bridge", name, "datapath_type", "fail_mode")
    process = await asyncio.create_subprocess_exec(
        "ovs-vsctl", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        found = f"its database does not answer: {said[-1] if said else process.returncode}"
        mend = "systemctl start openvswitch-switch; one of another place is not looked at (OVS_RUNDIR)"
        return [Finding(Level.WARN, "openvswitch", found, mend)]
    lines = [line.strip('"') for line in out.decode().split()]
    kind, mode = lines if len(lines) == 2 else (None, None)
    return list(checks.bridge(name, kind, mode))


async def _hypervisor(config: Config, host: HypervisorConfig, *, needed: bool) -> AsyncIterator[Finding]:
    if importlib.util.find_spec("libvirt") is None:
        return
    from migration.libvirt_host import LibvirtHypervisor
    from migration.verdict import choose_mode, corrupts_even_memory

    hypervisor = LibvirtHypervisor(host, config.offload.gateway)
    try:
        async with asyncio.timeout(LIMIT_S):
            facts = await hypervisor.connect(_Deaf())
    except (MobiScudError, TimeoutError) as error:
        level = Level.FAIL if needed else Level.WARN
        found = f"{host.uri}: {error or 'no answer'}"
        yield Finding(level, "libvirt", found, "systemctl start libvirtd, or hypervisors: uri names another")
    else:
        yield ok("libvirt", f"{host.uri} answers")
        mode, odd = choose_mode(host.mode), corrupts_even_memory(facts)
        yield checks.migration(host.mode, mode, facts.qemu_version, facts.accelerator, odd_memory=odd)
        if facts.accelerator != "kvm":
            yield Finding(Level.WARN, "hypervisor", "no KVM: VMs are emulated, and slow", "enable VT-x or AMD-V")
    finally:
        with contextlib.suppress(MobiScudError, TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                await hypervisor.close()
    for finding in _beside(config, host) if needed else ():
        yield finding


def _beside(config: Config, host: HypervisorConfig) -> Iterator[Finding]:
    """What lies beside the hypervisor, on this machine."""
    from migration.isolation import confinements, open_settings
    from migration.libvirt_words import is_over_tls

    for problem in missing_files(config.images, host):
        yield Finding(Level.FAIL, "images", problem, "put it there, at the same path on every host")
    if not _exists(host.bridge):
        yield Finding(Level.FAIL, "hypervisor", f"no bridge {host.bridge}", f"ip link add {host.bridge} type bridge")
    for problem in open_settings(host.bridge):
        found = f"VMs may reach this host: {problem}"
        yield Finding(Level.WARN, "isolation", found, "the node closes it when it starts, as root")
    yield from checks.confinement({one.pid: one.gaps for one in confinements()})
    others = {c.id: c.migration_uri for c in config.cloudlets if c.id != host.cloudlet and c.migration_uri}
    yield from checks.ways_to_others(others)
    if any(is_over_tls(uri) for uri in others.values()):
        yield checks.certificates(name for name in CERTIFICATES if not (PKI / name).is_file())


class _Deaf:
    """Somebody who connects only to ask."""

    def on_notice(self, notice: object) -> None:
        """Of no interest."""

    def on_iteration(self, pvm_id: object, iteration: int) -> None:
        """Of no interest."""

    def on_lost(self, reason: str) -> None:
        """Of no interest: what is asked then raises."""


async def _broker(config: Config) -> Finding:
    if config.bus.url is None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", config.bus.embedded_port))
            except OSError:
                found = f"no bus.url, and port {config.bus.embedded_port} is taken: no embedded broker can serve there"
                return Finding(Level.WARN, "broker", found, "set bus.url, or bus.embedded_port")
        return ok("broker", f"no bus.url: an embedded one will serve on 127.0.0.1:{config.bus.embedded_port}")
    shown = urlsplit(config.bus.url)._replace(query="").geturl().rpartition("@")[2]
    try:
        async with asyncio.timeout(LIMIT_S), MqttBus(Broker.from_config(config.bus, config.bus.url)):
            return ok("broker", f"{shown} lets us in")
    except (MobiScudError, OSError, ssl.SSLError, TimeoutError) as error:
        return Finding(Level.FAIL, "broker", f"{shown}: {error or 'no answer'}", "start it, or mend bus")
