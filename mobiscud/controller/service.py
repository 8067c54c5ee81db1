"""Carries out what the machine says: each UE in order, many UEs at once.

Inputs come from the bus (events, requests of other controllers), the hypervisor (notices) and timers; they queue up
UE by UE. Path changes are awaited inside the queue, so that what follows them finds them confirmed; long work
(starting, migrating, asking another controller) runs beside it and comes back as an input.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self

import structlog

from mobiscud.controller.backlog import Backlog, Inlet, Queues
from mobiscud.controller.commit import GroupCommit, Memory
from mobiscud.controller.inputs import (
    DetourAsked,
    DoubtThere,
    Halted,
    HaltedThere,
    HandoverDone,
    Input,
    Landed,
    MoveAsked,
    MovedHere,
    MoveDue,
    MoveFailed,
    MoveInDoubt,
    MoveLost,
    MoveRefused,
    MoveSucceeded,
    NoRoom,
    NotReady,
    PolicyChanged,
    PvmCrashed,
    PvmRefused,
    PvmRunning,
    StayedAway,
    StaysThere,
    UeArrived,
    UeLeft,
    UeWentIdle,
    read,
)
from mobiscud.controller.machine import step
from mobiscud.controller.offload_policy import Offload, OffloadPolicy
from mobiscud.controller.outlook import Outlook
from mobiscud.controller.policy import AskAgain, Manners, Move, Stay
from mobiscud.controller.ports import MigrationProgress, Neighbourhood, PacketPort, PathPort, PvmPort, RequestPort
from mobiscud.controller.reconcile import NEEDS_PATH, already_known, redo, repath, resume, standing_path
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.controller.settling import Settler
from mobiscud.controller.subscribers import PLACING, Subscribers
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AskDetour,
    AskMove,
    AwaitReady,
    AwaitReturn,
    Command,
    Consult,
    ForgetPackets,
    KeepPackets,
    MigratePvm,
    Moment,
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
from mobiscud.core.config import MigrationConfig
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.errors import AdapterError, MobiScudError, MoveError, RefusedError
from mobiscud.core.events import Event, OffloadEvent, PvmEvent, PvmMigrationProgress, UeEvent
from mobiscud.core.ids import CloudletId, PvmId, UeKey
from mobiscud.core.ownership import Claim, Standing
from mobiscud.core.ue import Enb, Pdn

ANSWER_S: Final = 2.0
"""How long another controller may take to answer."""
READY_S: Final = 0.2
"""How long the source waits for a target; eNodeBs forward downlink a little longer (TS 36.300 10.1.2.1.1, step 18)."""
MET_TOGETHER: Final = 100
"""UEs of which a new policy is asked in one go: it takes about a millisecond."""
SETTLING_ANSWER_S: Final = 10.0
"""The same where a guest may have to be ended first, with its hypervisor or without."""
REDO_S: Final = 0.2
"""Until a path is asked of the switch again that it could not make."""
AGAIN_S: Final = 1.0
PROGRESS_EVERY_S: Final = 0.5
ASK_AFTER_S: Final = 5.0
"""How often a target asks after a PVM that was promised."""
TOGETHER: Final = 1_000
"""UEs whose paths are asked for again in one step, after a restart."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Undone:
    """The switch failed: what of a step is still to do, unless the record has changed since."""

    record: UeRecord
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class _Retained:
    """A place that the monitor's retained state tells: news only to a controller that was away."""

    place: UeArrived | UeWentIdle


class CloudletController:
    """The controller of one cloudlet, as an asynchronous context manager."""

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        policy: OffloadPolicy,
        migration: MigrationConfig,
        *,
        switch: PathPort,
        hypervisor: PvmPort,
        requests: RequestPort,
        journal: Memory,
        inlet: Inlet,
        publish: Callable[[Event], None],
        packets: PacketPort | None = None,
    ) -> None:
        """Make a controller that begins on entry. Without ``packets``, what a guest is sent as it stops is lost."""
        self._around = neighbourhood
        self._manners = Manners.from_config(migration)
        self._outlook = Outlook(migration.cost)
        self._switch = switch
        self._hypervisor = hypervisor
        self._requests = requests
        self._journal = journal
        self._commit = GroupCommit(journal)
        self._publish = publish
        self._absence_s = migration.absence_s
        self._settler = Settler(neighbourhood.here, hypervisor, self._ask_settling)
        self._packets = packets
        self._subscribers = Subscribers(policy)
        self._records = {ue: self._new_record(pvm) for ue, pvm in self._subscribers.known}
        self._ue_of = {record.pvm.id: ue for ue, record in self._records.items()}
        self._our_enbs: set[str] = set()
        self._cloudlet_of: dict[int | str, CloudletId] = dict(neighbourhood.cloudlet_of.items())
        self._queues: Queues[Input | PolicyChanged | _Retained | _Undone] = Queues(self._handle, inlet)
        self._tasks: set[asyncio.Task[None]] = set()
        self._detours: dict[UeKey, asyncio.Task[None]] = {}
        self._epoch = time.time_ns()
        self._deeds = 0

    async def __aenter__(self) -> Self:
        """Take up what was under way when the controller last ended, then answer others.

        :raises AdapterError: the hypervisor does not say what it runs
        """
        await self._resume()
        for name, reader in _REQUESTS.items():
            self._requests.answer(name, self._answerer(reader))
        self._requests.answer("doubt", self._answer_doubt)
        self._requests.answer("fence", self._answer_fence)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._queues.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def records(self) -> Mapping[UeKey, UeRecord]:
        """What is known of each subscriber now."""
        return self._records

    @property
    def backlog(self) -> Backlog:
        """What waits to be dealt with."""
        return self._queues.backlog

    async def _resume(self) -> None:
        remembered = self._journal.load()
        running = set(await self._hypervisor.running()) if remembered else set()
        standing: dict[UeKey, PathSpec | None] = {}
        todo: dict[UeKey, _Undone] = {}
        gone: list[UeKey] = []
        for ue, record in remembered.items():
            offload = self._subscribers.ask(ue, () if record.pdn is None else (record.pdn,))
            current = self._new_record(record.pvm if offload is None else offload.pvm)
            lingers = self._lingers(offload)
            record = replace(record, pvm=current.pvm, here=current.here, lingers=lingers, keeps=current.keeps)
            self._ue_of[record.pvm.id] = ue
            record, commands = resume(record, runs_here=record.pvm.id in running)
            self._records[ue] = record
            self._our_enbs.update(uplink.enb_address for uplink in record.standby)
            log.debug("resumed", ue=ue, phase=record.phase)
            todo[ue] = _Undone(record, commands)
            if commands and isinstance(commands[0], SetPath) and commands[0].announce is None:
                standing[ue] = self._subscribers.path(ue, commands[0].path)
            if offload is None:
                gone.append(ue)
        for number in range(0, len(standing), TOGETHER):
            for ue in await self._stand_again(dict(itertools.islice(standing.items(), number, number + TOGETHER))):
                todo[ue] = replace(todo[ue], commands=todo[ue].commands[1:])
        for ue, undone in todo.items():
            if undone.commands:
                await self._handle(ue, undone)  # an event that came meanwhile may have changed the record
        for ue in gone:
            self.submit(ue, UeLeft())
        if remembered:
            log.info("resumed", ues=len(remembered), paths=len(standing))
        dormant = [record.pvm for record in self._records.values() if record.phase is Phase.DORMANT]
        if dormant:
            self._spawn(self._fill_pool(dormant), "pool")

    async def _stand_again(self, paths: Mapping[UeKey, PathSpec | None]) -> Iterable[UeKey]:
        """Ask for the paths that stood: the switch learns whose they are, and mostly has nothing to do.

        :returns: those that stand; where one is to blame, each is then asked for by itself
        """
        try:
            await self._switch.apply_all(paths)
        except MobiScudError as error:
            log.error("paths not resumed together", count=len(paths), error=str(error))
            return ()
        return paths

    @property
    def offloaded(self) -> frozenset[UeKey]:
        """The UEs that the switch should hold rules of."""
        paths = ((ue, standing_path(record)) for ue, record in self._records.items() if ue in self._subscribers)
        return frozenset(ue for ue, path in paths if path is not None)

    def _new_record(self, pvm: Pvm) -> UeRecord:
        lingers, keeps = self._absence_s is not None, self._hypervisor.keeps(pvm)
        return UeRecord(pvm, self._around.here, lingers=lingers, keeps=keeps)

    def _lingers(self, offload: Offload | None) -> bool:
        """Whether its PVM waits for a UE that is away: not for one that has left the policy."""
        return offload is not None and self._absence_s is not None

    async def change_policy(self, policy: OffloadPolicy) -> None:
        """From now on this is offloaded. UEs that are known now get what differs; feed ``on_state`` for the others."""
        self._subscribers.change(policy)
        everyone = dict.fromkeys((*self._records, *(ue for ue, _ in policy.named)))
        for number, ue in enumerate(everyone):
            record = self._records.get(ue)
            self._meet(ue, () if record is None or record.pdn is None else (record.pdn,))
            if number % MET_TOGETHER == MET_TOGETHER - 1:
                await asyncio.sleep(0)  # handovers do not wait for it

    def change_migration(self, migration: MigrationConfig) -> None:
        """From now on PVMs follow like this; who is served over a detour is asked for anew."""
        self._manners = Manners.from_config(migration)
        self._outlook.reckon_with(migration.cost)
        for ue, record in self._records.items():
            if record.phase is Phase.DETOURED:
                self._spawn(self._consult(ue, Consult(Moment.ARRIVED, record.token)), f"policy-{ue}")

    def _meet(self, ue: UeKey, pdns: Sequence[Pdn]) -> None:
        """Ask the policy for a UE, and follow it where it says other than before."""
        before, offload = self._subscribers.answer(ue), self._subscribers.ask(ue, pdns)
        self._follow(ue, before, offload)

    def _follow(self, ue: UeKey, before: Offload | None, offload: Offload | None) -> None:
        record = self._records.get(ue)
        if record is not None and record.lingers is not self._lingers(offload):
            self._records[ue] = replace(record, lingers=self._lingers(offload))
        if offload is None:
            if before is not None:
                self.submit(ue, UeLeft())
            return
        if record is None or (record.pvm != offload.pvm and record.phase is Phase.AWAY and record.pvm_at is None):
            self._records[ue] = self._new_record(offload.pvm)
            self._ue_of[offload.pvm.id] = ue
        elif record.pvm != offload.pvm:
            log.warning("its other personal VM has to wait until this one is stopped", ue=ue, pvm=record.pvm.id)
        if before is not None and before.accounts != offload.accounts:
            self.submit(ue, PolicyChanged(told=before.traffic != offload.traffic))

    # What comes in -----------------------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """An event of the bus, a monitor's or a controller's."""
        enb = getattr(event, "enb", None)
        if isinstance(enb, Enb):
            self._learn_address(enb)
        self._outlook.heard(event)
        ours = self._of_ours(event) if isinstance(event, UeEvent) else None
        if ours is not None:
            happened = read(ours, self._cloudlet_of, sorted(self._our_enbs))
            if happened is not None:
                self._note_visit(ours.ue, happened)
                self.submit(ours.ue, happened)

    def _of_ours(self, event: UeEvent) -> UeEvent | None:
        """The event, if it tells of what is offloaded, and only so much of it."""
        if isinstance(event, PvmEvent | OffloadEvent):
            return event if event.ue in self._records else None
        if isinstance(event, PLACING):
            before = self._subscribers.answer(event.ue)
            narrowed = self._subscribers.narrowed(event)
            self._follow(event.ue, before, self._subscribers.answer(event.ue))
            return narrowed
        return event if event.ue in self._subscribers else None

    def on_state(self, event: UeEvent) -> None:
        """Where the monitor's retained state says a UE is: news only to a controller that was away."""
        ours = self._of_ours(event)
        place = None if ours is None else read(ours, self._cloudlet_of, sorted(self._our_enbs))
        if isinstance(place, UeArrived | UeWentIdle):
            self._queues.submit(event.ue, _Retained(place))  # what came before it may still wait

    def _note_visit(self, ue: UeKey, happened: Input) -> None:
        match happened:
            case UeArrived(cloudlet=cloudlet) | HandoverDone(cloudlet=cloudlet):
                self._outlook.arrived(ue, cloudlet, asyncio.get_running_loop().time())
            case UeLeft():
                self._outlook.left(ue)
            case _:
                pass

    def _learn_address(self, enb: Enb) -> None:
        """Where the eNodeBs of the cloudlets are: from their S1 Setup, or from any UE they serve."""
        cloudlet = None if enb.enb_id is None else self._around.cloudlet_of.get(enb.enb_id)
        if cloudlet is not None and enb.address:
            self._cloudlet_of[enb.address] = cloudlet
            if cloudlet == self._around.here:
                self._our_enbs.add(enb.address)

    def on_halted(self, pvm: PvmId, at: int) -> None:
        """The guest has stopped here for the switch-over of its migration."""
        if pvm in self._ue_of:
            self.submit(self._ue_of[pvm], Halted(at))

    def on_landed(self, pvm: PvmId, at: int) -> None:
        """The guest has begun to run here at the switch-over of its migration."""
        if pvm in self._ue_of:
            self.submit(self._ue_of[pvm], Landed(at))

    def on_crashed(self, pvm: PvmId, reason: str) -> None:
        """The guest that ran here has ended, and nobody asked for it."""
        if pvm in self._ue_of:
            self.submit(self._ue_of[pvm], PvmCrashed(reason))

    def submit(self, ue: UeKey, happened: Input | PolicyChanged) -> asyncio.Future[str | None]:
        """Queue an input of one UE. The future: None when it has been dealt with, or why it was refused."""
        return self._queues.submit(ue, happened)

    def _answerer(self, reader: Callable[[dict[str, Any]], Input]) -> Callable[[dict[str, Any]], Any]:
        async def answer(body: dict[str, Any]) -> dict[str, Any]:
            ue, _ = self._subscriber(body)
            try:
                happened = reader(body)
            except (KeyError, TypeError, ValueError) as error:
                raise RefusedError("not understood") from error
            refused = await self.submit(ue, happened)
            if refused is not None:
                raise RefusedError(refused)
            return {}

        return answer

    def _subscriber(self, body: dict[str, Any]) -> tuple[UeKey, UeRecord]:
        ue = UeKey(str(body.get("ue")))
        if ue not in self._records:
            raise RefusedError("no subscriber of ours")
        return ue, self._records[ue]

    async def _answer_doubt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Let no packet to the PVM here, then say what our hypervisor has of it; and who knows better since when."""
        ue, record = self._subscriber(body)
        if _epoch_of(body) < record.epoch:
            return {"epoch": record.epoch}
        await self.submit(ue, DoubtThere(CloudletId(str(body.get("by")))))
        return {"epoch": record.epoch, "state": await self._hypervisor.state(record.pvm.id)}

    async def _answer_fence(self, body: dict[str, Any]) -> dict[str, Any]:
        """End the PVM here, and answer when it has ended for certain."""
        ue, record = self._subscriber(body)
        if _epoch_of(body) < record.epoch:
            raise RefusedError(f"{ue}: of epoch {record.epoch} here")
        await self._hypervisor.fence(record.pvm.id)
        return {}

    # What is done ------------------------------------------------------------------------------------------------

    async def _handle(self, ue: UeKey, happened: Input | PolicyChanged | _Retained | _Undone) -> str | None:
        before = self._records[ue]
        if isinstance(happened, _Undone):
            again = happened.commands if before is happened.record else redo(before, happened.commands)
            return await self._carry_all_out(ue, before, again)
        if isinstance(happened, _Retained):
            if already_known(before, happened.place):
                return None
            happened = happened.place
            self._note_visit(ue, happened)
        result = repath(before, told=happened.told) if isinstance(happened, PolicyChanged) else step(before, happened)
        if result is None:
            log.debug("nothing to do", ue=ue, phase=before.phase, input=type(happened).__name__)
            return None
        record, commands = result
        offload = self._subscribers.answer(ue)
        if offload is not None and record.pdn != offload.pdn:
            record = replace(record, pdn=offload.pdn)
        if record != before:
            self._records[ue] = record
            try:
                await self._commit.put(ue, record)
            except BaseException:
                self._records[ue] = before  # what is not remembered has not happened
                raise
        outcome = await self._carry_all_out(ue, record, commands)
        log.info("step", ue=ue, input=type(happened).__name__, phase=record.phase, before=before.phase)
        return outcome

    async def _carry_all_out(self, ue: UeKey, record: UeRecord, commands: tuple[Command, ...]) -> str | None:
        """In turn. Where the switch fails, the path and what waits for it is tried again until it is done."""
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
            self._spawn(self._try_again(ue, _Undone(record, tuple(undone))), f"again-{ue}")
        return failure

    async def _try_again(self, ue: UeKey, undone: _Undone) -> None:
        await asyncio.sleep(REDO_S)
        if ue in self._records:
            self._queues.submit(ue, undone)

    async def _carry_out(self, ue: UeKey, record: UeRecord, command: Command) -> None:
        match command:
            case SetPath():
                await self._set_path(ue, record, command)
            case Announce():
                self._announce(ue, record, command)
            case StopPvm(pvm):
                await self._hypervisor.stop(pvm.id)
            case StartPvm(pvm):
                self._spawn(self._start(ue, pvm), f"start-{pvm.id}")
            case MigratePvm(pvm, to):
                self._spawn(self._migrate(ue, pvm, to), f"migrate-{pvm.id}")
            case AbortMove(pvm):
                self._spawn(self._abort(pvm), f"abort-{pvm.id}")
            case ResumeMove(pvm):
                self._spawn(self._resume_move(ue, pvm), f"resume-{pvm.id}")
            case SettleMove():
                self._spawn(self._settle_move(ue, command, record.epoch), f"settle-{command.pvm.id}")
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
                self._detours[ue] = self._spawn(self._ask_detour(ue, of), f"detour-{ue}")
            case AskMove(of):
                self._spawn(self._ask_move(ue, of), f"move-{ue}")
            case TellHalted(to, at):
                self._spawn(self._tell(to, "halted", {"ue": ue, "at": at, "epoch": record.epoch}), f"halted-{ue}")
            case TellMoved(to, total_ms):
                told = {"ue": ue, "total_ms": total_ms, "epoch": record.epoch}
                self._spawn(self._tell(to, "moved", told), f"moved-{ue}")
            case TellStays(to, reason):
                self._spawn(self._tell(to, "stays", {"ue": ue, "reason": reason, "epoch": record.epoch}), f"stays-{ue}")
            case Consult():
                self._spawn(self._consult(ue, command), f"policy-{ue}")
            case AwaitReady(token):
                self._spawn(self._await_ready(ue, token), f"ready-{ue}")
            case AwaitReturn(token):
                self._spawn(self._await_return(ue, token), f"absence-{ue}")
            case Refuse():
                raise AssertionError("unreachable: a refusal ends the handling")

    async def _set_path(self, ue: UeKey, record: UeRecord, command: SetPath) -> None:
        rules = await self._switch.apply(ue, self._subscribers.path(ue, command.path))
        if command.announce is not None:
            event = command.announce(
                at=time.time_ns(),
                origin=self._name_deed(),
                ue=ue,
                ue_ip=(record.ue_ip,) if record.ue_ip else (),
                cloudlet=self._around.here,
                via=command.via,
                rule_ids=rules,
            )
            self._publish(event)

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

    def _announce(self, ue: UeKey, record: UeRecord, what: Announce) -> None:
        event = what.event(
            at=time.time_ns(),
            origin=self._name_deed(),
            ue=ue,
            ue_ip=(record.ue_ip,) if record.ue_ip else (),
            pvm=record.pvm,
            from_cloudlet=what.from_cloudlet,
            to_cloudlet=what.to_cloudlet,
            downtime_ms=what.downtime_ms,
            total_ms=what.total_ms,
            reason=what.reason,
            epoch=record.epoch,
        )
        self._publish(event)

    async def _start(self, ue: UeKey, pvm: Pvm) -> None:
        try:
            await self._hypervisor.start(pvm)
        except MobiScudError as error:
            self.submit(ue, PvmRefused(str(error)))
        else:
            self.submit(ue, PvmRunning())

    async def _migrate(self, ue: UeKey, pvm: Pvm, to: CloudletId) -> None:
        uri = self._around.migration_uri_of.get(to)
        try:
            if uri is None:
                raise AdapterError(f"cloudlets: {to} has no migration_uri")
            moved = await self._hypervisor.migrate(pvm.id, uri, progress=self._teller(ue, pvm, to))
        except MoveError as error:
            self.submit(ue, MoveFailed(str(error)) if error.stayed else MoveInDoubt(str(error)))
        except MobiScudError as error:
            self.submit(ue, MoveFailed(str(error)))
        else:
            self.submit(ue, MoveSucceeded(moved.total_ms))

    async def _fill_pool(self, dormant: Sequence[Pvm]) -> None:
        try:
            await self._hypervisor.fill_pool(dormant)
        except MobiScudError as error:
            log.warning("the pool is not filled", error=str(error))

    def _teller(self, ue: UeKey, pvm: Pvm, to: CloudletId) -> Callable[[MigrationProgress], None]:
        """Publishes the progress of a migration, now and then."""
        told = asyncio.get_running_loop().time()

        def tell(progress: MigrationProgress) -> None:
            nonlocal told
            now = asyncio.get_running_loop().time()
            if now - told < PROGRESS_EVERY_S:
                return
            told = now
            record = self._records[ue]
            event = PvmMigrationProgress(
                at=time.time_ns(),
                origin=self._name_deed(),
                ue=ue,
                ue_ip=(record.ue_ip,) if record.ue_ip else (),
                pvm=pvm,
                from_cloudlet=self._around.here,
                to_cloudlet=to,
                total_ms=progress.elapsed_ms,
                epoch=record.epoch,
                iteration=progress.iteration,
                bytes_moved=progress.bytes_moved,
                bytes_remaining=progress.bytes_remaining,
            )
            self._publish(event)

        return tell

    async def _settle_move(self, ue: UeKey, what: SettleMove, epoch: int) -> None:
        """End all copies but one, for certain, before traffic passes again."""
        here = self._around.here
        claim = Claim(here, epoch).towards(what.to, self._hypervisor.mode)
        settlement = await self._settler.settle(ue, what.pvm, claim)
        if settlement.standing is Standing.LOST:
            self.submit(ue, MoveLost(what.reason))
        elif settlement.claim.owner == here:
            self.submit(ue, MoveFailed(what.reason))
        else:
            self.submit(ue, MoveSucceeded(0.0))

    async def _ask_settling(self, cloudlet: CloudletId, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._requests.ask(self._around.node_of[cloudlet], name, body, timeout_s=SETTLING_ANSWER_S)

    async def _resume_move(self, ue: UeKey, pvm: Pvm) -> None:
        """The migration is libvirt's, and has outlived us: call it off, and have it settled where the guest then is."""
        await self._abort(pvm)
        self.submit(ue, MoveInDoubt("the controller restarted"))

    async def _abort(self, pvm: Pvm) -> None:
        try:
            await self._hypervisor.abort(pvm.id)
        except MobiScudError as error:
            log.warning("migration not aborted", pvm=pvm.id, error=str(error))

    async def _ask(
        self, cloudlet: CloudletId, name: str, body: dict[str, Any], correlation: str | None = None
    ) -> bool | None:
        """Whether it was granted; None where the other one is silent, and may have done it."""
        node = self._around.node_of[cloudlet]
        try:
            await self._requests.ask(node, name, body, timeout_s=ANSWER_S, correlation=correlation)
        except AdapterError as error:
            log.warning("not granted", request=name, ue=body["ue"], cloudlet=cloudlet, error=str(error))
            return False if isinstance(error, RefusedError) else None
        return True

    async def _ask_move(self, ue: UeKey, of: CloudletId) -> None:
        """Ask again while it is awaited: what the source had to tell is lost when it is restarted at that moment."""
        record = self._records[ue]
        try:
            if not record.flipped:
                await self._hypervisor.expect(record.pvm)
        except MobiScudError as error:
            log.info("the PVM cannot come", ue=ue, reason=str(error))
            self.submit(ue, NoRoom(str(error)))
            return
        while True:
            about = {"ue": ue, "to": self._around.here, "epoch": self._records[ue].epoch}
            granted = await self._ask(of, "move", about)
            if granted is False:
                self.submit(ue, MoveRefused("not granted"))
                return
            await asyncio.sleep(ASK_AFTER_S if granted else AGAIN_S)
            record = self._records[ue]
            if record.phase is not Phase.PULLING or record.pvm_at != of:
                return

    async def _ask_detour(self, ue: UeKey, of: CloudletId) -> None:
        """Until it is granted, or no longer wanted."""
        while not await self._ask(of, "detour", {"ue": ue, "by": self._around.here}):
            await asyncio.sleep(AGAIN_S)
            record = self._records[ue]
            if record.pvm_at != of or record.phase not in (Phase.PREPARED, Phase.DETOURED, Phase.PULLING):
                return

    async def _tell(self, to: CloudletId, name: str, body: dict[str, Any]) -> None:
        """Until it is heard, and done once: who has a PVM must not stay in doubt because a node was away."""
        correlation = uuid.uuid4().hex
        while not await self._ask(to, name, body, correlation):  # noqa: ASYNC110  # nobody tells when it is back
            await asyncio.sleep(AGAIN_S)

    async def _consult(self, ue: UeKey, asked: Consult) -> None:
        """Until the policy has decided, or the UE is no longer where it was."""
        wait_s = AGAIN_S if asked.again else 0.0
        while True:
            await asyncio.sleep(wait_s)
            record = self._records[ue]
            if record.token != asked.token or record.pvm_at in (None, record.here):
                return
            now = asyncio.get_running_loop().time()
            if asked.moment is Moment.ARRIVED:
                self._outlook.arrived(ue, record.here, now)  # after a restart nobody has said so
            facts = self._outlook.facts(ue, asked.moment, record.here, record.pvm_at, now)
            match self._manners.of(record.pvm.id).decide(facts):
                case Move(after_s):
                    await asyncio.sleep(after_s)
                    self.submit(ue, MoveDue(asked.token))
                    return
                case Stay(reason):
                    log.debug("the PVM stays", ue=ue, reason=reason)
                    return
                case AskAgain(after_s, reason):
                    log.debug("the PVM waits", ue=ue, reason=reason)
                    wait_s = max(after_s, AGAIN_S)

    async def _await_ready(self, ue: UeKey, token: int) -> None:
        await asyncio.sleep(READY_S)
        self.submit(ue, NotReady(token))

    async def _await_return(self, ue: UeKey, token: int) -> None:
        await asyncio.sleep(self._absence_s or 0.0)
        self.submit(ue, StayedAway(token))

    def _name_deed(self) -> bytes:
        self._deeds += 1
        return f"{self._around.here}/{self._epoch}/{self._deeds}".encode()

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task failed", task=task.get_name(), exc_info=task.exception())


def _epoch_of(body: dict[str, Any]) -> int:
    try:
        return int(body["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError("not understood") from error


_REQUESTS: Final[Mapping[str, Callable[[dict[str, Any]], Input]]] = {
    "detour": lambda body: DetourAsked(CloudletId(str(body["by"]))),
    "move": lambda body: MoveAsked(CloudletId(str(body["to"])), int(body.get("epoch", 0))),
    "halted": lambda body: HaltedThere(int(body["at"]), int(body.get("epoch", 0))),
    "moved": lambda body: MovedHere(float(body["total_ms"]), int(body.get("epoch", 0))),
    "stays": lambda body: StaysThere(str(body["reason"]), int(body.get("epoch", 0))),
}
