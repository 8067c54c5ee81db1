"""SIGHUP reads the configuration again; a bad one changes nothing and is told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mobiscud.app.reload import Reloader, needs_restart
from mobiscud.core.config import Config, parse

BEFORE = """
offload:
  subscribers: [{ue: ue-0000000000000001, pvm: {id: p1, address: 172.16.1.10, mac: "52:54:00:00:00:10"}}]
"""
AFTER = BEFORE.replace("172.16.1.10", "172.16.1.11")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text(BEFORE)
    return path


@pytest.fixture
async def reloader(file: Path) -> AsyncIterator[Reloader]:
    made = Reloader(file, parse(BEFORE))
    with made.listening():
        watching = asyncio.create_task(made.watch())
        yield made
        watching.cancel()


def tell(file: Path, text: str) -> None:
    """Change the file, and say so."""
    file.write_text(text)
    os.kill(os.getpid(), signal.SIGHUP)


class Taken:
    """Hears of new configurations."""

    def __init__(self) -> None:
        self.configs: asyncio.Queue[Config] = asyncio.Queue()

    async def __call__(self, config: Config) -> None:
        self.configs.put_nowait(config)


async def test_what_is_offloaded_changes_at_once(file: Path, reloader: Reloader) -> None:
    taken = Taken()
    reloader.tell(taken)
    tell(file, AFTER)
    config = await asyncio.wait_for(taken.configs.get(), 30)
    assert str(config.offload.subscribers[0].pvm.address) == "172.16.1.11"


async def test_a_bad_file_keeps_the_running_configuration_and_says_why(file: Path, reloader: Reloader) -> None:
    taken = Taken()
    reloader.tell(taken)
    with capture_logs() as logs:
        tell(file, AFTER.replace("172.16.1.11", "10.0.0.1"))
        async with asyncio.timeout(30):
            while not reloader.refused:  # noqa: ASYNC110  # it tells a log, not us
                await asyncio.sleep(0.01)
    assert taken.configs.empty()
    assert any("10.0.0.1 is outside" in str(entry.get("problem")) for entry in logs)
    tell(file, AFTER)
    assert await asyncio.wait_for(taken.configs.get(), 30)


async def test_what_cannot_change_stays_and_is_told(file: Path, reloader: Reloader) -> None:
    taken = Taken()
    reloader.tell(taken)
    with capture_logs() as logs:
        tell(file, "site: {name: other}\n" + AFTER.replace("offload:", "offload:\n  mode: observe"))
        config = await asyncio.wait_for(taken.configs.get(), 30)
    assert (config.site.name, config.offload.mode) == ("site", "enforce")
    assert {entry.get("key") for entry in logs if "restart" in entry["event"]} == {"site", "offload.mode"}


def test_who_and_what_needs_no_restart() -> None:
    assert needs_restart(parse(BEFORE), parse(AFTER)) == []
    assert needs_restart(parse(BEFORE), parse(AFTER + "migration: {policy: stay}\n")) == []
    assert needs_restart(parse(BEFORE), parse(BEFORE + "migration: {absence_s: 60}\n")) == ["migration.absence_s"]
    assert needs_restart(parse(BEFORE), parse(BEFORE + "site: {name: other}\n")) == ["site"]


async def test_when_personal_vms_follow_changes_at_once(file: Path, reloader: Reloader) -> None:
    taken = Taken()
    reloader.tell(taken)
    tell(file, BEFORE + "migration: {policy: stay, absence_s: 60}\n")
    config = await asyncio.wait_for(taken.configs.get(), 30)
    assert (config.migration.policy, config.migration.absence_s) == ("stay", None)
