"""Steer the emulated RAN from an experiment: ``async with RanClient(path) as ran: await ran.attach("ue1", 1)``.

Every procedure returns its truth (:mod:`testbed.ran_control`) when it has finished.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mobiscud.core.errors import MobiScudError
from testbed.tft import Protocol

Truth = dict[str, Any]


class RanError(MobiScudError):
    """The RAN could not do what was asked."""


class RanClient:
    """One connection to the control socket. Requests may run at once; the RAN keeps those of one UE in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Truth]] = {}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._reading = asyncio.create_task(self._read(self._reader), name="ran-client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def attach(self, ue: str, enb: int) -> Truth:
        """Attach at a cell."""
        return await self._ask(do="attach", ue=ue, enb=enb)

    async def handover(self, ue: str, to: int, *, kind: str = "s1", outcome: str = "ok") -> Truth:
        """Hand over to another eNodeB; ``kind`` s1 or x2, ``outcome`` ok, cancel or failure."""
        return await self._ask(do="handover", ue=ue, to=to, kind=kind, outcome=outcome)

    async def idle(self, ue: str) -> Truth:
        """Release the connection."""
        return await self._ask(do="idle", ue=ue)

    async def service(self, ue: str, enb: int | None = None) -> Truth:
        """Connect again."""
        return await self._ask(do="service", ue=ue, enb=enb)

    async def detach(self, ue: str, *, switch_off: bool = False) -> Truth:
        """Leave the network."""
        return await self._ask(do="detach", ue=ue, switch_off=switch_off)

    async def tau(self, ue: str, *, active: bool = False) -> Truth:
        """Update the tracking area; ``active`` keeps the connection."""
        return await self._ask(do="tau", ue=ue, active=active)

    async def bearer(self, ue: str, *, qci: int = 1, protocol: Protocol = "udp", release: bool = False) -> Truth:
        """Have the network set a dedicated bearer up for the traffic of a protocol, or release the newest."""
        return await self._ask(do="bearer", ue=ue, qci=qci, protocol=protocol, release=release)

    async def status(self) -> Truth:
        """All UEs, and what the user planes have counted."""
        return await self._ask(do="status")

    async def _ask(self, **request: Any) -> Truth:
        if self._writer is None:
            raise RanError("not connected")
        identity = next(self._ids)
        future = self._pending[identity] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(json.dumps({"id": identity, **request}).encode() + b"\n")
            answer: Truth = await future
        finally:
            self._pending.pop(identity, None)
        if not answer["ok"]:
            raise RanError(answer["error"])
        return answer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                answer = json.loads(line)
                future = self._pending.get(answer["id"])
                if future is not None and not future.done():
                    future.set_result(answer)
        except ConnectionError:
            pass  # told below to those who wait
        finally:
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(RanError("the RAN process has gone"))
