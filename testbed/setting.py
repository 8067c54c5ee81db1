"""What an experiment may choose about the testbed it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from testbed.delay_queue import Shape
from testbed.topology import Delays


@dataclass(frozen=True, slots=True)
class Subscriber:
    """UE number ``number``, from 1, and its personal VM; only the first 254 can have one."""

    number: int

    @property
    def ue(self) -> str:
        """By which the RAN's control socket calls the UE."""
        return f"ue{self.number}"

    @property
    def imsi(self) -> str:
        """Of the test network 999-70."""
        return f"99970{self.number:010d}"

    @property
    def pvm_id(self) -> str:
        """Of its personal VM, as address and MAC are."""
        return f"pvm-{self.ue}"

    @property
    def pvm_address(self) -> str:
        """In the subnet of the personal VMs' gateway."""
        return f"172.16.{self.number}.10"

    @property
    def pvm_mac(self) -> str:
        """Locally administered, QEMU's prefix."""
        return f"52:54:00:10:{self.number:02x}:10"

    def offload(self) -> dict[str, Any]:
        """Its entry in ``offload.subscribers``."""
        pvm = {"id": self.pvm_id, "address": self.pvm_address, "mac": self.pvm_mac}
        return {"imsi": self.imsi, "pvm": pvm}


FIRST: Final = Subscriber(1)
UE: Final = FIRST.ue
PVM_ADDRESS: Final = FIRST.pvm_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What an experiment may choose.

    ``dwell_s``: how long a UE is in a new cell before its PVM follows, unless the ``policy`` is that it stays;
    ``migration`` in place of both: the section of the nodes' configuration, as it is.
    ``cloudlets``: eNodeBs, each with a cloudlet; ``bare_cells``: eNodeBs without one, after them; ``sharing_cells``:
    eNodeBs that share the first cloudlet, after those.
    ``other_sgw_cells``: eNodeBs in the area of a second S-GW: a UE that comes there by X2 gets another uplink tunnel.
    ``ues``: how many; all have PVMs but those in ``plain_ues``; those of ``mtso_ues`` have theirs at the MTSO.
    ``shapes``: jitter, loss and rate by kind of link (``paper_topology``).
    ``forwarding`` and ``interruption_s``: of handovers, as ``lte_config`` has them.
    ``disk``: a qcow2 file that the PVMs' own disks begin as; none: they have none.
    ``hypervisor``: more keys of each section of ``hypervisors``.
    ``recorded``: the signalling is captured, in ``out``.
    ``preferred``: network and nodes run before other programs, as if each had processors of its own.
    """

    delays: Delays
    dwell_s: float
    cloudlets: int = 3
    bare_cells: int = 0
    sharing_cells: int = 0
    other_sgw_cells: frozenset[int] = frozenset()
    ues: int = 1
    policy: Literal["follow", "stay"] = "follow"
    preferred: bool = False
    migration_mode: str = "auto"
    offload: Literal["enforce", "observe"] = "enforce"
    migration: Mapping[str, Any] | None = None
    disk: Path | None = None
    hypervisor: Mapping[str, Any] = field(default_factory=dict)
    plain_ues: frozenset[int] = frozenset()
    mtso_ues: frozenset[int] = frozenset()
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    forwarding: Literal["direct", "indirect", "none"] = "direct"
    interruption_s: float = 0.01
    recorded: bool = False

    @property
    def sharing(self) -> range:
        """The numbers of the eNodeBs that share the first cloudlet."""
        first = self.cloudlets + self.bare_cells + 1
        return range(first, first + self.sharing_cells)

    @property
    def migration_section(self) -> Mapping[str, Any]:
        """For the nodes' configuration."""
        return self.migration if self.migration is not None else {"policy": self.policy, "dwell_s": self.dwell_s}
