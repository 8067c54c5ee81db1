"""Two kinds of switch for one suite: a fake, and Open vSwitch with BPF in namespaces."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from testbed.fake_switch import FakeSwitch
from testbed.switch_bench import SwitchBench
from tests.contract.flows.switches import Bench, RealSwitch


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def real_parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SwitchBench]:
    async with SwitchBench(f"tc{os.getpid() % 10000}", tmp_path_factory.mktemp("switch") / "ovs") as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module")
async def real_switch(real_parts: SwitchBench) -> AsyncIterator[Bench]:
    switch = RealSwitch(real_parts)
    yield switch
    await switch.clean()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.system)])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        return FakeSwitch()
    if os.geteuid() != 0:
        pytest.skip("namespaces, BPF and Open vSwitch need root")
    real: Bench = request.getfixturevalue("real_switch")
    return real
