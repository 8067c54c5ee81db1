"""A monitor that begins in the middle, as after a restart, says nothing false of a UE that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from epc_monitor.capture import read_capture
from epc_monitor.frames import Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.core.events import Event, UeConnected, UeEvent, UeIdentified

CAPTURES = sorted((Path(__file__).parents[1] / "vectors" / "captures").glob("*.pcap"))
STARTS = 25


def events_of(frames: Sequence[Frame]) -> list[Event]:
    monitor = Monitor(UeKeys(bytes(32)))
    return [event for frame in frames for event in monitor.receive(frame)]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_what_a_late_monitor_tells_of_a_known_ue_is_so(capture: Path) -> None:
    """It may call the end of an attach a connection, since it has not seen the beginning, and learn a name later."""
    frames = list(read_capture(capture))
    whole = events_of(frames)
    known = {event.ue for event in whole if isinstance(event, UeEvent)}
    told = {(event.TYPE, event.origin) for event in whole}
    for start in range(0, len(frames), max(1, len(frames) // STARTS)):
        for event in events_of(frames[start:]):
            if not isinstance(event, UeEvent) or event.ue not in known:
                continue
            if isinstance(event, UeConnected):
                assert (event.TYPE, event.origin) in told or ("ue.attached", event.origin) in told
            elif not isinstance(event, UeIdentified):
                assert (event.TYPE, event.origin) in told, (start, event)
