"""The failure table: who has the guest, whatever died, and whom it must be taken from."""

from __future__ import annotations

from itertools import product

import pytest

from migration.lifecycle import PvmState
from migration.verdict import MigrationMode
from mobiscud.core.ids import CloudletId
from mobiscud.core.ownership import Claim, Settlement, Standing, Statement, settle

SOURCE, TARGET, THIRD = CloudletId("c1"), CloudletId("c2"), CloudletId("c3")
RUNS, STILL, GONE, SILENT = PvmState.RUNNING, PvmState.SUSPENDED, PvmState.ABSENT, None
PRE_COPY, POST_COPY = MigrationMode.PRE_COPY, MigrationMode.POST_COPY
AT_REST = Claim(SOURCE, epoch=4)
MOVING = AT_REST.towards(TARGET, PRE_COPY)
LEAVING = AT_REST.towards(TARGET, POST_COPY)
MOVED = Claim(TARGET, epoch=5)
STATEMENTS: tuple[Statement, ...] = (RUNS, STILL, GONE, SILENT)


@pytest.mark.parametrize(
    ("what_died", "source", "target", "expected"),
    [
        ("target libvirtd, mid-copy", RUNS, SILENT, Settlement(Standing.SETTLED, AT_REST, frozenset({TARGET}))),
        ("target QEMU, mid-copy", RUNS, GONE, Settlement(Standing.SETTLED, AT_REST)),
        ("target host, mid-copy, back again", RUNS, GONE, Settlement(Standing.SETTLED, AT_REST)),
        ("the link, mid-copy", RUNS, STILL, Settlement(Standing.SETTLED, AT_REST, frozenset({TARGET}))),
        ("source libvirtd, mid-copy", SILENT, STILL, Settlement(Standing.WAITING, MOVING)),
        ("source QEMU, mid-copy", GONE, STILL, Settlement(Standing.LOST, AT_REST, frozenset({TARGET}))),
        ("source QEMU, target swept", GONE, GONE, Settlement(Standing.LOST, AT_REST)),
        ("source host, mid-copy", SILENT, GONE, Settlement(Standing.WAITING, MOVING)),
        ("target libvirtd, as the guest resumes", RUNS, RUNS, Settlement(Standing.SETTLED, MOVED, frozenset({SOURCE}))),
        (
            "target libvirtd, at the switch-over",
            STILL,
            SILENT,
            Settlement(Standing.SETTLED, AT_REST, frozenset({TARGET}), resume=True),
        ),
        ("target QEMU, at the switch-over", STILL, GONE, Settlement(Standing.SETTLED, AT_REST, resume=True)),
        (
            "the link, at the switch-over",
            STILL,
            STILL,
            Settlement(Standing.SETTLED, AT_REST, frozenset({TARGET}), resume=True),
        ),
        ("source host, after the switch-over", SILENT, RUNS, Settlement(Standing.SETTLED, MOVED, frozenset({SOURCE}))),
        ("source QEMU, after the switch-over", GONE, RUNS, Settlement(Standing.SETTLED, MOVED)),
        ("source libvirtd's word, after the switch-over", STILL, RUNS, None),
        ("target host, after the switch-over", GONE, SILENT, Settlement(Standing.WAITING, MOVING)),
        ("both hosts", SILENT, SILENT, Settlement(Standing.WAITING, MOVING)),
    ],
)
def test_after_pre_copy(what_died: str, source: Statement, target: Statement, expected: Settlement | None) -> None:
    expected = expected or Settlement(Standing.SETTLED, MOVED, frozenset({SOURCE}))
    assert settle(MOVING, {SOURCE: source, TARGET: target}) == expected, what_died


@pytest.mark.parametrize(
    ("source", "target", "standing"),
    [
        (STILL, STILL, Standing.LOST),
        (STILL, GONE, Standing.LOST),
        (STILL, SILENT, Standing.WAITING),
        (STILL, RUNS, Standing.SETTLED),
        (RUNS, GONE, Standing.SETTLED),
    ],
)
def test_after_post_copy_a_source_that_stands_still_has_no_whole_guest(
    source: Statement, target: Statement, standing: Standing
) -> None:
    settlement = settle(LEAVING, {SOURCE: source, TARGET: target})
    assert settlement.standing is standing
    assert not settlement.resume


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (RUNS, Settlement(Standing.SETTLED, AT_REST, frozenset({THIRD}))),
        (STILL, Settlement(Standing.SETTLED, AT_REST, frozenset({THIRD}))),
        (GONE, Settlement(Standing.LOST, AT_REST, frozenset({THIRD}))),
        (SILENT, Settlement(Standing.WAITING, AT_REST, frozenset({THIRD}))),
    ],
)
def test_a_copy_that_no_ledger_knows_is_destroyed(owner: Statement, expected: Settlement) -> None:
    assert settle(AT_REST, {SOURCE: owner, TARGET: GONE, THIRD: RUNS}) == expected


@pytest.mark.parametrize("claim", [AT_REST, MOVING, LEAVING])
@pytest.mark.parametrize("said", list(product(STATEMENTS, repeat=3)))
def test_whatever_is_said_at_most_one_copy_is_left(claim: Claim, said: tuple[Statement, ...]) -> None:
    hosts = dict(zip((SOURCE, TARGET, THIRD), said, strict=True))
    settlement = settle(claim, hosts)
    left = {host for host, state in hosts.items() if state in (RUNS, STILL)} - settlement.destroy
    match settlement.standing:
        case Standing.SETTLED:
            assert left == {settlement.claim.owner}
            assert settlement.claim.heir is None
            assert settlement.resume <= (hosts[settlement.claim.owner] is STILL)
        case Standing.LOST:
            assert left == set()
        case Standing.WAITING:
            assert settlement.claim == claim
            assert left <= {claim.owner, claim.heir}
    assert (settlement.claim.epoch > claim.epoch) == (settlement.claim.owner != claim.owner)


@pytest.mark.parametrize(
    ("claim", "where"),
    [(AT_REST, SOURCE), (MOVING, SOURCE), (MOVING, TARGET), (LEAVING, SOURCE), (LEAVING, TARGET)],
)
def test_the_only_copy_of_a_party_that_runs_is_kept(claim: Claim, where: CloudletId) -> None:
    hosts = dict.fromkeys((SOURCE, TARGET, THIRD), GONE) | {where: RUNS}
    settlement = settle(claim, hosts)
    assert settlement.standing is Standing.SETTLED
    assert settlement.claim.owner == where
    assert settlement.destroy == frozenset()


def test_deciding_again_changes_nothing() -> None:
    for said in product(STATEMENTS, repeat=2):
        hosts = dict(zip((SOURCE, TARGET), said, strict=True))
        first = settle(MOVING, hosts)
        if first.standing is not Standing.SETTLED:
            continue
        after = {host: GONE if host in first.destroy else RUNS for host in hosts if hosts[host] is not GONE}
        again = settle(first.claim, dict.fromkeys(hosts, GONE) | after)
        assert again == Settlement(Standing.SETTLED, first.claim)


def test_the_ledger_takes_one_migration_at_a_time() -> None:
    with pytest.raises(ValueError, match="on its way to c2"):
        MOVING.towards(THIRD, PRE_COPY)
    with pytest.raises(ValueError, match="has it already"):
        AT_REST.towards(SOURCE, PRE_COPY)
    with pytest.raises(ValueError, match="no heir"):
        AT_REST.passes()


def test_a_ledger_that_slept_through_a_change_is_outranked() -> None:
    assert MOVING.passes() == MOVED
    assert MOVED.outranks(MOVING)
    assert not MOVING.stays().outranks(AT_REST)
