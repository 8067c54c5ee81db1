"""What takes a hypervisor a while: to start a PVM, to move it, to settle who has it. The outcome is an input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from mobiscud.controller.announcing import Announcer
from mobiscud.controller.inputs import (
    Input,
    MoveFailed,
    MoveInDoubt,
    MoveLost,
    MoveSucceeded,
    PvmRefused,
    PvmRunning,
)
from mobiscud.controller.ports import MigrationProgress, Neighbourhood, PvmPort
from mobiscud.controller.record import UeRecord
from mobiscud.controller.settling import Ask, Settler
from mobiscud.core.commands import SettleMove
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError, MobiScudError, MoveError
from mobiscud.core.ids import CloudletId, UeKey
from mobiscud.core.ownership import Claim, Standing

PROGRESS_EVERY_S: Final = 0.5

log = structlog.get_logger(__name__)


class Guests:
    """The PVMs of one cloudlet's hypervisor, on behalf of its controller."""

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        hypervisor: PvmPort,
        records: Mapping[UeKey, UeRecord],
        announcer: Announcer,
        submit: Callable[[UeKey, Input], object],
        ask: Ask,
    ) -> None:
        """Make them. ``ask``: puts a question about a migration in doubt to the controller of another cloudlet."""
        self._around = neighbourhood
        self._hypervisor = hypervisor
        self._records = records
        self._announcer = announcer
        self._submit = submit
        self._settler = Settler(neighbourhood.here, hypervisor, ask)

    async def start(self, ue: UeKey, pvm: Pvm, *, kept: bool) -> None:
        """Start a PVM."""
        try:
            anew = await self._hypervisor.start(pvm, kept=kept)
        except MobiScudError as error:
            self._submit(ue, PvmRefused(str(error)))
        else:
            self._submit(ue, PvmRunning(anew))

    async def migrate(self, ue: UeKey, pvm: Pvm, to: CloudletId) -> None:
        """Have a PVM leave for another cloudlet."""
        uri = self._around.migration_uri_of.get(to)
        try:
            if uri is None:
                raise AdapterError(f"cloudlets: {to} has no migration_uri")
            moved = await self._hypervisor.migrate(pvm.id, uri, progress=self._teller(ue, to))
        except MoveError as error:
            self._submit(ue, MoveFailed(str(error)) if error.stayed else MoveInDoubt(str(error)))
        except MobiScudError as error:
            self._submit(ue, MoveFailed(str(error)))
        else:
            self._submit(ue, MoveSucceeded(moved.total_ms))

    def _teller(self, ue: UeKey, to: CloudletId) -> Callable[[MigrationProgress], None]:
        """Publishes the progress of a migration, now and then."""
        told = asyncio.get_running_loop().time()

        def tell(progress: MigrationProgress) -> None:
            nonlocal told
            now = asyncio.get_running_loop().time()
            if now - told >= PROGRESS_EVERY_S:
                told = now
                self._announcer.progress(ue, self._records[ue], to, progress)

        return tell

    async def abort(self, pvm: Pvm) -> None:
        """Call a migration off, if it can still be."""
        try:
            await self._hypervisor.abort(pvm.id)
        except MobiScudError as error:
            log.warning("migration not aborted", pvm=pvm.id, error=str(error))

    async def resume_move(self, ue: UeKey, pvm: Pvm) -> None:
        """The migration is libvirt's, and has outlived us: call it off, and have it settled where the guest then is."""
        await self.abort(pvm)
        self._submit(ue, MoveInDoubt("the controller restarted"))

    async def settle_move(self, ue: UeKey, what: SettleMove, epoch: int) -> None:
        """End all copies but one, for certain, before traffic passes again."""
        here = self._around.here
        claim = Claim(here, epoch).towards(what.to, self._hypervisor.mode)
        settlement = await self._settler.settle(ue, what.pvm, claim)
        if settlement.standing is Standing.LOST:
            self._submit(ue, MoveLost(what.reason))
        elif settlement.claim.owner == here:
            self._submit(ue, MoveFailed(what.reason))
        else:
            self._submit(ue, MoveSucceeded(0.0))

    async def fill_pool(self, dormant: Sequence[Pvm]) -> None:
        """Have PVMs that are kept stand ready."""
        try:
            await self._hypervisor.fill_pool(dormant)
        except MobiScudError as error:
            log.warning("the pool is not filled", error=str(error))
