"""What a personal VM does at one cloudlet: the notices of it, and the state that follows from them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from mobiscud.core.edge import PvmState as PvmState
from mobiscud.core.ids import PvmId


class StopReason(StrEnum):
    """Why a PVM is here no longer."""

    SHUTDOWN = "shutdown"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    MIGRATED = "migrated"
    SAVED = "saved"
    FAILED = "failed"
    UNKNOWN = "unknown"


UNASKED: Final = frozenset({StopReason.SHUTDOWN, StopReason.CRASHED, StopReason.FAILED, StopReason.UNKNOWN})
"""Ends that none of our requests leads to: of itself, or missed while the hypervisor was away."""


@dataclass(frozen=True, slots=True)
class PvmSuspended:
    """The PVM stands still here. ``migrating``: because it is on its way to another cloudlet; flip the path now.

    ``at_ns`` is nanoseconds since the epoch, taken when the hypervisor's event arrived, as in all notices.
    """

    pvm_id: PvmId
    at_ns: int
    migrating: bool


@dataclass(frozen=True, slots=True)
class PvmResumed:
    """The PVM runs here. ``migrated``: it came from another cloudlet; else it was booted, or goes on where it was."""

    pvm_id: PvmId
    at_ns: int
    migrated: bool


@dataclass(frozen=True, slots=True)
class PvmStopped:
    """The PVM is here no longer."""

    pvm_id: PvmId
    at_ns: int
    reason: StopReason


Notice = PvmSuspended | PvmResumed | PvmStopped


TRANSITIONS: Final[Mapping[tuple[PvmState, type[Notice]], PvmState]] = {
    (PvmState.ABSENT, PvmResumed): PvmState.RUNNING,
    (PvmState.RUNNING, PvmSuspended): PvmState.SUSPENDED,
    (PvmState.SUSPENDED, PvmResumed): PvmState.RUNNING,
    (PvmState.RUNNING, PvmStopped): PvmState.ABSENT,
    (PvmState.SUSPENDED, PvmStopped): PvmState.ABSENT,
}
"""What is not listed changes nothing: a hypervisor may say one thing twice, with a finer reason the second time."""


def advance(state: PvmState, notice: Notice) -> PvmState:
    """Give the state after the notice; the same state means that the notice told nothing new."""
    return TRANSITIONS.get((state, type(notice)), state)


def difference(before: Mapping[PvmId, PvmState], after: Mapping[PvmId, PvmState], at_ns: int) -> tuple[Notice, ...]:
    """Give the notices that were missed while nobody listened, as far as the states tell.

    A PVM that left and came back in between shows no difference.
    """
    notices: list[Notice] = []
    for pvm_id in sorted(before.keys() | after.keys()):
        was, is_now = before.get(pvm_id, PvmState.ABSENT), after.get(pvm_id, PvmState.ABSENT)
        if was is is_now:
            continue
        match is_now:
            case PvmState.ABSENT:
                notices.append(PvmStopped(pvm_id, at_ns, StopReason.UNKNOWN))
            case PvmState.RUNNING:
                notices.append(PvmResumed(pvm_id, at_ns, migrated=False))
            case PvmState.SUSPENDED:
                if was is PvmState.RUNNING:  # else it is arriving, of which a hypervisor gives no notice either
                    notices.append(PvmSuspended(pvm_id, at_ns, migrating=False))
            case _ as never:
                assert_never(never)
    return tuple(notices)
