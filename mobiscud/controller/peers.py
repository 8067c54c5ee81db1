"""The controllers of the other cloudlets: what they are asked and told, and what they are answered.

Who is silent is asked again; what an answer is lost of is done once, by its correlation.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from mobiscud.controller.inputs import (
    DetourAsked,
    DetourAwaited,
    DetourGranted,
    DoubtThere,
    HaltedThere,
    Input,
    MoveAsked,
    MovedHere,
    MoveRefused,
    NoRoom,
    StaysThere,
)
from mobiscud.controller.ports import Neighbourhood, PvmPort, RequestPort
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.errors import AdapterError, MobiScudError, RefusedError
from mobiscud.core.ids import CloudletId, UeKey

ANSWER_S: Final = 2.0
"""How long another controller may take to answer."""
SETTLING_ANSWER_S: Final = 10.0
"""The same where a guest may have to be ended first, with its hypervisor or without."""
AGAIN_S: Final = 1.0
"""Until another is asked again; twice as long each time that it was silent, up to ``ASK_AFTER_S``."""
ASK_AFTER_S: Final = 5.0
"""How often a target asks after a PVM that was promised."""
AWAITED_S: Final = 5.0
"""How long what a UE sends may wait for a detour to be granted, before it is left to the core."""

Body = dict[str, Any]

log = structlog.get_logger(__name__)


class Peers:
    """The neighbours of one controller."""

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        requests: RequestPort,
        hypervisor: PvmPort,
        records: Mapping[UeKey, UeRecord],
        submit: Callable[[UeKey, Input], Awaitable[str | None]],
    ) -> None:
        self._around = neighbourhood
        self._requests = requests
        self._hypervisor = hypervisor
        self._records = records
        self._submit = submit

    # What they are asked and told ---------------------------------------------------------------------------------

    async def ask_move(self, ue: UeKey, of: CloudletId) -> None:
        """Ask again while it is awaited: what the source had to tell is lost when it is restarted at that moment."""
        record = self._records[ue]
        try:
            if not record.flipped:
                await self._hypervisor.expect(record.pvm)
        except MobiScudError as error:
            log.info("the PVM cannot come", ue=ue, reason=str(error))
            self._submit(ue, NoRoom(str(error)))
            return
        pause_s = AGAIN_S
        while True:
            about = {"ue": ue, "to": self._around.here, "epoch": self._records[ue].epoch}
            granted = await self._ask(of, "move", about)
            if granted is False:
                self._submit(ue, MoveRefused("not granted"))
                return
            await asyncio.sleep(ASK_AFTER_S if granted else pause_s)
            pause_s = AGAIN_S if granted else min(2 * pause_s, ASK_AFTER_S)
            record = self._records[ue]
            if record.phase is not Phase.PULLING or record.pvm_at != of:
                return

    async def ask_detour(self, ue: UeKey, of: CloudletId) -> None:
        """Until it is granted, or no longer wanted. What takes long is said, and that it was granted then."""
        clock = asyncio.get_running_loop().time
        began_at, pause_s, is_said = clock(), AGAIN_S, self._records[ue].silent == of
        while True:
            about = {"ue": ue, "by": self._around.here, "epoch": self._records[ue].epoch}
            granted = await self._ask(of, "detour", about)
            if granted:
                break
            if not is_said and clock() - began_at >= AWAITED_S:
                is_said = True
                self._submit(ue, DetourAwaited(of))
            await asyncio.sleep(pause_s)
            pause_s = AGAIN_S if granted is False else min(2 * pause_s, ASK_AFTER_S)
            record = self._records[ue]
            if record.pvm_at != of or record.phase not in (Phase.PREPARED, Phase.DETOURED, Phase.PULLING):
                return
        if is_said:
            self._submit(ue, DetourGranted(of))

    async def tell(self, to: CloudletId, name: str, body: Body) -> None:
        """Until it is heard, and done once: who has a PVM must not stay in doubt because a node was away."""
        correlation, pause_s = uuid.uuid4().hex, AGAIN_S
        while not await self._ask(to, name, body, correlation):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, ASK_AFTER_S)

    async def ask_settling(self, cloudlet: CloudletId, name: str, body: Body) -> Body:
        """What it has of a PVM whose migration is in doubt, or to end that.

        :raises AdapterError: it is silent, or refuses
        """
        return await self._requests.ask(self._around.node_of[cloudlet], name, body, timeout_s=SETTLING_ANSWER_S)

    async def _ask(self, cloudlet: CloudletId, name: str, body: Body, correlation: str | None = None) -> bool | None:
        """Whether it was granted; None where the other one is silent, and may have done it."""
        node = self._around.node_of[cloudlet]
        try:
            await self._requests.ask(node, name, body, timeout_s=ANSWER_S, correlation=correlation)
        except AdapterError as error:
            log.warning("not granted", request=name, ue=body["ue"], cloudlet=cloudlet, error=str(error))
            return False if isinstance(error, RefusedError) else None
        return True

    # What they are answered ---------------------------------------------------------------------------------------

    def answer(self) -> None:
        """From now on."""
        for name, reader in _INPUTS.items():
            self._requests.answer(name, self._answerer(reader))
        self._requests.answer("doubt", self._answer_doubt)
        self._requests.answer("fence", self._answer_fence)

    def _answerer(self, reader: Callable[[Body], Input]) -> Callable[[Body], Awaitable[Body]]:
        async def answer(body: Body) -> Body:
            ue, _ = self._subscriber(body)
            try:
                happened = reader(body)
            except (KeyError, TypeError, ValueError) as error:
                raise RefusedError("not understood") from error
            refused = await self._submit(ue, happened)
            if refused is not None:
                raise RefusedError(refused)
            return {}

        return answer

    async def _answer_doubt(self, body: Body) -> Body:
        """Let no packet to the PVM here, then say what our hypervisor has of it; and who knows better since when."""
        ue, record = self._subscriber(body)
        if _epoch_of(body) < record.epoch:
            return {"epoch": record.epoch}
        await self._submit(ue, DoubtThere(CloudletId(str(body.get("by")))))
        return {"epoch": record.epoch, "state": await self._hypervisor.state(record.pvm.id)}

    async def _answer_fence(self, body: Body) -> Body:
        """End the PVM here, and answer when it has ended for certain."""
        ue, record = self._subscriber(body)
        if _epoch_of(body) < record.epoch:
            raise RefusedError(f"{ue}: of epoch {record.epoch} here")
        await self._hypervisor.fence(record.pvm.id)
        return {}

    def _subscriber(self, body: Body) -> tuple[UeKey, UeRecord]:
        ue = UeKey(str(body.get("ue")))
        if ue not in self._records:
            raise RefusedError("no subscriber of ours")
        return ue, self._records[ue]


def _epoch_of(body: Body) -> int:
    try:
        return int(body["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError("not understood") from error


_INPUTS: Final[Mapping[str, Callable[[Body], Input]]] = {
    "detour": lambda body: DetourAsked(CloudletId(str(body["by"])), int(body.get("epoch", 0))),
    "move": lambda body: MoveAsked(CloudletId(str(body["to"])), int(body.get("epoch", 0))),
    "halted": lambda body: HaltedThere(int(body["at"]), int(body.get("epoch", 0))),
    "moved": lambda body: MovedHere(float(body["total_ms"]), int(body.get("epoch", 0))),
    "stays": lambda body: StaysThere(str(body["reason"]), int(body.get("epoch", 0))),
}
