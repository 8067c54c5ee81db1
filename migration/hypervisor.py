"""The hypervisor of one cloudlet as the service sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from migration.bandwidth import NetworkCard
from migration.lifecycle import Notice, PvmState
from migration.verdict import HypervisorFacts, MigrationMode
from mobiscud.core.edge import Pvm
from mobiscud.core.ids import PvmId


@dataclass(frozen=True, slots=True)
class MigrationOrder:
    """Where to, and how. ``target`` is the other hypervisor as this one reaches it; no bandwidth means no limit."""

    pvm_id: PvmId
    target: str
    mode: MigrationMode
    max_downtime_ms: int
    bandwidth_mib_s: int | None
    shared_disks: bool = False
    """Whether the other sees the PVM's own disk as it is; else the disk is copied into the one that waits there."""


@dataclass(frozen=True, slots=True)
class CopyStatistics:
    """How far a copy is, or was when it ended."""

    iteration: int = 0
    bytes_moved: int = 0
    bytes_remaining: int = 0
    downtime_ms: float | None = None


class Observer(Protocol):
    """Told what happens, in order, in the event loop's thread."""

    def on_notice(self, notice: Notice) -> None:
        """A guest changed its state."""

    def on_iteration(self, pvm_id: PvmId, iteration: int) -> None:
        """A migration begins its next round over the guest's memory; 1 is the first."""

    def on_lost(self, reason: str) -> None:
        """The connection broke; every call raises ``HypervisorLostError`` until ``connect`` is called again."""


class Hypervisor(Protocol):
    """Every method raises ``AdapterError`` when the hypervisor refuses, and may take as long as the hypervisor does."""

    async def connect(self, observer: Observer) -> HypervisorFacts:
        """Connect and begin to tell the observer."""

    async def close(self) -> None:
        """Disconnect; guests run on. Calling it twice is harmless."""

    async def boot(self, pvm: Pvm) -> None:
        """Create and run a PVM that is absent; its own disk is made at the first time, and found again later."""

    async def expect(self, pvm: Pvm) -> None:
        """Make ready for an absent PVM that will migrate here: it gets an empty disk, and what it left here once goes.

        That is its past, whether an image of its memory or a disk.
        """

    async def restore(self, pvm: Pvm, *, paused: bool) -> bool:
        """Run an absent PVM from its saved image, and if so asked pause it then; the image is used up.

        Gives whether there was one.

        :raises SavedImageError: it is damaged, or does not fit: of another description, by another QEMU; it is deleted
        """

    async def save(self, pvm_id: PvmId) -> None:
        """Keep the PVM in an image, in place of an older one; it is absent then."""

    async def pause(self, pvm_id: PvmId) -> None:
        """Have the PVM stand still."""

    async def resume(self, pvm_id: PvmId, *, force: bool = False) -> bool:
        """Let a PVM go on that stands still on request. Gives whether it did: one that is arriving or left does not.

        ``force``: whyever it stands still; only where it is known to be whole, and the only one.
        """

    async def destroy(self, pvm_id: PvmId) -> None:
        """End the PVM at once; an absent one is fine."""

    async def state(self, pvm_id: PvmId) -> PvmState:
        """Ask for the PVM's state."""

    async def states(self) -> dict[PvmId, PvmState]:
        """Ask for all PVMs that are not absent."""

    async def network_card(self, pvm_id: PvmId) -> NetworkCard | None:
        """Ask where a PVM is plugged in; ``None`` where it is absent."""

    async def memory(self) -> dict[PvmId, int]:
        """Ask for all guests that are not absent, and how many MiB each has."""

    async def paused(self) -> tuple[PvmId, ...]:
        """Ask for those that stand still on request."""

    async def migrate(self, order: MigrationOrder) -> CopyStatistics:
        """Move the PVM, and return when all of it is at the target, with its disk where that is not shared.

        In post-copy mode the guest only changes sides on ``start_post_copy``.
        """

    async def start_post_copy(self, pvm_id: PvmId) -> None:
        """Let the guest change sides now; only after the first ``on_iteration``."""

    async def copy_statistics(self, pvm_id: PvmId) -> CopyStatistics | None:
        """Ask how far a running migration is; ``None`` where there is none."""

    async def abort(self, pvm_id: PvmId) -> bool:
        """Call a running migration off; ``migrate`` then raises. Gives whether there was one to call off."""
