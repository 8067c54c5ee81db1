"""The controller of a cloudlet: each UE in order, many UEs at once.

Inputs come from the bus (events, requests of other controllers: ``peers``), the hypervisor (notices), timers and what
was begun earlier; they queue up UE by UE (``backlog``). Each is a step of the table (``machine``), which is remembered
(``journal``) before its commands are carried out (``deeds``).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

import structlog

from mobiscud.controller.announcing import Announcer
from mobiscud.controller.backlog import Backlog, Inlet, Queues
from mobiscud.controller.commit import GroupCommit, Memory
from mobiscud.controller.consulting import Consultant
from mobiscud.controller.deeds import Deeds, Undone
from mobiscud.controller.guests import Guests
from mobiscud.controller.hearing import read
from mobiscud.controller.inputs import (
    Halted,
    Input,
    Landed,
    PolicyChanged,
    PvmCrashed,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.controller.machine import step
from mobiscud.controller.offload_policy import Offload, OffloadPolicy
from mobiscud.controller.peers import Peers
from mobiscud.controller.ports import Neighbourhood, PacketPort, PathPort, PvmPort, RequestPort
from mobiscud.controller.reconcile import already_known, redo, repath, resume, standing_path
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.controller.subscribers import PLACING, Subscribers
from mobiscud.core.commands import Consult, Moment, SetPath
from mobiscud.core.config import MigrationConfig
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.events import Event, OffloadEvent, PvmEvent, UeEvent
from mobiscud.core.ids import CloudletId, PvmId, UeKey
from mobiscud.core.ue import Enb, Pdn

MET_TOGETHER: Final = 100
"""UEs of which a new policy is asked in one go: it takes about a millisecond."""
TOGETHER: Final = 1_000
"""UEs whose paths are asked for again in one step, after a restart."""

log = structlog.get_logger(__name__)


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
        self._hypervisor = hypervisor
        self._journal = journal
        self._commit = GroupCommit(journal)
        self._absence_s = migration.absence_s
        self._subscribers = Subscribers(policy)
        self._records = {ue: self._new_record(pvm) for ue, pvm in self._subscribers.known}
        self._ue_of = {record.pvm.id: ue for ue, record in self._records.items()}
        self._our_enbs: set[str] = set()
        self._cloudlet_of: dict[int | str, CloudletId] = dict(neighbourhood.cloudlet_of.items())
        self._queues: Queues[Input | PolicyChanged | _Retained | Undone] = Queues(self._handle, inlet)
        self._consultant = Consultant(migration, self._records, self.submit)
        self._peers = Peers(neighbourhood, requests, hypervisor, self._records, self.submit)
        announcer = Announcer(neighbourhood.here, publish)
        self._deeds = Deeds(
            switch,
            hypervisor,
            packets,
            subscribers=self._subscribers,
            announcer=announcer,
            guests=Guests(neighbourhood, hypervisor, self._records, announcer, self.submit, self._peers.ask_settling),
            peers=self._peers,
            consultant=self._consultant,
            absence_s=migration.absence_s,
            submit=self._queues.submit,
        )

    async def __aenter__(self) -> Self:
        """Take up what was under way when the controller last ended, then answer others.

        :raises AdapterError: the hypervisor does not say what it runs
        """
        await self._resume()
        self._peers.answer()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._queues.close()
        await self._deeds.close()

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
        todo: dict[UeKey, Undone] = {}
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
            todo[ue] = Undone(record, commands)
            if commands and isinstance(commands[0], SetPath) and commands[0].announce is None:
                standing[ue] = self._subscribers.path(ue, commands[0].path)
            if offload is None:
                gone.append(ue)
        for number in range(0, len(standing), TOGETHER):
            paths = dict(itertools.islice(standing.items(), number, number + TOGETHER))
            if await self._deeds.stand_again(paths):
                todo.update((ue, replace(todo[ue], commands=todo[ue].commands[1:])) for ue in paths)
        for ue, undone in todo.items():
            if undone.commands:
                await self._handle(ue, undone)  # an event that came meanwhile may have changed the record
        for ue in gone:
            self.submit(ue, UeLeft())
        if remembered:
            log.info("resumed", ues=len(remembered), paths=len(standing))
        dormant = [record.pvm for record in self._records.values() if record.phase is Phase.DORMANT]
        if dormant:
            self._deeds.fill_pool(dormant)

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
        self._consultant.change(migration)
        for ue, record in self._records.items():
            if record.phase is Phase.DETOURED:
                self._deeds.consult(ue, Consult(Moment.ARRIVED, record.token))

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
        self._consultant.heard(event)
        ours = self._of_ours(event) if isinstance(event, UeEvent) else None
        if ours is not None:
            happened = read(ours, self._cloudlet_of, sorted(self._our_enbs))
            if happened is not None:
                self._consultant.note_visit(ours.ue, happened)
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

    # What is done ------------------------------------------------------------------------------------------------

    async def _handle(self, ue: UeKey, happened: Input | PolicyChanged | _Retained | Undone) -> str | None:
        before = self._records[ue]
        if isinstance(happened, Undone):
            is_same = before is happened.record
            again = self._deeds.still_to_do(ue, happened) if is_same else redo(before, happened.commands)
            return await self._deeds.carry_all_out(ue, before, again)
        if isinstance(happened, _Retained):
            if already_known(before, happened.place):
                return None
            happened = happened.place
            self._consultant.note_visit(ue, happened)
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
        outcome = await self._deeds.carry_all_out(ue, record, commands)
        log.debug("step", ue=ue, input=type(happened).__name__, phase=record.phase, before=before.phase)
        return outcome
