"""Commands: what shall be done, in the imperative, frozen and safe to repeat.

A controller's machine returns them in the order in which they are to be carried out; outcomes come back as new
inputs, never as return values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.events import OffloadEvent, PvmEvent
from mobiscud.core.ids import CloudletId


@dataclass(frozen=True, slots=True)
class SetPath:
    """Make the switch hold this path of the UE, and no other (None: no path at all).

    Carried out when the switch has confirmed it. Then ``announce``, where given, is published, with the cloudlet the
    traffic goes through as ``via``. When the switch refuses, what stands behind this command is not done.
    """

    path: PathSpec | None
    announce: type[OffloadEvent] | None = None
    via: str = "local"
    reason: str | None = None
    """Why, where it is not the UE's doing."""


@dataclass(frozen=True, slots=True)
class StartPvm:
    """Let the personal VM run here. ``kept``: it is here, and goes on."""

    pvm: Pvm
    kept: bool = False


@dataclass(frozen=True, slots=True)
class StopPvm:
    """Let the personal VM no longer run here."""

    pvm: Pvm


@dataclass(frozen=True, slots=True)
class MigratePvm:
    """Live-migrate the personal VM from here."""

    pvm: Pvm
    to: CloudletId


@dataclass(frozen=True, slots=True)
class AbortMove:
    """End the migration from here, if it is not too late; how it ended comes back as the migration's outcome."""

    pvm: Pvm


@dataclass(frozen=True, slots=True)
class ResumeMove:
    """After a restart: find out how the migration that was under way from here has ended, or end it."""

    pvm: Pvm


@dataclass(frozen=True, slots=True)
class SettleMove:
    """Find out who has the PVM after its migration to ``to`` ended in doubt, and end all other copies."""

    pvm: Pvm
    to: CloudletId
    reason: str


@dataclass(frozen=True, slots=True)
class KeepPackets:
    """Keep what the personal VM is sent here, each packet for a moment: it may stop at any time."""

    pvm: Pvm


@dataclass(frozen=True, slots=True)
class ResendPackets:
    """The VM has stopped: send what was kept once more, to where it goes on, and what still comes by."""

    pvm: Pvm
    to: CloudletId


@dataclass(frozen=True, slots=True)
class ForgetPackets:
    """The VM goes on here: keep no more."""

    pvm: Pvm


@dataclass(frozen=True, slots=True)
class AskDetour:
    """Tell the cloudlet that has the PVM that our rules stand: it may send us the UE's traffic when the UE is here."""

    of: CloudletId


@dataclass(frozen=True, slots=True)
class AskMove:
    """Ask the cloudlet that has the PVM to migrate it here."""

    of: CloudletId


@dataclass(frozen=True, slots=True)
class TellHalted:
    """Tell the target that the guest has stopped here (``at``: ns since the epoch): time to flip the path."""

    to: CloudletId
    at: int


@dataclass(frozen=True, slots=True)
class TellMoved:
    """Tell the target that the PVM is its own now; the whole migration took ``total_ms``."""

    to: CloudletId
    total_ms: float


@dataclass(frozen=True, slots=True)
class TellStays:
    """Tell the target that the PVM did not come, and why."""

    to: CloudletId
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer the request that is being handled with a refusal."""

    reason: str


class Moment(IntEnum):
    """How far a UE's way to a cloudlet is, when the policy is asked."""

    PREPARED = 1  # the handover is prepared, and may still be called off
    EXECUTING = 2  # the UE has been told to go
    ARRIVED = 3


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask the policy whether the PVM shall come here; feed ``MoveDue(token)`` back when it shall.

    ``again``: after a failure, so not at once.
    """

    moment: Moment
    token: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Feed ``NotReady(token)`` back when the cloudlet to which the UE went has had its time to prepare."""

    token: int


@dataclass(frozen=True, slots=True)
class AwaitStragglers:
    """Feed ``NoStragglers(token)`` back when nothing can be on its way here any more for a UE that has left."""

    token: int


@dataclass(frozen=True, slots=True)
class AwaitReturn:
    """Feed ``StayedAway(token)`` back after as long as a PVM waits for its UE."""

    token: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish what happened to the personal VM."""

    event: type[PvmEvent]
    from_cloudlet: CloudletId | None = None
    to_cloudlet: CloudletId | None = None
    downtime_ms: float | None = None
    total_ms: float | None = None
    reason: str | None = None


Command = (
    SetPath
    | StartPvm
    | StopPvm
    | MigratePvm
    | AbortMove
    | ResumeMove
    | SettleMove
    | KeepPackets
    | ResendPackets
    | ForgetPackets
    | AskDetour
    | AskMove
    | TellHalted
    | TellMoved
    | TellStays
    | Refuse
    | Consult
    | AwaitReady
    | AwaitStragglers
    | AwaitReturn
    | Announce
)
