from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from migration.bandwidth import NetworkCard
from migration.domain_xml import QEMU_NAMESPACE, domain_uuid, domain_xml, fingerprint_of, network_card_of
from migration.verdict import Accelerator, HypervisorFacts
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig, ImageConfig

PVM = Pvm(PvmId("pvm-1"), "172.16.0.10", "52:54:00:00:00:10")
GATEWAY = IPv4Interface("172.16.0.1/16")
FACTS = HypervisorFacts((7, 2, 22), Accelerator.TCG, "/usr/bin/qemu-system-x86_64", "pc-i440fx-7.2")
CONFIG = HypervisorConfig(cloudlet="c1", bridge="br-guests", disks=Path("/disks"))
IMAGE = ImageConfig(kernel=Path("/boot/guest"), initrd=Path("/boot/a & b"), memory_mib=192)


def described(pvm: Pvm = PVM, facts: HypervisorFacts = FACTS, image: ImageConfig = IMAGE) -> Element:
    return ElementTree.fromstring(domain_xml(pvm, image, CONFIG, GATEWAY, facts))


def test_the_domain_is_the_pvm() -> None:
    domain = described()
    assert domain.findtext("name") == "pvm-1"
    assert domain.findtext("uuid") == str(domain_uuid(PVM))
    assert domain.find("devices/interface/mac[@address='52:54:00:00:00:10']") is not None


def test_the_uuid_is_the_same_for_ever_and_another_for_another_pvm() -> None:
    moved = replace(PVM, address="172.16.0.11")
    assert domain_uuid(moved) == domain_uuid(PVM)
    assert domain_uuid(replace(PVM, id=PvmId("pvm-2"))) != domain_uuid(PVM)


def test_the_host_configuration_is_followed() -> None:
    domain = described()
    assert domain.findtext("memory") == "192"
    assert domain.findtext("os/kernel") == "/boot/guest"
    assert domain.findtext("os/initrd") == "/boot/a & b"
    assert domain.find("devices/interface/source[@bridge='br-guests']") is not None


def test_the_image_says_what_boots() -> None:
    both = described(image=IMAGE.model_copy(update={"disk": Path("/base.qcow2"), "vcpus": 2, "cmdline": "quick  s=1"}))
    assert both.findtext("vcpu") == "2"
    assert (both.findtext("os/cmdline") or "").endswith(" quick s=1")
    assert both.find("devices/disk/source[@file='/disks/pvm-1.qcow2']") is not None
    alone = described(image=ImageConfig(disk=Path("/base.qcow2")))
    assert alone.find("os/kernel") is None
    assert alone.find("os/cmdline") is None
    assert alone.find("devices/disk/driver[@type='qcow2'][@cache='none']") is not None


def test_the_guest_learns_its_network_from_the_command_line() -> None:
    words = (described().findtext("os/cmdline") or "").split()
    assert {"pvm.addr=172.16.0.10/16", "pvm.gw=172.16.0.1", "pvm.mtu=1464", "panic=0"} <= set(words)


def arguments(facts: HypervisorFacts) -> list[str]:
    return [argument.get("value", "") for argument in described(facts=facts).iter(f"{{{QEMU_NAMESPACE}}}arg")]


def test_old_emulators_get_memory_whose_writes_they_cannot_miss() -> None:
    size = 192 * 2**20 + 8192
    found = arguments(FACTS)
    assert size % 2**18
    assert found[:2] == ["-object", f"memory-backend-ram,id=pc.ram.odd,size={size},prealloc=on"]
    assert found[2:6] == ["-machine", "memory-backend=pc.ram.odd", "-m", f"size={size // 1024}k"]
    assert described().find("memoryBacking") is None


@pytest.mark.parametrize(
    "facts", [replace(FACTS, accelerator=Accelerator.KVM), replace(FACTS, qemu_version=(10, 0, 2))]
)
def test_others_keep_theirs_which_is_there_before_the_guest_is(facts: HypervisorFacts) -> None:
    assert "-object" not in arguments(facts)
    assert described(facts=facts).find("memoryBacking/allocation[@mode='immediate']") is not None


def test_a_guest_that_is_slow_at_first_does_not_begin_with_an_announcement() -> None:
    silent = ["-global", "virtio-net-pci.guest_announce=off"]
    assert arguments(FACTS)[-2:] == silent
    assert arguments(replace(FACTS, qemu_version=(10, 0, 2))) == silent
    assert arguments(replace(FACTS, accelerator=Accelerator.KVM)) == []


@pytest.mark.parametrize(("accelerator", "kind"), [(Accelerator.TCG, "qemu"), (Accelerator.KVM, "kvm")])
def test_the_accelerator_is_the_hypervisors(accelerator: Accelerator, kind: str) -> None:
    assert described(facts=replace(FACTS, accelerator=accelerator)).get("type") == kind


def test_a_guest_that_ends_does_not_come_back_by_itself() -> None:
    domain = described()
    assert [domain.findtext(tag) for tag in ("on_poweroff", "on_reboot", "on_crash")] == ["destroy"] * 3


def test_packets_leave_with_whole_checksums() -> None:
    driver = described().find("devices/interface/driver")
    assert driver is not None
    for side in ("host", "guest"):
        offloads = driver.find(side)
        assert offloads is not None
        assert offloads.get("csum") == "off"
        assert set(offloads.attrib.values()) == {"off"}


def test_a_guest_has_no_way_to_its_neighbours() -> None:
    assert described().find("devices/interface/port[@isolated='yes']") is not None


def test_nothing_is_there_that_would_slow_a_migration_down() -> None:
    domain = described()
    assert domain.find("devices/disk") is None
    assert domain.find("devices/memballoon[@model='none']") is not None
    assert domain.find("devices/interface/rom[@enabled='no']") is not None


def test_limits_go_along_and_do_not_make_another_vm_of_it() -> None:
    limited = IMAGE.model_copy(update={"down_mbit_s": 20.0, "up_mbit_s": 0.5})
    text = domain_xml(PVM, limited, CONFIG, GATEWAY, FACTS)
    assert fingerprint_of(text) == fingerprint_of(domain_xml(PVM, IMAGE, CONFIG, GATEWAY, FACTS))
    running = text.replace("<source bridge", "<target dev='vnet5' /><source bridge")
    assert network_card_of(running) == NetworkCard("vnet5", PVM.mac, 20.0, 0.5)
    free = domain_xml(PVM, IMAGE, CONFIG, GATEWAY, FACTS).replace("<source bridge", "<target dev='t' /><source bridge")
    assert network_card_of(free) == NetworkCard("t", PVM.mac)
    assert network_card_of("<domain><devices/></domain>") is None


def test_a_description_carries_its_fingerprint() -> None:
    assert len(fingerprint_of(domain_xml(PVM, IMAGE, CONFIG, GATEWAY, FACTS))) == 16
    assert fingerprint_of("<domain/>") == ""


def test_whatever_a_saved_image_depends_on_changes_the_fingerprint() -> None:
    larger = IMAGE.model_copy(update={"memory_mib": 256})
    others = [
        domain_xml(replace(PVM, address="172.16.0.11"), IMAGE, CONFIG, GATEWAY, FACTS),
        domain_xml(PVM, larger, CONFIG, GATEWAY, FACTS),
        domain_xml(PVM, IMAGE, CONFIG, GATEWAY, replace(FACTS, qemu_version=(7, 2, 23))),
        domain_xml(PVM, IMAGE, CONFIG, GATEWAY, replace(FACTS, machine="pc-q35-7.2")),
    ]
    fingerprints = {fingerprint_of(text) for text in [*others, domain_xml(PVM, IMAGE, CONFIG, GATEWAY, FACTS)]}
    assert len(fingerprints) == 5


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="example"):
        described(replace(PVM, address="example"))
