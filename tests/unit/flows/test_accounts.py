"""Accounts open, go on and end with the map entries that refer to them, and outlive the process."""

from __future__ import annotations

import struct

import pytest

from flows.gtp_datapath.accounts import ACCOUNT, LAST_PACKET_S, Accounts
from flows.gtp_datapath.build import HEADERS
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import FTeid, Teid, UeKey
from mobiscud.core.usage import Carried, Usage, UsageOf

WEB = UsageOf(UeKey("ue-0123456789abcdef"), FTeid("10.0.0.1", Teid(0x1001)), "web")
VOICE = UsageOf(WEB.ue, WEB.bearer, "voice")
SIX = UsageOf(WEB.ue, FTeid("2001:db8::1", Teid(0xFFFF_FFFF)), "a" * 31)
SINCE = 1_700_000_000_000_000_000
UP, DOWN, ELSEWHERE = ("up",), ("down",), ("elsewhere",)


def memory(accounts: int = 8) -> bytearray:
    return bytearray(ACCOUNT.size * (accounts + 1))


def carry(shared: bytearray, number: int, *counts: int) -> None:
    """What the program does: packets up and down, bytes up and down."""
    struct.pack_into("=4Q", shared, number * ACCOUNT.size, *counts)


def only(accounts: Accounts, now: float) -> Usage:
    [usage] = accounts.usage(now=now)
    return usage


def test_entries_of_one_bearer_and_rule_share_an_account() -> None:
    shared = memory()
    accounts = Accounts(shared)
    (number,) = accounts.take(UP, [WEB], now=1, at=SINCE)
    assert accounts.take(DOWN, [WEB], now=1, at=SINCE + 5) == (number,)
    carry(shared, number, 3, 4, 300, 400)
    assert only(accounts, 2) == Usage(number, WEB, SINCE, Carried(3, 300), Carried(4, 400), ended=False)


def test_another_rule_is_another_account_and_what_is_not_carried_has_none() -> None:
    accounts = Accounts(memory())
    web, nothing, voice = accounts.take(UP, [WEB, None, VOICE], now=1, at=SINCE)
    assert nothing == 0
    assert len({web, voice, 0}) == 3
    assert [accounts.rule_of(number) for number in (web, nothing, voice)] == ["web", "", "voice"]


def test_an_entry_that_is_replaced_goes_on_counting() -> None:
    shared = memory()
    accounts = Accounts(shared)
    (number,) = accounts.take(UP, [WEB], now=1, at=SINCE)
    carry(shared, number, 3, 0, 300, 0)
    assert accounts.take(UP, [WEB], now=50, at=SINCE + 9) == (number,)
    assert only(accounts, 99).uplink == Carried(3, 300)
    assert not only(accounts, 99).ended


def test_it_ends_when_no_packet_can_come_any_more() -> None:
    accounts = Accounts(memory())
    accounts.take(UP, [WEB], now=1, at=SINCE)
    accounts.take(DOWN, [WEB], now=1, at=SINCE)
    accounts.leave(UP, now=2)
    assert not only(accounts, 99).ended
    accounts.leave(DOWN, now=100)
    assert not only(accounts, 100).ended
    assert only(accounts, 100 + LAST_PACKET_S).ended


def test_it_goes_on_where_it_is_wanted_again_in_time() -> None:
    accounts = Accounts(memory())
    (number,) = accounts.take(UP, [WEB], now=1, at=SINCE)
    accounts.leave(UP, now=2)
    assert accounts.take(ELSEWHERE, [WEB], now=2.5, at=SINCE + 5) == (number,)
    assert not only(accounts, 99).ended


def test_what_has_ended_is_kept_until_settled_and_never_goes_on() -> None:
    shared = memory()
    accounts = Accounts(shared)
    (number,) = accounts.take(UP, [WEB], now=1, at=SINCE)
    carry(shared, number, 3, 0, 300, 0)
    accounts.leave(UP, now=2)
    assert only(accounts, 9).ended
    (another,) = accounts.take(UP, [WEB], now=10, at=SINCE + 5)
    assert another != number
    first, second = accounts.usage(now=10)
    assert (first.ended, first.uplink, second.ended, second.uplink) == (True, Carried(3, 300), False, Carried())
    accounts.settle([number])
    assert only(accounts, 11).number == another
    assert bytes(shared[number * ACCOUNT.size : (number + 1) * ACCOUNT.size]) == bytes(ACCOUNT.size)


def test_another_process_goes_on_with_what_it_finds() -> None:
    shared = memory()
    before = Accounts(shared)
    numbers = before.take(UP, [WEB, VOICE], now=1, at=SINCE)
    (six,) = before.take(DOWN, [SIX], now=1, at=SINCE + 1)
    carry(shared, numbers[1], 7, 0, 700, 0)
    after = Accounts(shared)
    assert after.rule_of(numbers[1]) == "voice"
    after.hold(UP, numbers, now=0.1)
    found = {usage.about: usage for usage in after.usage(now=50)}
    assert {about: usage.ended for about, usage in found.items()} == {WEB: False, VOICE: False, SIX: True}
    assert (found[VOICE].uplink, found[VOICE].since, found[SIX].number) == (Carried(7, 700), SINCE, six)
    (fresh,) = after.take(ELSEWHERE, [UsageOf(WEB.ue, WEB.bearer, "new")], now=51, at=SINCE)
    assert fresh not in (*numbers, six)


def test_of_two_that_are_found_the_newer_goes_on() -> None:
    shared = memory()
    before = Accounts(shared)
    before.take(UP, [WEB], now=1, at=SINCE)
    before.leave(UP, now=2)
    before.usage(now=9)
    (newer,) = before.take(UP, [WEB], now=9, at=SINCE + 9)
    after = Accounts(shared)
    assert after.take(UP, [WEB], now=1, at=SINCE + 20) == (newer,)


def test_more_than_there_is_room_for_is_refused() -> None:
    accounts = Accounts(memory(2))
    accounts.take(UP, [WEB, VOICE], now=1, at=SINCE)
    with pytest.raises(AdapterError, match="no account is free of 2"):
        accounts.take(DOWN, [SIX], now=1, at=SINCE)
    accounts.leave(UP, now=1)
    accounts.settle(usage.number for usage in accounts.usage(now=9))
    accounts.take(DOWN, [SIX], now=9, at=SINCE)


def test_at_the_end_all_have_ended() -> None:
    accounts = Accounts(memory())
    accounts.take(UP, [WEB], now=1, at=SINCE)
    assert [usage.ended for usage in accounts.usage(now=1, over=True)] == [True]


def test_the_size_is_that_of_the_program() -> None:
    assert ACCOUNT.size == 120
    assert "#define MAX_ACCOUNTS 131072" in HEADERS[0].read_text()
