"""How what a controller learns is read from the events on the bus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from mobiscud.controller.inputs import (
    HandoverDone,
    HandoverExpected,
    HandoverOff,
    HandoverOrdered,
    Input,
    PvmGone,
    PvmKept,
    PvmSeen,
    Tunnels,
    UeArrived,
    UeLeft,
    UeWentIdle,
)
from mobiscud.core.commands import Moment
from mobiscud.core.events import (
    EnbConnected,
    Event,
    HandoverCancelled,
    HandoverCompleted,
    HandoverExecuting,
    HandoverPrepared,
    HandoverRejected,
    PvmMigrated,
    PvmMigrating,
    PvmMigrationFailed,
    PvmStarted,
    PvmStopped,
    UeAttached,
    UeConnected,
    UeDetached,
    UeEvent,
    UeIdle,
    UePlacedEvent,
    UsageReported,
)
from mobiscud.core.ids import CloudletId
from mobiscud.core.ue import Enb, HandoverKind

HEARD: Final[tuple[type[Event], ...]] = (
    EnbConnected,
    UeAttached,
    UeConnected,
    HandoverPrepared,
    HandoverExecuting,
    HandoverCompleted,
    HandoverRejected,
    HandoverCancelled,
    UeIdle,
    UeDetached,
    PvmStarted,
    PvmMigrating,
    PvmMigrated,
    PvmMigrationFailed,
    PvmStopped,
    UsageReported,
)
"""The events that tell a controller anything; it asks the bus for no others."""


def read(event: UeEvent, cloudlet_of: Mapping[int | str, CloudletId], our_enbs: Iterable[str] = ()) -> Input | None:
    """What an event tells a controller; None where it tells nothing.

    ``cloudlet_of``: by eNB id; by address, as far as known, for events of a monitor that missed the eNodeB's S1 Setup.
    ``our_enbs``: the addresses of the eNodeBs of our own cloudlet, as far as known.
    """

    def place(enb: Enb | None) -> CloudletId | None:
        if enb is None:
            return None
        return cloudlet_of.get(enb.enb_id if enb.enb_id is not None else enb.address or "")

    ue_ip = event.ue_ip[0] if event.ue_ip else None
    match event:
        case UePlacedEvent():
            tunnels = Tunnels.of(event.bearers)
            return UeArrived(place(event.enb), ue_ip, tunnels, tunnels.uplinks_at(our_enbs))
        case HandoverPrepared():
            moment = (
                Moment.EXECUTING if event.kind is HandoverKind.X2 else Moment.PREPARED
            )  # in X2 the UE has gone first
            return HandoverExpected(place(event.enb), ue_ip, Tunnels.of(event.bearers), moment)
        case HandoverExecuting():
            return HandoverOrdered()
        case HandoverCompleted():
            tunnels = Tunnels.of(event.bearers)
            return HandoverDone(place(event.enb), ue_ip, tunnels, tunnels.uplinks_at(our_enbs))
        case HandoverRejected() | HandoverCancelled():
            return HandoverOff()
        case UeIdle():
            return UeWentIdle()
        case UeDetached():
            return UeLeft()
        case PvmStarted(to_cloudlet=cloudlet, epoch=epoch) | PvmMigrated(to_cloudlet=cloudlet, epoch=epoch):
            return PvmSeen(cloudlet, epoch or 0) if cloudlet else None
        case PvmMigrationFailed(from_cloudlet=cloudlet, epoch=epoch):
            return PvmSeen(cloudlet, epoch or 0) if cloudlet else None
        case PvmStopped(to_cloudlet=cloudlet, epoch=epoch) if cloudlet:
            return PvmKept(cloudlet, epoch or 0)
        case PvmStopped(from_cloudlet=cloudlet, epoch=epoch):
            return PvmGone(cloudlet, epoch or 0) if cloudlet else None
        case _:
            return None
