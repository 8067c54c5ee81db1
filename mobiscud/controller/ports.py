"""What a controller works with, and where it stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mobiscud.controller.settling import GuestPort
from mobiscud.core.edge import MigrationMode, PathSpec, Pvm
from mobiscud.core.ids import CloudletId, PvmId, UeKey


class PathPort(Protocol):
    """The switch of the cloudlet."""

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        """Make the path of the UE this one; returns the rules in force once they are confirmed."""

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> Mapping[UeKey, tuple[str, ...]]:
        """The same for many UEs at one moment, all or none of them."""


class PacketPort(Protocol):
    """What keeps the packets of a guest that may stop at any moment."""

    def keep_packets(self, pvm: Pvm) -> None:
        """Keep what the PVM is sent here, each packet for a moment."""

    def resend_packets(self, pvm: Pvm, to: CloudletId) -> int:
        """Send what was kept once more, to where the PVM goes on, and what still comes by."""

    def forget_packets(self, pvm: Pvm) -> None:
        """Keep no more."""


class Moved(Protocol):
    """What a migration came to."""

    @property
    def total_ms(self) -> float: ...


class MigrationProgress(Protocol):
    """How far a migration is."""

    @property
    def elapsed_ms(self) -> float: ...
    @property
    def iteration(self) -> int: ...
    @property
    def bytes_moved(self) -> int: ...
    @property
    def bytes_remaining(self) -> int: ...


class PvmPort(GuestPort, Protocol):
    """The hypervisor of the cloudlet."""

    @property
    def mode(self) -> MigrationMode: ...
    async def start(self, pvm: Pvm, *, kept: bool) -> str | None:
        """Have it run; gives why one that was ``kept`` begins anew."""

    def keeps(self, pvm: Pvm) -> bool: ...
    async def fill_pool(self, pvms: Sequence[Pvm]) -> None: ...
    async def expect(self, pvm: Pvm) -> None: ...
    async def stop(self, pvm_id: PvmId) -> None: ...
    async def migrate(
        self, pvm_id: PvmId, migration_uri: str, *, progress: Callable[[MigrationProgress], None]
    ) -> Moved: ...
    async def abort(self, pvm_id: PvmId) -> None: ...
    async def running(self) -> tuple[PvmId, ...]: ...


class RequestPort(Protocol):
    """Question and answer with other controllers."""

    def answer(self, name: str, answerer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None: ...
    async def ask(
        self, node: str, name: str, body: dict[str, Any], *, timeout_s: float, correlation: str | None = None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The cloudlets of the site."""

    here: CloudletId
    cloudlet_of: Mapping[int, CloudletId]
    """By eNB id."""
    node_of: Mapping[CloudletId, str]
    migration_uri_of: Mapping[CloudletId, str]
