"""Personal VMs of one cloudlet: the requests that a controller makes, and the notices that it gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface
from types import TracebackType
from typing import Any, Final, Self, assert_never

import structlog

from migration.bandwidth import TrafficLimits
from migration.errors import HypervisorLostError, MigrationError, SavedImageError
from migration.fencing import end_by_force
from migration.hypervisor import CopyStatistics, Hypervisor, MigrationOrder
from migration.libvirt_host import LibvirtHypervisor
from migration.lifecycle import Notice, PvmResumed, PvmState, PvmSuspended, advance, difference
from migration.room import Room
from migration.threads import in_thread
from migration.verdict import (
    HypervisorFacts,
    MigrationMode,
    MigrationOutcome,
    MigrationProgress,
    Phase,
    Verdict,
    Whereabouts,
    choose_mode,
    judge,
    locate,
)
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig, ImageConfig, image_of

log = structlog.get_logger(__name__)

SAMPLE_S: Final = 0.1
"""How often a migration's progress is asked for; asking takes the monitor of QEMU for about a millisecond."""

INSIST_S: Final = 0.02
"""How often an abort that came too early is tried again: the user waits for the guest elsewhere."""

SHORTEST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
"""Between attempts to connect again."""

FENCE_LIMIT_S: Final = 3.0
"""How long the hypervisor may take to end a guest before that is done without it."""


NOTHING_KEPT: Final = "nothing of its memory is kept here"


@dataclass(slots=True)
class _Job:
    """A migration under way from here."""

    mode: MigrationMode
    started: float = field(default_factory=time.monotonic)
    first_round: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    switch_asked: bool = False
    iterations: int = 0
    stood_still: bool = False
    called_off: bool = False
    abort_accepted_at: float | None = None

    @property
    def can_be_undone(self) -> bool:
        """In post-copy the guest has left once it stood still: it has no whole memory here any more."""
        return self.mode is MigrationMode.PRE_COPY or not self.stood_still

    @property
    def may_switch(self) -> bool:
        """In post-copy the guest can leave once the first round has begun."""
        ready = self.mode is MigrationMode.POST_COPY and self.first_round.done()
        return ready and not self.switch_asked and not self.called_off


class PersonalVmHost:
    """The personal VMs of one cloudlet.

    ``on_notice`` is called in the event loop's thread, in the order in which things happened; it must not block.
    Requests for one PVM are served one after the other, but ``abort`` reaches a migration under way.
    """

    def __init__(
        self,
        config: HypervisorConfig,
        gateway: IPv4Interface,
        on_notice: Callable[[Notice], None],
        *,
        images: Mapping[str, ImageConfig] | None = None,
        hypervisor: Hypervisor | None = None,
        limit_s: float = 60.0,
    ) -> None:
        """Make a host that connects on entry.

        :param gateway: address and prefix of the router in the PVMs' network
        :param images: the catalogue
        :param hypervisor: instead of libvirt at ``config.uri``
        :param limit_s: how long a migration may take before it is aborted
        """
        self._config = config
        self._images = images or {}
        self._on_notice = on_notice
        self._hypervisor: Hypervisor = hypervisor or LibvirtHypervisor(config, gateway, images)
        self._limit_s = limit_s
        self._limits = TrafficLimits(config.bridge, self._hypervisor)
        self._has_limits = any(image.down_mbit_s or image.up_mbit_s for image in self._images.values())
        self._room = Room(config, self._hypervisor, self._put_aside)
        self._paused_in_order: dict[PvmId, None] = {}
        self._facts: HypervisorFacts | None = None
        self._states: dict[PvmId, PvmState] = {}
        self._jobs: dict[PvmId, _Job] = {}
        self._locks: dict[PvmId, asyncio.Lock] = {}
        self._turns = asyncio.Condition()
        self._leaving = 0
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        :raises AdapterError: there is no hypervisor at ``config.uri``
        """
        try:
            await self._connect()
        except BaseException:
            await self._hypervisor.close()
            raise
        self._keeper = asyncio.create_task(self._stay_connected(), name=f"hypervisor {self._config.cloudlet}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self._limits.close()
        await self._hypervisor.close()

    @property
    def facts(self) -> HypervisorFacts:
        """What the hypervisor said about itself; only inside ``async with``."""
        if self._facts is None:
            raise RuntimeError("PersonalVmHost is used outside of 'async with'")
        return self._facts

    @property
    def mode(self) -> MigrationMode:
        """How PVMs leave from here."""
        return choose_mode(self._config.mode)

    async def start(self, pvm: Pvm, *, kept: bool = False) -> str | None:
        """Have the PVM run here; one that runs already is left alone.

        The fastest way is taken: let a paused one go on, else restore its saved image, else boot, which goes on for
        some seconds after the return.

        :param kept: it was stopped here, and has not been elsewhere since
        :returns: why it boots although its memory was kept
        :raises AdapterError: the hypervisor refuses, or has it but not running; or there is no room for it
        """
        if await self._hypervisor.state(pvm.id) is PvmState.ABSENT:
            await self._room.promise(pvm.id, self._memory_mib(pvm))
        try:
            way, anew = await self._start(pvm, kept=kept)
        finally:
            self._room.forget(pvm.id)
        log.info("pvm started", pvm=pvm.id, cloudlet=self._config.cloudlet, way=way)
        if anew is not None:
            log.error("pvm begins anew", pvm=pvm.id, cloudlet=self._config.cloudlet, reason=anew)
        return anew

    async def _start(self, pvm: Pvm, *, kept: bool) -> tuple[str, str | None]:
        async with self._lock(pvm.id):
            match await self._hypervisor.state(pvm.id):
                case PvmState.RUNNING:
                    return "running", None
                case PvmState.SUSPENDED:
                    if not await self._hypervisor.resume(pvm.id):
                        raise AdapterError(f"{pvm.id} is here, but stands still")
                    return "resumed", None
                case PvmState.ABSENT:
                    anew = NOTHING_KEPT if kept and self._config.on_stop != "destroy" else None
                    try:
                        if await self._hypervisor.restore(pvm, paused=False):
                            return "restored", None
                    except SavedImageError as error:
                        anew = str(error)
                    await self._hypervisor.boot(pvm)
                    return "booted", anew
                case _ as never:
                    assert_never(never)

    async def fill_pool(self, pvms: Sequence[Pvm]) -> None:
        """Have those with a saved image stand ready in memory, as many as the pool may hold; first come, first served.

        After a host's restart its memory is empty, and a pool that is empty serves nobody.

        :raises AdapterError: the hypervisor refuses
        """
        for pvm in pvms:
            if len(await self._hypervisor.paused()) >= (self._config.pool or 0):
                return
            async with self._lock(pvm.id):
                if await self._hypervisor.state(pvm.id) is not PvmState.ABSENT:
                    continue
                if await self._room.refuses(pvm.id, self._memory_mib(pvm)) is not None:
                    return
                try:
                    if await self._hypervisor.restore(pvm, paused=True):
                        log.info("saved pvm stands ready", pvm=pvm.id, cloudlet=self._config.cloudlet)
                except SavedImageError as error:
                    log.error("saved pvm will begin anew", pvm=pvm.id, reason=str(error))

    def keeps(self, pvm: Pvm) -> bool:
        """Tell whether a PVM that is stopped here leaves something that no other host has, and goes on from it."""
        image = image_of(pvm.image, self._images, self._config)
        has_disk = image is not None and image.disk is not None and not self._config.shared_disks
        return has_disk or self._config.on_stop != "destroy"

    async def expect(self, pvm: Pvm) -> None:
        """Make ready for a PVM that is to migrate here, before its migration begins: a place, and its disk.

        It runs elsewhere, so one that stands still here is its past, and goes.

        :raises AdapterError: it cannot come
        """
        await self._room.promise(pvm.id, self._memory_mib(pvm))
        async with self._lock(pvm.id):
            if pvm.id in await self._hypervisor.paused():
                await self._hypervisor.destroy(pvm.id)
            await self._hypervisor.expect(pvm)

    async def stop(self, pvm_id: PvmId) -> None:
        """Have the PVM not run here: ended, saved or paused, as configured. What cannot be kept is ended.

        :raises AdapterError: the hypervisor refuses
        """
        await self.abort(pvm_id)
        await self._stop(pvm_id)
        if self._config.on_stop == "pause":
            self._paused_in_order.pop(pvm_id, None)
            self._paused_in_order[pvm_id] = None
            await self._trim_pool()

    async def _trim_pool(self) -> None:
        try:
            while self._config.pool is not None and len(await self._hypervisor.paused()) > self._config.pool:
                await self._put_aside()
        except AdapterError as error:
            log.warning("the pool is too large", cloudlet=self._config.cloudlet, reason=str(error))

    async def _stop(self, pvm_id: PvmId) -> None:
        async with self._lock(pvm_id):
            keep = {"save": self._hypervisor.save, "pause": self._hypervisor.pause}.get(self._config.on_stop)
            if keep is not None and await self._hypervisor.state(pvm_id) is PvmState.RUNNING:
                try:
                    await keep(pvm_id)
                    return
                except HypervisorLostError:
                    raise
                except AdapterError as error:
                    log.warning("pvm cannot be kept", pvm=pvm_id, way=self._config.on_stop, reason=str(error))
            elif self._config.on_stop == "pause":
                return  # it stands still already, or is absent
            await self._hypervisor.destroy(pvm_id)

    async def _put_aside(self) -> bool:
        """Save the one that has stood still for longest; one that was paused before we came is older than any other."""
        order = {pvm_id: place for place, pvm_id in enumerate(self._paused_in_order)}
        for pvm_id in sorted(await self._hypervisor.paused(), key=lambda paused: order.get(paused, -1)):
            async with self._lock(pvm_id):
                if pvm_id not in await self._hypervisor.paused():
                    continue  # it was wanted meanwhile
                await self._hypervisor.save(pvm_id)
            self._paused_in_order.pop(pvm_id, None)
            log.info("paused pvm saved", pvm=pvm_id, cloudlet=self._config.cloudlet)
            return True
        return False

    def _memory_mib(self, pvm: Pvm) -> int:
        image = image_of(pvm.image, self._images, self._config)
        return self._config.memory_mib if image is None else image.memory_mib

    async def state(self, pvm_id: PvmId) -> PvmState:
        """Ask the hypervisor for one PVM: this cloudlet's statement when its whereabouts are in doubt.

        :raises AdapterError: it does not answer
        """
        return await self._hypervisor.state(pvm_id)

    async def fence(self, pvm_id: PvmId) -> None:
        """See to it that the PVM does not run here, whatever was configured for a stop, and be sure of it.

        Where the hypervisor does not answer, the guest's process is ended without it.

        :raises AdapterError: it may still run
        """
        try:
            async with asyncio.timeout(FENCE_LIMIT_S):
                await self._hypervisor.destroy(pvm_id)
                return
        except (AdapterError, TimeoutError) as error:
            reason = str(error) or "the hypervisor does not answer"
            log.warning("fencing by force", pvm=pvm_id, cloudlet=self._config.cloudlet, reason=reason)
        ended = await in_thread(f"fence {pvm_id}", lambda: end_by_force(pvm_id))
        log.warning("fenced", pvm=pvm_id, cloudlet=self._config.cloudlet, processes=ended)

    async def let_run(self, pvm_id: PvmId) -> None:
        """Let a whole guest run that stands still after a migration that failed; to be called when it is the only one.

        :raises AdapterError: it does not
        """
        if not await self._hypervisor.resume(pvm_id, force=True):
            raise AdapterError(f"{pvm_id} cannot go on")

    async def running(self) -> tuple[PvmId, ...]:
        """Ask the hypervisor which PVMs execute here.

        :raises AdapterError: it does not answer
        """
        states = await self._hypervisor.states()
        return tuple(sorted(pvm_id for pvm_id, state in states.items() if state is PvmState.RUNNING))

    async def standing_still(self) -> tuple[PvmId, ...]:
        """Ask the hypervisor which PVMs are in memory, and stand still on request.

        :raises AdapterError: it does not answer
        """
        return await self._hypervisor.paused()

    def is_migrating(self, pvm_id: PvmId) -> bool:
        """Tell whether the PVM is on its way from here."""
        return pvm_id in self._jobs

    async def abort(self, pvm_id: PvmId) -> None:
        """Call off a migration under way; its ``migrate`` then raises. Nothing to call off is fine.

        A guest in post-copy has left: that migration ends as it does.

        :raises AdapterError: the hypervisor refuses
        """
        job = self._jobs.get(pvm_id)
        if job is not None and job.can_be_undone and job.abort_accepted_at is None:
            job.called_off = True  # where it is too early, the driver tries again
            async with self._turns:
                self._turns.notify_all()
            if await self._hypervisor.abort(pvm_id):
                job.abort_accepted_at = time.monotonic()

    async def migrate(
        self, pvm_id: PvmId, migration_uri: str, *, progress: Callable[[MigrationProgress], None] | None = None
    ) -> MigrationOutcome:
        """Move the running PVM to the hypervisor at ``migration_uri``, as seen from this cloudlet's hypervisor.

        When the caller is cancelled, a migration that can still be undone is aborted.

        :param progress: called with every sample
        :raises MigrationError: it did not happen; says what is known about the guest
        """
        async with self._lock(pvm_id):
            job = self._jobs[pvm_id] = _Job(self.mode)
            try:
                async with self._turn(job):
                    return await self._migrate(pvm_id, job, migration_uri, progress)
            finally:
                del self._jobs[pvm_id]

    @asynccontextmanager
    async def _turn(self, job: _Job) -> AsyncIterator[None]:
        """Leave when fewer do than may, unless called off before."""
        async with self._turns:
            await self._turns.wait_for(lambda: job.called_off or self._leaving < self._config.migrations)
            if job.called_off:
                raise MigrationError("called off before it began", Whereabouts.SOURCE, aborted=True)
            self._leaving += 1
        try:
            yield
        finally:
            self._leaving -= 1
            async with self._turns:
                self._turns.notify_all()

    async def _migrate(
        self,
        pvm_id: PvmId,
        job: _Job,
        migration_uri: str,
        progress: Callable[[MigrationProgress], None] | None,
    ) -> MigrationOutcome:
        if await self._hypervisor.state(pvm_id) is not PvmState.RUNNING:
            raise MigrationError(f"{pvm_id} does not run here", Whereabouts.UNKNOWN)
        job.started = time.monotonic()
        order = MigrationOrder(
            pvm_id,
            migration_uri,
            job.mode,
            self._config.max_downtime_ms,
            self._config.bandwidth_mib_s,
            self._config.shared_disks,
        )
        copying = asyncio.create_task(self._hypervisor.migrate(order), name=f"migrate {pvm_id}")
        try:
            return await self._drive(pvm_id, job, copying, progress)
        finally:
            await self._call_off(pvm_id, job, copying)

    async def _drive(
        self,
        pvm_id: PvmId,
        job: _Job,
        copying: asyncio.Task[CopyStatistics],
        progress: Callable[[MigrationProgress], None] | None,
    ) -> MigrationOutcome:
        """Wait, sample, judge, act; and in post-copy let the guest go as soon as that is possible."""
        while True:
            awaited: set[asyncio.Future[Any]] = {copying}
            if not job.first_round.done():
                awaited.add(job.first_round)
            insisting = job.called_off and job.abort_accepted_at is None
            timeout_s = INSIST_S if insisting else SAMPLE_S
            await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if job.may_switch and not copying.done():
                await self._switch(pvm_id, job)
                continue
            sample = await self._sample(pvm_id, job, copying)
            if progress is not None:
                progress(sample)
            match judge(sample, job.mode, limit_ms=self._limit_s * 1000):
                case Verdict.WAIT:
                    if job.called_off:
                        await self._try_to_abort(pvm_id)
                case Verdict.ABORT:
                    log.warning("migration takes too long", pvm=pvm_id, elapsed_ms=round(sample.elapsed_ms))
                    await self._try_to_abort(pvm_id)
                case Verdict.COMMIT:
                    return _outcome(job, sample, copying.result())
                case Verdict.ROLL_BACK:
                    raise await self._failure(pvm_id, job, copying)
                case _ as never:
                    assert_never(never)

    async def _switch(self, pvm_id: PvmId, job: _Job) -> None:
        """Let the guest change sides."""
        job.switch_asked = True
        try:
            await self._hypervisor.start_post_copy(pvm_id)
        except AdapterError as error:
            # Too late, because it failed or was aborted meanwhile; or else it goes on as pre-copy.
            log.warning("no switch to post-copy", pvm=pvm_id, reason=str(error))

    async def _sample(self, pvm_id: PvmId, job: _Job, copying: asyncio.Task[CopyStatistics]) -> MigrationProgress:
        now = time.monotonic()
        elapsed_ms = (now - job.started) * 1000
        if copying.done():
            phase = Phase.DONE if copying.exception() is None else Phase.FAILED
            return MigrationProgress(phase, elapsed_ms, job.iterations)
        try:
            found = await self._hypervisor.copy_statistics(pvm_id)
        except AdapterError:
            found = None  # the migration itself will tell what is wrong
        found = found or CopyStatistics()
        return MigrationProgress(
            phase=Phase.SWITCHED if job.stood_still else Phase.COPYING,
            elapsed_ms=elapsed_ms,
            iteration=job.iterations,
            bytes_moved=found.bytes_moved,
            bytes_remaining=found.bytes_remaining,
            since_abort_ms=None if job.abort_accepted_at is None else (now - job.abort_accepted_at) * 1000,
        )

    async def _failure(self, pvm_id: PvmId, job: _Job, copying: asyncio.Task[CopyStatistics]) -> BaseException:
        error = copying.exception() if copying.done() else AdapterError("the hypervisor lost sight of the abort")
        if not isinstance(error, AdapterError):
            return error or RuntimeError("a migration failed without a reason")
        try:
            state: PvmState | None = await self._hypervisor.state(pvm_id)
        except AdapterError:
            state = None
        whereabouts = locate(job.mode, stood_still=job.stood_still, at_source=state)
        log.warning("migration failed", pvm=pvm_id, reason=str(error), whereabouts=whereabouts, aborted=job.called_off)
        failure = MigrationError(str(error), whereabouts, aborted=job.called_off)
        failure.__cause__ = error
        return failure

    async def _call_off(self, pvm_id: PvmId, job: _Job, copying: asyncio.Task[CopyStatistics]) -> None:
        """Leave no migration running that nobody waits for, unless it neither ends nor can be ended."""
        try:
            while not copying.done():
                sample = await self._sample(pvm_id, job, copying)
                if judge(sample, job.mode, limit_ms=self._limit_s * 1000) is Verdict.ROLL_BACK:
                    break
                await self._try_to_abort(pvm_id)
                await asyncio.wait({copying}, timeout=SAMPLE_S)
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)  # the caller is not interested any more

    async def _try_to_abort(self, pvm_id: PvmId) -> None:
        """Abort, for one who waits for the migration's own end anyway."""
        try:
            await self.abort(pvm_id)
        except AdapterError as error:
            log.warning("cannot abort", pvm=pvm_id, reason=str(error))

    async def _connect(self) -> None:
        """Connect, and give the notices that were missed meanwhile; at the first time there is nothing to miss."""
        before = self._states if self._facts is not None else None
        self._facts = await self._hypervisor.connect(self)
        self._states = await self._hypervisor.states()
        if self._has_limits:
            await self._limits.begin(pvm_id for pvm_id, state in self._states.items() if state is PvmState.RUNNING)
        log.info("hypervisor connected", cloudlet=self._config.cloudlet, mode=self.mode, **_shown(self._facts))
        for notice in difference(before, self._states, time.time_ns()) if before is not None else ():
            self._on_notice(notice)

    async def _stay_connected(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            pause_s = SHORTEST_PAUSE_S
            while True:
                try:
                    await self._connect()
                    break
                except AdapterError as error:
                    log.warning("hypervisor does not answer", cloudlet=self._config.cloudlet, reason=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _lock(self, pvm_id: PvmId) -> asyncio.Lock:
        return self._locks.setdefault(pvm_id, asyncio.Lock())

    # What the hypervisor tells its observer.

    def on_notice(self, notice: Notice) -> None:
        """Pass on what is new, with what only we know: whether the guest is leaving from here."""
        if self._has_limits:
            self._limits.on_notice(notice)
        state = self._states.get(notice.pvm_id, PvmState.ABSENT)
        following = advance(state, notice)
        if following is state:
            return
        self._states[notice.pvm_id] = following
        if following is PvmState.ABSENT:
            del self._states[notice.pvm_id]
        job = self._jobs.get(notice.pvm_id)
        if job is not None:
            match notice:
                case PvmSuspended():
                    job.stood_still = True
                    notice = replace(notice, migrating=True)
                case PvmResumed():
                    notice = replace(notice, migrated=False)
        self._on_notice(notice)

    def on_iteration(self, pvm_id: PvmId, iteration: int) -> None:
        """Count the rounds of a migration from here."""
        job = self._jobs.get(pvm_id)
        if job is not None:
            job.iterations = iteration
            if not job.first_round.done():
                job.first_round.set_result(None)

    def on_lost(self, reason: str) -> None:
        """Connect again; until then requests raise."""
        log.error("hypervisor lost", cloudlet=self._config.cloudlet, reason=reason)
        self._lost.set()


def _shown(facts: HypervisorFacts) -> dict[str, str]:
    return {"qemu": ".".join(map(str, facts.qemu_version)), "accelerator": facts.accelerator}


def _outcome(job: _Job, sample: MigrationProgress, statistics: CopyStatistics) -> MigrationOutcome:
    return MigrationOutcome(
        total_ms=sample.elapsed_ms,
        mode=job.mode,
        iterations=max(job.iterations, statistics.iteration),
        bytes_moved=statistics.bytes_moved,
        downtime_ms=statistics.downtime_ms if job.mode is MigrationMode.PRE_COPY else None,
    )
