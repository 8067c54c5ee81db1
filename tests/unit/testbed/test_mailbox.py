"""The mailbox of a UE."""

from __future__ import annotations

import asyncio

import pytest

from testbed.mailbox import Mailbox, ProcedureError


async def test_wanted_item_overtakes_others() -> None:
    box: Mailbox[int] = Mailbox()
    for item in (1, 2, 3):
        box.put(item)
    assert await box.expect(lambda item: item > 1, "big item") == 2
    assert [await box.next(), await box.next()] == [1, 3]


async def test_item_that_comes_later_is_awaited() -> None:
    box: Mailbox[str] = Mailbox()
    waiting = asyncio.create_task(box.expect(lambda item: item == "b", "b"))
    await asyncio.sleep(0)
    box.put("a")
    await asyncio.sleep(0)
    assert not waiting.done()
    box.put("b")
    assert await waiting == "b"


async def test_what_does_not_come_is_named() -> None:
    box: Mailbox[str] = Mailbox()
    box.put("a")
    with pytest.raises(ProcedureError, match="no answer within"):
        await box.expect(lambda item: item == "b", "answer", within=0.01)
    assert await box.next() == "a"


async def test_cleared_box_is_empty() -> None:
    box: Mailbox[str] = Mailbox()
    box.put("old")
    box.clear()
    box.put("new")
    assert await box.next() == "new"
