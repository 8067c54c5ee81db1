"""What a controller works with: its switch, hypervisor, journal and line, or what only observes in their place."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from flows.path import path_rules
from flows.service import CloudletSwitch, layout_of
from flows.wire import BareWire
from migration.isolation import close_host
from migration.lifecycle import Notice
from migration.service import PersonalVmHost
from mobiscud.bus.requests import Requests
from mobiscud.controller import observe
from mobiscud.controller.commit import Memory
from mobiscud.controller.journal import Journal
from mobiscud.controller.ports import PacketPort, PathPort, PvmPort, RequestPort
from mobiscud.controller.usage import UsagePort
from mobiscud.core.config import CloudletConfig, Config, SwitchConfig
from mobiscud.core.edge import PathSpec
from mobiscud.core.errors import ConfigError
from mobiscud.core.events import Event, PvmObserved
from mobiscud.core.ids import UeKey
from mobiscud.core.vm_config import HypervisorConfig, missing_files

Publish = Callable[[Event], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hands:
    """``adopted``: to be called with those whose rules stay, when all that is known from before has been applied."""

    switch: PathPort
    hypervisor: PvmPort
    line: RequestPort
    journal: Memory
    publish: Publish
    adopted: Callable[[Collection[UeKey]], Awaitable[int]]
    packets: PacketPort | None = None
    usage: UsagePort | None = None
    rules: Callable[[], Mapping[str, int]] = dict
    """How many there are, by kind."""
    datapath: Callable[[], Mapping[str, int]] = dict
    """Packets, by what became of them."""
    hears: Callable[[Event], Event] = lambda event: event
    """What an event on the bus means to it."""
    hears_too: tuple[type[Event], ...] = ()
    """The events that it must hear beside what every controller does."""


@contextlib.asynccontextmanager
async def hands(
    config: Config,
    cloudlet: CloudletConfig,
    requests: Requests,
    publish: Publish,
    on_notice: Callable[[Notice], None],
) -> AsyncIterator[Hands]:
    """Those that the configuration asks for.

    :raises MobiScudError: a part cannot start, or its section is missing
    """
    switch, host = _sections(config, cloudlet)
    if config.offload.mode == "observe":
        log.info("observing: nothing is done, and what would be is told", cloudlet=cloudlet.id)
        async with BareWire(switch):
            yield _observing(config, switch, requests, publish)
        return
    if absent := missing_files(config.images, host):
        raise ConfigError(absent)
    async with contextlib.AsyncExitStack() as stack:
        journal = stack.enter_context(Journal(config.site.state_dir / f"{config.site.node}.journal"))
        at_work = await stack.enter_async_context(CloudletSwitch(switch, config.offload))
        for problem in close_host(host.bridge):
            log.warning("personal VMs may reach their host", bridge=host.bridge, problem=problem)
        hypervisor = PersonalVmHost(host, config.offload.gateway, on_notice, images=config.images)
        await stack.enter_async_context(hypervisor)
        yield Hands(
            at_work,
            hypervisor,
            requests,
            journal,
            publish,
            at_work.adopted,
            at_work if config.migration.switch_over == "duplicate" else None,
            at_work,
            at_work.rules_in_force,
            at_work.statistics,
        )


def _sections(config: Config, cloudlet: CloudletConfig) -> tuple[SwitchConfig, HypervisorConfig]:
    switch = next((s for s in config.switches if s.cloudlet == cloudlet.id), None)
    host = next((h for h in config.hypervisors if h.cloudlet == cloudlet.id), None)
    if switch is None or host is None:
        missing = "switches" if switch is None else "hypervisors"
        raise ConfigError(f"{missing}: nothing for {cloudlet.id!r}, the cloudlet of this node")
    return switch, host


def _observing(config: Config, switch: SwitchConfig, requests: Requests, publish: Publish) -> Hands:
    layout = layout_of(switch, config.offload)

    def rule_ids(ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        return tuple(sorted(rule.id for rule in path_rules(ue, path, layout)))

    async def adopted(keep: Collection[UeKey]) -> int:
        return 0

    return Hands(
        observe.ObservedSwitch(rule_ids),
        observe.ObservedHypervisor(),
        observe.ObservedLine(requests),
        observe.NoMemory(),
        observe.telling(publish),
        adopted,
        hears=observe.as_if_done,
        hears_too=(PvmObserved,),
    )
