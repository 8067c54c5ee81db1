"""Group commit: the steps of many UEs are remembered together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from mobiscud.controller.record import UeRecord
from mobiscud.core.ids import UeKey


class Memory(Protocol):
    """What outlives the controller."""

    def load(self) -> dict[UeKey, UeRecord]: ...

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        """Remember these, all or none of them. Quick: nothing else happens meanwhile."""


class GroupCommit:
    """What is put before the event loop comes round shares one commit."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._records: dict[UeKey, UeRecord] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def put(self, ue: UeKey, record: UeRecord) -> None:
        """Return when the record is remembered.

        :raises AdapterError: it cannot be; nor can the others of the group
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._commit)
        self._records[ue] = record
        remembered: asyncio.Future[None] = loop.create_future()
        self._waiting.append(remembered)
        await remembered

    def _commit(self) -> None:
        records, self._records = self._records, {}
        waiting, self._waiting = self._waiting, []
        failed: Exception | None = None
        try:
            self._memory.put(records)
        except Exception as error:
            failed = error
        for remembered in waiting:
            if remembered.done():
                continue  # who waited was cancelled
            if failed is None:
                remembered.set_result(None)
            else:
                remembered.set_exception(failed)
