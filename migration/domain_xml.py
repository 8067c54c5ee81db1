"""A personal VM as a libvirt domain. Pure: values in, XML out (libvirt.org/formatdomain.html)."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from migration.bandwidth import NetworkCard
from migration.verdict import Accelerator, HypervisorFacts, corrupts_even_memory
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig, ImageConfig

GUEST_MTU: Final = 1464
"""Leaves 36 octets of a 1500 octet link for IPv4, UDP and GTP-U, so that no packet of the guest needs fragments."""

QEMU_NAMESPACE: Final = "http://libvirt.org/schemas/domain/qemu/1.0"

OUR_NAMESPACE: Final = "https://mobiscud.org/xml/domain/1"
"""Of the element that tells by what fingerprint a domain was described, and its limits; it goes along with it."""

ODD_KIB: Final = 8
"""What odd memory has beyond whole MiB: two pages, so that its size is no multiple of 256 KiB."""

_FINGERPRINT: Final = f"{{{OUR_NAMESPACE}}}fingerprint"

_NAMESPACE: Final = uuid.UUID("6a2ecbb5-3d5f-5a0b-9d7c-5d1c8f8a4b1e")

_OFFLOADS_OF_THE_HOST: Final = ("csum", "gso", "tso4", "tso6", "ecn", "ufo", "mrg_rxbuf")
_OFFLOADS_OF_THE_GUEST: Final = ("csum", "tso4", "tso6", "ecn", "ufo")


def domain_uuid(pvm: Pvm) -> uuid.UUID:
    """Give the one UUID of a PVM: a hypervisor that has it already refuses a second."""
    return uuid.uuid5(_NAMESPACE, pvm.id)


def disk_name(pvm_id: PvmId) -> str:
    """Give the file name of a PVM's own disk."""
    return f"{pvm_id}.qcow2"


def domain_xml(
    pvm: Pvm, image: ImageConfig, config: HypervisorConfig, gateway: IPv4Interface, facts: HypervisorFacts
) -> str:
    """Describe the PVM as its host is to run it: what its image says, a virtio NIC on the bridge, a serial log.

    The files are at the same path on every cloudlet, since a migration takes the paths along.

    :param gateway: address and prefix of the router in the PVMs' network
    """
    domain = Element("domain", type="kvm" if facts.accelerator is Accelerator.KVM else "qemu")
    _text(domain, "name", pvm.id)
    _text(domain, "uuid", str(domain_uuid(pvm)))
    _text(domain, "memory", str(image.memory_mib), unit="MiB")
    if not corrupts_even_memory(facts):
        # The kernel clears 2 MiB at the first touch of a page: better while it starts than as a guest arrives.
        SubElement(SubElement(domain, "memoryBacking"), "allocation", mode="immediate")
    _text(domain, "vcpu", str(image.vcpus))

    boot = SubElement(domain, "os")
    _text(boot, "type", "hvm", arch="x86_64", machine=facts.machine)
    if image.kernel is not None:
        _text(boot, "kernel", str(image.kernel))
        _text(boot, "initrd", str(image.initrd))
        _text(boot, "cmdline", _command_line(pvm, image, gateway))

    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    SubElement(domain, "clock", offset="utc")
    # A guest that reboots or crashes has lost its memory: it must end, so that it cannot pass for the same one.
    for ending in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, ending, "destroy")

    devices = SubElement(domain, "devices")
    _text(devices, "emulator", facts.emulator)
    SubElement(devices, "controller", type="usb", model="none")
    if image.disk is not None:
        devices.append(_disk(config.disks / disk_name(pvm.id)))
    devices.append(_network_card(pvm, config.bridge))
    serial = SubElement(devices, "serial", type="file")
    SubElement(serial, "source", path=f"/var/log/libvirt/qemu/{pvm.id}-serial.log", append="on")
    SubElement(devices, "memballoon", model="none")
    if arguments := list(_arguments(image, facts)):
        more = SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")
        for argument in arguments:
            SubElement(more, f"{{{QEMU_NAMESPACE}}}arg", value=argument)
    ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
    ElementTree.register_namespace("mobiscud", OUR_NAMESPACE)
    limits = {
        name: str(value)
        for name, value in (("down_mbit_s", image.down_mbit_s), ("up_mbit_s", image.up_mbit_s))
        if value is not None
    }
    # The fingerprint first: an image saved under other limits still fits.
    _text(SubElement(domain, "metadata"), _FINGERPRINT, _fingerprint(domain, facts), **limits)
    ElementTree.indent(domain)
    return ElementTree.tostring(domain, encoding="unicode")


def fingerprint_of(described: str) -> str:
    """Read the fingerprint out of a description, as made here or as libvirt gives it; empty where there is none."""
    return next((element.text or "" for element in ElementTree.fromstring(described).iter(_FINGERPRINT)), "")


def network_card_of(described: str) -> NetworkCard | None:
    """Read out of a running domain's description where it is plugged in, and its limits."""
    domain = ElementTree.fromstring(described)
    tap, mac = domain.find("devices/interface/target"), domain.find("devices/interface/mac")
    if tap is None or mac is None:
        return None
    ours = next(domain.iter(_FINGERPRINT), Element("none"))
    limits = {name: float(ours.get(name, "nan")) for name in ("down_mbit_s", "up_mbit_s") if name in ours.keys()}  # noqa: SIM118
    return NetworkCard(tap.get("dev", ""), mac.get("address", ""), **limits)


def _fingerprint(domain: Element, facts: HypervisorFacts) -> str:
    """Tell one description from another: a saved memory image fits no other, and no other QEMU."""
    digest = hashlib.sha256(ElementTree.tostring(domain))
    digest.update(repr(facts.qemu_version).encode())
    return digest.hexdigest()[:16]


def _command_line(pvm: Pvm, image: ImageConfig, gateway: IPv4Interface) -> str:
    address = f"{IPv4Address(pvm.address)}/{gateway.network.prefixlen}"
    return " ".join(
        (
            "console=ttyS0 quiet",
            "panic=0",  # stay dead, and be seen to be
            "init_on_free=1",  # zeroed pages need no copying
            f"pvm.addr={address} pvm.gw={gateway.ip} pvm.mtu={GUEST_MTU}",
            *image.cmdline.split(),
        )
    )


def _disk(path: Path) -> Element:
    """Describe the PVM's own disk, which its host caches nothing of: what it has written is there after a migration."""
    disk = Element("disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="qcow2", cache="none", discard="unmap")
    SubElement(disk, "source", file=str(path))
    SubElement(disk, "target", dev="vda", bus="virtio")
    return disk


def _network_card(pvm: Pvm, bridge: str) -> Element:
    """Describe a NIC whose packets are whole on the wire: a userspace switch finishes no checksums.

    Its port of the bridge talks to none of the other PVMs', only to the switch's.
    """
    card = Element("interface", type="bridge")
    SubElement(card, "source", bridge=bridge)
    SubElement(card, "port", isolated="yes")
    SubElement(card, "mac", address=pvm.mac)
    SubElement(card, "model", type="virtio")
    driver = SubElement(card, "driver", name="qemu")
    SubElement(driver, "host", dict.fromkeys(_OFFLOADS_OF_THE_HOST, "off"))
    SubElement(driver, "guest", dict.fromkeys(_OFFLOADS_OF_THE_GUEST, "off"))
    SubElement(card, "rom", enabled="no")
    return card


def _arguments(image: ImageConfig, facts: HypervisorFacts) -> Iterator[str]:
    """What QEMU is to be told beside what libvirt has words for."""
    if corrupts_even_memory(facts):
        yield from _odd_memory(image.memory_mib * 1024 + ODD_KIB)
    if facts.accelerator is Accelerator.TCG:
        # Where it arrives the guest would say so before it answers anybody, by code that TCG has yet to translate.
        yield from ("-global", "virtio-net-pci.guest_announce=off")


def _odd_memory(kib: int) -> Iterator[str]:
    """Replace the guest's memory by one of a size that libvirt itself would round up to whole MiB.

    QEMU reads the dirty bits of a block of memory 64 pages at a time, and up to version 9 forgets to tell TCG that it
    has cleared them: pages written afterwards are not sent. Where the size does not allow 64 pages at a time it goes
    page by page, and tells.
    """
    yield from ("-object", f"memory-backend-ram,id=pc.ram.odd,size={kib * 1024},prealloc=on")
    yield from ("-machine", "memory-backend=pc.ram.odd")
    yield from ("-m", f"size={kib}k")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
