"""What one controller of a site works with: a switch that holds one path and may be away, a journal, an inlet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from pydantic import TypeAdapter

from mobiscud.controller.record import UeRecord
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, UeKey

RECORD = TypeAdapter(UeRecord)
AWAY_S = 0.7
"""How long a switch is away."""


class Switch:
    """Holds one path."""

    def __init__(self) -> None:
        self.path: PathSpec | None = None
        self.kept: set[Pvm] = set()
        self.away_until = 0.0

    def unplug(self) -> None:
        """For a while it obeys nobody, and keeps what it holds."""
        self.away_until = asyncio.get_running_loop().time() + AWAY_S

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        await asyncio.sleep(0.001)
        if asyncio.get_running_loop().time() < self.away_until:
            raise AdapterError("the switch is away")
        self.path = path
        return ("rule",)

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> dict[UeKey, tuple[str, ...]]:
        return {ue: await self.apply(ue, path) for ue, path in paths.items()}

    def keep_packets(self, pvm: Pvm) -> None:
        self.kept.add(pvm)

    def resend_packets(self, pvm: Pvm, to: CloudletId) -> int:
        self.forget_packets(pvm)
        return 0

    def forget_packets(self, pvm: Pvm) -> None:
        self.kept.discard(pvm)


class Memory:
    """A journal that keeps everything as text, as the real one does."""

    def __init__(self) -> None:
        self._texts: dict[UeKey, bytes] = {}
        self.on_put: Callable[[], None] | None = None
        """Called once, when something has been remembered and nothing of it done; may raise."""

    def load(self) -> dict[UeKey, UeRecord]:
        return {ue: RECORD.validate_json(text) for ue, text in self._texts.items()}

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        self._texts |= {ue: RECORD.dump_json(record) for ue, record in records.items()}
        on_put, self.on_put = self.on_put, None
        if on_put is not None:
            on_put()


class Inlet:
    """One UE never fills the backlog."""

    def hold(self) -> None:
        raise AssertionError("the backlog is full")

    def go_on(self) -> None:
        pass
