"""The configurations of everything that runs on the testbed: MobiScud's nodes, EPC, RAN. Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testbed.cloudlet_host import CloudletHost
from testbed.guest.image import GuestImage
from testbed.ovs import OpenVSwitch
from testbed.setting import Setting, Subscriber
from testbed.topology import (
    AT_MTSO,
    MME_S1,
    MME_S11,
    OTHER_SGW_S1,
    OTHER_SGW_S5,
    OTHER_SGW_S11,
    PGW_S5,
    PVM_NEXT_HOP,
    SGW_S1,
    SGW_S5,
    SGW_S11,
    cloudlet_name,
    enb_s1,
)

SITE: Final = "testbed"
GATEWAY: Final = "172.16.0.1/16"
FIRST_ENB_ID: Final = 0x19B
MONITOR: Final = "monitor"
IMAGE: Final = "guest"
"""By which the PVMs' hosts call what they are made of, where they have disks."""
PLMN: Final = {"mcc": "999", "mnc": "70"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the nodes find broker, hosts and switches; ``hosts`` and ``switches`` by the number of the cloudlet."""

    broker_url: str
    key: str
    run_directory: Path
    image: GuestImage
    hosts: Mapping[int, CloudletHost]
    switches: Mapping[int, OpenVSwitch]


def nodes(setting: Setting, subscribers: Sequence[Subscriber], places: Places) -> dict[str, dict[str, Any]]:
    """The configuration of each node of MobiScud, by the node's name.

    The cloudlet at the MTSO is a site of its own, which knows no other: it serves every eNodeB, and its subscribers
    are not those of the cloudlets beside them.
    """
    enb_ids = {k: [FIRST_ENB_ID + k - 1] for k in places.hosts if k != AT_MTSO}
    enb_ids[1] += [FIRST_ENB_ID + k - 1 for k in setting.sharing]
    offloaded = [s for s in subscribers if s.number not in setting.plain_ues]
    beside = [s.offload() for s in offloaded if s.number not in setting.mtso_ues]
    at_mtso = [s.offload() for s in offloaded if s.number in setting.mtso_ues]
    common = {"bus": {"url": places.broker_url}, "privacy": {"mode": "pseudonym", "key": places.key}}
    chain = [_cloudlet(k, ids, places) for k, ids in enb_ids.items()]
    found: dict[str, dict[str, Any]] = {
        MONITOR: {
            **common,
            "site": _site(MONITOR, places),
            "cloudlets": chain,
            "monitor": {"interfaces": ["s1", "lo"]},
        }
    }
    for k in places.hosts:
        name = cloudlet_name(k)
        everywhere = [ids for several in enb_ids.values() for ids in several]
        found[name] = {
            **common,
            "images": {IMAGE: {**_kernel(places), "disk": str(setting.disk)}} if setting.disk else {},
            "site": _site(name, places),
            "cloudlets": [_cloudlet(k, everywhere, places)] if k == AT_MTSO else chain,
            "switches": [_switch(k, () if k == AT_MTSO else tuple(enb_ids), places)],
            "hypervisors": [
                {
                    "cloudlet": name,
                    "uri": places.hosts[k].uri,
                    **({"image": IMAGE} if setting.disk else _kernel(places)),
                    "mode": setting.migration_mode,
                    **setting.hypervisor,
                }
            ],
            "offload": {
                "mode": setting.offload,
                "gateway": GATEWAY,
                "subscribers": at_mtso if k == AT_MTSO else beside,
            },
            "migration": {"policy": "stay"} if k == AT_MTSO else dict(setting.migration_section),
        }
    return found


def _kernel(places: Places) -> dict[str, str]:
    return {"kernel": str(places.image.kernel), "initrd": str(places.image.initrd)}


def _site(node: str, places: Places) -> dict[str, Any]:
    return {"name": SITE, "node": node, "state_dir": str(places.run_directory / "state")}


def _cloudlet(number: int, enb_ids: Sequence[int], places: Places) -> dict[str, Any]:
    name = cloudlet_name(number)
    return {
        "id": name,
        "node": name,
        "enb_ids": list(enb_ids),
        "migration_uri": places.hosts[number].migration_uri,
    }


def _switch(number: int, chain: Sequence[int], places: Places) -> dict[str, Any]:
    name = cloudlet_name(number)
    return {
        "cloudlet": name,
        "bridge": f"br-{name}",
        "openflow": places.switches[number].management_target(f"br-{name}"),
        "enb_port": "enb",
        "core_port": "core",
        "pvm_port": "pvm0",
        "sgi_port": "sgi",
        "sgi_gateway": PVM_NEXT_HOP,
        "peers": {f"c{k}": f"isl-c{number + 1 if k > number else number - 1}" for k in chain if k != number},
        "bpffs": str(places.run_directory / "bpf"),
    }


def epc(namespace: Callable[[str], str], subscribers: Sequence[Subscriber], setting: Setting) -> dict[str, Any]:
    """What ``python -m testbed.epc`` reads. ``namespace`` gives a node's."""
    other = {"s1u_address": OTHER_SGW_S1, "s11_address": OTHER_SGW_S11, "s5_address": OTHER_SGW_S5}
    return {
        "plmn": PLMN,
        "namespace": namespace("core"),
        "mme": {"s1_address": MME_S1, "s11_address": MME_S11},
        "sgw": {"s1u_address": SGW_S1, "s11_address": SGW_S11, "s5_address": SGW_S5},
        "other_sgw": other if setting.other_sgw_cells else None,
        "other_sgw_enbs": [FIRST_ENB_ID + k - 1 for k in sorted(setting.other_sgw_cells)],
        "pgw": {"namespace": namespace("pgw"), "s5_address": PGW_S5},
        "subscribers": [subscriber.imsi for subscriber in subscribers],
    }


def ran(
    namespace: Callable[[str], str], subscribers: Sequence[Subscriber], setting: Setting, control: Path
) -> dict[str, Any]:
    """What ``python -m testbed.ran`` reads."""
    return {
        "plmn": PLMN,
        "control_socket": str(control),
        "mme_address": MME_S1,
        "ue_namespace": namespace("ue"),
        "uu_delay_s": setting.delays.ue_enb / 1000,
        "x2_delay_s": setting.delays.enb_enb / 1000,
        "interruption_s": setting.interruption_s,
        "forwarding": setting.forwarding,
        "enbs": [
            {
                "number": k,
                "namespace": namespace(f"enb{k}"),
                "address": enb_s1(k),
                "enb_id": FIRST_ENB_ID + k - 1,
                "cell_id": (FIRST_ENB_ID + k - 1) << 8 | 1,
                "ue_device": f"uu{k}",
            }
            for k in range(1, setting.sharing.stop)
        ],
        "ues": [{"name": subscriber.ue, "imsi": subscriber.imsi} for subscriber in subscribers],
    }
