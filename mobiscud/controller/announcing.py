"""What a controller tells on the bus of what it has done."""

from __future__ import annotations

import time
from collections.abc import Callable

from mobiscud.controller.ports import MigrationProgress
from mobiscud.controller.record import UeRecord
from mobiscud.core.commands import Announce, SetPath
from mobiscud.core.events import Event, PvmMigrationProgress
from mobiscud.core.ids import CloudletId, UeKey


class Announcer:
    """Names each deed, since no message on a wire does."""

    def __init__(self, here: CloudletId, publish: Callable[[Event], None]) -> None:
        self._here = here
        self._publish = publish
        self._epoch = time.time_ns()
        self._deeds = 0

    def path(self, ue: UeKey, record: UeRecord, what: SetPath, rules: tuple[str, ...]) -> None:
        """The path stands, by these rules; not every change is news."""
        if what.announce is None:
            return
        event = what.announce(
            at=time.time_ns(),
            origin=self._name_deed(),
            ue=ue,
            ue_ip=(record.ue_ip,) if record.ue_ip else (),
            cloudlet=self._here,
            via=what.via,
            rule_ids=rules,
            reason=what.reason,
        )
        self._publish(event)

    def pvm(self, ue: UeKey, record: UeRecord, what: Announce) -> None:
        """What became of a PVM."""
        event = what.event(
            at=time.time_ns(),
            origin=self._name_deed(),
            ue=ue,
            ue_ip=(record.ue_ip,) if record.ue_ip else (),
            pvm=record.pvm,
            from_cloudlet=what.from_cloudlet,
            to_cloudlet=what.to_cloudlet,
            downtime_ms=what.downtime_ms,
            total_ms=what.total_ms,
            reason=what.reason,
            epoch=record.epoch,
        )
        self._publish(event)

    def progress(self, ue: UeKey, record: UeRecord, to: CloudletId, progress: MigrationProgress) -> None:
        """How far the PVM is that leaves here for ``to``."""
        event = PvmMigrationProgress(
            at=time.time_ns(),
            origin=self._name_deed(),
            ue=ue,
            ue_ip=(record.ue_ip,) if record.ue_ip else (),
            pvm=record.pvm,
            from_cloudlet=self._here,
            to_cloudlet=to,
            total_ms=progress.elapsed_ms,
            epoch=record.epoch,
            iteration=progress.iteration,
            bytes_moved=progress.bytes_moved,
            bytes_remaining=progress.bytes_remaining,
        )
        self._publish(event)

    def _name_deed(self) -> bytes:
        self._deeds += 1
        return f"{self._here}/{self._epoch}/{self._deeds}".encode()
