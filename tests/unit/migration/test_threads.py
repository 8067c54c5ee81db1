from __future__ import annotations

import asyncio
import threading

import pytest

from migration.threads import hand_over, in_thread


async def test_the_result_comes_back_from_another_thread() -> None:
    assert await in_thread("call", threading.get_ident) != threading.get_ident()


async def test_the_error_comes_back() -> None:
    def fail() -> None:
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        await in_thread("call", fail)


async def test_a_call_that_hangs_holds_nobody_up() -> None:
    let_go, has_begun = threading.Event(), threading.Event()

    def hang() -> bool:
        has_begun.set()
        return let_go.wait(60)

    hanging = asyncio.create_task(in_thread("hang", hang))
    assert await in_thread("wait", lambda: has_begun.wait(60))
    assert await in_thread("call", lambda: 5) == 5
    assert not hanging.done()
    let_go.set()
    assert await hanging


async def test_a_cancelled_wait_drops_the_result() -> None:
    let_go = threading.Event()
    waiting = asyncio.create_task(in_thread("wait", lambda: let_go.wait(60)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    let_go.set()


def test_a_loop_that_is_closed_hears_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    hand_over(loop, lambda: pytest.fail("nobody is there to be called"))
