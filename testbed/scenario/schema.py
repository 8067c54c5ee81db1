"""What a scenario may say: one YAML file, parsed once and strictly. ``docs/experiments.md`` explains every key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from mobiscud.core.config import MigrationConfig
from mobiscud.core.config import problem as told
from mobiscud.core.errors import ConfigError
from testbed.delay_queue import Shape
from testbed.scenario.steps import (
    Cell,
    Fault,
    HandoverStep,
    Kill,
    Milliseconds,
    Mobility,
    Name,
    PingPong,
    Step,
    Strict,
    Walk,
)
from testbed.topology import Delays

MOST_VMS: Final = 6
"""Personal VMs at once on one machine; each takes 128 MiB and, without KVM, an emulated processor."""


class PerLink(Strict):
    """A figure for each kind of link."""

    ue_enb: float = Field(default=0, ge=0)
    enb_mtso: float = Field(default=0, ge=0)
    sgw_pgw: float = Field(default=0, ge=0)
    pgw_internet: float = Field(default=0, ge=0)
    enb_enb: float = Field(default=0, ge=0)


class DelaysMs(Strict):
    """One-way delays; the defaults are the paper's."""

    ue_enb: Milliseconds = 4.0
    enb_mtso: Milliseconds = 5.0
    sgw_pgw: Milliseconds = 18.0
    pgw_internet: Milliseconds = 8.0
    enb_enb: Milliseconds = 2.0


class Network(Strict):
    """The radio and transport network: a chain of cells, each with a cloudlet beside it."""

    cells: Cell = 3
    delays_ms: DelaysMs = DelaysMs()
    jitter_ms: PerLink = PerLink()
    loss_percent: PerLink = PerLink()
    rate_mbit_s: PerLink = PerLink()
    forwarding: Literal["direct", "indirect", "none"] = "direct"
    interruption_ms: Milliseconds = 10.0

    @model_validator(mode="after")
    def _jitter_fits(self) -> Self:
        wrong = [k for k in DelaysMs.model_fields if getattr(self.jitter_ms, k) > getattr(self.delays_ms, k)]
        wrong_loss = [k for k in PerLink.model_fields if getattr(self.loss_percent, k) > 100]
        if wrong or wrong_loss:
            raise ValueError(
                "; ".join(
                    [f"jitter_ms.{k} is more than the delay" for k in wrong]
                    + [f"loss_percent.{k} is more than 100" for k in wrong_loss]
                )
            )
        return self

    @property
    def delays(self) -> Delays:
        """As the topology takes them."""
        return Delays(**self.delays_ms.model_dump())

    @property
    def shapes(self) -> dict[str, Shape]:
        """The kinds of links that do more than delay."""
        found = {}
        for kind in PerLink.model_fields:
            jitter, loss, rate = (
                getattr(figures, kind) for figures in (self.jitter_ms, self.loss_percent, self.rate_mbit_s)
            )
            if jitter or loss or rate:
                found[kind] = Shape(
                    delay_ms=getattr(self.delays_ms, kind), jitter_ms=jitter, loss_percent=loss, rate_mbit_s=rate
                )
        return found


# What UEs do, and run -----------------------------------------------------------------------------------------------


class UeGroup(Strict):
    """UEs that are alike. ``pvm``: where their personal VMs are started: in the cloudlet beside them, at the MTSO, or
    nowhere."""

    name: Name
    count: Annotated[int, Field(ge=1, le=5000)] = 1
    cell: Cell = 1
    pvm: Literal["edge", "mtso", "none"] = "edge"
    mobility: Mobility | None = None
    steps: tuple[Step, ...] = ()


class Application(Strict):
    """Traffic of the first UE of a group, with what became of each packet.

    ``paper_ms``: what the paper measured, of each segment, or one figure for all.
    """

    name: Name
    kind: Literal["ping", "udp", "tcp", "request"] = "ping"
    ue: Name
    to: Literal["pvm", "internet"] = "pvm"
    interval_ms: Annotated[float, Field(ge=0.2, le=60_000)] | None = None
    octets: Annotated[int, Field(ge=16, le=1 << 20)] | None = None
    variants: tuple[Name, ...] = ()
    paper_ms: float | tuple[float, ...] | None = None

    @property
    def spacing_s(self) -> float:
        """From one packet or request to the next; TCP sends as fast as it may."""
        usual = {"ping": 10.0, "udp": 1.0, "tcp": 0.0, "request": 20.0}
        return (self.interval_ms if self.interval_ms is not None else usual[self.kind]) / 1000

    @property
    def size(self) -> int:
        """Of a packet's payload, of a request and its answer, or of a piece of the TCP stream."""
        return self.octets or {"ping": 56, "udp": 64, "tcp": 16_384, "request": 200}[self.kind]


class Variant(Strict):
    """The same experiment with another policy: ``migration`` takes the place of the scenario's."""

    migration: dict[str, Any]


class External(Strict):
    """An EPC that is not ours: nothing is emulated, MobiScud only watches, for ``duration_s``.

    ``interfaces``: where S1-MME and S11 can be seen; ``cells``: eNB id to cloudlet.
    """

    interfaces: Annotated[tuple[str, ...], Field(min_length=1)]
    cells: Annotated[dict[int, Name], Field(min_length=1)]


class ExternalEpc(Strict):
    """``epc: {external: ...}``."""

    external: External


class Scenario(Strict):
    """One experiment."""

    name: Name
    title: str
    description: str = ""
    seed: int = 1
    repetitions: Annotated[int, Field(ge=1, le=100)] = 1
    duration_s: Annotated[float, Field(gt=0, le=86_400)]
    epc: Literal["emulated"] | ExternalEpc = "emulated"
    network: Network = Network()
    ues: tuple[UeGroup, ...] = ()
    applications: tuple[Application, ...] = ()
    migration: dict[str, Any] = Field(default_factory=dict)
    variants: dict[Name, Variant] = Field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    paper_migrations_s: tuple[tuple[float, float], ...] = ()
    """What a paper says of each migration: in all, and how long the VM stood still."""

    @property
    def external(self) -> External | None:
        """The EPC that is not ours, if it is one."""
        return self.epc.external if isinstance(self.epc, ExternalEpc) else None

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """The ``migration`` section of each variant; a scenario that names none has one, called ``only``."""
        if not self.variants:
            return {"only": self.migration}
        return {name: variant.migration for name, variant in self.variants.items()}

    def group(self, name: str) -> tuple[UeGroup, range]:
        """A group, and the numbers of its UEs, from 1."""
        first = 1
        for group in self.ues:
            if group.name == name:
                return group, range(first, first + group.count)
            first += group.count
        raise KeyError(name)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = list(self._mismatches()) if self.external is None else list(self._not_external())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _not_external(self) -> list[str]:
        idle = ("ues", "applications", "faults", "variants")
        return [f"epc.external: {key} belong to an emulated network" for key in idle if getattr(self, key)]

    def _mismatches(self) -> list[str]:
        problems = []
        groups = [group.name for group in self.ues]
        if not groups:
            problems.append("ues: at least one group is needed")
        for what, names in (("ues", groups), ("applications", [a.name for a in self.applications])):
            problems += [f"{what}: {name!r} appears twice" for name in sorted({n for n in names if names.count(n) > 1})]
        vms = 0
        for group in self.ues:
            vms += group.count if group.pvm != "none" else 0
            problems += [
                f"ues {group.name!r}: there is no cell {cell}"
                for cell in sorted(cells_of(group))
                if cell > self.network.cells
            ]
        if vms > MOST_VMS:
            problems.append(f"ues: {vms} personal VMs are more than one machine holds ({MOST_VMS}); use pvm: none")
        for app in self.applications:
            whose = next((group for group in self.ues if group.name == app.ue), None)
            if whose is None:
                problems.append(f"applications {app.name!r}: there is no group {app.ue!r}")
            elif app.to == "pvm" and whose.pvm == "none":
                problems.append(f"applications {app.name!r}: the UEs of {app.ue!r} have no personal VM")
            problems += [
                f"applications {app.name!r}: there is no variant {name!r}"
                for name in app.variants
                if name not in self.runs
            ]
        problems += [
            f"faults: there is no cell for {place!r}"
            for fault in self.faults
            if (place := fault.part if isinstance(fault, Kill) else fault.link)[-1].isdigit()
            and int(place[-1]) > self.network.cells - place.startswith("isl-")
        ]
        return problems


def cells_of(group: UeGroup) -> set[int]:
    """Every cell that a group names."""
    found = {group.cell}
    match group.mobility:
        case Walk(cells=cells):
            found |= set(cells)
        case PingPong(between=between):
            found |= set(between)
    for step in group.steps:
        cell = step.to if isinstance(step, HandoverStep) else getattr(step, "cell", None)
        found |= {cell} if cell is not None else set()
    return found


def parse(text: str) -> Scenario:
    """Read the YAML text of a scenario. The ``migration`` sections are those of a node's configuration.

    :raises ConfigError: with one line for every wrong key, ``path: why``
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError("not a mapping of sections at the top")
    try:
        scenario = Scenario.model_validate(raw)
    except ValidationError as error:
        raise ConfigError([told(e["loc"], e["type"], e["msg"]) for e in error.errors()]) from error
    for name, section in scenario.runs.items():
        place = "migration" if not scenario.variants else f"variants.{name}.migration"
        try:
            MigrationConfig.model_validate(section)
        except ValidationError as error:
            raise ConfigError([told((place, *e["loc"]), e["type"], e["msg"]) for e in error.errors()]) from error
    return scenario


def load(path: Path) -> Scenario:
    """Read a scenario.

    :raises ConfigError: unreadable, or wrong
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {os.strerror(error.errno or 0)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
