"""Hypervisors that behave like the real ones in all that can be seen from outside, but run nothing."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import Final

from migration.bandwidth import NetworkCard
from migration.errors import SavedImageError
from migration.hypervisor import CopyStatistics, MigrationOrder, Observer
from migration.lifecycle import PvmResumed, PvmState, PvmStopped, PvmSuspended, StopReason
from migration.verdict import Accelerator, HypervisorFacts, MigrationMode
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId

GUEST_MIB: Final = 50
"""What a copy moves."""

GUEST_MEMORY_MIB: Final = 128
"""What a guest takes of its host."""

UNLIMITED_MIB_S: Final = 100_000
"""The bandwidth where none is ordered: fast, so that tests are."""

SAFE_FACTS: Final = HypervisorFacts((10, 0, 2), Accelerator.TCG, "/usr/bin/qemu", "pc")


@dataclass(slots=True)
class FakeGuest:
    """A guest; it is the same object wherever it goes, with the same boot id."""

    pvm: Pvm
    state: PvmState = PvmState.RUNNING
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    disk: str | None = None
    """What was written to it; ``None``: it has none."""


@dataclass(slots=True)
class _Copy:
    """A migration under way; ``switch`` is set by ``start_post_copy``."""

    order: MigrationOrder
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    switch: asyncio.Event = field(default_factory=asyncio.Event)
    bytes_moved: int = 0


class FakeSite:
    """All hypervisors that can reach each other, by migration URI."""

    def __init__(self) -> None:
        self.hypervisors: dict[str, FakeHypervisor] = {}

    def add(
        self, uri: str, facts: HypervisorFacts = SAFE_FACTS, with_disk: frozenset[str] = frozenset()
    ) -> FakeHypervisor:
        """Make one more, reachable at ``uri``; PVMs of the images ``with_disk`` have one."""
        hypervisor = self.hypervisors[uri] = FakeHypervisor(self, facts, with_disk)
        return hypervisor

    def running_copies(self, pvm_id: PvmId) -> list[FakeGuest]:
        """Count on all hypervisors, as an independent observer would."""
        guests = (hypervisor.guests.get(pvm_id) for hypervisor in self.hypervisors.values())
        return [guest for guest in guests if guest is not None and guest.state is PvmState.RUNNING]


class FakeHypervisor:
    """One of a ``FakeSite``.

    ``reachable`` may be cleared: it then takes no guest from others, and runs on. ``loses_aborts`` may be set: it
    then agrees to abort and goes on waiting for the end. ``breaks``: the next migration from here fails at its
    switch-over, and leaves these states here and there.
    """

    def __init__(self, site: FakeSite, facts: HypervisorFacts, with_disk: frozenset[str] = frozenset()) -> None:
        """``with_disk``: the images whose PVMs have a disk."""
        self._site = site
        self._facts = facts
        self._with_disk = with_disk
        self._observer: Observer | None = None
        self._copies: dict[PvmId, _Copy] = {}
        self._paused: set[PvmId] = set()
        self.guests: dict[PvmId, FakeGuest] = {}
        self.saved: dict[PvmId, FakeGuest] = {}
        self.disks: dict[PvmId, str] = {}
        self.reachable = True
        self.loses_aborts = False
        self.breaks: tuple[PvmState, PvmState] | None = None

    @property
    def copying(self) -> int:
        """How many copies are under way from here."""
        return len(self._copies)

    async def connect(self, observer: Observer) -> HypervisorFacts:
        """Begin to tell the observer."""
        self._observer = observer
        return self._facts

    async def close(self) -> None:
        """Tell nobody any more."""
        self._observer = None

    async def boot(self, pvm: Pvm) -> None:
        """Have a new guest, running at once."""
        if pvm.id in self.guests:
            raise AdapterError(f"{pvm.id} exists")
        self.guests[pvm.id] = FakeGuest(pvm, disk=self._disk(pvm))
        self._tell(PvmResumed(pvm.id, time.time_ns(), migrated=False))

    async def expect(self, pvm: Pvm) -> None:
        """Have an empty disk."""
        if pvm.id in self.guests:
            raise AdapterError(f"{pvm.id} is here already")
        self.saved.pop(pvm.id, None)
        self.disks.pop(pvm.id, None)
        self._disk(pvm)

    async def restore(self, pvm: Pvm, *, paused: bool) -> bool:
        """Have the guest back that was saved under the same description."""
        saved = self.saved.pop(pvm.id, None)
        if saved is None:
            return False
        if saved.pvm != pvm:
            raise SavedImageError("its saved memory is of another description")
        self.guests[pvm.id] = saved
        saved.state = PvmState.RUNNING
        self._tell(PvmResumed(pvm.id, time.time_ns(), migrated=False))
        if paused:
            await self.pause(pvm.id)
        return True

    async def save(self, pvm_id: PvmId) -> None:
        """Put it aside."""
        await self.pause(pvm_id)
        self._paused.discard(pvm_id)
        self.saved[pvm_id] = self.guests.pop(pvm_id)
        self._tell(PvmStopped(pvm_id, time.time_ns(), StopReason.SAVED))

    async def pause(self, pvm_id: PvmId) -> None:
        """Have it stand still."""
        if pvm_id not in self.guests:
            raise AdapterError(f"{pvm_id} is not here")
        self.guests[pvm_id].state = PvmState.SUSPENDED
        self._paused.add(pvm_id)
        self._tell(PvmSuspended(pvm_id, time.time_ns(), migrating=False))

    async def resume(self, pvm_id: PvmId, *, force: bool = False) -> bool:
        """Let it go on if it was paused."""
        if pvm_id not in self._paused and not (force and pvm_id in self.guests):
            return False
        self._paused.discard(pvm_id)
        self.guests[pvm_id].state = PvmState.RUNNING
        self._tell(PvmResumed(pvm_id, time.time_ns(), migrated=False))
        return True

    async def destroy(self, pvm_id: PvmId) -> None:
        """Have it no longer."""
        self._paused.discard(pvm_id)
        if self.guests.pop(pvm_id, None) is not None:
            self._tell(PvmStopped(pvm_id, time.time_ns(), StopReason.DESTROYED))

    async def state(self, pvm_id: PvmId) -> PvmState:
        """See the guest's state."""
        guest = self.guests.get(pvm_id)
        return PvmState.ABSENT if guest is None else guest.state

    async def states(self) -> dict[PvmId, PvmState]:
        """See all guests' states."""
        return {pvm_id: guest.state for pvm_id, guest in self.guests.items()}

    async def network_card(self, pvm_id: PvmId) -> NetworkCard | None:
        """See where it would be plugged in; nothing limits it."""
        guest = self.guests.get(pvm_id)
        return None if guest is None else NetworkCard("tap", guest.pvm.mac)

    async def memory(self) -> dict[PvmId, int]:
        """See how large they are: all the same."""
        return dict.fromkeys(self.guests, GUEST_MEMORY_MIB)

    async def paused(self) -> tuple[PvmId, ...]:
        """See which were paused."""
        return tuple(sorted(self._paused))

    async def migrate(self, order: MigrationOrder) -> CopyStatistics:
        """Copy for as long as the bandwidth makes it take, then switch; post-copy switches first."""
        guest = self.guests.get(order.pvm_id)
        target = self._site.hypervisors.get(order.target)
        if guest is None:
            raise AdapterError(f"{order.pvm_id} is not here")
        if order.pvm_id in self._copies:
            raise AdapterError(f"{order.pvm_id} is migrating already")
        if target is None or not target.reachable:
            raise AdapterError(f"{order.target}: connection refused")
        if order.pvm_id in target.guests:
            raise AdapterError(f"{order.pvm_id} exists at {order.target}")
        if guest.disk is not None and not order.shared_disks and order.pvm_id not in target.disks:
            raise AdapterError(f"{order.target} has no disk for {order.pvm_id}")
        copy = self._copies[order.pvm_id] = _Copy(order)
        try:
            self._tell_iteration(order.pvm_id, 1)
            await self._transfer_until(copy, copy.switch if order.mode is MigrationMode.POST_COPY else None)
            self._tell_iteration(order.pvm_id, 2)
            self._hand_over(guest, target)
            if self.breaks is not None:
                self._break(order.pvm_id, target, *self.breaks)
        finally:
            del self._copies[order.pvm_id]
        del self.guests[order.pvm_id]
        self._tell(PvmStopped(order.pvm_id, time.time_ns(), StopReason.MIGRATED))
        downtime_ms = float(order.max_downtime_ms) if order.mode is MigrationMode.PRE_COPY else None
        return CopyStatistics(2, GUEST_MIB << 20, 0, downtime_ms)

    async def start_post_copy(self, pvm_id: PvmId) -> None:
        """Let the guest go."""
        if pvm_id not in self._copies:
            raise AdapterError(f"{pvm_id} is not migrating")
        self._copies[pvm_id].switch.set()

    async def copy_statistics(self, pvm_id: PvmId) -> CopyStatistics | None:
        """See how far the copy is."""
        copy = self._copies.get(pvm_id)
        if copy is None:
            return None
        return CopyStatistics(1, copy.bytes_moved, (GUEST_MIB << 20) - copy.bytes_moved)

    async def abort(self, pvm_id: PvmId) -> bool:
        """End the copy; the guest never stood still."""
        copy = self._copies.get(pvm_id)
        if copy is None:
            return False
        if not self.loses_aborts:
            copy.aborted.set()
        return True

    def write_disk(self, pvm_id: PvmId, content: str) -> None:
        """Do what a guest does."""
        self.guests[pvm_id].disk = self.disks[pvm_id] = content

    def restart(self) -> None:
        """Have the daemon end and come back: guests run on, and the observer hears that the connection broke."""
        if self._observer is not None:
            self._observer.on_lost("the fake restarts")

    async def _transfer_until(self, copy: _Copy, switch: asyncio.Event | None) -> None:
        """Move the memory, or stop early at the switch."""
        duration_s = GUEST_MIB / (copy.order.bandwidth_mib_s or UNLIMITED_MIB_S)
        waits = [asyncio.create_task(event.wait()) for event in (copy.aborted, switch) if event is not None]
        try:
            await asyncio.wait(waits, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if copy.aborted.is_set():
            raise AdapterError(f"migration of {copy.order.pvm_id} was canceled")
        copy.bytes_moved = GUEST_MIB << 20

    def _hand_over(self, guest: FakeGuest, target: FakeHypervisor) -> None:
        pvm_id = guest.pvm.id
        self.guests[pvm_id] = FakeGuest(guest.pvm, PvmState.SUSPENDED, guest.boot_id)
        if guest.disk is not None:
            target.disks[pvm_id] = guest.disk
            if target.disks is not self.disks:
                del self.disks[pvm_id]
        self._tell(PvmSuspended(pvm_id, time.time_ns(), migrating=True))
        target.guests[pvm_id] = guest
        target._tell(PvmResumed(pvm_id, time.time_ns(), migrated=True))

    def _break(self, pvm_id: PvmId, target: FakeHypervisor, here: PvmState, there: PvmState) -> None:
        """Leave what a failure at the switch-over may leave, and fail."""
        self.breaks = None
        copies = ((self, here, StopReason.FAILED), (target, there, StopReason.FAILED))
        for hypervisor, state, reason in copies:
            if state is PvmState.ABSENT:
                del hypervisor.guests[pvm_id]
                hypervisor._tell(PvmStopped(pvm_id, time.time_ns(), reason))
                continue
            was, hypervisor.guests[pvm_id].state = hypervisor.guests[pvm_id].state, state
            if state is PvmState.RUNNING and was is not PvmState.RUNNING:
                hypervisor._tell(PvmResumed(pvm_id, time.time_ns(), migrated=False))
            elif state is PvmState.SUSPENDED and was is not PvmState.SUSPENDED:
                hypervisor._tell(PvmSuspended(pvm_id, time.time_ns(), migrating=False))
        raise AdapterError(f"migration of {pvm_id} broke")

    def _disk(self, pvm: Pvm) -> str | None:
        """Give the PVM's disk, made now if it is not there."""
        return self.disks.setdefault(pvm.id, "") if pvm.image in self._with_disk else None

    def _tell(self, notice: PvmSuspended | PvmResumed | PvmStopped) -> None:
        if self._observer is not None:
            self._observer.on_notice(notice)

    def _tell_iteration(self, pvm_id: PvmId, iteration: int) -> None:
        if self._observer is not None:
            self._observer.on_iteration(pvm_id, iteration)
