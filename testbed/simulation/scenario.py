"""What a simulation is told: one YAML file, or the command line; strict, as all configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from mobiscud.core.config import MigrationConfig
from mobiscud.core.errors import ConfigError
from mobiscud.core.section import Name, Section


class MobilityConfig(Section):
    """How users walk.

    ``random_waypoint``: straight to a point some ``leg_m`` away, then a rest. ``manhattan``: along streets that are
    ``block_m`` apart, straight on or round a corner, for as far, then a rest. ``trace``: ``file``, in lines
    ``ue,seconds,cell``, the first of a UE where it is at first; numbers from nought, times not falling.

    ``speeds_m_s``: of a leg, any of these. ``rest_s``: the mean rest by day; at night, a third as many set out.
    A UE is connected while it walks and for some ``active_s`` after, then idle until it leaves.
    ``ping_pong``: how often a UE that has crossed to another cell is handed back, and over again, seconds later.
    ``cancelled``: how often a handover that was prepared is called off, and done after all a second later.
    """

    model: Literal["random_waypoint", "manhattan", "trace"] = "random_waypoint"
    file: Path | None = None
    cell_m: float = Field(default=500.0, gt=0)
    leg_m: float = Field(default=1500.0, gt=0)
    block_m: float = Field(default=100.0, gt=0)
    speeds_m_s: tuple[float, ...] = (1.4, 4.0, 8.0, 14.0)
    rest_s: float = Field(default=5200.0, gt=0)
    active_s: float = Field(default=300.0, gt=0)
    ping_pong: float = Field(default=0.05, ge=0, lt=1)
    cancelled: float = Field(default=0.02, ge=0, lt=1)

    @model_validator(mode="after")
    def _file_for_a_trace(self) -> Self:
        if (self.model == "trace") != (self.file is not None):
            raise ValueError("file: the trace has one, and nothing else does")
        if not self.speeds_m_s or min(self.speeds_m_s) <= 0:
            raise ValueError("speeds_m_s: one speed at least, each above nought")
        return self


class NetworkConfig(Section):
    """Round-trip times, after the paper: to a VM beside the cell; for each cloudlet more; at most more (over the MTSO).

    ``event_ms``: from the wire to a controller; ``request_ms``: from one controller to another.
    """

    beside_ms: float = Field(default=9.0, gt=0)
    hop_ms: float = Field(default=4.3, gt=0)
    detour_most_ms: float = Field(default=20.0, gt=0)
    event_ms: float = Field(default=2.0, ge=0)
    request_ms: float = Field(default=2.0, ge=0)


class VmConfig(Section):
    """What moves: which of the measured guests, from which file (else the one that comes with the program)."""

    guest: Name = "idle"
    measured: Path | None = None
    start_s: float = Field(default=0.6, ge=0)


class RunConfig(MigrationConfig):
    """One policy to try. ``curve``: the name of the line it is a point of; ``label``: what tells it from the others."""

    curve: str
    label: str = ""

    @model_validator(mode="after")
    def _for_all_alike(self) -> Self:
        if self.overrides or self.cost.links:
            raise ValueError("overrides and cost.links name single VMs and cloudlets, which a simulation has not")
        return self


STANDARD: tuple[dict[str, Any], ...] = (
    {"policy": "stay", "curve": "stay"},
    {"policy": "follow", "curve": "follow"},
    {"policy": "hysteresis", "curve": "hysteresis", "label": "5 s, 60 s", "dwell_s": 5.0},
    {"policy": "cost", "curve": "cost"},
)


class Scenario(Section):
    """The whole simulation."""

    name: Name = "city"
    ues: int = Field(default=10_000, ge=1, le=1_000_000)
    cloudlets: int = Field(default=1_000, ge=2, le=60_000)
    hours: float = Field(default=24.0, gt=0, le=24 * 366)
    seed: int = 1
    mobility: MobilityConfig = MobilityConfig()
    network: NetworkConfig = NetworkConfig()
    vm: VmConfig = VmConfig()
    policies: tuple[RunConfig, ...] = tuple(RunConfig.model_validate(run) for run in STANDARD)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        named = [(run.curve, run.label) for run in self.policies]
        if not named:
            raise ValueError("policies: none")
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise ValueError(f"policies: curve {twice[0]!r} has two points with the label {twice[1]!r}")
        return self


def find(name: str) -> Path:
    """The file of that name, or the scenario that comes with the program.

    :raises ConfigError: there is neither
    """
    shipped = {file.stem: file for file in Path(__file__).parent.glob("*.yaml")}
    file = Path(name)
    if file.is_file():
        return file
    if name not in shipped:
        raise ConfigError(f"{name}: no such file, and none of {', '.join(sorted(shipped))}")
    return shipped[name]


def load(file: Path | None, numbers: Mapping[str, float], policies: Sequence[str] = ()) -> Scenario:
    """The scenario of a file (or the standard one), with other numbers, and only these of the standard policies.

    :raises ConfigError: unreadable or wrong, with one line for every wrong key
    """
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8")) if file else {}
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict | None):
        raise ConfigError("scenario: not a mapping of keys at the top")
    raw = {**(raw or {}), **numbers}
    if policies:
        raw["policies"] = [run for run in STANDARD if run["policy"] in policies]
    try:
        scenario = Scenario.model_validate(raw)
    except ValidationError as error:
        wrong = ((".".join(map(str, e["loc"])) or "scenario", e["msg"]) for e in error.errors())
        raise ConfigError([f"{path}: {why.removeprefix('Value error, ')}" for path, why in wrong]) from error
    return scenario if file is None else _beside(scenario, file.parent)


def _beside(scenario: Scenario, folder: Path) -> Scenario:
    """File names in a scenario are relative to where it lies."""
    mobility, vm = scenario.mobility, scenario.vm
    if mobility.file is not None:
        mobility = mobility.model_copy(update={"file": folder / mobility.file})
    if vm.measured is not None:
        vm = vm.model_copy(update={"measured": folder / vm.measured})
    return scenario.model_copy(update={"mobility": mobility, "vm": vm})
