"""The edge: cloudlets, personal VMs, and the path of a UE's chosen traffic."""

from __future__ import annotations

from dataclasses import dataclass

from mobiscud.core.ids import CloudletId, FTeid, PvmId


@dataclass(frozen=True, slots=True)
class Pvm:
    """A personal VM. Address (IPv4) and MAC are stable for ever, whichever cloudlet it runs in."""

    id: PvmId
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class UplinkTunnel:
    """A GTP-U tunnel as its packets look on the wire towards the S-GW.

    Only packets with these outer addresses and this TEID are the UE's: nobody can forge another UE's traffic.
    """

    enb_address: str
    sgw: FTeid


@dataclass(frozen=True, slots=True)
class DownlinkTunnel:
    """The tunnel in which the UE's packets must arrive: from the S-GW's address, at the eNodeB's F-TEID."""

    sgw_address: str
    enb: FTeid


@dataclass(frozen=True, slots=True)
class PathSpec:
    """The desired path of one UE's offloaded traffic at one cloudlet: data, not steps.

    The switch adapter installs the difference to what is there (new state first, old state last). ``pvm_at`` and
    ``ue_at`` name the cloudlet in which the PVM runs and in which the UE's eNodeB is; where it is not the cloudlet
    of the switch, the traffic takes the inter-cloudlet link.

    Uplink: packets of ``uplinks`` whose inner source is ``ue_ip`` and inner destination the PVM are decapsulated
    here and sent towards ``pvm_at``; so are plain ones that arrive over an inter-cloudlet link. Downlink: packets
    from the PVM to ``ue_ip`` go towards ``ue_at``; when that is here, they are encapsulated into ``downlink``.

    ``downlink`` may be given while the UE is elsewhere: the tunnel then stands ready, and the flip of ``ue_at`` is one
    step. Each crossing of an inter-cloudlet link counts as a hop (the TTL falls by one).
    """

    ue_ip: str
    pvm: Pvm
    pvm_at: CloudletId
    ue_at: CloudletId | None
    uplinks: tuple[UplinkTunnel, ...] = ()
    downlink: DownlinkTunnel | None = None
