"""What libvirt says, in our words: events, statistics, what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from xml.etree import ElementTree

import libvirt

from migration.hypervisor import CopyStatistics
from migration.lifecycle import Notice, PvmResumed, PvmStopped, PvmSuspended, StopReason
from migration.verdict import Accelerator, HypervisorFacts
from mobiscud.core.ids import PvmId

CPUINFO: Final = Path("/proc/cpuinfo")

MOVING: Final = frozenset({libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY})
ARRIVED: Final = frozenset({libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY})
STOP_REASONS: Final[Mapping[int, StopReason]] = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: StopReason.SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: StopReason.DESTROYED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: StopReason.CRASHED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: StopReason.MIGRATED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: StopReason.SAVED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: StopReason.FAILED,
}
CLOSE_REASONS: Final[Mapping[int, str]] = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "input or output error",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd closed it",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd does not answer",
}


def notice_of(pvm_id: PvmId, at_ns: int, event: int, detail: int) -> Notice | None:
    """Translate a lifecycle event; ``None`` for one that tells nothing about where the guest executes."""
    match event:
        case libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
            return PvmSuspended(pvm_id, at_ns, migrating=detail in MOVING)
        case libvirt.VIR_DOMAIN_EVENT_RESUMED:
            return PvmResumed(pvm_id, at_ns, migrated=detail in ARRIVED)
        case libvirt.VIR_DOMAIN_EVENT_STOPPED:
            return PvmStopped(pvm_id, at_ns, STOP_REASONS.get(detail, StopReason.UNKNOWN))
        case _:
            return None


def is_over_tls(uri: str) -> bool:
    """Tell whether a libvirt URI asks for TLS."""
    return urlsplit(uri).scheme.endswith("+tls")


def statistics_of(found: Mapping[str, Any]) -> CopyStatistics:
    """Read a job's typed parameters (libvirt-domain.h, VIR_DOMAIN_JOB_*)."""
    return CopyStatistics(
        iteration=found.get("memory_iteration", 0),
        bytes_moved=found.get("memory_processed", 0),
        bytes_remaining=found.get("memory_remaining", 0),
        downtime_ms=found.get("downtime"),
    )


def facts_of(connection: Any) -> HypervisorFacts:
    """Ask what QEMU this is, and choose what executes its guests."""
    version = connection.getVersion()
    accelerator = Accelerator.KVM if _has_hardware_kvm(connection) else Accelerator.TCG
    kind = "kvm" if accelerator is Accelerator.KVM else "qemu"
    described = ElementTree.fromstring(connection.getDomainCapabilities(None, "x86_64", None, kind))
    return HypervisorFacts(
        qemu_version=(version // 1_000_000, version // 1000 % 1000, version % 1000),
        accelerator=accelerator,
        emulator=described.findtext("path", ""),
        machine=described.findtext("machine", ""),
    )


def _has_hardware_kvm(connection: Any) -> bool:
    """Tell whether libvirt offers KVM, and the processor (of this machine: a controller sits beside its hypervisor)
    has what KVM wants. Nested virtual machines offer kinds of KVM without it, under which a guest may never boot.
    """
    try:
        connection.getDomainCapabilities(None, "x86_64", None, "kvm")
    except libvirt.libvirtError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)
    return flags is not None and not {"vmx", "svm"}.isdisjoint(flags[1].split())
