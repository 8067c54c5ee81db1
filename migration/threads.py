"""Two ways between threads and the event loop: a blocking call gets a thread, libvirt's events have one for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import libvirt

Result = TypeVar("Result")

_start = threading.Lock()
_started = False


async def in_thread(name: str, call: Callable[[], Result]) -> Result:
    """Run a blocking call in a thread of its own and await what it gives or raises.

    A pool would let calls that hang block those that would not, and would hold up the end of the process. When the
    waiting is cancelled the call still runs to its end, and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Result] = loop.create_future()

    def succeed(value: Result) -> None:
        if not result.done():
            result.set_result(value)

    def fail(error: BaseException) -> None:
        if not result.done():
            result.set_exception(error)

    def run() -> None:
        try:
            value = call()
        except BaseException as error:
            hand_over(loop, fail, error)
        else:
            hand_over(loop, succeed, value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await result


def hand_over(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    """Make the loop's thread call; once the loop is closed nobody listens any more, and nothing happens."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


def run_libvirt_events() -> None:
    """Start libvirt's own event loop in one daemon thread, once in this process and before its first connection.

    It is the implementation whose timers and handles may be changed from any thread; keepalive needs it too.
    """
    global _started
    with _start:
        if _started:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; they need no line on stderr as well
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_spin, name="libvirt-events", daemon=True).start()
        _started = True


def _spin() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
