"""What the scripts of the table are made of: one controller, what happens to it, and the situations they begin in."""

from __future__ import annotations

from dataclasses import replace

from mobiscud.controller.inputs import (
    DetourAsked,
    HandoverDone,
    HandoverExpected,
    Input,
    MoveAsked,
    MoveDue,
    PvmRunning,
    StayedAway,
    Tunnels,
    UeArrived,
    UeLeft,
)
from mobiscud.controller.machine import step
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.core.commands import (
    Announce,
    AskDetour,
    AskMove,
    AwaitReturn,
    Command,
    Consult,
    KeepPackets,
    MigratePvm,
    Moment,
    SetPath,
    StartPvm,
    StopPvm,
)
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.events import (
    OffloadActivated,
    OffloadEvent,
    OffloadMoved,
    OffloadPrepared,
    OffloadRemoved,
    PvmMigrating,
    PvmStarted,
    PvmStopped,
)
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid

PVM = Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10")
C1, C2, C3 = CloudletId("c1"), CloudletId("c2"), CloudletId("c3")
IP = "45.45.0.2"
SGW = FTeid("10.0.0.2", Teid(0x1001))


def tunnels(enb: int) -> Tunnels:
    address = f"10.0.0.1{enb}"
    return Tunnels((UplinkTunnel(address, SGW),), DownlinkTunnel("10.0.0.2", FTeid(address, Teid(0x2000 + enb))))


T1, T2, T3 = tunnels(1), tunnels(2), tunnels(3)
MIGRATING = Announce(PvmMigrating, from_cloudlet=C1, to_cloudlet=C2)


def path(pvm_at: CloudletId, ue_at: CloudletId, via: Tunnels = Tunnels()) -> PathSpec:  # noqa: B008  # frozen
    return PathSpec(IP, PVM, pvm_at, ue_at, via.uplinks, via.downlink)


def arriving(source: CloudletId, here: CloudletId, via: Tunnels) -> PathSpec:
    """The path at ``here`` while the PVM is on its way there."""
    return replace(path(source, here, via), arriving_from=source)


ARRIVING = SetPath(arriving(C1, C2, T2), None, C1)


class Playbook:
    """One controller's record, carried over inputs; every command must be expected."""

    def __init__(self, here: CloudletId, **known: object) -> None:
        self.record = UeRecord(PVM, here, **known)  # type: ignore[arg-type]

    def on(self, happened: Input, *expected: Command) -> Playbook:
        result = step(self.record, happened)
        assert result is not None, f"no row for {self.record.phase} and {happened}"
        self.record, commands = result
        assert commands == expected
        return self

    def ignores(self, happened: Input) -> Playbook:
        assert step(self.record, happened) is None
        return self

    def is_in(self, phase: Phase) -> Playbook:
        assert self.record.phase is phase
        return self


def core(pvm_at: CloudletId, announce: type[OffloadEvent] | None = None, via: Tunnels = Tunnels()) -> SetPath:  # noqa: B008
    """The PVM reaches its UE, and the UE its PVM, through the core."""
    return SetPath(PathSpec(IP, PVM, pvm_at, None, via.uplinks), announce, "core")


DETOUR_AGAIN = (SetPath(path(C1, C2, T2), OffloadMoved, C1), AskDetour(C1), Consult(Moment.ARRIVED, 1, again=True))
"""What c2 does when the PVM did not come from c1."""


def serving(here: CloudletId = C1, via: Tunnels = T1) -> Playbook:
    return (
        Playbook(here)
        .on(UeArrived(here, IP, via), StartPvm(PVM))
        .is_in(Phase.STARTING)
        .on(
            PvmRunning(),
            Announce(PvmStarted, to_cloudlet=here),
            SetPath(path(here, here, via), OffloadActivated, "local"),
        )
        .is_in(Phase.SERVING)
    )


def detoured() -> Playbook:
    """c2, whose UE has come from c1, where its PVM still is."""
    return (
        Playbook(C2, pvm_at=C1, registered=True, ue_ip=IP, ue_at=C1)
        .on(
            HandoverExpected(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadPrepared, C1),
            AskDetour(C1),
            Consult(Moment.PREPARED, 0),
        )
        .is_in(Phase.PREPARED)
        .on(
            HandoverDone(C2, IP, T2),
            SetPath(path(C1, C2, T2), OffloadActivated, C1),
            AskDetour(C1),
            Consult(Moment.ARRIVED, 1),
        )
        .is_in(Phase.DETOURED)
    )


def lending() -> Playbook:
    """c1, whose UE has gone to c2."""
    return (
        serving()
        .on(DetourAsked(C2))
        .on(HandoverDone(C2, IP, T2), SetPath(path(C1, C2, T1), OffloadMoved, C2), SetPath(path(C1, C2), None, C2))
        .is_in(Phase.LENDING)
    )


def pushing() -> Playbook:
    return lending().on(MoveAsked(C2), MIGRATING, KeepPackets(PVM), MigratePvm(PVM, C2)).is_in(Phase.PUSHING)


def pulling() -> Playbook:
    return detoured().on(MoveDue(1), ARRIVING, AskMove(C1)).is_in(Phase.PULLING)


STOPPED = (StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1))
KEPT = (StopPvm(PVM), Announce(PvmStopped, from_cloudlet=C1, to_cloudlet=C1))


def lingering(*, keeps: bool = False) -> Playbook:
    """c1, whose PVM outlasts its UE's absence for a while."""
    book = serving()
    book.record = replace(book.record, lingers=True, keeps=keeps)
    return book


def dormant() -> Playbook:
    """c1, where the PVM is kept of a UE that has detached."""
    return (
        lingering(keeps=True)
        .on(UeLeft(), SetPath(None, OffloadRemoved), AwaitReturn(1))
        .is_in(Phase.PARKED)
        .on(StayedAway(1), *KEPT)
        .is_in(Phase.DORMANT)
    )
