"""``mode: observe``: everything is told as what would be, and nothing is."""

from __future__ import annotations

from typing import Any

import pytest

from mobiscud.controller import observe
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.events import (
    Event,
    MonitorDropped,
    OffloadActivated,
    OffloadObserved,
    PvmMigrated,
    PvmObserved,
    PvmStarted,
    Where,
)
from mobiscud.core.ids import CloudletId, PvmId, UeKey

UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("p1"), "172.16.1.10", "52:54:00:00:00:10")
C1, C2 = CloudletId("c1"), CloudletId("c2")
ABOUT: dict[str, Any] = {"at": 7, "origin": b"deed", "ue": UE, "ue_ip": ("45.45.0.2",)}


def told(event: Event) -> Event:
    published: list[Event] = []
    observe.telling(published.append)(event)
    [observed] = published
    return observed


def test_an_offload_that_would_have_been() -> None:
    event = OffloadActivated(**ABOUT, cloudlet=C1, via="local", rule_ids=("a", "b"))
    would = OffloadObserved(**ABOUT, would="offload.activated", cloudlet=C1, via="local", rule_ids=("a", "b"))
    assert told(event) == would


def test_a_migration_that_would_have_been_has_no_times_and_reads_as_if_it_had() -> None:
    event = PvmMigrated(**ABOUT, pvm=PVM, from_cloudlet=C1, to_cloudlet=C2, downtime_ms=3.0, total_ms=0.0)
    observed = told(event)
    assert observed == PvmObserved(**ABOUT, would="pvm.migrated", pvm=PVM, from_cloudlet=C1, to_cloudlet=C2)
    assert observe.as_if_done(observed) == PvmMigrated(**ABOUT, pvm=PVM, from_cloudlet=C1, to_cloudlet=C2)


def test_what_was_really_done_stays_as_it_is() -> None:
    started = PvmStarted(**ABOUT, pvm=PVM, to_cloudlet=C1)
    assert observe.as_if_done(started) is started
    levitated = PvmObserved(**ABOUT, would="pvm.levitated", pvm=PVM)
    assert observe.as_if_done(levitated) is levitated


def test_nothing_else_is_told() -> None:
    with pytest.raises(AdapterError):
        told(MonitorDropped(at=0, origin=b"", count=1, where=Where(None, "spool")))


async def test_a_hypervisor_that_runs_nothing() -> None:
    host = observe.ObservedHypervisor()
    await host.start(PVM)
    assert await host.running() == ("p1",)
    assert (await host.migrate(PVM.id, "qemu+tcp://c2/system")).total_ms == 0
    assert await host.running() == ()


async def test_only_observing_controllers_talk_with_each_other() -> None:
    class Line:
        names: list[str]

        def __init__(self) -> None:
            self.names = []

        def answer(self, name: str, answerer: Any) -> None:
            self.names.append(name)

        async def ask(self, node: str, name: str, body: dict[str, Any], **how: Any) -> dict[str, Any]:
            self.names.append(name)
            return body

    line = Line()
    ours = observe.ObservedLine(line)
    ours.answer("move", lambda body: None)  # type: ignore[arg-type,return-value]
    assert await ours.ask("c2", "move", {"ue": UE}, timeout_s=1) == {"ue": UE}
    assert line.names == ["observe-move", "observe-move"]
