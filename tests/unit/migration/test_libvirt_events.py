"""The translation of libvirt's lifecycle events, by their numbers in libvirt-domain.h."""

from __future__ import annotations

import pytest

from migration.libvirt_words import notice_of
from migration.lifecycle import Notice, PvmResumed, PvmStopped, PvmSuspended, StopReason
from mobiscud.core.ids import PvmId

PVM = PvmId("pvm-1")
DEFINED, STARTED, SUSPENDED, RESUMED, STOPPED, SHUTDOWN = 0, 2, 3, 4, 5, 6


@pytest.mark.parametrize(
    ("event", "detail", "notice"),
    [
        (SUSPENDED, 0, PvmSuspended(PVM, 7, migrating=False)),  # paused
        (SUSPENDED, 1, PvmSuspended(PVM, 7, migrating=True)),  # migrated
        (SUSPENDED, 2, PvmSuspended(PVM, 7, migrating=False)),  # input or output error
        (SUSPENDED, 7, PvmSuspended(PVM, 7, migrating=True)),  # post-copy
        (SUSPENDED, 8, PvmSuspended(PVM, 7, migrating=False)),  # post-copy failed
        (RESUMED, 0, PvmResumed(PVM, 7, migrated=False)),  # unpaused
        (RESUMED, 1, PvmResumed(PVM, 7, migrated=True)),  # migrated
        (RESUMED, 3, PvmResumed(PVM, 7, migrated=True)),  # post-copy
        (STOPPED, 0, PvmStopped(PVM, 7, StopReason.SHUTDOWN)),
        (STOPPED, 1, PvmStopped(PVM, 7, StopReason.DESTROYED)),
        (STOPPED, 2, PvmStopped(PVM, 7, StopReason.CRASHED)),
        (STOPPED, 3, PvmStopped(PVM, 7, StopReason.MIGRATED)),
        (STOPPED, 99, PvmStopped(PVM, 7, StopReason.UNKNOWN)),
        (DEFINED, 0, None),
        (STARTED, 1, None),
        (SHUTDOWN, 0, None),
    ],
)
def test_an_event_becomes_a_notice(event: int, detail: int, notice: Notice | None) -> None:
    assert notice_of(PVM, 7, event, detail) == notice
