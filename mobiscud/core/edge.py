"""The edge: cloudlets, personal VMs, and the path of a UE's chosen traffic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid

NO_TEID = Teid(0)
WITH_PORTS = (6, 17, 132)
MAX_FLOWS = 8
"""Of one UE and its personal VM; as in ``maps.h``."""


class FlowAction(StrEnum):
    """What becomes of a flow (ETSI GS MEC 011, ``action`` of a TrafficRule)."""

    FORWARD_DECAPSULATED = "FORWARD_DECAPSULATED"  # out of the tunnel, to the personal VM
    PASSTHROUGH = "PASSTHROUGH"  # stays in the tunnel, through the core
    DROP = "DROP"


@dataclass(frozen=True, slots=True)
class Pvm:
    """A personal VM. Addresses and MAC are stable for ever, whichever cloudlet it runs in."""

    id: PvmId
    address: str
    mac: str
    ipv6: str | None = None
    """A second address, for UEs that have IPv6 beside IPv4."""
    image: str | None = None
    """What it is made of, by its name in the catalogue; None: what its host makes them of."""


class PvmState(StrEnum):
    """A PVM as one cloudlet's hypervisor has it."""

    ABSENT = "absent"
    RUNNING = "running"
    SUSPENDED = "suspended"
    """In memory, but not executing: paused, arriving, or handed over and not yet swept."""


class MigrationMode(StrEnum):
    """How memory gets to the other side."""

    PRE_COPY = "pre_copy"
    """Memory first, in rounds while the guest runs on, then a short stop. A failure leaves the guest at the source."""
    POST_COPY = "post_copy"
    """The guest first, memory after it on demand. A failure in between loses the guest."""


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
    bearer: Teid = NO_TEID
    """The TEID at the S-GW of the bearer that it is of, which names it for accounts; 0: not known."""


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Some of the packets between a UE and its personal VM (after the TrafficFilter of ETSI MEC 011); None: any.

    Only the first fragment of a packet shows its ports. So a filter that names one takes no fragments where it
    offloads, and all of the protocol where it does not: a packet stays in one piece.
    """

    protocol: int | None = None
    """As IANA numbers them: 6 TCP, 17 UDP, 132 SCTP."""
    ue_port: int | None = None
    pvm_port: int | None = None
    dscp: int | None = None
    """RFC 2474: 0..63."""
    action: FlowAction = FlowAction.FORWARD_DECAPSULATED
    rule: str = field(default="", compare=False)
    """The id of the traffic rule that it is of, for accounts. The datapath does not know it."""

    def __post_init__(self) -> None:
        limits = (("protocol", 1, 255), ("ue_port", 1, 65535), ("pvm_port", 1, 65535), ("dscp", 0, 63))
        for name, low, high in limits:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} {value} is outside {low}..{high}")
        if (self.ue_port or self.pvm_port) and self.protocol not in WITH_PORTS:
            raise ValueError("a port needs the protocol that it is of: 6 (TCP), 17 (UDP) or 132 (SCTP)")

    def covers(self, other: FlowFilter) -> bool:
        """Whether every packet of the other is one of this."""
        forward = FlowAction.FORWARD_DECAPSULATED
        if (self.ue_port or self.pvm_port) and self.action is forward and other.action is not forward:
            return False  # the other takes fragments
        names = ("protocol", "ue_port", "pvm_port", "dscp")
        return all(getattr(self, name) in (None, getattr(other, name)) for name in names)

    def __str__(self) -> str:
        fields = (("protocol", self.protocol), ("ue", self.ue_port), ("pvm", self.pvm_port), ("dscp", self.dscp))
        shown = ",".join(f"{name}={value}" for name, value in fields if value is not None) or "any"
        return shown if self.action is FlowAction.FORWARD_DECAPSULATED else f"{shown},{self.action}"


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

    ``ue_ipv6`` with the PVM's ``ipv6`` makes the same path for IPv6; of the UE's address the first 64 bits count.
    ``flows``: the first that a packet is of says what becomes of it, one of none stays on the wire; none named: all
    between UE and PVM are offloaded.

    ``arriving_from``: the PVM is on its way here from that cloudlet. What that one sends on for the PVM is for one that
    is about to run here, whatever ``pvm_at`` says; it waits at the PVM's port. So no packet goes to and fro between the
    two while only one of them has heard of the guest's halt.
    """

    ue_ip: str
    pvm: Pvm
    pvm_at: CloudletId
    ue_at: CloudletId | None
    uplinks: tuple[UplinkTunnel, ...] = ()
    downlink: DownlinkTunnel | None = None
    ue_ipv6: str | None = None
    flows: tuple[FlowFilter, ...] = ()
    arriving_from: CloudletId | None = None
