"""What a controller at work has around it in a test: a switch, a hypervisor, a line to nobody, and a journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mobiscud.controller.offload_policy import OffloadPolicy
from mobiscud.controller.ports import Neighbourhood
from mobiscud.controller.record import UeRecord
from mobiscud.controller.service import CloudletController
from mobiscud.core.config import MigrationConfig
from mobiscud.core.edge import MigrationMode, PathSpec, Pvm, PvmState
from mobiscud.core.errors import AdapterError
from mobiscud.core.events import Event
from mobiscud.core.ids import PvmId, UeKey

NONE_MOVES = "no PVM of these tests moves, or is in doubt"


class Switch:
    """Counts the steps it takes; refuses the paths of some."""

    def __init__(self, refused: frozenset[UeKey] = frozenset()) -> None:
        self.applied: list[tuple[UeKey, PathSpec | None]] = []
        self.steps = 0
        self._refused = refused

    @property
    def paths(self) -> dict[UeKey, PathSpec | None]:
        """What it holds."""
        return dict(self.applied)

    async def apply(self, of: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        await self.apply_all({of: path})
        return ()

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> dict[UeKey, tuple[str, ...]]:
        self.steps += 1
        await asyncio.sleep(0)
        if self._refused & paths.keys():
            raise AdapterError("refused")
        self.applied += paths.items()
        return dict.fromkeys(paths, ())


class Parts:
    """A switch, and everything else that a controller needs: PVMs start and stop at once, and none moves."""

    def __init__(self, remembered: Mapping[UeKey, UeRecord] | None = None, switch: Switch | None = None) -> None:
        """What is ``remembered`` runs."""
        self.switch = switch or Switch()
        self.remembered = dict(remembered or {})
        self.runs: set[PvmId] = {record.pvm.id for record in self.remembered.values()}
        self.published: list[Event] = []

    def controller(self, around: Neighbourhood, policy: OffloadPolicy) -> CloudletController:
        """One that works with these."""
        return CloudletController(
            around,
            policy,
            MigrationConfig(),
            switch=self.switch,
            hypervisor=self,
            requests=self,
            journal=self,
            inlet=self,
            publish=self.published.append,
        )

    # The hypervisor

    @property
    def mode(self) -> MigrationMode:
        return MigrationMode.PRE_COPY

    async def start(self, pvm: Pvm, *, kept: bool) -> None:
        self.runs.add(pvm.id)

    async def stop(self, pvm_id: PvmId) -> None:
        self.runs.discard(pvm_id)

    async def running(self) -> tuple[PvmId, ...]:
        return tuple(self.runs)

    def keeps(self, pvm: Pvm) -> bool:
        return False

    async def expect(self, pvm: Pvm) -> None: ...
    async def abort(self, pvm_id: PvmId) -> None: ...
    async def fill_pool(self, pvms: Sequence[Pvm]) -> None: ...

    async def migrate(self, pvm_id: PvmId, migration_uri: str, *, progress: Any = None) -> Any:
        raise AssertionError(NONE_MOVES)

    async def state(self, pvm_id: PvmId) -> PvmState:
        raise AssertionError(NONE_MOVES)

    async def fence(self, pvm_id: PvmId) -> None:
        raise AssertionError(NONE_MOVES)

    async def let_run(self, pvm_id: PvmId) -> None:
        raise AssertionError(NONE_MOVES)

    # The line to the others

    def answer(self, name: str, answerer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None: ...

    async def ask(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    # The journal

    def load(self) -> dict[UeKey, UeRecord]:
        return dict(self.remembered)

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        self.remembered |= records

    # The inlet

    def hold(self) -> None: ...
    def go_on(self) -> None: ...
