from __future__ import annotations

import pytest

from migration.lifecycle import PvmState
from migration.verdict import (
    ABORT_LIMIT_MS,
    Accelerator,
    HypervisorFacts,
    MigrationMode,
    MigrationProgress,
    Phase,
    Verdict,
    Whereabouts,
    choose_mode,
    corrupts_even_memory,
    judge,
    locate,
)

PRE_COPY, POST_COPY = MigrationMode.PRE_COPY, MigrationMode.POST_COPY


@pytest.mark.parametrize(
    ("version", "accelerator", "corrupts"),
    [
        ((7, 2, 22), Accelerator.TCG, True),
        ((9, 2, 9), Accelerator.TCG, True),
        ((10, 0, 0), Accelerator.TCG, False),
        ((10, 0, 2), Accelerator.TCG, False),
        ((7, 2, 22), Accelerator.KVM, False),
    ],
)
def test_old_emulators_forget_what_a_guest_writes(
    version: tuple[int, int, int], accelerator: Accelerator, corrupts: bool
) -> None:
    assert corrupts_even_memory(HypervisorFacts(version, accelerator, "/usr/bin/qemu", "pc")) is corrupts


def test_auto_is_pre_copy_and_the_operator_may_insist() -> None:
    assert choose_mode("auto") is PRE_COPY
    assert choose_mode("pre_copy") is PRE_COPY
    assert choose_mode("post_copy") is POST_COPY


@pytest.mark.parametrize("mode", list(MigrationMode))
@pytest.mark.parametrize(
    ("phase", "elapsed_ms", "verdict"),
    [
        (Phase.COPYING, 0, Verdict.WAIT),
        (Phase.COPYING, 1000, Verdict.WAIT),
        (Phase.COPYING, 1000.1, Verdict.ABORT),
        (Phase.SWITCHED, 1000, Verdict.WAIT),
        (Phase.DONE, 10, Verdict.COMMIT),
        (Phase.DONE, 10_000, Verdict.COMMIT),
        (Phase.FAILED, 10, Verdict.ROLL_BACK),
        (Phase.FAILED, 10_000, Verdict.ROLL_BACK),
    ],
)
def test_a_sample_is_judged_by_phase_and_time(
    mode: MigrationMode, phase: Phase, elapsed_ms: float, verdict: Verdict
) -> None:
    assert judge(MigrationProgress(phase, elapsed_ms), mode, limit_ms=1000) is verdict


@pytest.mark.parametrize("phase", [Phase.COPYING, Phase.SWITCHED])
def test_an_abort_is_given_time_to_end_the_migration_but_not_for_ever(phase: Phase) -> None:
    aborted = MigrationProgress(phase, 99_999, since_abort_ms=ABORT_LIMIT_MS)
    assert judge(aborted, PRE_COPY, limit_ms=1000) is Verdict.WAIT
    stuck = MigrationProgress(phase, 99_999, since_abort_ms=ABORT_LIMIT_MS + 1)
    assert judge(stuck, PRE_COPY, limit_ms=1000) is Verdict.ROLL_BACK


def test_a_guest_that_has_left_in_post_copy_is_never_aborted() -> None:
    late = MigrationProgress(Phase.SWITCHED, 99_999)
    assert judge(late, POST_COPY, limit_ms=1000) is Verdict.WAIT
    assert judge(late, PRE_COPY, limit_ms=1000) is Verdict.ABORT


@pytest.mark.parametrize(
    ("mode", "stood_still", "at_source", "whereabouts"),
    [
        (PRE_COPY, False, PvmState.RUNNING, Whereabouts.SOURCE),
        (POST_COPY, False, PvmState.RUNNING, Whereabouts.SOURCE),
        # It runs, but it stood still: the target may have resumed it before it gave up.
        (PRE_COPY, True, PvmState.RUNNING, Whereabouts.UNKNOWN),
        (PRE_COPY, True, PvmState.SUSPENDED, Whereabouts.UNKNOWN),
        (POST_COPY, True, PvmState.SUSPENDED, Whereabouts.LOST),
        (POST_COPY, True, PvmState.ABSENT, Whereabouts.UNKNOWN),
        (PRE_COPY, False, PvmState.ABSENT, Whereabouts.UNKNOWN),
        (PRE_COPY, False, None, Whereabouts.UNKNOWN),
        (POST_COPY, True, None, Whereabouts.UNKNOWN),
    ],
)
def test_only_what_is_known_is_said_about_a_guest(
    mode: MigrationMode, stood_still: bool, at_source: PvmState | None, whereabouts: Whereabouts
) -> None:
    assert locate(mode, stood_still=stood_still, at_source=at_source) is whereabouts
