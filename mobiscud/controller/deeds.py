"""Carries out what the table commands.

Paths, packets and announcements are dealt with in turn, so that what follows a path finds it confirmed. The rest takes
its time beside the queues: the hypervisor's work (``guests``), requests of other controllers (``peers``), the policy
(``consulting``), and terms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from mobiscud.controller.announcing import Announcer
from mobiscud.controller.consulting import Consultant
from mobiscud.controller.guests import Guests
from mobiscud.controller.inputs import Input, NoStragglers, NotReady, StayedAway
from mobiscud.controller.peers import Peers
from mobiscud.controller.ports import PacketPort, PathPort, PvmPort
from mobiscud.controller.reconcile import NEEDS_PATH
from mobiscud.controller.record import UeRecord
from mobiscud.controller.subscribers import Subscribers
from mobiscud.controller.tasks import Tasks
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AskDetour,
    AskMove,
    AwaitReady,
    AwaitReturn,
    AwaitStragglers,
    Command,
    Consult,
    ForgetPackets,
    KeepPackets,
    MigratePvm,
    Refuse,
    ResendPackets,
    ResumeMove,
    SetPath,
    SettleMove,
    StartPvm,
    StopPvm,
    TellHalted,
    TellMoved,
    TellStays,
)
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.errors import AdapterError, MobiScudError
from mobiscud.core.ids import CloudletId, UeKey

READY_S: Final = 0.2
"""How long the source waits for a target; eNodeBs forward downlink a little longer (TS 36.300 10.1.2.1.1, step 18)."""
STRAGGLERS_S: Final = 0.3
"""Until nothing comes any more for a UE that has left: longer than who has its PVM waits before it uses the core."""
REDO_S: Final = 0.2
"""Until a path is asked of the switch again that it could not make."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Undone:
    """The switch failed: what of a step is still to do, unless the record has changed since."""

    record: UeRecord
    commands: tuple[Command, ...]


class Deeds:
    """The hands of one controller."""

    def __init__(
        self,
        switch: PathPort,
        hypervisor: PvmPort,
        packets: PacketPort | None,
        *,
        subscribers: Subscribers,
        announcer: Announcer,
        guests: Guests,
        peers: Peers,
        consultant: Consultant,
        absence_s: float | None,
        submit: Callable[[UeKey, Input | Undone], object],
    ) -> None:
        """Make them. What the switch could not do is submitted as ``Undone`` after a while."""
        self._switch = switch
        self._hypervisor = hypervisor
        self._packets = packets
        self._subscribers = subscribers
        self._announcer = announcer
        self._guests = guests
        self._peers = peers
        self._consultant = consultant
        self._absence_s = absence_s
        self._submit = submit
        self._tasks = Tasks()
        self._detours: dict[UeKey, asyncio.Task[None]] = {}
        self._asked: dict[UeKey, SetPath] = {}
        """The path of each UE that the switch was asked for last."""

    async def close(self) -> None:
        """End what is under way; what has been begun elsewhere goes on there."""
        await self._tasks.close()

    async def carry_all_out(self, ue: UeKey, record: UeRecord, commands: tuple[Command, ...]) -> str | None:
        """In turn. Where the switch fails, the path and what waits for it is tried again until it is done.

        :returns: why the request that led here is refused, or what failed
        """
        undone: list[Command] = []
        failure: str | None = None
        for command in commands:
            if isinstance(command, Refuse):
                return command.reason
            if undone and isinstance(command, NEEDS_PATH):
                undone.append(command)
                continue
            try:
                await self._carry_out(ue, record, command)
            except MobiScudError as error:
                log.error("command failed", ue=ue, command=type(command).__name__, error=str(error))
                failure = str(error)
                if not isinstance(command, SetPath):
                    break
                undone.append(command)
        if undone:
            self._tasks.spawn(self._try_again(ue, Undone(record, tuple(undone))), f"again-{ue}")
        return failure

    def still_to_do(self, ue: UeKey, undone: Undone) -> tuple[Command, ...]:
        """What could not be done, by a record that is as it was; without its path, if another was asked for since."""
        if self._asked.get(ue, undone.commands[0]) is undone.commands[0]:
            return undone.commands
        return tuple(command for command in undone.commands if not isinstance(command, SetPath))

    async def stand_again(self, paths: Mapping[UeKey, PathSpec | None]) -> bool:
        """Ask for paths that stood: the switch learns whose they are, and mostly has nothing to do.

        :returns: whether they stand; where one is to blame, each is then asked for by itself
        """
        try:
            await self._switch.apply_all(paths)
        except MobiScudError as error:
            log.error("paths not resumed together", count=len(paths), error=str(error))
            return False
        return True

    def fill_pool(self, dormant: Sequence[Pvm]) -> None:
        """Have PVMs that are kept stand ready."""
        self._tasks.spawn(self._guests.fill_pool(dormant), "pool")

    def consult(self, ue: UeKey, asked: Consult) -> None:
        """Ask the policy."""
        self._tasks.spawn(self._consultant.consult(ue, asked), f"policy-{ue}")

    async def _carry_out(self, ue: UeKey, record: UeRecord, command: Command) -> None:
        spawn = self._tasks.spawn
        match command:
            case SetPath():
                self._asked[ue] = command
                rules = await self._switch.apply(ue, self._subscribers.path(ue, command.path))
                self._announcer.path(ue, record, command, rules)
            case Announce():
                self._announcer.pvm(ue, record, command)
            case StopPvm(pvm):
                await self._hypervisor.stop(pvm.id)
            case StartPvm(pvm, kept):
                spawn(self._guests.start(ue, pvm, kept=kept), f"start-{pvm.id}")
            case MigratePvm(pvm, to):
                spawn(self._guests.migrate(ue, pvm, to), f"migrate-{pvm.id}")
            case AbortMove(pvm):
                spawn(self._guests.abort(pvm), f"abort-{pvm.id}")
            case ResumeMove(pvm):
                spawn(self._guests.resume_move(ue, pvm), f"resume-{pvm.id}")
            case SettleMove():
                spawn(self._guests.settle_move(ue, command, record.epoch), f"settle-{command.pvm.id}")
            case KeepPackets(pvm):
                self._keep_packets(pvm)
            case ResendPackets(pvm, to):
                self._resend_packets(pvm, to)
            case ForgetPackets(pvm):
                if self._packets is not None:
                    self._packets.forget_packets(pvm)
            case AskDetour(of):
                if asking := self._detours.pop(ue, None):
                    asking.cancel()  # however often the UE comes while the other is silent, it is asked by one
                self._detours[ue] = spawn(self._peers.ask_detour(ue, of), f"detour-{ue}")
            case AskMove(of):
                spawn(self._peers.ask_move(ue, of), f"move-{ue}")
            case TellHalted(to, at):
                spawn(self._peers.tell(to, "halted", {"ue": ue, "at": at, "epoch": record.epoch}), f"halted-{ue}")
            case TellMoved(to, total_ms):
                told = {"ue": ue, "total_ms": total_ms, "epoch": record.epoch}
                spawn(self._peers.tell(to, "moved", told), f"moved-{ue}")
            case TellStays(to, reason):
                spawn(self._peers.tell(to, "stays", {"ue": ue, "reason": reason, "epoch": record.epoch}), f"stays-{ue}")
            case Consult():
                self.consult(ue, command)
            case AwaitReady(token):
                spawn(self._await_ready(ue, token), f"ready-{ue}")
            case AwaitStragglers(token):
                spawn(self._await_stragglers(ue, token), f"stragglers-{ue}")
            case AwaitReturn(token):
                spawn(self._await_return(ue, token), f"absence-{ue}")
            case Refuse():
                raise AssertionError("unreachable: a refusal ends the handling")

    def _keep_packets(self, pvm: Pvm) -> None:
        if self._packets is not None:
            try:
                self._packets.keep_packets(pvm)
            except AdapterError as error:
                log.warning("the switch-over may lose packets", pvm=pvm.id, error=str(error))

    def _resend_packets(self, pvm: Pvm, to: CloudletId) -> None:
        if self._packets is None:
            return
        try:
            count = self._packets.resend_packets(pvm, to)
        except AdapterError as error:
            log.warning("the switch-over loses packets", pvm=pvm.id, error=str(error))
        else:
            log.info("packets sent again", pvm=pvm.id, count=count)

    async def _await_ready(self, ue: UeKey, token: int) -> None:
        await asyncio.sleep(READY_S)
        self._submit(ue, NotReady(token))

    async def _await_stragglers(self, ue: UeKey, token: int) -> None:
        await asyncio.sleep(STRAGGLERS_S)
        self._submit(ue, NoStragglers(token))

    async def _await_return(self, ue: UeKey, token: int) -> None:
        await asyncio.sleep(self._absence_s or 0.0)
        self._submit(ue, StayedAway(token))

    async def _try_again(self, ue: UeKey, undone: Undone) -> None:
        await asyncio.sleep(REDO_S)
        self._submit(ue, undone)
