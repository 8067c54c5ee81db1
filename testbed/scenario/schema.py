"""What a scenario may say: one YAML file, parsed once and strictly. ``docs/experiments.md`` explains every key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mobiscud.core.config import MigrationConfig
from mobiscud.core.config import problem as told
from mobiscud.core.errors import ConfigError
from testbed.delay_queue import Shape
from testbed.topology import Delays

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Cell = Annotated[int, Field(ge=1, le=8)]
Milliseconds = Annotated[float, Field(ge=0, le=10_000)]

HandoverKind = Literal["s1", "x2"]

MOST_VMS: Final = 6
"""Personal VMs at once on one machine; each takes 128 MiB and, without KVM, an emulated processor."""


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


# When -----------------------------------------------------------------------------------------------------------------


class Moment(Strict):
    """Either ``at_s`` after the start, or ``after_s`` after the ``nth`` event of type ``when``."""

    at_s: Seconds | None = None
    when: Annotated[str, Field(pattern=r"^[a-z_]+\.[a-z_]+$")] | None = None
    nth: Annotated[int, Field(ge=1)] = 1
    after_s: Seconds = 0.0

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if (self.at_s is None) == (self.when is None):
            raise ValueError("needs either at_s or when")
        if self.when is None and (self.nth != 1 or self.after_s):
            raise ValueError("nth and after_s belong to when")
        return self


# What UEs do ----------------------------------------------------------------------------------------------------------


class HandoverStep(Moment):
    """To another cell; ``patient``: not before the UE's personal VM rests."""

    do: Literal["handover"]
    to: Cell
    kind: HandoverKind = "s1"
    outcome: Literal["ok", "cancel", "failure"] = "ok"
    patient: bool = False

    @model_validator(mode="after")
    def _only_s1_fails(self) -> Self:
        if self.kind == "x2" and self.outcome != "ok":
            raise ValueError("the core sees nothing of an X2 handover until it succeeds: outcome must be ok")
        return self


class AttachStep(Moment):
    """Attach, at the cell of the group where none is named."""

    do: Literal["attach"]
    cell: Cell | None = None


class ServiceStep(Moment):
    """Wake up, at the cell where the UE is, or at another it has moved to while idle."""

    do: Literal["service"]
    cell: Cell | None = None


class TauStep(Moment):
    """A tracking area update; ``active`` keeps the connection afterwards."""

    do: Literal["tau"]
    active: bool = False


class BearerStep(Moment):
    """The network sets a dedicated bearer up, or takes it down."""

    do: Literal["bearer"]
    qci: Annotated[int, Field(ge=1, le=9)] = 1
    release: bool = False


class PlainStep(Moment):
    """Go idle, be paged (by a packet from the Internet), or leave the network."""

    do: Literal["idle", "page", "detach"]


Step = Annotated[HandoverStep | AttachStep | ServiceStep | TauStep | BearerStep | PlainStep, Field(discriminator="do")]


class Walk(Strict):
    """From cell to cell: the first change at ``first_s``, then one every ``stay_s``."""

    model: Literal["walk"]
    cells: Annotated[tuple[Cell, ...], Field(min_length=2)]
    first_s: Seconds = 5.0
    stay_s: Annotated[float, Field(gt=0)] = 10.0
    kind: HandoverKind | Literal["alternate"] = "s1"
    patient: bool = True


class PingPong(Strict):
    """To and fro between two cells."""

    model: Literal["ping_pong"]
    between: tuple[Cell, Cell]
    times: Annotated[int, Field(ge=1, le=1000)] = 6
    first_s: Seconds = 5.0
    stay_s: Annotated[float, Field(gt=0)] = 2.0
    kind: HandoverKind | Literal["alternate"] = "x2"


class Highway(Strict):
    """Along all cells of the network and back again, ``laps`` times, at a steady speed; UEs of a group ``headway_s``
    behind each other."""

    model: Literal["highway"]
    speed_kmh: Annotated[float, Field(gt=0, le=500)] = 120.0
    cell_m: Annotated[float, Field(gt=0)] = 400.0
    headway_s: Seconds = 1.0
    laps: Annotated[int, Field(ge=1, le=100)] = 1
    kind: HandoverKind | Literal["alternate"] = "x2"


class RandomWalk(Strict):
    """To a neighbouring cell after stays that are exponentially distributed with this mean; from the seed."""

    model: Literal["random"]
    mean_stay_s: Annotated[float, Field(gt=0)] = 10.0
    kind: HandoverKind | Literal["alternate"] = "x2"


class Trace(Strict):
    """From a CSV file beside the scenario: ``time_s,ue,cell``, where ``ue`` counts the group's UEs from 1."""

    model: Literal["trace"]
    file: str
    kind: HandoverKind | Literal["alternate"] = "x2"


Mobility = Annotated[Walk | PingPong | Highway | RandomWalk | Trace, Field(discriminator="model")]


class UeGroup(Strict):
    """UEs that are alike. ``pvm``: where their personal VMs are started: in the cloudlet beside them, at the MTSO, or
    nowhere."""

    name: Name
    count: Annotated[int, Field(ge=1, le=5000)] = 1
    cell: Cell = 1
    pvm: Literal["edge", "mtso", "none"] = "edge"
    mobility: Mobility | None = None
    steps: tuple[Step, ...] = ()


# What they run, and what goes wrong -----------------------------------------------------------------------------------


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


class Kill(Moment):
    """Kill a part as the kernel would, and start it again ``for_s`` later: ``monitor``, ``broker``, a controller
    (``c1``), a switch (``switch:c1``), a hypervisor's daemon (``libvirt:c1``)."""

    do: Literal["kill"]
    part: Annotated[str, Field(pattern=r"^(monitor|broker|c[0-9]|switch:c[0-9]|libvirt:c[0-9])$")]
    for_s: Seconds = 1.0


class Cut(Moment):
    """Cut a link for a while: ``uuN`` (radio), ``core-N`` (cell to MTSO), ``isl-N`` (cloudlets N and N+1), ``s5``,
    ``sgi``."""

    do: Literal["cut"]
    link: Annotated[str, Field(pattern=r"^(uu[1-8]|core-[1-8]|isl-[1-7]|s5|sgi)$")]
    for_s: Seconds = 1.0


Fault = Annotated[Kill | Cut, Field(discriminator="do")]


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
