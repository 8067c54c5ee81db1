"""What has arrived for one UE, read by one procedure at a time, in order but for what a procedure waits for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from mobiscud.core.errors import MobiScudError

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long a procedure waits for the other side."""


class ProcedureError(MobiScudError):
    """The other side did not do what the procedure needs."""


class Mailbox(Generic[T]):
    """A queue out of which a procedure may take what it needs and leave the rest for later."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item; never blocks."""
        self._items.append(item)
        self._arrived.set()

    def clear(self) -> None:
        """Forget what nobody has taken."""
        self._items.clear()

    async def next(self) -> T:
        """Take the oldest item, waiting for one for ever."""
        return await self._take(lambda item: True)

    async def expect(self, wanted: Callable[[T], bool], what: str, within: float = PATIENCE_S) -> T:
        """Take the oldest wanted item.

        :raises ProcedureError: when none comes in time; ``what`` says in words what was waited for
        """
        try:
            async with asyncio.timeout(within):
                return await self._take(wanted)
        except TimeoutError as error:
            raise ProcedureError(f"no {what} within {within:g} s") from error

    async def _take(self, wanted: Callable[[T], bool]) -> T:
        while True:
            self._arrived.clear()
            for item in self._items:
                if wanted(item):
                    self._items.remove(item)
                    return item
            await self._arrived.wait()
