"""What may happen in a scenario, and when: the steps of UEs, their mobility, and faults. As strict as all of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from testbed.tft import Protocol

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Cell = Annotated[int, Field(ge=1, le=8)]
Milliseconds = Annotated[float, Field(ge=0, le=10_000)]

HandoverKind = Literal["s1", "x2"]


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    """The network sets a dedicated bearer up for the UE's traffic of a protocol, or takes the newest down."""

    do: Literal["bearer"]
    qci: Annotated[int, Field(ge=1, le=9)] = 1
    protocol: Protocol = "udp"
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


# What goes wrong -----------------------------------------------------------------------------------------------------


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
