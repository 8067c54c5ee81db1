"""One run of a scenario on the testbed: its UEs move, its applications send, its faults strike.

Every UE has a task that takes its timed steps in turn, and one for each step that waits for a state; so has every
fault. What the RAN says of each procedure is kept as truth, as are the moments of the faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mobiscud.bus.cloudevents import TYPE_PREFIX
from mobiscud.core.errors import AdapterError
from testbed.experiment import RunningTestbed
from testbed.guest.client import GuestClient
from testbed.ran_client import RanError, Truth
from testbed.scenario.schema import Application, Scenario
from testbed.scenario.steps import (
    AttachStep,
    BearerStep,
    Cut,
    Fault,
    HandoverStep,
    Kill,
    Moment,
    ServiceStep,
    Step,
    TauStep,
)
from testbed.setting import Subscriber
from testbed.spawn import PYTHON, Child
from testbed.topology import INTERNET_SERVER

BOOT_LIMIT_S: Final = 90.0
END_LIMIT_S: Final = 30.0
SETTLE_LIMIT_S: Final = 60.0
ENDS: Final = ("pvm.migrated", "pvm.migration_failed")
"""What tells of a migration's end."""
ANSWER_LIMIT_S: Final = 0.5
REST_S: Final = 2.0
"""That a patient UE waits once its personal VM has arrived, and the applications run on after the last step."""
STOP_LIMIT_S: Final = 10.0
AT_ONCE: Final = 32
"""Attaches, and detaches."""
SPOKEN_OF: Final = 8
"""Of so many UEs each step is told as it is taken; of more, none."""


@dataclass(slots=True)
class Outcome:
    """What a run leaves beside the files: ``began_ns`` on the wall clock, when the scenario's time begins."""

    began_ns: int = 0
    truths: list[Truth] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Procedures that the network did not carry out, as faults may cause."""


class Play:
    """A run, on a testbed that stands."""

    def __init__(
        self,
        bed: RunningTestbed,
        scenario: Scenario,
        variant: str,
        plans: Mapping[int, Sequence[Step]],
        cells: Mapping[int, int],
    ) -> None:
        """``plans``: the steps of each UE by its number; ``cells``: where each is at first."""
        self._bed = bed
        self._scenario = scenario
        self._variant = variant
        self._plans = plans
        self._cells = dict(cells)
        self._outcome = Outcome()
        self._began = 0.0
        self._mark = 0
        """How many events there were before the scenario's time began."""
        self._present = [s for s in bed.subscribers if not self._attaches_itself(s.number)]
        self._offloaded = [s for s in self._present if s.number not in bed.setting.plain_ues]

    async def run(self) -> Outcome:
        """Attach, let everything happen, and detach.

        :raises AdapterError: the testbed failed, or a guest is not the one it was
        """
        bed, say = self._bed, self._bed.say
        await self._attach_all()
        boot_ids = {s: (await self._guest(s).wait_until_up(BOOT_LIMIT_S)).boot_id for s in self._offloaded}
        if boot_ids:
            say(f"the guests answer (boot ids {', '.join(boot_ids.values())})")
        async with self._applications() as names:
            self._began = time.monotonic()
            self._outcome.began_ns = time.time_ns()
            self._mark = len(bed.events)
            if names:
                say(f"applications: {', '.join(names)}; {self._scenario.duration_s:g} s to go")
            async with asyncio.TaskGroup() as tasks:
                for number, steps in self._plans.items():
                    for work in self._tasks_of(number, steps):
                        tasks.create_task(work, name=f"ue{number}")
                for fault in self._scenario.faults:
                    tasks.create_task(self._strike(fault), name=f"fault-{fault.do}")
                tasks.create_task(self._until(self._scenario.duration_s), name="duration")
            await self._settled(None)
        await self._look_after(boot_ids)
        await self._detach_all()
        return self._outcome

    async def _look_after(self, boot_ids: Mapping[Subscriber, str]) -> None:
        """See whether the guests are the ones they were. Where faults were asked for, one that is not is a result.

        :raises AdapterError: one is not, without any fault
        """
        for subscriber, before in boot_ids.items():
            try:
                after = (await self._guest(subscriber).wait_until_up(END_LIMIT_S)).boot_id
                if after != before:
                    raise AdapterError(f"the guest is not the one it was: boot id {before}, now {after}")
            except AdapterError as error:
                if not self._scenario.faults:
                    raise
                self._outcome.failures.append(f"{subscriber.ue}: at the end {error}")
                self._bed.say(f"{subscriber.ue}: {error}")
            else:
                self._bed.say(f"{subscriber.ue}: the guest is the one it was (boot id {after})")

    # Before and after ---------------------------------------------------------------------------------------------

    async def _attach_all(self) -> None:
        self._bed.say(f"{len(self._present)} UE(s) attach")

        async def attach(subscriber: Subscriber) -> None:
            truth = await self._bed.ran.attach(subscriber.ue, self._cells[subscriber.number])
            self._outcome.truths.append(truth)

        await self._many(attach, self._present)
        for subscriber in self._offloaded:
            ue = str(self._bed.key_of(subscriber))
            for kind in ("pvm.started", "offload.activated"):
                await self._bed.event(kind, after=0, within_s=BOOT_LIMIT_S, ue=ue)

    async def _many(self, work: Callable[[Subscriber], Awaitable[None]], subscribers: Sequence[Subscriber]) -> None:
        """Do it for all, some at once."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def gated(subscriber: Subscriber) -> None:
            async with gate:
                await work(subscriber)

        async with asyncio.TaskGroup() as tasks:
            for subscriber in subscribers:
                tasks.create_task(gated(subscriber), name=subscriber.ue)

    def _attaches_itself(self, number: int) -> bool:
        steps = self._plans.get(number, ())
        return bool(steps) and isinstance(steps[0], AttachStep)

    async def _detach_all(self) -> None:
        async def detach(subscriber: Subscriber) -> None:
            with contextlib.suppress(RanError):  # it is detached already
                self._outcome.truths.append(await self._bed.ran.detach(subscriber.ue))

        await self._many(detach, self._bed.subscribers)
        for subscriber in self._offloaded:
            with contextlib.suppress(AdapterError):
                ue = str(self._bed.key_of(subscriber))
                await self._bed.event("pvm.stopped", after=0, within_s=STOP_LIMIT_S, ue=ue)

    def _guest(self, subscriber: Subscriber) -> GuestClient:
        space = self._bed.network.namespace("ue")
        address = self._address(subscriber.number)
        return GuestClient(space, subscriber.pvm_address, timeout_s=ANSWER_LIMIT_S, source=address)

    def _address(self, number: int) -> str:
        """The UE's own, which is its since it attached.

        :raises AdapterError: it has not attached
        """
        imsi = self._bed.subscribers[number - 1].imsi
        for truth in reversed(self._outcome.truths):
            if truth.get("imsi") == imsi and truth.get("ue_ip"):
                return str(truth["ue_ip"])
        raise AdapterError(f"ue{number} has no address: an application needs a UE that is attached from the start")

    # Applications -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _applications(self) -> AsyncIterator[list[str]]:
        apps = [app for app in self._scenario.applications if not app.variants or self._variant in app.variants]
        bed = self._bed
        if any(app.to == "internet" and app.kind != "ping" for app in apps):
            space = bed.network.namespace("inet")
            echo = await bed.start("echo", *PYTHON, "testbed.echo", INTERNET_SERVER, namespace=space, ready=True)
            await echo.ready()
        running: list[Child] = []
        for app in apps:
            _, numbers = self._scenario.group(app.ue)
            command = _command(app, bed.subscribers[numbers[0] - 1], self._address(numbers[0]), bed.out)
            running.append(await bed.start(f"app-{app.name}", *command, namespace=bed.network.namespace("ue")))
        yield [app.name for app in apps]
        await asyncio.sleep(REST_S)
        await asyncio.gather(*(child.stop() for child in running))

    # What happens when --------------------------------------------------------------------------------------------

    def _tasks_of(self, number: int, steps: Sequence[Step]) -> list[Coroutine[Any, Any, None]]:
        timed = [step for step in steps if step.at_s is not None]
        waiting = [self._one_step(number, step) for step in steps if step.at_s is None]
        return [*([self._in_turn(number, timed)] if timed else []), *waiting]

    async def _in_turn(self, number: int, steps: Sequence[Step]) -> None:
        for step in steps:
            await self._one_step(number, step)

    async def _one_step(self, number: int, step: Step) -> None:
        if await self._moment(step, self._bed.subscribers[number - 1]):
            await self._take(number, step)

    async def _moment(self, moment: Moment, subscriber: Subscriber | None) -> bool:
        """Wait for it; whether it came before the end. Events from before the scenario's time do not count."""
        if moment.at_s is not None:
            await self._until(moment.at_s)
            return True
        expected = {} if subscriber is None else {"ue": str(self._bed.key_of(subscriber))}
        after = self._mark - 1
        for _ in range(moment.nth):
            left_s = max(0.1, self._scenario.duration_s - (time.monotonic() - self._began))
            try:
                after = await self._bed.event(moment.when or "", after=after + 1, within_s=left_s, **expected)
            except AdapterError:
                self._outcome.failures.append(f"no {moment.when} came {moment.nth} time(s): a step was left out")
                return False
        await asyncio.sleep(moment.after_s)
        return True

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._began + at_s - time.monotonic()))

    async def _take(self, number: int, step: Step) -> None:
        bed, ue = self._bed, f"ue{number}"
        match step:
            case HandoverStep():
                if step.patient:
                    await self._settled(bed.subscribers[number - 1])
                await self._told(
                    f"{ue}: {step.kind.upper()} handover to eNB{step.to}",
                    bed.ran.handover(ue, step.to, kind=step.kind, outcome=step.outcome),
                )
            case AttachStep():
                await self._told(f"{ue} attaches", bed.ran.attach(ue, step.cell or self._cells[number]))
            case ServiceStep():
                await self._told(f"{ue} wakes up", bed.ran.service(ue, step.cell))
            case TauStep():
                await self._told(f"{ue}: tracking area update", bed.ran.tau(ue, active=step.active))
            case BearerStep():
                what = "the newest, released" if step.release else f"for {step.protocol}, of QCI {step.qci}"
                work = bed.ran.bearer(ue, qci=step.qci, protocol=step.protocol, release=step.release)
                await self._told(f"{ue}: dedicated bearer {what}", work)
            case _ if step.do == "page":
                await self._told(f"{ue} is paged", self._page(number))
            case _ if step.do == "idle":
                await self._told(f"{ue} goes idle", bed.ran.idle(ue))
            case _:
                await self._told(f"{ue} detaches", bed.ran.detach(ue))

    async def _told(self, what: str, work: Coroutine[Any, Any, Truth]) -> None:
        if len(self._bed.subscribers) <= SPOKEN_OF:
            self._bed.say(what)
        try:
            self._outcome.truths.append(await work)
        except RanError as error:
            self._outcome.failures.append(f"{what}: {error}")
            self._bed.say(f"{what} failed: {error}")

    async def _page(self, number: int) -> Truth:
        """A packet from the Internet server: the S-GW has the idle UE paged."""
        space, address = self._bed.network.namespace("inet"), self._address(number)
        with contextlib.suppress(AdapterError):
            ping = ("ping", "-c", "1", "-W", "5", "-I", INTERNET_SERVER, address)
            child = await self._bed.start("page", *ping, namespace=space)
            await child.wait()
        return {"ev": "page", "t": time.time(), "imsi": self._bed.subscribers[number - 1].imsi}

    async def _settled(self, subscriber: Subscriber | None) -> None:
        """Wait until no personal VM (or not this UE's) is on its way. After a migration of its own a UE rests a little.

        Faults may lose the event that tells of a migration's end: that is noted, and no reason to wait for ever.
        """
        for one in [subscriber] if subscriber is not None else self._offloaded:
            try:
                while await self._arrived(str(self._bed.key_of(one))):
                    if subscriber is not None:
                        await asyncio.sleep(REST_S)
            except AdapterError:
                self._outcome.failures.append(f"{one.ue}: its VM's migration had no end within {SETTLE_LIMIT_S:g} s")

    async def _arrived(self, key: str) -> bool:
        """Wait for the end of a migration under way; whether there was one.

        :raises AdapterError: it has no end
        """
        for place in reversed(range(len(self._bed.events))):
            event = self._bed.events[place]
            kind = event["type"].removeprefix(TYPE_PREFIX)
            if event["data"].get("ue") == key and kind in ENDS:
                return False
            if event["data"].get("ue") == key and kind == "pvm.migrating":
                await self._bed.any_event(ENDS, after=place, within_s=SETTLE_LIMIT_S, ue=key)
                return True
        return False

    # Faults -------------------------------------------------------------------------------------------------------

    async def _strike(self, fault: Fault) -> None:
        if not await self._moment(fault, None):
            return
        match fault:
            case Kill():
                self._note(f"{fault.part} is killed", fault)
                await self._bed.kill(fault.part, fault.for_s)
                self._note(f"{fault.part} is started again", fault)
            case Cut():
                self._note(f"link {fault.link} is cut", fault)
                await self._bed.network.cut(fault.link)
                try:
                    await asyncio.sleep(fault.for_s)
                finally:
                    await self._bed.network.cut(fault.link, mend=True)
                self._note(f"link {fault.link} is mended", fault)

    def _note(self, what: str, fault: Fault) -> None:
        self._bed.say(what)
        self._outcome.faults.append({"at_ns": time.time_ns(), "what": what, "do": fault.do})


def _command(app: Application, subscriber: Subscriber, source: str, out: Path) -> tuple[str, ...]:
    target = subscriber.pvm_address if app.to == "pvm" else INTERNET_SERVER
    file = str((out / f"{app.name}.csv").absolute())
    options = ("--interval", str(app.spacing_s), "--octets", str(app.size), "--source", source)
    if app.kind == "ping":
        return (*PYTHON, "testbed.pinger", target, file, *options)
    return (*PYTHON, "testbed.application", "udp" if app.kind == "udp" else "tcp", target, file, *options)
