"""What stands for UEs at the cloudlets of a running testbed, as the switches and the kernel tell it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flows.gtp_datapath import bpffs
from testbed.experiment import RunningTestbed
from testbed.netns import command
from testbed.topology import cloudlet_name


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one cloudlet: lines of the switch's tables, without their counters, and the keys and values of the
    datapath's maps."""

    flows: frozenset[str]
    uplink: dict[bytes, bytes]
    """By addresses of eNodeB, S-GW and personal VM, and the TEID, the last four octets."""
    downlink: dict[bytes, bytes]


async def rules_for_ues(bed: RunningTestbed, number: int) -> Rules:
    """What there is at cloudlet ``number`` that names a UE or its personal VM."""
    return Rules(
        await _flows(bed, number), await _entries(bed, number, "uplink"), await _entries(bed, number, "downlink")
    )


async def _flows(bed: RunningTestbed, number: int) -> frozenset[str]:
    addresses = ("45.45.", *(subscriber.pvm_address for subscriber in bed.subscribers))
    lines = (await bed.switches[number].dump_flows(f"br-{cloudlet_name(number)}")).splitlines()
    return frozenset(_without_counters(line) for line in lines if any(address in line for address in addresses))


def _without_counters(line: str) -> str:
    changing = ("duration=", "n_packets=", "n_bytes=")
    return ", ".join(part for part in line.strip().split(", ") if not part.startswith(changing))


async def _entries(bed: RunningTestbed, number: int, name: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for pin in bpffs.pin_folder(bed.bpffs, cloudlet_name(number)).glob(f"*/maps/{name}"):
        entries = json.loads(await command("bpftool", "-j", "map", "dump", "pinned", str(pin)))
        found |= {_octets(entry["key"]): _octets(entry["value"]) for entry in entries}
    return found


def _octets(written: Sequence[str]) -> bytes:
    return bytes(int(octet, 16) for octet in written)
