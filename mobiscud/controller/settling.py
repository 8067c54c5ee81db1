"""After a migration that ended in doubt: ask both sides, end the losers, and be sure before traffic passes again.

Until it is settled no packet goes to either copy. A side that is silent may have a copy that runs: nothing is decided
against it before that copy is ended for certain, by its own controller or, here, without the hypervisor's help.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import structlog

from mobiscud.core.edge import Pvm, PvmState
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, PvmId, UeKey
from mobiscud.core.ownership import Claim, Settlement, Standing, Statement, settle

OWN_ANSWER_S: Final = 2.0
"""How long our own hypervisor may take to say what it has."""
SHORTEST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
"""Between rounds of questions."""

log = structlog.get_logger(__name__)

Ask = Callable[[CloudletId, str, dict[str, Any]], Awaitable[dict[str, Any]]]


class GuestPort(Protocol):
    """What is needed of the hypervisor."""

    async def state(self, pvm_id: PvmId) -> PvmState: ...
    async def fence(self, pvm_id: PvmId) -> None: ...
    async def let_run(self, pvm_id: PvmId) -> None: ...


class Settler:
    """Settles for the source of a migration, whose ledger names both sides."""

    def __init__(self, here: CloudletId, guests: GuestPort, ask: Ask) -> None:
        """Make one.

        :param ask: put a question to the controller of another cloudlet; raises ``AdapterError`` where it is silent
        """
        self._here = here
        self._guests = guests
        self._ask = ask

    async def settle(self, ue: UeKey, pvm: Pvm, claim: Claim) -> Settlement:
        """Ask until it is settled who has the PVM; the losers have no copy then, and the owner's runs."""
        pause_s = SHORTEST_PAUSE_S
        while True:
            settlement = await self.attempt(ue, pvm, claim)
            if settlement is not None:
                log.info("settled", pvm=pvm.id, standing=settlement.standing, owner=settlement.claim.owner, ue=ue)
                return settlement
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def attempt(self, ue: UeKey, pvm: Pvm, claim: Claim) -> Settlement | None:
        """One round; None where it has to be tried again."""
        assert claim.heir is not None
        about = {"ue": ue, "by": self._here, "epoch": claim.epoch}
        theirs: Statement = None
        try:
            found = await self._ask(claim.heir, "doubt", about)
            theirs = PvmState(str(found.get("state"))) if found.get("state") else None
            if int(found.get("epoch", 0)) > claim.epoch:
                await self._guests.fence(pvm.id)  # it has passed on without us: ours is a copy of the past
                return Settlement(Standing.SETTLED, claim.passes())
        except (AdapterError, ValueError) as error:
            log.warning("no statement", pvm=pvm.id, cloudlet=claim.heir, reason=str(error))
        settlement = settle(claim, {self._here: await self._ours(pvm), claim.heir: theirs})
        if settlement.standing is Standing.WAITING:
            return None
        try:
            for loser in sorted(settlement.destroy):
                if loser == self._here:
                    await self._guests.fence(pvm.id)
                else:
                    await self._ask(loser, "fence", about)
            if settlement.standing is Standing.SETTLED and settlement.resume and settlement.claim.owner == self._here:
                await self._guests.let_run(pvm.id)
        except AdapterError as error:
            log.warning("not settled yet", pvm=pvm.id, reason=str(error))
            return None
        return settlement

    async def _ours(self, pvm: Pvm) -> Statement:
        try:
            async with asyncio.timeout(OWN_ANSWER_S):
                return await self._guests.state(pvm.id)
        except (AdapterError, TimeoutError) as error:
            log.warning("no statement", pvm=pvm.id, cloudlet=self._here, reason=str(error) or "silent")
            return None
