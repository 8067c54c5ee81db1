"""What ``mobiscud doctor`` concludes from what it found. Pure: observations in, findings out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """How bad it is: as it should be; it works, but; it does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and the mend where there is something to mend."""

    level: Level
    subject: str
    found: str
    mend: str | None = None

    def __str__(self) -> str:
        mend = f" -> {self.mend}" if self.mend else ""
        return f"{self.level:<5}{self.subject:<14}{self.found}{mend}"


class Part(StrEnum):
    """What a node may be."""

    MONITOR = "monitor"
    CONTROLLER = "controller"


NET_ADMIN, NET_RAW, SYS_ADMIN, BPF = 12, 13, 21, 39
"""capabilities(7)."""

OLDEST_KERNEL: Final = (5, 15)
"""The oldest that the datapath was written for: one program holds the whole way of a packet."""

CLOCK_ERROR_MS: Final = 100.0
"""Beyond it, times of several nodes are not worth comparing; nothing else depends on the clock."""


def ok(subject: str, found: str) -> Finding:
    """Nothing to mend."""
    return Finding(Level.OK, subject, found)


def capabilities(effective: int, parts: Collection[Part]) -> Iterator[Finding]:
    """Compare the mask of effective capabilities with what the parts need; where there are none, all are looked at."""

    def has(*numbers: int) -> bool:
        return any(effective >> number & 1 for number in numbers)

    rows = (
        (Part.MONITOR, "CAP_NET_RAW", has(NET_RAW), "sniffing"),
        (Part.CONTROLLER, "CAP_NET_ADMIN", has(NET_ADMIN), "the datapath, and large capture buffers"),
        (Part.CONTROLLER, "CAP_BPF or CAP_SYS_ADMIN", has(BPF, SYS_ADMIN), "loading the datapath"),
    )
    for part, name, there, purpose in rows:
        if parts and part not in parts:
            continue
        if there:
            yield ok("capabilities", f"{name}: {purpose}")
        else:
            level = Level.FAIL if part in parts else Level.WARN
            mend = "run as root, or grant it (AmbientCapabilities= in docs/examples/mobiscud-monitor.service)"
            yield Finding(level, "capabilities", f"no {name}, which {purpose} takes", mend)


def kernel(release: str) -> Finding:
    """Look at ``uname -r``."""
    numbers = [int(digits) for digits in release.split("-")[0].split(".")[:2] if digits.isdigit()]
    if tuple(numbers) >= OLDEST_KERNEL:
        return ok("kernel", f"Linux {release}")
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return Finding(Level.WARN, "kernel", f"Linux {release} is older than what was tested", f"use {oldest} or later")


def programs(subject: str, wanted: Mapping[str, str], present: Collection[str], *, needed: bool) -> Iterator[Finding]:
    """Say which programs are missing; ``wanted``: the Debian package of each."""
    missing = [name for name in wanted if name not in present]
    if missing:
        packages = " ".join(sorted({wanted[name] for name in missing}))
        level = Level.FAIL if needed else Level.WARN
        yield Finding(level, subject, f"{', '.join(missing)} not found", f"apt-get install {packages}, or make setup")
    else:
        yield ok(subject, ", ".join(wanted))


def bpf_file_system(mounts: str, path: str, *, needed: bool) -> Finding:
    """Look for the BPF file system among the lines of /proc/self/mounts."""
    if any(line.split()[1:3] == [path, "bpf"] for line in mounts.splitlines() if len(line.split()) > 2):
        return ok("bpf", f"pins at {path}")
    if not needed:
        return ok("bpf", f"no BPF file system at {path}, and nobody here needs one")
    return Finding(Level.WARN, "bpf", f"no BPF file system at {path}: the node mounts one", f"mount -t bpf bpf {path}")


def bridge(name: str, datapath_type: str | None, fail_mode: str | None) -> Iterator[Finding]:
    """Look at an Open vSwitch bridge; ``datapath_type`` is ``None`` where there is no such bridge."""
    if datapath_type is None:
        make = f"ovs-vsctl add-br {name} -- set bridge {name} datapath_type=netdev fail_mode=secure"
        yield Finding(Level.FAIL, "openvswitch", f"there is no bridge {name}", make)
        return
    wrong = [
        (key, found, wanted)
        for key, found, wanted in (("datapath_type", datapath_type, "netdev"), ("fail_mode", fail_mode, "secure"))
        if found != wanted
    ]
    for key, found, wanted in wrong:
        mend = f"ovs-vsctl set bridge {name} {key}={wanted}"
        yield Finding(Level.WARN, "openvswitch", f"bridge {name}: {key} is {found or 'not set'}, not {wanted}", mend)
    if not wrong:
        yield ok("openvswitch", f"bridge {name}")


def migration(
    wanted: str, chosen: str, qemu_version: tuple[int, int, int], accelerator: str, *, odd_memory: bool
) -> Finding:
    """Say in which mode VMs leave, and why. ``odd_memory``: their memory is given a size that QEMU does not corrupt."""
    version = ".".join(map(str, qemu_version))
    why = "as configured" if wanted != "auto" else "its stop is shortest, and a failure leaves the VM where it was"
    if odd_memory:
        why += f"; QEMU {version} loses pre-copied memory under {accelerator}, so VMs get 8 KiB more, which prevents it"
    return ok("migration", f"{chosen} (QEMU {version}, {accelerator}): {why}")


def ways_to_others(uris: Mapping[str, str]) -> Iterator[Finding]:
    """Look at how other hosts are reached, by cloudlet."""
    for cloudlet, uri in uris.items():
        if "+tls:" in uri:
            yield ok("migration", f"{cloudlet} is reached over TLS")
        else:
            found = f"{cloudlet} is reached without TLS: who is on the way reads the memory of VMs"
            yield Finding(Level.WARN, "migration", found, "use qemu+tls:// (docs/security.md)")


def certificates(missing: Iterable[str]) -> Finding:
    """Look at what TLS between hypervisors needs on this one."""
    absent = ", ".join(missing)
    if not absent:
        return ok("certificates", "libvirt's and QEMU's are there")
    mend = "scripts/make-certificates.sh makes them (docs/security.md)"
    return Finding(Level.FAIL, "certificates", f"missing: {absent}", mend)


def confinement(gaps: Mapping[int, Collection[str]]) -> Iterator[Finding]:
    """Look at the QEMUs that run, by process: what is open in each."""
    if not gaps:
        yield ok("confinement", "no VM runs, so there is nothing to see")
    elif not any(gaps.values()):
        yield ok("confinement", f"{len(gaps)} QEMU: no root, system calls filtered, a profile")
    for gap in sorted({gap for found in gaps.values() for gap in found}):
        number = sum(gap in found for found in gaps.values())
        mend = "/etc/libvirt/qemu.conf: user, seccomp_sandbox, security_driver (docs/security.md)"
        yield Finding(Level.WARN, "confinement", f"{number} of {len(gaps)} QEMU: {gap}", mend)


def clock(*, synchronised: bool, error_ms: float) -> Finding:
    """Look at what the kernel knows of its clock (adjtimex(2))."""
    if not synchronised:
        return Finding(Level.WARN, "clock", "not synchronised: times of several nodes do not compare", "run chrony")
    if error_ms > CLOCK_ERROR_MS:
        found = f"synchronised, but up to {error_ms:.0f} ms wrong"
        return Finding(Level.WARN, "clock", found, "look at chronyc tracking")
    return ok("clock", f"synchronised, at most {error_ms:.0f} ms wrong")
