"""The adapter to libvirt and QEMU: a PVM is a transient domain of the same name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final, TypeVar

import libvirt
import structlog

from migration import storage
from migration.bandwidth import NetworkCard
from migration.domain_xml import domain_xml, fingerprint_of, network_card_of
from migration.errors import HypervisorLostError, SavedImageError
from migration.hypervisor import CopyStatistics, MigrationOrder, Observer
from migration.libvirt_words import CLOSE_REASONS, facts_of, is_over_tls, notice_of, statistics_of
from migration.lifecycle import PvmState
from migration.threads import hand_over, in_thread, run_libvirt_events
from migration.verdict import HypervisorFacts, MigrationMode
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig, ImageConfig, image_of

Result = TypeVar("Result")

log = structlog.get_logger(__name__)

KEEPALIVE_INTERVAL_S: Final = 1
KEEPALIVE_COUNT: Final = 3
STATISTICS_GRACE_S: Final = 0.5
"""How long the final statistics, an event, may come after the call that they belong to."""


class LibvirtHypervisor:
    """A libvirtd with QEMU, at ``config.uri``."""

    def __init__(
        self, config: HypervisorConfig, gateway: IPv4Interface, images: Mapping[str, ImageConfig] | None = None
    ) -> None:
        self._config = config
        self._images = images or {}
        self._gateway = gateway
        self._connection: Any = None
        self._callbacks: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._observer: Observer | None = None
        self._facts: HypervisorFacts | None = None
        self._final_statistics: dict[PvmId, asyncio.Future[CopyStatistics]] = {}

    async def connect(self, observer: Observer) -> HypervisorFacts:
        """Connect, and hear of every event from now on."""
        run_libvirt_events()
        await self.close()
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._facts = await self._call("connect", self._open)
        return self._facts

    async def close(self) -> None:
        """Disconnect. What libvirt says while doing so is of no interest: the connection may be broken already."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        callbacks, self._callbacks = self._callbacks, []

        def disconnect() -> None:
            for undo in (
                *((lambda number=number: connection.domainEventDeregisterAny(number)) for number in callbacks),
                connection.unregisterCloseCallback,
                connection.close,
            ):
                try:
                    undo()
                except libvirt.libvirtError:
                    pass

        await in_thread("libvirt-close", disconnect)

    async def boot(self, pvm: Pvm) -> None:
        """Create a transient domain: nothing but its disk is left when it ends."""
        image, description = self._describe(pvm)

        def boot() -> None:
            connection = self._open_connection()
            if image.disk is not None:
                storage.keep_disk(connection, pvm.id, image.disk, image.format, self._config.disks)
            connection.createXML(description, 0)

        await self._call(f"start {pvm.id}", boot)

    async def expect(self, pvm: Pvm) -> None:
        """Have libvirt make the disk; it makes none by itself that is based on an image."""
        image, _ = self._describe(pvm)

        def make() -> None:
            connection = self._open_connection()
            if self._find(pvm.id) is not None:
                raise AdapterError(f"{pvm.id} is here already")
            for past in self._saved_images(pvm.id):
                past.unlink(missing_ok=True)
            if image.disk is not None and not self._config.shared_disks:
                storage.drop_disk(connection, pvm.id, self._config.disks)
                storage.keep_disk(connection, pvm.id, image.disk, image.format, self._config.disks)

        await self._call(f"make ready for {pvm.id}", make)

    async def restore(self, pvm: Pvm, *, paused: bool) -> bool:
        """Let libvirt read the image."""
        _, described = self._describe(pvm)
        image = self._saved_image(pvm.id, fingerprint_of(described))

        def restore() -> bool:
            connection = self._open_connection()
            others = [other for other in self._saved_images(pvm.id) if other != image]
            for other in others:
                other.unlink(missing_ok=True)
            if not image.is_file():
                if others:
                    raise SavedImageError("its saved memory is of another description, or of another QEMU")
                return False
            try:
                connection.restoreFlags(str(image), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
            except libvirt.libvirtError as error:
                if not self._is_alive():
                    raise
                raise SavedImageError(f"its saved memory is of no use: {error.get_error_message()}") from error
            finally:
                if self._is_alive():
                    image.unlink(missing_ok=True)  # once it runs, its own past must never run beside it
            if paused:
                # Restored paused it would look like one that is arriving, which nobody may let go on.
                self._present(pvm.id).suspend()
            return True

        return await self._call(f"restore {pvm.id}", restore)

    async def save(self, pvm_id: PvmId) -> None:
        """Have libvirt write the image beside the old one, which goes first: it is the past."""

        def save() -> None:
            domain = self._present(pvm_id)
            fingerprint = fingerprint_of(domain.XMLDesc())
            for old in self._saved_images(pvm_id):
                old.unlink(missing_ok=True)
            self._config.saved_images.mkdir(mode=0o700, parents=True, exist_ok=True)
            domain.save(str(self._saved_image(pvm_id, fingerprint)))

        await self._call(f"save {pvm_id}", save)

    async def pause(self, pvm_id: PvmId) -> None:
        """Stop the virtual processor."""
        await self._call(f"pause {pvm_id}", lambda: self._present(pvm_id).suspend())

    async def resume(self, pvm_id: PvmId, *, force: bool = False) -> bool:
        """Let the virtual processor run, if it was a user of libvirt who stopped it, or whoever did."""

        def resume() -> bool:
            domain = self._present(pvm_id)
            state, reason = domain.state()
            if force and state == libvirt.VIR_DOMAIN_RUNNING:
                return True
            if state != libvirt.VIR_DOMAIN_PAUSED or not (force or reason == libvirt.VIR_DOMAIN_PAUSED_USER):
                return False
            domain.resume()
            return True

        return await self._call(f"resume {pvm_id}", resume)

    async def destroy(self, pvm_id: PvmId) -> None:
        """Kill the domain's QEMU."""

        def destroy() -> None:
            domain = self._find(pvm_id)
            if domain is None:
                return
            try:
                domain.destroy()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                    raise

        await self._call(f"stop {pvm_id}", destroy)

    async def state(self, pvm_id: PvmId) -> PvmState:
        """Ask libvirt, which asks nobody: it is told by QEMU."""
        return (await self.states()).get(pvm_id, PvmState.ABSENT)

    async def states(self) -> dict[PvmId, PvmState]:
        """List the active domains."""

        def state_of(domain: Any) -> PvmState:
            running = domain.state()[0] in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED)
            return PvmState.RUNNING if running else PvmState.SUSPENDED

        return await self._call("list", lambda: self._active(state_of))

    async def network_card(self, pvm_id: PvmId) -> NetworkCard | None:
        """Read it in the domain's description, which came along when it migrated."""

        def read() -> NetworkCard | None:
            domain = self._find(pvm_id)
            try:
                return None if domain is None else network_card_of(domain.XMLDesc())
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None  # it ended meanwhile
                raise

        return await self._call(f"describe {pvm_id}", read)

    async def memory(self) -> dict[PvmId, int]:
        """List the active domains with their size."""
        return await self._call("list", lambda: self._active(lambda domain: int(domain.maxMemory()) >> 10))

    async def paused(self) -> tuple[PvmId, ...]:
        """List the active domains that a user of libvirt stopped."""
        states = await self._call("list", lambda: self._active(lambda domain: tuple(domain.state())))
        by_user = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
        return tuple(sorted(pvm_id for pvm_id, state in states.items() if state == by_user))

    async def migrate(self, order: MigrationOrder) -> CopyStatistics:
        """Migrate peer to peer: the two libvirtds agree between themselves, and undo if one of them goes away."""
        assert self._loop is not None
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
        parameters: dict[str, Any] = {}
        if is_over_tls(order.target):
            flags |= libvirt.VIR_MIGRATE_TLS  # else only the talk between the daemons is, and memory goes in the clear
        if order.mode is MigrationMode.POST_COPY:
            flags |= libvirt.VIR_MIGRATE_POSTCOPY
        if order.bandwidth_mib_s is not None:
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = order.bandwidth_mib_s
            if order.mode is MigrationMode.POST_COPY:
                parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = order.bandwidth_mib_s

        def migrate() -> None:
            domain = self._present(order.pvm_id)
            has_disk = storage.has_disk(domain)
            disk_flags = storage.migration_flags(shared=order.shared_disks) if has_disk else 0
            if order.mode is MigrationMode.PRE_COPY:
                domain.migrateSetMaxDowntime(order.max_downtime_ms)  # not taken along: set at every hop
            domain.migrateToURI3(order.target, parameters, flags | disk_flags)
            if has_disk and not order.shared_disks:
                storage.drop_disk(self._open_connection(), order.pvm_id, self._config.disks)  # its past

        statistics = self._final_statistics[order.pvm_id] = self._loop.create_future()
        try:
            await self._call(f"migrate {order.pvm_id}", migrate)
            try:
                return await asyncio.wait_for(statistics, STATISTICS_GRACE_S)
            except TimeoutError:
                return CopyStatistics()
        finally:
            self._final_statistics.pop(order.pvm_id, None)

    async def start_post_copy(self, pvm_id: PvmId) -> None:
        """Let the guest change sides."""
        await self._call(f"switch {pvm_id}", lambda: self._present(pvm_id).migrateStartPostCopy())

    async def copy_statistics(self, pvm_id: PvmId) -> CopyStatistics | None:
        """Ask for the job's statistics; a domain that left meanwhile has none."""

        def ask() -> CopyStatistics | None:
            domain = self._find(pvm_id)
            if domain is None:
                return None
            try:
                found = domain.jobStats()
            except libvirt.libvirtError as error:
                if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                    return None
                raise
            if found.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
                return None
            return statistics_of(found)

        return await self._call(f"statistics of {pvm_id}", ask)

    async def abort(self, pvm_id: PvmId) -> bool:
        """Call the domain's job off."""

        def abort() -> bool:
            domain = self._find(pvm_id)
            if domain is None:
                return False
            try:
                domain.abortJob()
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                    return False
                raise
            return True

        return await self._call(f"abort {pvm_id}", abort)

    def _describe(self, pvm: Pvm) -> tuple[ImageConfig, str]:
        assert self._facts is not None
        image = image_of(pvm.image, self._images, self._config)
        if image is None:
            raise AdapterError(f"{pvm.id}: there is no image {pvm.image or 'for it'} in the catalogue")
        return image, domain_xml(pvm, image, self._config, self._gateway, self._facts)

    def _open(self) -> HypervisorFacts:
        connection = libvirt.open(self._config.uri)
        self._connection = connection
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        connection.registerCloseCallback(self._on_close, None)
        for number, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._on_iteration),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job_completed),
        ):
            self._callbacks.append(connection.domainEventRegisterAny(None, number, callback, None))
        return facts_of(connection)

    def _open_connection(self) -> Any:
        if self._connection is None:
            raise HypervisorLostError("not connected to libvirt")
        return self._connection

    def _saved_image(self, pvm_id: PvmId, fingerprint: str) -> Path:
        """Give its file, which says whose it is: hosts may share the directory, and none may touch another's."""
        return self._config.saved_images / f"{pvm_id}@{self._config.cloudlet}@{fingerprint}.image"

    def _saved_images(self, pvm_id: PvmId) -> list[Path]:
        return list(self._config.saved_images.glob(f"{pvm_id}@{self._config.cloudlet}@*.image"))

    def _active(self, ask: Callable[[Any], Result]) -> dict[PvmId, Result]:
        """Ask every active domain."""
        found = {}
        for domain in self._open_connection().listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            try:
                found[PvmId(domain.name())] = ask(domain)
            except libvirt.libvirtError:
                continue  # it ended after the list was made
        return found

    def _find(self, pvm_id: PvmId) -> Any | None:
        try:
            return self._open_connection().lookupByName(pvm_id)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _present(self, pvm_id: PvmId) -> Any:
        domain = self._find(pvm_id)
        if domain is None:
            raise AdapterError(f"{pvm_id} is not here")
        return domain

    async def _call(self, what: str, call: Callable[[], Result]) -> Result:
        try:
            return await in_thread(f"libvirt {what}", call)
        except libvirt.libvirtError as error:
            kind = AdapterError if self._is_alive() else HypervisorLostError
            raise kind(f"{what}: {error.get_error_message() or error}") from error

    def _is_alive(self) -> bool:
        """Ask the library, not the other side: it does not block."""
        try:
            return self._connection is not None and self._connection.isAlive() == 1
        except libvirt.libvirtError:
            return False

    # The callbacks run in the thread of libvirt's events: they take the time and hand over, nothing else.

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        notice = notice_of(PvmId(domain.name()), time.time_ns(), event, detail)
        if notice is not None and self._loop is not None and self._observer is not None:
            hand_over(self._loop, self._observer.on_notice, notice)

    def _on_iteration(self, _connection: Any, domain: Any, iteration: int, _opaque: object) -> None:
        if self._loop is not None and self._observer is not None:
            hand_over(self._loop, self._observer.on_iteration, PvmId(domain.name()), iteration)

    def _on_job_completed(self, _connection: Any, domain: Any, found: dict[str, Any], _opaque: object) -> None:
        if self._loop is not None:
            hand_over(self._loop, self._keep_final, PvmId(domain.name()), statistics_of(found))

    def _on_close(self, connection: Any, reason: int, _opaque: object) -> None:
        if self._loop is not None:
            hand_over(self._loop, self._lose, connection, CLOSE_REASONS.get(reason, "closed"))

    def _keep_final(self, pvm_id: PvmId, statistics: CopyStatistics) -> None:
        waiting = self._final_statistics.get(pvm_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(statistics)

    def _lose(self, connection: Any, reason: str) -> None:
        if self._observer is not None and connection is self._connection:
            self._observer.on_lost(reason)
