"""What a migration may do and how it goes: the choice of the mode, and a verdict on every sample of progress. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, assert_never

from mobiscud.core.edge import MigrationMode as MigrationMode
from mobiscud.core.edge import PvmState


class Accelerator(StrEnum):
    """What executes the guest."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class HypervisorFacts:
    """What a hypervisor says about itself; ``emulator`` and ``machine`` are what its guests are started with."""

    qemu_version: tuple[int, int, int]
    accelerator: Accelerator
    emulator: str
    machine: str


FIRST_QEMU_WITH_SAFE_TCG: Final = (10, 0, 0)
"""Before it, pre-copy under TCG corrupts the guest's memory now and then: QEMU 7.2 lost 2 % of idle guests."""


def corrupts_even_memory(facts: HypervisorFacts) -> bool:
    """Tell whether a guest must be given memory of an odd size to survive pre-copy (``domain_xml`` does)."""
    return facts.accelerator is Accelerator.TCG and facts.qemu_version < FIRST_QEMU_WITH_SAFE_TCG


def choose_mode(wanted: Literal["auto", "pre_copy", "post_copy"]) -> MigrationMode:
    """Give the operator's choice; ``auto`` is pre-copy.

    A post-copied guest runs again as soon, but each page that it touches first has to come over the network: a stream
    through it stands still twice to four times as long, and a failure then loses the guest (docs/adr/0001).
    """
    return MigrationMode.PRE_COPY if wanted == "auto" else MigrationMode(wanted)


class Phase(StrEnum):
    """Where a migration is."""

    COPYING = "copying"
    """The guest runs at the source; everything can be undone."""
    SWITCHED = "switched"
    """The guest stands still at the source; in post-copy it may run at the target already."""
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """A sample. ``iteration`` counts the rounds over the guest's memory from 1, and is 0 before the first.

    ``since_abort_ms`` is how long ago the hypervisor agreed to abort, ``None`` where it was not asked or was not ready.
    """

    phase: Phase
    elapsed_ms: float
    iteration: int = 0
    bytes_moved: int = 0
    bytes_remaining: int = 0
    since_abort_ms: float | None = None


class Verdict(StrEnum):
    """What the driver of a migration does next."""

    WAIT = "wait"
    ABORT = "abort"
    COMMIT = "commit"
    ROLL_BACK = "roll_back"


ABORT_LIMIT_MS: Final = 5000.0
"""An aborted migration ends within 0.3 s, or never: libvirt 9.0 was seen to miss that QEMU has ended it, when the abort
fell together with the switch (about 1 abort in 20). The guest runs on at the source; libvirtd must be restarted."""


def judge(progress: MigrationProgress, mode: MigrationMode, *, limit_ms: float) -> Verdict:
    """Decide on a sample; ``limit_ms`` bounds how long a migration that can still be undone may take."""
    match progress.phase:
        case Phase.COPYING | Phase.SWITCHED:
            if progress.phase is Phase.SWITCHED and mode is MigrationMode.POST_COPY:
                return Verdict.WAIT  # the only whole guest is the one over there: to abort now is to lose it
            if progress.since_abort_ms is not None:
                return Verdict.ROLL_BACK if progress.since_abort_ms > ABORT_LIMIT_MS else Verdict.WAIT
            return Verdict.ABORT if progress.elapsed_ms > limit_ms else Verdict.WAIT
        case Phase.DONE:
            return Verdict.COMMIT
        case Phase.FAILED:
            return Verdict.ROLL_BACK
        case _ as never:
            assert_never(never)


@dataclass(frozen=True, slots=True)
class MigrationOutcome:
    """A migration that was done. ``downtime_ms`` is the hypervisor's own figure, which only pre-copy gets right."""

    total_ms: float
    mode: MigrationMode
    iterations: int
    bytes_moved: int
    downtime_ms: float | None


class Whereabouts(StrEnum):
    """What is known about the guest after a migration that failed."""

    SOURCE = "source"
    """It never stood still here, and it runs here: there is no other copy."""
    UNKNOWN = "unknown"
    """It stood still, so the target may have resumed it: ask both, fence one, and only then forward its packets."""
    LOST = "lost"
    """Post-copy broke after the switch: its memory is torn between both sides."""


def locate(mode: MigrationMode, *, stood_still: bool, at_source: PvmState | None) -> Whereabouts:
    """Say where the guest of a failed migration is.

    :param stood_still: whether the source said at any time during the migration that the guest is suspended
    :param at_source: its state there now; ``None`` where the source does not answer
    """
    if not stood_still and at_source is PvmState.RUNNING:
        return Whereabouts.SOURCE
    if stood_still and at_source is PvmState.SUSPENDED and mode is MigrationMode.POST_COPY:
        return Whereabouts.LOST
    return Whereabouts.UNKNOWN
