"""``offload.mode: observe``: a controller that does nothing, and tells what it would do.

It is the same controller with other hands: a switch and a hypervisor where everything succeeds at once and nothing
happens, a line to the other observing controllers alone, no journal, and events that say ``would``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import structlog

from mobiscud.controller.ports import RequestPort
from mobiscud.controller.record import UeRecord
from mobiscud.core.edge import MigrationMode, PathSpec, Pvm, PvmState
from mobiscud.core.errors import AdapterError
from mobiscud.core.events import Event, OffloadEvent, OffloadObserved, PvmEvent, PvmObserved
from mobiscud.core.ids import PvmId, UeKey

PREFIX: Final = "observe-"
"""Of the requests between observing controllers; one that does things knows none of that name."""

Publish = Callable[[Event], None]
RuleIds = Callable[[UeKey, PathSpec | None], tuple[str, ...]]

log = structlog.get_logger(__name__)


class ObservedSwitch:
    """Holds no rules; names those that a path would have."""

    def __init__(self, rule_ids: RuleIds) -> None:
        self._rule_ids = rule_ids

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        """Name the rules.

        :raises AdapterError: the path would be refused
        """
        return self._rule_ids(ue, path)

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> Mapping[UeKey, tuple[str, ...]]:
        """The same for many.

        :raises AdapterError: as ``apply``
        """
        return {ue: self._rule_ids(ue, path) for ue, path in paths.items()}


@dataclass(frozen=True, slots=True)
class NoTime:
    """A migration that took no time, since there was none."""

    total_ms: float = 0.0


class ObservedHypervisor:
    """Runs nothing, and remembers what it would run."""

    def __init__(self) -> None:
        self._running: set[PvmId] = set()

    async def start(self, pvm: Pvm, *, kept: bool = False) -> None:
        """It would run now."""
        self._running.add(pvm.id)

    def keeps(self, pvm: Pvm) -> bool:
        """What does not run has nothing to keep."""
        return False

    async def expect(self, pvm: Pvm) -> None:
        """It may come."""

    async def fill_pool(self, pvms: Sequence[Pvm]) -> None:
        """There is none."""

    async def stop(self, pvm_id: PvmId) -> None:
        """It would no longer."""
        self._running.discard(pvm_id)

    @property
    def mode(self) -> MigrationMode:
        """How it would leave."""
        return MigrationMode.PRE_COPY

    async def state(self, pvm_id: PvmId) -> PvmState:
        """As it would be."""
        return PvmState.RUNNING if pvm_id in self._running else PvmState.ABSENT

    async def fence(self, pvm_id: PvmId) -> None:
        """It would no longer run."""
        self._running.discard(pvm_id)

    async def let_run(self, pvm_id: PvmId) -> None:
        """It would go on."""
        self._running.add(pvm_id)

    async def migrate(self, pvm_id: PvmId, migration_uri: str, *, progress: object = None) -> NoTime:
        """It would run there now."""
        self._running.discard(pvm_id)
        return NoTime()

    async def abort(self, pvm_id: PvmId) -> None:
        """Too late: what takes no time cannot be ended."""

    async def running(self) -> tuple[PvmId, ...]:
        """What would run."""
        return tuple(self._running)


class ObservedLine:
    """Question and answer with the other observing controllers."""

    def __init__(self, line: RequestPort) -> None:
        self._line = line

    def answer(self, name: str, answerer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        """Answer only who observes."""
        self._line.answer(PREFIX + name, answerer)

    async def ask(
        self, node: str, name: str, body: dict[str, Any], *, timeout_s: float, correlation: str | None = None
    ) -> dict[str, Any]:
        """Ask who observes.

        :raises AdapterError: as the line's
        """
        return await self._line.ask(node, PREFIX + name, body, timeout_s=timeout_s, correlation=correlation)


class NoMemory:
    """Remembers nothing: where the UEs are, the retained states say."""

    def load(self) -> dict[UeKey, UeRecord]:
        """Nothing."""
        return {}

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        """Forget them."""


def telling(publish: Publish) -> Publish:
    """Publishes what would have been done, as that."""

    def tell(event: Event) -> None:
        if not isinstance(event, OffloadEvent | PvmEvent):
            raise AdapterError(f"{event.TYPE} is nothing that an observing controller does")
        log.info("observed", ue=event.ue, would=event.TYPE)
        observed = OffloadObserved if isinstance(event, OffloadEvent) else PvmObserved
        publish(_same(event, observed, would=event.TYPE))

    return tell


_PVM_EVENTS: Final = {cls.TYPE: cls for cls in PvmEvent.__subclasses__()}


def as_if_done(event: Event) -> Event:
    """What another observing controller would have done with a personal VM, as if it had."""
    kind = _PVM_EVENTS.get(event.would) if isinstance(event, PvmObserved) else None
    return event if kind is None else _same(event, kind)


def _same(event: Event, kind: type[Event], **more: Any) -> Event:
    """An event of another kind, with what it has in common with this one."""
    names = {field.name for field in fields(event)} & {field.name for field in fields(kind)}
    return kind(**{name: getattr(event, name) for name in names}, **more)
