"""A monitor that is killed and started again goes on where it was, from what is retained on the bus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epc_monitor.capture import read_capture
from epc_monitor.frames import Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.ue_tracker.state import Leg
from mobiscud.bus.publisher import EventPublisher, read_enb, read_known
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import Event, MonitorDesynchronised, MonitorDropped, UeAttached, UeEvent

CAPTURES = sorted((Path(__file__).parents[1] / "vectors" / "captures").glob("*.pcap"))


class Bus:
    """Keeps what is retained."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None:
        if retain:
            self.retained.pop(topic, None)
            if payload:
                self.retained[topic] = payload

    def restarted(self, *, trusted: bool = True) -> Monitor:
        """A monitor that knows what is retained."""
        monitor = new_monitor()
        ues = [read_known(payload) for topic, payload in self.retained.items() if "/ue/" in topic]
        enbs = [read_enb(payload) for topic, payload in self.retained.items() if "/enb/" in topic]
        assert monitor.resume(enbs, ues, trusted=trusted) == len(ues)
        return monitor


def new_monitor() -> Monitor:
    return Monitor(UeKeys(bytes(32)))


def watched(monitor: Monitor, frames: Iterable[Frame], bus: Bus | None = None) -> list[Event]:
    publisher = EventPublisher(bus or Bus(), "lab", "monitor", show_imsi=False, states=monitor.tracker)
    events = []
    for frame in frames:
        for event in monitor.receive(frame):
            publisher.publish(event)
            events.append(event)
    return events


def is_at_rest(monitor: Monitor) -> bool:
    """Nothing is under way: no attach, no handover, no request without its answer."""
    tracker: Any = monitor.tracker
    registry = tracker._registry
    legs = [leg for ue in registry._ues for leg in ue.legs]
    return (
        not tracker._sessions._waiting
        and all(
            leg.state is Leg.CONNECTED
            and leg.ue.connection is leg
            and leg.ue.registered
            and not (leg.handover or leg.attaching or leg.detaching or leg.setting_up or leg.moving or leg.modifying)
            for leg in legs
        )
        and all(ue.registered or not (ue.sessions or ue.legs) for ue in registry._ues)
    )


def as_received(events: Iterable[Event], lossy: bool) -> list[str]:
    """Each fact once, as receivers take it, but for the IMSI, which a restarted monitor need not have heard."""
    facts: dict[tuple[str, bytes], str] = {}
    for event in events:
        if lossy and isinstance(event, MonitorDesynchronised | MonitorDropped):
            continue
        shown = replace(event, imsi=None) if isinstance(event, UeEvent) else event
        facts.setdefault((event.TYPE, event.origin), repr(shown))
    return list(facts.values())


def cuts(frames: Sequence[Frame]) -> Iterator[tuple[list[Event], Bus, Sequence[Frame]]]:
    """Wherever something was told and nothing is under way: what was told, what is retained, and the frames to come."""
    bus, monitor = Bus(), new_monitor()
    told: list[Event] = []
    cut_at = 0
    for number, frame in enumerate(frames):
        if is_at_rest(monitor) and bus.retained and cut_at != len(told):
            cut_at = len(told)
            yield told, bus, frames[number:]
        told += watched(monitor, [frame], bus)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_a_broker_that_has_forgotten_is_told_all_again(capture: Path) -> None:
    bus, monitor = Bus(), new_monitor()
    for frame in read_capture(capture):
        watched(monitor, [frame], bus)
        other = Bus()
        for _ in EventPublisher(other, "lab", "monitor", show_imsi=False, states=monitor.tracker).tell_again():
            pass
        assert other.retained.keys() == bus.retained.keys()
        assert statuses(other) == statuses(bus)


def statuses(bus: Bus) -> dict[str, str]:
    return {topic: read_known(payload)[0].status for topic, payload in bus.retained.items() if "/ue/" in topic}


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_a_restart_at_rest_changes_nothing(capture: Path) -> None:
    """Where messages were lost they are sent again, also over the cut: that is told, and done."""
    lossy = capture.stem == "epc-lossy"
    frames = list(read_capture(capture))
    whole = as_received(watched(new_monitor(), frames), lossy)
    for told, bus, rest in cuts(frames):
        after = watched(bus.restarted(), rest)
        assert sorted(as_received([*told, *after], lossy)) == sorted(whole), len(frames) - len(rest)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_no_imsi_is_retained(capture: Path) -> None:
    bus = Bus()
    imsis = {event.imsi for event in watched(new_monitor(), read_capture(capture), bus) if isinstance(event, UeEvent)}
    assert not any(imsi.encode() in payload for imsi in imsis if imsi for payload in bus.retained.values())


def test_what_is_not_to_be_trusted_keeps_its_key_and_goes_at_its_age() -> None:
    frames = list(read_capture(CAPTURES[0].parent / "epc-multi-ue-a.pcap"))
    told, bus, rest = next(cut for cut in cuts(frames) if any(isinstance(event, UeAttached) for event in cut[0]))
    keys = {event.ue for event in told if isinstance(event, UeAttached)}
    monitor = bus.restarted(trusted=False)
    age_ns = (monitor.limits.ue_age_s + 600) * 1_000_000_000
    events = watched(monitor, [rest[0]])
    assert all(monitor.tracker.state_of(key) is not None for key in keys)
    events += watched(monitor, (replace(frame, at=frame.at + age_ns) for frame in rest[1:60]))
    assert keys & set(monitor.tracker.forgotten())
    assert all(monitor.tracker.state_of(key) is None for key in keys)
    assert not any(isinstance(event, UeEvent) and event.ue in keys for event in events)


@given(st.sampled_from(CAPTURES), st.data())
@settings(max_examples=50, deadline=None)
def test_no_state_can_stop_a_monitor(capture: Path, data: st.DataObject) -> None:
    """Anybody may write to a broker; what is no state is refused, and what cannot be one is passed over."""
    bus = Bus()
    watched(new_monitor(), list(read_capture(capture))[: data.draw(st.integers(20, 200))], bus)
    enbs, ues = [], []
    for topic, payload in bus.retained.items():
        changed = bytearray(payload)
        for where, octet in data.draw(st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(32, 126)), max_size=3)):
            changed[where % len(changed)] = octet
        with suppress(DecodeError):
            if "/ue/" in topic:
                ues.append(read_known(bytes(changed)))
            else:
                enbs.append(read_enb(bytes(changed)))
    monitor = new_monitor()
    monitor.resume(enbs, ues, trusted=True)
    watched(monitor, read_capture(capture))
