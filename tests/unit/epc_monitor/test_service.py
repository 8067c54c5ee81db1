"""The watch outlives a fault of the monitor itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from epc_monitor.capture import read_capture
from epc_monitor.frames import Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.service import watch
from mobiscud.core.events import Event

FILE = Path(__file__).parents[2] / "vectors/captures/epc-attach.pcap"


class Capture:
    """A live capture of a file."""

    async def batches(self) -> AsyncIterator[list[Frame]]:
        yield list(read_capture(FILE))

    def drops(self) -> list[tuple[str, int]]:
        return []


class FaultyMonitor:
    """A monitor that cannot deal with the first frame."""

    def __init__(self) -> None:
        self._monitor = Monitor(UeKeys(bytes(32)))
        self._frames = 0

    def receive(self, frame: Frame) -> list[Event]:
        self._frames += 1
        if self._frames == 1:
            raise KeyError("999700000000001")
        return self._monitor.receive(frame)


async def test_a_fault_costs_one_frame_and_tells_nothing_of_it() -> None:
    monitor: Any = FaultyMonitor()
    capture: Any = Capture()
    with capture_logs() as logs:
        seen = [event async for event in watch(capture, monitor)]
    assert any(event.TYPE == "ue.attached" for event in seen)
    assert [entry["fault"] for entry in logs] == ["KeyError"]
    assert "999700000000001" not in str(logs)
