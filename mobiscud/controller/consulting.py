"""Asks the policy when a PVM should follow its user, with all that it may know of the user and of the moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from mobiscud.controller.inputs import HandoverDone, Input, MoveDue, UeArrived, UeLeft
from mobiscud.controller.outlook import Outlook
from mobiscud.controller.policy import AskAgain, Manners, Move, Stay
from mobiscud.controller.record import UeRecord
from mobiscud.core.commands import Consult, Moment
from mobiscud.core.config import MigrationConfig
from mobiscud.core.events import Event
from mobiscud.core.ids import UeKey

AGAIN_S: Final = 1.0
"""At least, until the policy is asked again."""

log = structlog.get_logger(__name__)


class Consultant:
    """The policy in force, and what was heard that it goes by."""

    def __init__(
        self,
        migration: MigrationConfig,
        records: Mapping[UeKey, UeRecord],
        submit: Callable[[UeKey, Input], object],
    ) -> None:
        self._manners = Manners.from_config(migration)
        self._outlook = Outlook(migration.cost)
        self._records = records
        self._submit = submit

    def change(self, migration: MigrationConfig) -> None:
        """From now on PVMs follow like this; what was heard stays."""
        self._manners = Manners.from_config(migration)
        self._outlook.reckon_with(migration.cost)

    def heard(self, event: Event) -> None:
        """What is told of moves, and of what a switch has counted."""
        self._outlook.heard(event)

    def note_visit(self, ue: UeKey, happened: Input) -> None:
        """Where a user comes, and that it leaves."""
        match happened:
            case UeArrived(cloudlet=cloudlet) | HandoverDone(cloudlet=cloudlet):
                self._outlook.arrived(ue, cloudlet, asyncio.get_running_loop().time())
            case UeLeft():
                self._outlook.left(ue)
            case _:
                pass

    async def consult(self, ue: UeKey, asked: Consult) -> None:
        """Until the policy has decided, or the UE is no longer where it was."""
        wait_s = AGAIN_S if asked.again else 0.0
        while True:
            await asyncio.sleep(wait_s)
            record = self._records[ue]
            if record.token != asked.token or record.pvm_at in (None, record.here):
                return
            now = asyncio.get_running_loop().time()
            if asked.moment is Moment.ARRIVED:
                self._outlook.arrived(ue, record.here, now)  # after a restart nobody has said so
            facts = self._outlook.facts(ue, asked.moment, record.here, record.pvm_at, now)
            match self._manners.of(record.pvm.id).decide(facts):
                case Move(after_s):
                    await asyncio.sleep(after_s)
                    self._submit(ue, MoveDue(asked.token))
                    return
                case Stay(reason):
                    log.debug("the PVM stays", ue=ue, reason=reason)
                    return
                case AskAgain(after_s, reason):
                    log.debug("the PVM waits", ue=ue, reason=reason)
                    wait_s = max(after_s, AGAIN_S)
