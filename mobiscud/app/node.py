"""A node: the parts that its configuration names, wired together over the bus.

The composition root of ``mobiscud run`` and ``mobiscud monitor``. A node is a monitor, the controller of a cloudlet,
or both. What it lacks (broker, privilege, switch, hypervisor) is said before it reports itself online.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from importlib.metadata import version
from typing import Any

import structlog

from epc_monitor.identity import UeKeys
from epc_monitor.live import LiveCapture
from epc_monitor.pipeline import Monitor
from epc_monitor.service import watch
from mobiscud.app import pseudonym
from mobiscud.app.replay import Sink, printer
from mobiscud.bus import topics
from mobiscud.bus.cloudevents import decode, rfc3339, unwrap
from mobiscud.bus.embedded import EmbeddedBroker
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.publisher import EventPublisher
from mobiscud.bus.requests import Requests
from mobiscud.bus.spool import Message
from mobiscud.core.config import CloudletConfig, Config
from mobiscud.core.errors import ConfigError, DecodeError
from mobiscud.core.ids import CloudletId

log = structlog.get_logger(__name__)


def run(config: Config) -> None:
    """Run the whole node until it is told to stop.

    :raises MobiScudError: a part cannot start
    """
    if not config.monitor.interfaces and config.own_cloudlet() is None:
        raise ConfigError(
            f"site.node: {config.site.node!r} has nothing to do: set monitor.interfaces, or be the node of a cloudlet"
        )
    asyncio.run(_until_told_to_stop(_node(config)))


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


async def _node(config: Config) -> None:
    keys = pseudonym.keys(config.privacy)
    async with contextlib.AsyncExitStack() as stack:
        capture = None
        if config.monitor.interfaces:
            capture = await stack.enter_async_context(_capture(config))
        url = config.bus.url
        if url is None:
            embedded = await stack.enter_async_context(EmbeddedBroker(config.bus.embedded_port))
            url = embedded.url
            log.info("no bus.url: the embedded broker serves", url=url)
        health = _Health(config)
        bus = await stack.enter_async_context(MqttBus(Broker.from_config(config.bus, url), will=health.will))
        cloudlet = config.own_cloudlet()
        if cloudlet is not None:
            await stack.enter_async_context(_controller(config, cloudlet, bus, keys))
        stack.enter_context(health.reported_on(bus))
        log.info("online", site=config.site.name, node=config.site.node)
        if capture is not None:
            publisher = EventPublisher(bus, config.site.name, "monitor", show_imsi=config.privacy.mode == "clear")
            await _watch(capture, keys, publisher.publish)
        else:
            await asyncio.Event().wait()


async def _print_events(config: Config, keys: UeKeys, sink: Sink) -> None:
    async with _capture(config) as capture:
        await _watch(capture, keys, sink)


@contextlib.asynccontextmanager
async def _capture(config: Config) -> AsyncIterator[LiveCapture]:
    async with LiveCapture(config.monitor.interfaces, config.monitor.buffer_mib << 20) as capture:
        for note in capture.notes:
            log.warning(note)
        yield capture


async def _watch(capture: LiveCapture, keys: UeKeys, sink: Sink) -> None:
    """Everything that the monitor sees, to the sink, for as long as it lasts."""
    async for event in watch(capture, Monitor(keys)):
        sink(event)


@contextlib.asynccontextmanager
async def _controller(config: Config, cloudlet: CloudletConfig, bus: MqttBus, keys: UeKeys) -> AsyncIterator[None]:
    from flows.service import CloudletSwitch
    from migration.lifecycle import Notice, PvmResumed, PvmSuspended
    from migration.service import PersonalVmHost
    from mobiscud.controller.service import CloudletController, Neighbourhood

    switch_config = next((s for s in config.switches if s.cloudlet == cloudlet.id), None)
    host_config = next((h for h in config.hypervisors if h.cloudlet == cloudlet.id), None)
    if switch_config is None or host_config is None:
        missing = "switches" if switch_config is None else "hypervisors"
        raise ConfigError(f"{missing}: nothing for {cloudlet.id!r}, the cloudlet of this node")

    def on_notice(notice: Notice) -> None:
        if isinstance(notice, PvmSuspended) and notice.migrating:
            controller.on_halted(notice.pvm_id, notice.at_ns)
        elif isinstance(notice, PvmResumed) and notice.migrated:
            controller.on_landed(notice.pvm_id, notice.at_ns)

    def on_message(topic: str, payload: bytes) -> None:
        if topic.endswith(f"/{topics.STATE}"):
            return
        try:
            event = unwrap(decode(payload))
        except DecodeError as error:
            log.warning("event not understood", topic=topic, error=str(error))
            return
        if event is not None:
            controller.on_event(event)

    async with (
        CloudletSwitch(switch_config, config.offload) as switch,
        PersonalVmHost(host_config, config.offload.gateway, on_notice) as hypervisor,
    ):
        await switch.adopted(())  # this controller remembers no UE
        requests = Requests(bus, config.site.name, config.site.node)
        publisher = EventPublisher(bus, config.site.name, "controller", show_imsi=config.privacy.mode == "clear")
        controller = CloudletController(
            Neighbourhood(
                here=CloudletId(cloudlet.id),
                cloudlet_of={enb_id: CloudletId(c.id) for c in config.cloudlets for enb_id in c.enb_ids},
                node_of={CloudletId(c.id): c.node for c in config.cloudlets},
                migration_uri_of={CloudletId(c.id): c.migration_uri for c in config.cloudlets if c.migration_uri},
            ),
            config.subscribers(keys.of_imsi),
            config.migration,
            switch=switch,
            hypervisor=hypervisor,
            requests=requests,
            publish=publisher.publish,
        )
        async with controller:
            await requests.start()
            await bus.subscribe(topics.ALL_UE_EVENTS, on_message)
            yield
            await requests.stop()


class _Health:
    """The node's retained health: ``online`` at every connection, ``offline`` by its own hand or the broker's."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._topic = topics.health(config.site.name, config.site.node)
        self._since = rfc3339(time.time_ns())
        self.will = Message(self._topic, self._payload("offline"), retain=True)

    @contextlib.contextmanager
    def reported_on(self, bus: MqttBus) -> Iterator[None]:
        """Online while the context lasts."""
        bus.on_connect(lambda: bus.publish(self._topic, self._payload("online"), retain=True))
        try:
            yield
        finally:
            bus.publish(self._topic, self._payload("offline"), retain=True)

    def _payload(self, status: str) -> bytes:
        roles = ["monitor"] if self._config.monitor.interfaces else []
        if self._config.own_cloudlet() is not None:
            roles.append("controller")
        health = {
            "status": status,
            "site": self._config.site.name,
            "node": self._config.site.node,
            "roles": roles,
            "since": self._since,
            "version": version("mobiscud"),
        }
        return json.dumps(health).encode()
