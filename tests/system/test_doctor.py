"""The doctor on a host with a hypervisor of its own and a guest that runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from migration.service import PersonalVmHost
from mobiscud.app.checks import Level
from mobiscud.app.doctor import examine
from mobiscud.core.config import parse
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId
from testbed import netns
from testbed.cloudlet_host import CloudletHost
from testbed.guest import image

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

NAMESPACE = f"td{os.getpid():x}-c1"
ADDRESS = "10.90.0.1"
PVM = Pvm(PvmId("pvm-1"), "172.16.0.50", "52:54:00:00:00:32")


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[CloudletHost]:
    await netns.delete([NAMESPACE])
    await netns.create([NAMESPACE])
    await netns.ip_batch([f"addr add {ADDRESS}/24 dev lo"], NAMESPACE)
    made = CloudletHost("c1", netns=NAMESPACE, management_address=ADDRESS, run_dir=tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        await netns.delete([NAMESPACE])


async def test_it_finds_the_hypervisor_and_how_its_guest_is_held(host: CloudletHost) -> None:
    built = await asyncio.to_thread(image.build)
    config = parse(
        f"""
site: {{node: c1}}
cloudlets:
  - {{id: c1, node: c1, enb_ids: [1]}}
  - {{id: c2, node: c2, enb_ids: [2], migration_uri: "qemu+tcp://10.90.0.2/system"}}
hypervisors:
  - {{cloudlet: c1, uri: "{host.uri}", kernel: {built.kernel}, initrd: {built.initrd}}}
"""
    )
    (section,) = config.hypervisors
    async with PersonalVmHost(section, IPv4Interface("172.16.0.1/16"), lambda notice: None) as vms:
        await vms.start(PVM)
        found = [(finding.level, finding.subject, finding.found) for finding in await examine(config)]
    assert (Level.OK, "libvirt", f"{host.uri} answers") in found
    (mode,) = (text for level, subject, text in found if subject == "migration" and level is Level.OK)
    assert mode.startswith("pre_copy (QEMU ")
    assert not any(text.endswith("no seccomp filter") for _, _, text in found)
    assert any(subject == "confinement" and text.endswith("it runs as root") for _, subject, text in found)
    assert any(subject == "migration" and "c2 is reached without TLS" in text for _, subject, text in found)
    assert not any(subject == "images" for _, subject, _ in found)
