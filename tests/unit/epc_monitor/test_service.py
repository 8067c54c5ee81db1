"""The watch outlives a fault of the monitor itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from epc_monitor.capture import read_capture
from epc_monitor.frames import Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.service import watch

FILE = Path(__file__).parents[2] / "vectors/captures/epc-attach.pcap"


class Capture:
    """A live capture of a file."""

    async def batches(self) -> AsyncIterator[list[Frame]]:
        yield list(read_capture(FILE))

    def drops(self) -> list[tuple[str, int]]:
        return []


async def test_a_fault_costs_one_frame_and_tells_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(UeKeys(bytes(32)))
    whole = monitor.receive
    frames = 0

    def faulty(frame: Frame) -> Any:
        nonlocal frames
        frames += 1
        if frames == 1:
            raise KeyError("999700000000001")
        return whole(frame)

    monkeypatch.setattr(monitor, "receive", faulty)
    with capture_logs() as logs:
        seen = [event async for event in watch(Capture(), monitor)]  # type: ignore[arg-type]
    assert any(event.TYPE == "ue.attached" for event in seen)
    assert [entry["fault"] for entry in logs] == ["KeyError"]
    assert "999700000000001" not in str(logs)
