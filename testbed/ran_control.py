"""The control socket of the RAN: one JSON object a line, each request answered when its procedure has finished.

    {"id": 1, "do": "attach", "ue": "ue1", "enb": 1}
    {"id": 2, "do": "handover", "ue": "ue1", "to": 2, "kind": "s1", "outcome": "ok"}
    {"id": 3, "do": "idle", "ue": "ue1"}
    {"id": 4, "do": "service", "ue": "ue1"}
    {"id": 5, "do": "detach", "ue": "ue1", "switch_off": false}
    {"id": 6, "do": "tau", "ue": "ue1", "active": false}
    {"id": 7, "do": "bearer", "ue": "ue1", "qci": 1, "protocol": "udp", "release": false}
    {"id": 8, "do": "status"}

A handover is of ``kind`` s1 or x2, and an S1 handover may have the ``outcome`` ok, cancel or failure. A service
request may name another ``enb``, to which the UE has moved while idle. ``bearer`` sets a dedicated one up for
the UE's traffic of a ``protocol`` (udp, tcp, icmp), or releases the newest. Status tells of all UEs, how many S1
connections each eNodeB has, and what the user planes have counted.

The answer carries the truth of the procedure in the form of a line of a truth file (``ev``, ``t0``, ``t``, ``imsi``,
``ue_ip``, ``enb``, ``enb_id``, ``cell``, ids and TEIDs, ``from`` and ``from_enb_id`` of a handover) with ``ok`` and
``ms``; or ``{"id":, "ok": false, "error":}``. Requests for different UEs run at once, those for one UE in turn.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mobiscud.core.errors import MobiScudError
from testbed.enb import Enodeb
from testbed.mailbox import ProcedureError
from testbed.ran_ue import RanUe
from testbed.s1ap_build import S1apMessage
from testbed.tft import Protocol


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int


class Attach(_Request):
    do: Literal["attach"]
    ue: str
    enb: int


class Handover(_Request):
    do: Literal["handover"]
    ue: str
    to: int
    kind: Literal["s1", "x2"] = "s1"
    outcome: Literal["ok", "cancel", "failure"] = "ok"


class Idle(_Request):
    do: Literal["idle"]
    ue: str


class Service(_Request):
    do: Literal["service"]
    ue: str
    enb: int | None = None


class Detach(_Request):
    do: Literal["detach"]
    ue: str
    switch_off: bool = False


class Tau(_Request):
    do: Literal["tau"]
    ue: str
    active: bool = False


class Bearer(_Request):
    do: Literal["bearer"]
    ue: str
    qci: Annotated[int, Field(ge=1, le=9)] = 1
    protocol: Protocol = "udp"
    release: bool = False


class Status(_Request):
    do: Literal["status"]


Procedure = Attach | Handover | Idle | Service | Detach | Tau | Bearer
_REQUEST: TypeAdapter[Procedure | Status] = TypeAdapter(Annotated[Procedure | Status, Field(discriminator="do")])


class ControlServer:
    """Runs the procedures that are asked for."""

    def __init__(self, enbs: Mapping[int, Enodeb], ues: Mapping[str, RanUe]) -> None:
        self._enbs = enbs
        self._ues = ues
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[None]:
        """Listen at ``path`` for the length of an ``async with`` block; the file is removed at its end."""
        _remove(path)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            server = await asyncio.start_unix_server(self._converse, path)
            try:
                yield
            finally:
                server.close()
                for task in list(self._running):
                    task.cancel()
                _remove(path)

    def on_paging(self, enb: Enodeb, paging: S1apMessage) -> None:
        """Let an idle UE that camps here answer its paging."""
        kind, identity = paging.ies["UEPagingID"]
        if kind != "s-TMSI":
            return
        m_tmsi = int.from_bytes(identity["m-TMSI"], "big")
        for ue in self._ues.values():
            if ue.m_tmsi == m_tmsi and ue.serving is enb and ue.state == "idle":
                self._start(self._answer_paging(ue), f"paging-{ue.name}")

    async def _answer_paging(self, ue: RanUe) -> None:
        async with ue.lock:
            if ue.state == "idle":
                try:
                    await ue.service()
                except ProcedureError:
                    return  # the network pages again

    def _start(self, work: Any, name: str) -> None:
        if self._tasks is not None:
            task = self._tasks.create_task(work, name=name)
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        if current is not None:
            self._running.add(current)
        try:
            while line := await reader.readline():
                self._start(self._serve_line(line, writer), "control-request")
        except (ConnectionError, asyncio.CancelledError):
            pass  # asyncio's streams cannot bear a cancelled conversation (CPython 3.11)
        finally:
            if current is not None:
                self._running.discard(current)
            writer.close()

    async def _serve_line(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        identity = None
        try:
            identity = json.loads(line).get("id")
            answer = await self._do(_REQUEST.validate_json(line))
        except (ValueError, AttributeError) as error:
            why = "; ".join(entry["msg"] for entry in error.errors()) if isinstance(error, ValidationError) else error
            answer = {"ok": False, "error": f"bad request: {why}"}
        except MobiScudError as error:
            answer = {"ok": False, "error": str(error)}
        if not writer.is_closing():
            writer.write(json.dumps({"id": identity, **answer}).encode() + b"\n")

    async def _do(self, request: Procedure | Status) -> dict[str, Any]:
        if isinstance(request, Status):
            return {
                "ok": True,
                "ues": {name: ue.truth() for name, ue in self._ues.items()},
                "enbs": {
                    number: {"connections": enb.connections, **asdict(enb.user_plane.counters)}
                    for number, enb in self._enbs.items()
                },
            }
        ue = self._ues.get(request.ue)
        if ue is None:
            raise ProcedureError(f"no UE {request.ue}")
        async with ue.lock:
            before = ue.truth()
            began, clock = time.time(), time.perf_counter()
            name = await self._run(ue, request)
            took = time.perf_counter() - clock
            facts = {"ev": name, "t0": began, "t": began + took, **ue.truth()}
            if name in ("detach", "idle"):
                facts["ue_ip"] = before["ue_ip"]
            if isinstance(request, Handover):
                facts |= {"from": before.get("enb"), "from_enb_id": before.get("enb_id")}
            return {"ok": True, "ms": round(1000 * took, 3), **facts}

    async def _run(self, ue: RanUe, request: Procedure) -> str:
        """Run a procedure and give the name that truth files have for it."""
        match request:
            case Attach():
                await ue.attach(self._enb(request.enb))
                return "attach"
            case Handover(kind="x2"):
                if request.outcome != "ok":
                    raise ProcedureError("an X2 handover is not seen by the core until it succeeds")
                await ue.x2_handover(self._enb(request.to))
                return "x2_handover"
            case Handover():
                await ue.s1_handover(self._enb(request.to), request.outcome)
                return "s1_handover" if request.outcome == "ok" else f"s1_handover_{request.outcome}"
            case Idle():
                await ue.idle()
                return "idle"
            case Service():
                await ue.service(None if request.enb is None else self._enb(request.enb))
                return "service"
            case Detach():
                await ue.detach(switch_off=request.switch_off)
                return "detach"
            case Tau():
                await ue.tau(active=request.active)
                return "tau"
            case Bearer(release=True):
                await ue.release_bearer()
                return "bearer_release"
            case Bearer():
                await ue.request_bearer(request.qci, request.protocol)
                return "bearer_setup"

    def _enb(self, number: int) -> Enodeb:
        enb = self._enbs.get(number)
        if enb is None:
            raise ProcedureError(f"no eNodeB {number}")
        return enb


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
