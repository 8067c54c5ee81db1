"""What a node measures of itself, for Prometheus. docs/offload.md lists it.

Counts are read from the parts when they are asked for. No label names a UE or a subscriber: they are bounded by the
configuration and by the types of events.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from mobiscud.controller.ports import PathPort
from mobiscud.controller.record import Phase
from mobiscud.controller.service import CloudletController
from mobiscud.controller.usage import UsageReports
from mobiscud.core.edge import PathSpec
from mobiscud.core.events import Event, PvmMigrated, PvmMigrationFailed
from mobiscud.core.ids import UeKey

PATH_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
DOWNTIME_BUCKETS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
TOTAL_BUCKETS_S: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)

Counts = Callable[[], Mapping[str, int]]
MONITOR_GAUGES: Final = ("away", "spool")
"""Of what a node counts, these go up and down."""


class Measures:
    """Everything that one node has to tell; parts are added as they come to be."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._told: Counter[tuple[str, str]] = Counter()
        self._migrations: Counter[str] = Counter()
        self._node: Counts = dict
        self._refused: Callable[[], int] = int
        self._controller: CloudletController | None = None
        self._usage: UsageReports | None = None
        self._rules: Counts = dict
        self._datapath: Counts = dict
        self.paths = Histogram(
            "mobiscud_path_change_seconds",
            "From a path that is wanted to the switch's confirmation of it.",
            buckets=PATH_BUCKETS_S,
            registry=self.registry,
        )
        self.downtime = Histogram(
            "mobiscud_migration_downtime_seconds",
            "How long a guest stood still at its migration to here.",
            buckets=DOWNTIME_BUCKETS_S,
            registry=self.registry,
        )
        self.total = Histogram(
            "mobiscud_migration_seconds",
            "How long a migration to here took in all.",
            buckets=TOTAL_BUCKETS_S,
            registry=self.registry,
        )
        collector: Any = self  # it needs no more than collect
        self.registry.register(collector)

    def node(self, counts: Counts, refused: Callable[[], int]) -> None:
        """What every node counts, by name, and how many configurations it has refused."""
        self._node, self._refused = counts, refused

    def controller(self, controller: CloudletController, usage: UsageReports, rules: Counts, datapath: Counts) -> None:
        """A controller, its usage, its rules by kind, and its datapath's packets by what became of them."""
        self._controller, self._usage, self._rules, self._datapath = controller, usage, rules, datapath

    def counted(self, publish: Callable[[Event], None], role: str) -> Callable[[Event], None]:
        """Publishes, and counts what is published."""

        def publish_and_count(event: Event) -> None:
            self._told[role, event.TYPE] += 1
            if isinstance(event, PvmMigrated):
                self._migrations["done"] += 1
                if event.downtime_ms is not None:
                    self.downtime.observe(event.downtime_ms / 1000)
                if event.total_ms is not None:
                    self.total.observe(event.total_ms / 1000)
            elif isinstance(event, PvmMigrationFailed):
                self._migrations["failed"] += 1
            publish(event)

        return publish_and_count

    def timed(self, switch: PathPort) -> PathPort:
        """The switch, with the time that each change of a path takes."""
        return TimedSwitch(switch, self.paths)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told now."""
        yield from self._of_node()
        if self._controller is not None:
            yield from self._of_controller(self._controller)
        if self._usage is not None:
            yield from self._of_usage(self._usage)

    def _of_node(self) -> Iterator[Metric]:
        yield _counter("mobiscud_events_published", "Events, by who told them.", ("role", "type"), self._told.items())
        yield _counter("mobiscud_configurations_refused", "At a reload.", (), [((), self._refused())])
        for name, value in self._node().items():
            text = "See docs/monitor-operations.md."
            if name in MONITOR_GAUGES:
                yield GaugeMetricFamily(f"mobiscud_{name}", text, value)
            else:
                yield CounterMetricFamily(f"mobiscud_{name}", text, value)

    def _of_controller(self, controller: CloudletController) -> Iterator[Metric]:
        phases = Counter(record.phase for record in controller.records.values())
        ues = {(str(phase),): phases[phase] for phase in Phase}
        yield _gauge(
            "mobiscud_ues", "UEs that may be offloaded, by what this cloudlet is to them.", ("phase",), ues.items()
        )
        rules = {(kind,): number for kind, number in self._rules().items()}
        yield _gauge("mobiscud_rules", "Rules in force for UEs.", ("kind",), rules.items())
        packets = {(fate,): number for fate, number in self._datapath().items()}
        text = "Packets of the datapath program, by what became of them."
        yield _counter("mobiscud_datapath_packets", text, ("fate",), packets.items())
        outcomes = {(outcome,): self._migrations[outcome] for outcome in ("done", "failed")}
        text = "Migrations of personal VMs: done, to here; failed, from here."
        yield _counter("mobiscud_migrations", text, ("outcome",), outcomes.items())
        backlog = controller.backlog
        yield GaugeMetricFamily("mobiscud_backlog", "Inputs that wait to be dealt with.", backlog.waiting)
        yield GaugeMetricFamily("mobiscud_backlog_limit", "The bound of all backlogs together.", backlog.limit)
        yield GaugeMetricFamily("mobiscud_backlog_highest", "The most that ever waited.", backlog.highest)
        text = "How long the bus was made to wait since the backlog was full."
        yield CounterMetricFamily("mobiscud_backlog_at_limit_seconds", text, backlog.seconds_at_limit)

    def _of_usage(self, usage: UsageReports) -> Iterator[Metric]:
        packets = {labels: carried.packets for labels, carried in usage.totals.items()}
        octets = {labels: carried.bytes for labels, carried in usage.totals.items()}
        labels = ("rule", "direction")
        yield _counter("mobiscud_usage_packets", "Packets that bypassed the P-GW.", labels, packets.items())
        yield _counter("mobiscud_usage_bytes", "Bytes of them.", labels, octets.items())


class TimedSwitch:
    """A switch whose changes are timed; those that fail as well."""

    def __init__(self, switch: PathPort, seconds: Histogram) -> None:
        self._switch = switch
        self._seconds = seconds

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        """As the switch does."""
        began = time.perf_counter()
        try:
            return await self._switch.apply(ue, path)
        finally:
            self._seconds.observe(time.perf_counter() - began)

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> Mapping[UeKey, tuple[str, ...]]:
        """As the switch does; not timed, since it is of no single UE."""
        return await self._switch.apply_all(paths)


Labelled = Iterable[tuple[tuple[str, ...], int]]


def _counter(name: str, text: str, labels: Iterable[str], values: Labelled) -> Metric:
    return _with(CounterMetricFamily(name, text, labels=tuple(labels)), values)


def _gauge(name: str, text: str, labels: Iterable[str], values: Labelled) -> Metric:
    return _with(GaugeMetricFamily(name, text, labels=tuple(labels)), values)


def _with(family: CounterMetricFamily | GaugeMetricFamily, values: Labelled) -> Metric:
    for labels, value in values:
        family.add_metric(labels, value)
    return family
