"""A node: the parts that its configuration names, wired together over the bus.

The composition root of ``mobiscud run`` and ``mobiscud monitor``. A node is a monitor, the controller of a cloudlet,
or both. What it lacks (broker, privilege, switch, hypervisor) is said before it reports itself online.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog

from epc_monitor.garbage import rarely_full
from epc_monitor.identity import UeKeys
from epc_monitor.live import LiveCapture
from epc_monitor.pipeline import Monitor
from epc_monitor.service import watch
from mobiscud.app import build, privileges, pseudonym
from mobiscud.app.health import Health
from mobiscud.app.reload import Reloader, Take
from mobiscud.app.replay import Sink, printer
from mobiscud.app.resume import resume
from mobiscud.bus import topics
from mobiscud.bus.embedded import EmbeddedBroker
from mobiscud.bus.listener import listen
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.publisher import EventPublisher
from mobiscud.bus.requests import Requests
from mobiscud.core.config import CloudletConfig, Config
from mobiscud.core.errors import ConfigError
from mobiscud.core.events import Event, MonitorDropped, UeEvent, Where
from mobiscud.core.ids import CloudletId

if TYPE_CHECKING:
    from mobiscud.app.measures import Measures

LOSSES_EVERY_S: Final = 1.0
FORGET_EVERY_S: Final = 1.0
TELL_AGAIN_EVERY_S: Final = 0.05
TOLD_TOGETHER: Final = 200
"""States that are told again in one go, in some 10 ms: what happens meanwhile waits no longer."""

log = structlog.get_logger(__name__)


def run(config: Config, file: Path | None = None) -> None:
    """Run the whole node until it is told to stop; SIGHUP reads ``file`` again.

    :raises MobiScudError: a part cannot start
    """
    if not config.monitor.interfaces and config.own_cloudlet() is None:
        raise ConfigError(
            f"site.node: {config.site.node!r} has nothing to do: set monitor.interfaces, or be the node of a cloudlet"
        )
    asyncio.run(_until_told_to_stop(_node(config, file)))


def run_monitor(config: Config, *, to_stdout: bool) -> None:
    """Run the monitor alone until it is told to stop; print instead of publishing, if so asked.

    :raises MobiScudError: a privilege, an interface or the broker is missing
    """
    if to_stdout:
        source = f"/mobiscud/{config.site.name}/monitor"
        sink = printer("jsonl", source, show_imsi=config.privacy.mode == "clear", flush=True)
        asyncio.run(_until_told_to_stop(_print_events(config, pseudonym.keys(config.privacy), sink)))
    else:
        asyncio.run(_until_told_to_stop(_node(config.model_copy(update={"cloudlets": ()}))))


async def _until_told_to_stop(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM ends the work in good order; SIGINT does as well, and is told to the caller."""
    task = asyncio.create_task(work, name="node")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # SIGINT: asyncio.run cancels us
            raise


async def _node(config: Config, file: Path | None = None) -> None:
    keys = pseudonym.keys(config.privacy)
    broker = None if config.bus.url is None else Broker.from_config(config.bus, config.bus.url)
    health = Health(config)
    reloader = Reloader(file, config)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(reloader.listening())
        capture = None
        if config.monitor.interfaces:
            capture = await stack.enter_async_context(_capture(config))
        if broker is None:
            embedded = await stack.enter_async_context(EmbeddedBroker(config.bus.embedded_port))
            broker = Broker.from_config(config.bus, embedded.url)
            log.info("no bus.url: the embedded broker serves", url=embedded.url)
        bus = MqttBus(broker, will=health.will, spool_bytes=config.bus.spool_mib << 20)
        await stack.enter_async_context(bus)
        measures = await stack.enter_async_context(_measured(config))
        cloudlet = config.own_cloudlet()
        if cloudlet is not None:
            stack.enter_context(rarely_full())
            reloader.tell(await stack.enter_async_context(_controller(config, cloudlet, bus, keys, measures)))
        await stack.enter_async_context(_background(reloader.watch(), "reload"))
        monitor = build.monitor(config, keys)
        if capture is not None:  # which keeps meanwhile what comes
            await resume(monitor, broker, config.site)
        health.counters = lambda: _counters(monitor, capture, bus)
        if measures is not None:
            measures.node(health.counters, lambda: reloader.refused)
        stack.enter_context(health.reported_on(bus))
        await stack.enter_async_context(_background(health.beat(bus), "health"))
        log.info("online", site=config.site.name, node=config.site.node)
        if capture is not None:
            publisher = EventPublisher(
                bus,
                config.site.name,
                "monitor",
                show_imsi=config.privacy.mode == "clear",
                states=monitor.tracker,
            )
            await stack.enter_async_context(_background(_tell_losses(bus, publisher.publish), "losses"))
            await stack.enter_async_context(_background(_forget(monitor, publisher), "forgotten"))
            await stack.enter_async_context(_background(_tell_again(bus, publisher), "told again"))
            publish = publisher.publish if measures is None else measures.counted(publisher.publish, "monitor")
            await _watch(capture, monitor, publish)
        else:
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _measured(config: Config) -> AsyncIterator[Measures | None]:
    """What is measured, and served as long as the node is at work; None where it is not asked for.

    :raises SetupError: the address cannot be had
    """
    if config.metrics.address is None:
        yield None
        return
    from mobiscud.app.measures import Measures
    from mobiscud.web.metrics import served

    measures = Measures()
    async with served(*config.metrics.address, measures.registry):
        yield measures


def _counters(monitor: Monitor, capture: LiveCapture | None, bus: MqttBus) -> dict[str, int]:
    """What the node has counted; docs/monitor-operations.md says what each means."""
    counted = {"spool": bus.waiting, "spool_lost": bus.lost}
    if capture is not None:
        counted |= {**monitor.stats.as_dict(), "kernel_drops": monitor.kernel_drops, "away": len(capture.away)}
    return counted


async def _tell_losses(bus: MqttBus, publish: Sink) -> NoReturn:
    """Say what had to give way while the broker was away, as soon as it is there to be told."""
    told = 0
    while True:
        await asyncio.sleep(LOSSES_EVERY_S)
        lost = bus.lost - told
        if lost and bus.connected:
            told += lost
            at = time.time_ns()
            log.warning("events gave way, since the broker was away too long", count=lost)
            publish(MonitorDropped(at=at, origin=b"spool:%d:%d" % (at, told), count=lost, where=Where(None, "spool")))


async def _tell_again(bus: MqttBus, publisher: EventPublisher) -> NoReturn:
    """A broker that was away may have lost what it retained: after each reconnection, all of it is told again."""
    connected = asyncio.Event()
    bus.on_connect(connected.set)
    connected.clear()  # this connection has told us what is retained, and has all that came after
    while True:
        await connected.wait()
        connected.clear()
        for number, _ in enumerate(publisher.tell_again(), 1):
            if number % TOLD_TOGETHER == 0:
                await asyncio.sleep(TELL_AGAIN_EVERY_S)
            if connected.is_set():
                break


async def _forget(monitor: Monitor, publisher: EventPublisher) -> NoReturn:
    """Of UEs that the monitor has forgotten nothing stays retained."""
    while True:
        await asyncio.sleep(FORGET_EVERY_S)
        for ue in monitor.tracker.forgotten():
            publisher.forget(ue)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, NoReturn], name: str) -> AsyncIterator[None]:
    """Work beside what the context does."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(outcome, asyncio.CancelledError):
            log.error("work in the background failed", name=name, error=repr(outcome))


async def _print_events(config: Config, keys: UeKeys, sink: Sink) -> None:
    async with _capture(config) as capture:
        await _watch(capture, build.monitor(config, keys), sink)


@contextlib.asynccontextmanager
async def _capture(config: Config) -> AsyncIterator[LiveCapture]:
    """The capture, opened; the privileges it took are given up."""
    async with LiveCapture(config.monitor.interfaces, config.monitor.buffer_mib << 20) as capture:
        for note in capture.notes:
            log.warning(note)
        if config.own_cloudlet() is None:
            privileges.drop(config.monitor.user)
            log.info("privileges dropped", user=config.monitor.user or "as before")
        else:
            log.info("privileges kept: the controller in this process needs them")
        yield capture


async def _watch(capture: LiveCapture, monitor: Monitor, sink: Sink) -> None:
    """Everything that the monitor sees, to the sink, for as long as it lasts."""
    async for event in watch(capture, monitor):
        sink(event)


@contextlib.asynccontextmanager
async def _controller(
    config: Config, cloudlet: CloudletConfig, bus: MqttBus, keys: UeKeys, measures: Measures | None
) -> AsyncIterator[Take]:
    """The controller at work; what comes out lets it work by a new configuration."""
    from migration.lifecycle import UNASKED, Notice, PvmResumed, PvmStopped, PvmSuspended
    from mobiscud.app.hands import hands
    from mobiscud.app.usage import UsageReporter
    from mobiscud.controller.hearing import HEARD
    from mobiscud.controller.offload_policy import OffloadPolicy
    from mobiscud.controller.ports import Neighbourhood
    from mobiscud.controller.service import CloudletController
    from mobiscud.controller.status import told
    from mobiscud.controller.usage import HEARD_TOO, UsageReports

    def on_notice(notice: Notice) -> None:
        if isinstance(notice, PvmSuspended) and notice.migrating:
            controller.on_halted(notice.pvm_id, notice.at_ns)
        elif isinstance(notice, PvmResumed) and notice.migrated:
            controller.on_landed(notice.pvm_id, notice.at_ns)
        elif isinstance(notice, PvmStopped) and notice.reason in UNASKED:
            controller.on_crashed(notice.pvm_id, notice.reason)

    def on_event(event: Event) -> None:
        controller.on_event(ours.hears(event))
        note(event)

    def on_state(event: UeEvent) -> None:
        controller.on_state(event)
        note(event)

    def note(event: Event) -> None:
        if isinstance(event, UeEvent) and event.ue in controller.records:
            reports.heard(event)

    async def status(asked: dict[str, Any]) -> dict[str, Any]:
        about = {"node": config.site.node, "mode": config.offload.mode, "rules": dict(ours.rules())}
        waiting = controller.backlog.waiting
        known = await asyncio.to_thread(told, CloudletId(cloudlet.id), dict(controller.records))
        return {**known, **about, "backlog": waiting}

    async def take(changed: Config) -> None:
        await controller.change_policy(OffloadPolicy(changed.offload, keys.of_imsi))
        controller.change_migration(changed.migration)
        reporter.interval_s = changed.offload.usage_interval_s
        stop = await bus.subscribe(topics.ALL_UE_STATES, lambda topic, payload: None)
        stop()  # but the broker has told all that is retained again: who is connected, and where

    async with contextlib.AsyncExitStack() as stack:
        requests = Requests(bus, config.site.name, config.site.node)
        publisher = EventPublisher(bus, config.site.name, "controller", show_imsi=config.privacy.mode == "clear")
        reports = UsageReports(CloudletId(cloudlet.id))
        reporter = UsageReporter(reports, publisher.publish, bus.flush)
        reporter.interval_s = config.offload.usage_interval_s
        stack.push_async_callback(reporter.report, interim=False)  # what the end of the switch has ended
        publish = publisher.publish if measures is None else measures.counted(publisher.publish, "controller")
        ours = await stack.enter_async_context(hands(config, cloudlet, requests, publish, on_notice))
        await requests.start()
        controller = CloudletController(
            Neighbourhood(
                here=CloudletId(cloudlet.id),
                cloudlet_of={enb_id: CloudletId(c.id) for c in config.cloudlets for enb_id in c.enb_ids},
                node_of={CloudletId(c.id): c.node for c in config.cloudlets},
                migration_uri_of={CloudletId(c.id): c.migration_uri for c in config.cloudlets if c.migration_uri},
            ),
            OffloadPolicy(config.offload, keys.of_imsi),
            config.migration,
            switch=ours.switch if measures is None else measures.timed(ours.switch),
            hypervisor=ours.hypervisor,
            requests=ours.line,
            journal=ours.journal,
            inlet=bus,
            publish=ours.publish,
            packets=ours.packets,
        )
        async with controller:
            await ours.adopted(controller.offloaded)
            reporter.attach(ours.usage)
            if measures is not None:
                measures.controller(controller, reports, ours.rules, ours.datapath)
            await stack.enter_async_context(_background(reporter.run(), "usage"))
            await listen(bus, (*HEARD, *HEARD_TOO, *ours.hears_too), on_event, on_state)
            requests.answer("status", status)
            yield take
            await requests.stop()
