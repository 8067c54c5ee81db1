"""The world that the controllers of a simulation live in: what they do comes back to them, some time later.

What the service of a controller (``mobiscud.controller.service``) does with sockets, timers and threads happens here in
a queue of moments. Every controller hears of every UE; but one that has neither the UE nor its PVM, and asks for
neither, only notes where they are. All of those note the same, so one note a UE stands for them (``_away``), and a
controller has a record of its own only for as long as it has more to say.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mobiscud.controller.inputs import (
    DetourAsked,
    Halted,
    HaltedThere,
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    HandoverOrdered,
    Input,
    Landed,
    MoveAsked,
    MovedHere,
    MoveDue,
    MoveFailed,
    MoveRefused,
    MoveSucceeded,
    PvmRunning,
    PvmSeen,
    StaysThere,
    Tunnels,
    UeArrived,
    UeWentIdle,
)
from mobiscud.controller.machine import step
from mobiscud.controller.outlook import Outlook
from mobiscud.controller.policy import AskAgain, Manners, Move, Start
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.commands import (
    AbortMove,
    Announce,
    AskDetour,
    AskMove,
    Command,
    Consult,
    MigratePvm,
    Refuse,
    SetPath,
    StartPvm,
    TellHalted,
    TellMoved,
    TellStays,
)
from mobiscud.core.edge import DownlinkTunnel, Pvm, UplinkTunnel
from mobiscud.core.events import PvmMigrated, PvmMigrating, PvmMigrationFailed, PvmStarted
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey
from testbed.simulation.migrations import TAIL_MS, Measured
from testbed.simulation.mobility import CANCELLED, IDLE, Grid, Walk
from testbed.simulation.moments import Moments
from testbed.simulation.scenario import RunConfig, Scenario
from testbed.simulation.tally import Tally

AGAIN_S: Final = 1.0
"""As in the service."""
ORDERED_S: Final = 0.03
DONE_S: Final = 0.06
"""From a prepared handover to the command, and to the arrival of the UE; or to its cancellation."""
APART_S: Final = 0.1
"""Between two steps of a walk, at least."""
ABORT_S: Final = 0.087
"""What libvirt takes to abort a migration (measured)."""

PVM: Final = Pvm(PvmId("pvm"), "172.16.1.10", "52:54:00:00:00:10")
"""The table only hands it through: one does for all."""
IP: Final = "45.45.0.2"
SGW: Final = FTeid("10.0.0.2", Teid(0x1001))
TUNNELS: Final = Tunnels(
    (UplinkTunnel("10.0.0.11", SGW),), DownlinkTunnel("10.0.0.2", FTeid("10.0.0.11", Teid(0x2001)))
)
"""Likewise."""
RUNNING: Final = PvmRunning()
OFF: Final = HandoverOff()
ORDERED: Final = HandoverOrdered()
GONE_IDLE: Final = UeWentIdle()
REFUSED: Final = MoveRefused("not granted")
ABORTED: Final = MoveFailed("aborted")

Progress = Callable[[float], None]


@dataclass(slots=True)
class Job:
    """A migration under way. ``decided``: the guest has left, or the job was aborted."""

    target: CloudletId
    began: float
    total_s: float
    outage_s: float
    decided: bool = False


@dataclass(slots=True, eq=False)
class Ue:
    """One user: what is true of it, and what the controllers know."""

    key: UeKey
    walk: Walk
    position: int = 0
    """The next step of the walk."""
    cell: int = -1
    pvm: int = -1
    connected: bool = False
    since: float = 0.0
    """Counted up to this moment."""
    job: Job | None = None
    records: dict[CloudletId, UeRecord] = field(default_factory=dict)
    ue_at: CloudletId | None = None
    pvm_at: CloudletId | None = None
    arrivals: int = 0
    absent: bool = False
    """What those know that have no record of their own: where it was last heard of, and how often."""


class World:
    """One policy's day."""

    def __init__(self, scenario: Scenario, run: RunConfig, walks: Sequence[Walk], measured: Measured) -> None:
        network = scenario.network
        self.tally = Tally(scenario.hours)
        self._until = scenario.hours * 3600
        self._event_s = network.event_ms / 1000
        self._request_s = network.request_ms / 1000
        self._start_s = scenario.vm.start_s
        self._measured = measured
        self._chance = random.Random(f"{scenario.seed}/migrations")
        self._grid = grid = Grid.of(scenario.cloudlets)
        self.rtt_ms = [
            network.beside_ms + min(network.hop_ms * hops, network.detour_most_ms)
            for hops in range(grid.rows + grid.columns)
        ]
        self._ids = [CloudletId(f"c{number}") for number in range(scenario.cloudlets)]
        self._cells = {name: number for number, name in enumerate(self._ids)}
        self._arrived = [UeArrived(name, IP, TUNNELS) for name in self._ids]
        self._expected = [HandoverExpected(name, IP, TUNNELS) for name in self._ids]
        self._done = [HandoverDone(name, IP, TUNNELS) for name in self._ids]
        self._detour_asked = {name: DetourAsked(name) for name in self._ids}
        self._move_asked = {name: MoveAsked(name) for name in self._ids}
        self._seen = {name: PvmSeen(name) for name in self._ids}
        self._manner = Manners.from_config(run).usual
        self._tells_orders = self._manner.start is Start.at_executing
        self._outlook = Outlook(run.cost, self._way_ms)
        self._moves = 0
        self._ues = [Ue(UeKey(f"ue-{number}"), walk) for number, walk in enumerate(walks)]
        self._moments = Moments()
        self._later = self._moments.add
        self._hands: dict[type[Command], Callable[[float, Ue, CloudletId, Any], None]] = {
            Announce: self._announce,
            StartPvm: self._start,
            MigratePvm: self._migrate,
            AbortMove: self._abort,
            AskDetour: self._ask_detour,
            AskMove: self._ask_move,
            TellHalted: self._tell_halted,
            TellMoved: self._tell_moved,
            TellStays: self._tell_stays,
            Consult: self._consult,
        }

    def run(self, progress: Progress = lambda _: None) -> Tally:
        """Let the day pass. ``progress`` hears how late it is, now and then."""
        collecting = gc.isenabled()
        gc.disable()  # nothing here refers to itself, and to look for that through a million objects takes time
        try:
            self._pass(progress)
        finally:
            if collecting:
                gc.enable()
        return self.tally

    def _pass(self, progress: Progress) -> None:
        for ue in self._ues:
            if len(ue.walk.times):
                self._later(ue.walk.times[0], self._walk, ue)
        until, told = self._until, 0.0
        for now, _, happen, about in self._moments:
            if now > until:
                break
            if now >= told:
                progress(now)
                told = now + 60.0
            happen(now, *about)
        for ue in self._ues:
            self._count_up(ue, until)

    # The table ---------------------------------------------------------------------------------------------------

    def _feed(self, now: float, ue: Ue, here: CloudletId, happened: Input) -> None:
        record = ue.records.get(here)
        result = step(record if record is not None else self._away(ue, here), happened)
        if result is None:
            return
        self.tally.steps += 1
        record, commands = result
        if record.phase is not Phase.AWAY:
            ue.records[here] = record
        elif here in ue.records:
            del ue.records[here]
        for command in commands:
            kind = type(command)
            if kind is SetPath:
                self.tally.paths += 1
            elif (hand := self._hands.get(kind)) is not None:
                hand(now, ue, here, command)
            elif kind is Refuse:
                self._refuse(now, ue, here, happened)
                return
            # the others only a switch or a hypervisor would feel

    def _away(self, ue: Ue, here: CloudletId) -> UeRecord:
        """What a controller knows that has only heard."""
        return UeRecord(
            PVM,
            here,
            registered=ue.arrivals > 0,
            ue_ip=IP if ue.arrivals else None,
            ue_at=ue.ue_at,
            pvm_at=ue.pvm_at,
            absent=ue.absent,
            token=ue.arrivals,
        )

    def _tell_all(self, now: float, ue: Ue, happened: Input, also: CloudletId | None = None) -> None:
        """An event on the bus; ``also``: a controller that it may concern though it has no record yet."""
        hearers = list(ue.records)
        if also is not None and also not in ue.records:
            hearers.append(also)
        for here in hearers:
            self._feed(now, ue, here, happened)

    # What users do -----------------------------------------------------------------------------------------------

    def _walk(self, now: float, ue: Ue) -> None:
        walk, position = ue.walk, ue.position
        cell = walk.cells[position]
        ue.position += 1
        if cell == IDLE:
            self._count_up(ue, now)
            ue.connected = False
            self._later(now + self._event_s, self._go_idle, ue)
        elif cell == CANCELLED:
            self._call_off(now, ue)
        elif not ue.connected:
            self._count_up(ue, now)
            ue.cell, ue.connected = cell, True
            if ue.pvm < 0:
                ue.pvm = cell
            self._later(now + self._event_s, self._arrive, ue)
        elif cell != ue.cell:
            self._later(now + self._event_s, self._prepare, ue, cell)
        if position + 1 < len(walk.times):
            self._later(max(walk.times[position + 1], now + APART_S), self._walk, ue)

    def _arrive(self, now: float, ue: Ue) -> None:
        if ue.connected:
            self._place(now, ue, ue.cell, self._arrived[ue.cell])

    def _go_idle(self, now: float, ue: Ue) -> None:
        if not ue.connected:
            self._tell_all(now, ue, GONE_IDLE)
            ue.ue_at, ue.absent = None, True

    def _call_off(self, now: float, ue: Ue) -> None:
        target = ue.walk.cells[ue.position] if ue.position < len(ue.walk.cells) else ue.cell
        if ue.connected and target >= 0 and target != ue.cell:
            self.tally.called_off += 1
            self._tell_all(now, ue, self._expected[target], self._ids[target])
            self._later(now + DONE_S, self._tell_all, ue, OFF)

    def _prepare(self, now: float, ue: Ue, target: int) -> None:
        self._tell_all(now, ue, self._expected[target], self._ids[target])
        if self._tells_orders:
            self._later(now + ORDERED_S, self._tell_all, ue, ORDERED)
        self._later(now + DONE_S, self._complete, ue, target)

    def _complete(self, now: float, ue: Ue, target: int) -> None:
        self._count_up(ue, now)
        ue.cell = target
        self.tally.at(now).handovers += 1
        self._place(now, ue, target, self._done[target])

    def _place(self, now: float, ue: Ue, cell: int, happened: UeArrived | HandoverDone) -> None:
        here = self._ids[cell]
        self._outlook.arrived(ue.key, here, now)
        self._tell_all(now, ue, happened, here)
        ue.ue_at, ue.absent = here, False
        ue.pvm_at = ue.pvm_at or here
        ue.arrivals += 1

    def _count_up(self, ue: Ue, now: float) -> None:
        """The time since the last change, at the distance that the VM had."""
        if ue.connected:
            self.tally.connected(ue.since, now, self._grid.hops(ue.cell, ue.pvm))
        ue.since = now

    def _way_ms(self, a: CloudletId, b: CloudletId) -> float:
        return self.rtt_ms[self._grid.hops(self._cells[a], self._cells[b])] - self.rtt_ms[0]

    # What controllers do -----------------------------------------------------------------------------------------

    def _start(self, now: float, ue: Ue, here: CloudletId, command: StartPvm) -> None:
        self._later(now + self._start_s, self._feed, ue, here, RUNNING)

    def _announce(self, now: float, ue: Ue, here: CloudletId, what: Announce) -> None:
        place = what.to_cloudlet
        if what.event is PvmMigrating:
            self._outlook.move_began(ue.key, here, what.to_cloudlet or here)
            return
        if what.event is PvmMigrated:
            self._outlook.move_ended(ue.key, what.downtime_ms)
        elif what.event is PvmMigrationFailed:
            self._outlook.move_ended(ue.key)
            place = what.from_cloudlet
        elif what.event is not PvmStarted:
            raise ValueError(f"nothing here ends a PVM: {what}")
        if place is not None:
            self._later(now + self._event_s, self._see, ue, place)

    def _see(self, now: float, ue: Ue, place: CloudletId) -> None:
        self._tell_all(now, ue, self._seen[place])
        ue.pvm_at = place

    def _ask_detour(self, now: float, ue: Ue, here: CloudletId, command: AskDetour) -> None:
        self._later(now + self._request_s, self._feed, ue, command.of, self._detour_asked[here])

    def _ask_move(self, now: float, ue: Ue, here: CloudletId, command: AskMove) -> None:
        self._later(now + self._request_s, self._feed, ue, command.of, self._move_asked[here])

    def _refuse(self, now: float, ue: Ue, here: CloudletId, asked: Input) -> None:
        if isinstance(asked, MoveAsked):
            self._later(now + self._request_s, self._feed, ue, asked.to, REFUSED)
        elif isinstance(asked, DetourAsked):
            self._later(now + self._request_s + AGAIN_S, self._insist, ue, asked.by, here)

    def _insist(self, now: float, ue: Ue, here: CloudletId, of: CloudletId) -> None:
        record = ue.records.get(here)
        wanting = (Phase.PREPARED, Phase.DETOURED, Phase.PULLING)
        if record is not None and record.pvm_at == of and record.phase in wanting:
            self._later(now + self._request_s, self._feed, ue, of, self._detour_asked[here])

    def _tell_halted(self, now: float, ue: Ue, here: CloudletId, command: TellHalted) -> None:
        self._later(now + self._request_s, self._feed, ue, command.to, HaltedThere(command.at))

    def _tell_moved(self, now: float, ue: Ue, here: CloudletId, command: TellMoved) -> None:
        self._later(now + self._request_s, self._feed, ue, command.to, MovedHere(command.total_ms))

    def _tell_stays(self, now: float, ue: Ue, here: CloudletId, command: TellStays) -> None:
        self._later(now + self._request_s, self._feed, ue, command.to, StaysThere(command.reason))

    def _consult(self, now: float, ue: Ue, here: CloudletId, command: Consult) -> None:
        if command.again:
            self._later(now + AGAIN_S, self._ask, ue, here, command)
        elif command.moment >= self._manner.start:
            self._ask(now, ue, here, command)

    def _ask(self, now: float, ue: Ue, here: CloudletId, asked: Consult) -> None:
        record = ue.records.get(here)
        if record is None or record.token != asked.token or record.pvm_at is None or record.pvm_at == here:
            return
        self.tally.asked += 1
        decision = self._manner.decide(self._outlook.facts(ue.key, asked.moment, here, record.pvm_at, now))
        if type(decision) is Move:
            self._later(now + decision.after_s, self._feed, ue, here, MoveDue(asked.token))
        elif type(decision) is AskAgain:
            self._later(now + max(decision.after_s, AGAIN_S), self._ask, ue, here, asked)

    # Migrations --------------------------------------------------------------------------------------------------

    def _migrate(self, now: float, ue: Ue, here: CloudletId, command: MigratePvm) -> None:
        total_ms, outage_ms = self._measured.draw(self._chance)
        job = ue.job = Job(command.to, now, total_ms / 1000, outage_ms / 1000)
        self._moves += 1
        self.tally.most_moves = max(self.tally.most_moves, self._moves)
        self._later(now + max(total_ms - TAIL_MS, 0.0) / 1000, self._halt, ue, here, job)

    def _halt(self, now: float, ue: Ue, here: CloudletId, job: Job) -> None:
        if job.decided:
            return
        job.decided = True
        self._later(now + job.outage_s, self._land, ue, here, job)
        self._feed(now, ue, here, Halted(int(now * 1e9)))

    def _land(self, now: float, ue: Ue, here: CloudletId, job: Job) -> None:
        self._count_up(ue, now)
        ue.pvm = self._cells[job.target]
        self.tally.at(now).outage_ms += job.outage_s * 1000
        self.tally.outages_ms.append(job.outage_s * 1000)
        self._later(max(now, job.began + job.total_s), self._end, ue, here, job)
        self._feed(now, ue, job.target, Landed(int(now * 1e9)))

    def _end(self, now: float, ue: Ue, here: CloudletId, job: Job) -> None:
        hour = self.tally.at(now)
        hour.migrations += 1
        hour.moved_mib += self._measured.moved_mib
        self._forget(ue)
        self._feed(now, ue, here, MoveSucceeded((now - job.began) * 1000))

    def _abort(self, now: float, ue: Ue, here: CloudletId, command: AbortMove) -> None:
        job = ue.job
        if job is None or job.decided:
            return
        job.decided = True
        hour = self.tally.at(now)
        hour.aborted += 1
        hour.moved_mib += self._measured.moved_mib * (now - job.began) / job.total_s
        self._forget(ue)
        self._later(now + ABORT_S, self._feed, ue, here, ABORTED)

    def _forget(self, ue: Ue) -> None:
        ue.job = None
        self._moves -= 1
