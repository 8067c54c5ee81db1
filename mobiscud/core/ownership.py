"""Who has a personal VM when the hosts are asked one by one: the ledger's claim, what they say, what follows. Pure.

libvirt locks nothing across hosts, and its own view after a failure proves little: when the target's daemon dies just
after it let the guest run, the source lets it run as well. So each migration is written down before it begins
(``Claim.towards``), and after anything but a success both sides are asked, the losers destroyed, and only then is
traffic let through. An epoch that rises with each owner keeps out who slept through a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

from mobiscud.core.edge import MigrationMode, PvmState
from mobiscud.core.ids import CloudletId

Statement = PvmState | None
"""What a host says about a PVM; ``None`` where it does not answer."""

Statements = Mapping[CloudletId, Statement]


@dataclass(frozen=True, slots=True)
class Claim:
    """The ledger's line for one PVM: who has it, and since which epoch; and to whom it is on its way."""

    owner: CloudletId
    epoch: int = 1
    heir: CloudletId | None = None
    mode: MigrationMode = MigrationMode.PRE_COPY

    def towards(self, heir: CloudletId, mode: MigrationMode) -> Self:
        """Write down a migration before it begins.

        :raises ValueError: there is one already, or it leads nowhere
        """
        if self.heir is not None:
            raise ValueError(f"it is on its way to {self.heir}")
        if heir == self.owner:
            raise ValueError(f"{heir} has it already")
        return replace(self, heir=heir, mode=mode)

    def stays(self) -> Self:
        """Write down that the migration did not happen."""
        return replace(self, heir=None)

    def passes(self) -> Self:
        """Write down that the heir is the owner now.

        :raises ValueError: there is no heir
        """
        if self.heir is None:
            raise ValueError("there is no heir")
        return replace(self, owner=self.heir, epoch=self.epoch + 1, heir=None)

    def outranks(self, other: Claim) -> bool:
        """Tell which of two ledgers knows more."""
        return self.epoch > other.epoch


class Standing(StrEnum):
    """How sure the answer is."""

    SETTLED = "settled"
    """Destroy the losers, see that they are gone, let traffic through to the owner."""
    WAITING = "waiting"
    """Who could have it is silent. Let traffic through to nobody, and ask again, or end that host's guests."""
    LOST = "lost"
    """No whole copy is left: destroy what there is; it may be started anew."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to do. Those to ``destroy`` include silent hosts: end their QEMU by other means before traffic passes."""

    standing: Standing
    claim: Claim
    destroy: frozenset[CloudletId] = frozenset()
    resume: bool = False
    """The owner has it whole, but standing still."""


class _Answer(StrEnum):
    KEEP = "keep"
    RESUME = "resume"
    PASS = "pass"
    WAIT = "wait"
    LOSE = "lose"


_RUNS, _STILL, _GONE, _SILENT = PvmState.RUNNING, PvmState.SUSPENDED, PvmState.ABSENT, None

AFTER_PRE_COPY: Final[Mapping[tuple[Statement, Statement], _Answer]] = {
    # The source has all of the memory until the target runs; from then on the target is ahead of it.
    (_RUNS, _RUNS): _Answer.PASS,  # the path was flipped when the source stood still: users saw the target
    (_RUNS, _STILL): _Answer.KEEP,
    (_RUNS, _GONE): _Answer.KEEP,
    (_RUNS, _SILENT): _Answer.KEEP,  # once the target's copy is ended for certain
    (_STILL, _RUNS): _Answer.PASS,
    (_STILL, _STILL): _Answer.RESUME,
    (_STILL, _GONE): _Answer.RESUME,
    (_STILL, _SILENT): _Answer.RESUME,  # as above
    (_GONE, _RUNS): _Answer.PASS,
    (_GONE, _STILL): _Answer.LOSE,  # nobody knows how much of the memory came through
    (_GONE, _GONE): _Answer.LOSE,
    (_GONE, _SILENT): _Answer.WAIT,
    (_SILENT, _RUNS): _Answer.PASS,  # once the source's copy is ended for certain
    (_SILENT, _STILL): _Answer.WAIT,
    (_SILENT, _GONE): _Answer.WAIT,
    (_SILENT, _SILENT): _Answer.WAIT,
}
"""What follows when a pre-copy did not end well, by what source and target say."""

AFTER_POST_COPY: Final[Mapping[tuple[Statement, Statement], _Answer]] = {
    **AFTER_PRE_COPY,
    # Once the source stands still, part of the memory is the target's alone.
    (_STILL, _STILL): _Answer.LOSE,
    (_STILL, _GONE): _Answer.LOSE,
    (_STILL, _SILENT): _Answer.WAIT,
}
"""The same for post-copy."""


def settle(claim: Claim, said: Statements) -> Settlement:
    """Decide who has the PVM. A host that was not asked counts as silent if it may have it, else as without it."""
    owner = said.get(claim.owner)
    if claim.heir is None:
        answer = _undisturbed(owner)
    else:
        table = AFTER_PRE_COPY if claim.mode is MigrationMode.PRE_COPY else AFTER_POST_COPY
        answer = table[owner, said.get(claim.heir)]
    match answer:
        case _Answer.WAIT:
            # Whoever is no party to it has no business with it, sure or not.
            parties = {claim.owner, claim.heir}
            return Settlement(Standing.WAITING, claim, _copies(said) - parties)
        case _Answer.LOSE:
            return Settlement(Standing.LOST, claim.stays(), _copies(said))
        case _Answer.PASS:
            after = claim.passes()
        case _:
            after = claim.stays()
    doubtful = {party for party in (claim.owner, claim.heir) if party is not None and said.get(party) is None}
    losers = (_copies(said) | doubtful) - {after.owner}
    return Settlement(Standing.SETTLED, after, frozenset(losers), resume=answer is _Answer.RESUME)


def _undisturbed(owner: Statement) -> _Answer:
    """No migration was written down: a copy elsewhere is one that a partition left over."""
    match owner:
        case None:
            return _Answer.WAIT
        case PvmState.ABSENT:
            return _Answer.LOSE
        case _:
            return _Answer.KEEP  # one that stands still without a migration was paused on request


def _copies(said: Statements) -> frozenset[CloudletId]:
    return frozenset(host for host, state in said.items() if state in (PvmState.RUNNING, PvmState.SUSPENDED))
