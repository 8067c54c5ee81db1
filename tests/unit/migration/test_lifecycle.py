from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from migration.lifecycle import (
    Notice,
    PvmResumed,
    PvmState,
    PvmStopped,
    PvmSuspended,
    StopReason,
    advance,
    difference,
)
from mobiscud.core.ids import PvmId

PVM = PvmId("pvm-1")
NOW = 1_700_000_000_000_000_000
BOOTED, ARRIVED = PvmResumed(PVM, NOW, migrated=False), PvmResumed(PVM, NOW, migrated=True)
PAUSED, LEAVING = PvmSuspended(PVM, NOW, migrating=False), PvmSuspended(PVM, NOW, migrating=True)
GONE = PvmStopped(PVM, NOW, StopReason.MIGRATED)


def follow(*notices: Notice) -> list[PvmState]:
    states = [PvmState.ABSENT]
    for notice in notices:
        states.append(advance(states[-1], notice))
    return states[1:]


def test_a_life_at_the_source() -> None:
    assert follow(BOOTED, LEAVING, GONE) == [PvmState.RUNNING, PvmState.SUSPENDED, PvmState.ABSENT]


def test_a_life_at_the_target() -> None:
    assert follow(ARRIVED, GONE) == [PvmState.RUNNING, PvmState.ABSENT]


def test_a_migration_that_is_undone_late() -> None:
    assert follow(BOOTED, LEAVING, BOOTED) == [PvmState.RUNNING, PvmState.SUSPENDED, PvmState.RUNNING]


def test_what_is_said_twice_changes_nothing() -> None:
    assert follow(BOOTED, PAUSED, LEAVING) == [PvmState.RUNNING, PvmState.SUSPENDED, PvmState.SUSPENDED]


def test_an_arrival_that_fails_never_was_here() -> None:
    assert follow(PvmStopped(PVM, NOW, StopReason.FAILED)) == [PvmState.ABSENT]


def test_no_difference_needs_no_notice() -> None:
    assert difference({PVM: PvmState.RUNNING}, {PVM: PvmState.RUNNING}, NOW) == ()
    assert difference({}, {PVM: PvmState.SUSPENDED}, NOW) == ()  # arriving


def test_what_was_missed_is_made_up_for() -> None:
    assert difference({PVM: PvmState.RUNNING}, {}, NOW) == (PvmStopped(PVM, NOW, StopReason.UNKNOWN),)
    assert difference({}, {PVM: PvmState.RUNNING}, NOW) == (BOOTED,)
    assert difference({PVM: PvmState.RUNNING}, {PVM: PvmState.SUSPENDED}, NOW) == (PAUSED,)


STATES = st.dictionaries(st.sampled_from([PvmId("a"), PvmId("b"), PvmId("c")]), st.sampled_from(PvmState))


@given(STATES, STATES)
def test_the_missed_notices_lead_from_one_state_to_the_other(
    before: dict[PvmId, PvmState], after: dict[PvmId, PvmState]
) -> None:
    told = dict(before)
    for notice in difference(before, after, NOW):
        told[notice.pvm_id] = advance(told.get(notice.pvm_id, PvmState.ABSENT), notice)
    for pvm_id in before.keys() | after.keys():
        should = after.get(pvm_id, PvmState.ABSENT)
        is_arriving = should is PvmState.SUSPENDED and before.get(pvm_id, PvmState.ABSENT) is PvmState.ABSENT
        if not is_arriving:
            assert told.get(pvm_id, PvmState.ABSENT) is should
