"""Ten thousand UEs of one cloudlet, by number: their paths, and what a controller remembers of them."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

from mobiscud.controller.inputs import Tunnels
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey

HERE: Final = CloudletId("c1")
SGW: Final = "10.0.0.1"
ENBS: Final = ("10.0.0.11", "10.0.0.12")
"""The eNodeBs of the cloudlet; each UE begins at the first."""


def key(number: int) -> UeKey:
    """The key of the UE of that number."""
    return UeKey(f"ue-{number:016x}")


def pvm(number: int) -> Pvm:
    """Its personal VM."""
    address = str(IPv4Address("172.17.0.0") + number)
    return Pvm(PvmId(f"pvm{number}"), address, f"52:54:01:{number.to_bytes(3).hex(':')}")


def uplink(number: int) -> FTeid:
    """The S-GW's end of its bearer, which stays."""
    return FTeid(SGW, Teid(0x10000 + number))


def path(number: int) -> PathSpec:
    """Its path through the first eNodeB."""
    return PathSpec(
        ue_ip=str(IPv4Address("45.64.0.0") + number),
        pvm=pvm(number),
        pvm_at=HERE,
        ue_at=HERE,
        uplinks=(UplinkTunnel(ENBS[0], uplink(number)),),
        downlink=DownlinkTunnel(SGW, FTeid(ENBS[0], Teid(0x20000 + number))),
    )


def record(of_ue: PathSpec) -> UeRecord:
    """What the controller remembers of a UE with this path: all is here, and its uplinks stand at each eNodeB."""
    tunnels = Tunnels(of_ue.uplinks, of_ue.downlink)
    return UeRecord(
        of_ue.pvm,
        HERE,
        phase=Phase.SERVING,
        registered=True,
        ue_ip=of_ue.ue_ip,
        ue_at=HERE,
        pvm_at=HERE,
        tunnels=tunnels,
        standby=tunnels.uplinks_at(ENBS),
    )


def records(ues: int) -> dict[UeKey, UeRecord]:
    """Of the first so many UEs."""
    return {key(number): record(path(number)) for number in range(ues)}
