"""Whatever a migration left behind: asked, the losers ended, and one whole copy runs, or nothing is decided yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

from mobiscud.controller import settling
from mobiscud.controller.settling import Settler
from mobiscud.core.edge import MigrationMode, Pvm, PvmState
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import CloudletId, PvmId, UeKey
from mobiscud.core.ownership import Claim, Settlement, Standing

HERE, THERE = CloudletId("c1"), CloudletId("c2")
UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10")
PRE_COPY, POST_COPY = MigrationMode.PRE_COPY, MigrationMode.POST_COPY
RUNS, STILL, GONE = PvmState.RUNNING, PvmState.SUSPENDED, PvmState.ABSENT


@dataclass
class Host:
    """A host with a copy in some state. ``silent``: its hypervisor says nothing; ``dead``: nor does its controller."""

    copy: PvmState
    silent: bool = False
    dead: bool = False
    epoch: int = 1
    asked: list[str] = field(default_factory=list)

    async def state(self, pvm_id: PvmId) -> PvmState:
        if self.silent:
            raise AdapterError("libvirtd is gone")
        return self.copy

    async def fence(self, pvm_id: PvmId) -> None:
        self.copy = GONE  # without the hypervisor's help, if need be

    async def let_run(self, pvm_id: PvmId) -> None:
        if self.silent or self.copy is GONE:
            raise AdapterError("it cannot")
        self.copy = RUNS

    async def ask(self, cloudlet: CloudletId, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(name)
        if self.dead:
            raise AdapterError("no answer")
        if name == "fence":
            await self.fence(PVM.id)
            return {}
        return {"epoch": self.epoch, "state": str(await self.state(PVM.id))}


async def settled(here: Host, there: Host, mode: MigrationMode = PRE_COPY) -> Settlement | None:
    """What comes of it, and None while it stays in doubt."""
    claim = Claim(HERE, 1).towards(THERE, mode)
    try:
        async with asyncio.timeout(0.1):
            return await Settler(HERE, here, there.ask).settle(UE, PVM, claim)
    except TimeoutError:
        return None


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SHORTEST_PAUSE_S", 0.01)


@pytest.mark.parametrize("mode", list(MigrationMode))
@pytest.mark.parametrize(("ours", "theirs"), list(product((RUNS, STILL, GONE), repeat=2)))
@pytest.mark.parametrize("silent", ["nobody", "ours", "theirs", "both"])
async def test_at_most_one_copy_runs_and_it_is_the_owners(
    ours: PvmState, theirs: PvmState, silent: str, mode: MigrationMode
) -> None:
    here, there = Host(ours, silent in ("ours", "both")), Host(theirs, silent in ("theirs", "both"))
    settlement = await settled(here, there, mode)
    copies = {host: copy for host, copy in ((HERE, here.copy), (THERE, there.copy)) if copy is not GONE}
    if settlement is None:
        assert silent != "nobody"  # and no packet passes
    elif settlement.standing is Standing.LOST:
        assert copies == {}
    else:
        assert settlement.standing is Standing.SETTLED
        assert copies == {settlement.claim.owner: RUNS}


async def test_a_controller_that_is_silent_is_waited_for_and_then_settled_with() -> None:
    here, there = Host(RUNS), Host(RUNS, dead=True)
    assert await settled(here, there) is None
    assert here.copy is RUNS
    there.dead = False
    settlement = await settled(here, there)
    assert settlement is not None
    assert settlement.claim == Claim(THERE, 2)
    assert (here.copy, there.copy) == (GONE, RUNS)


async def test_a_heir_that_has_long_been_the_owner_keeps_it() -> None:
    """It was told, and may have given it on; who slept through that has a copy of the past."""
    here, there = Host(RUNS), Host(GONE, epoch=3)
    settlement = await settled(here, there)
    assert settlement is not None
    assert settlement.claim.owner == THERE
    assert here.copy is GONE
    assert there.asked == ["doubt"]
