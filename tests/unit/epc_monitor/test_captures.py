"""Real captures from end to end: the facts of the truth files, no more, no less, no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from epc_monitor.frames import Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.core.events import (
    BearerEstablished,
    BearerReleased,
    EnbDisconnected,
    Event,
    HandoverCompleted,
    HandoverExecuting,
    HandoverPrepared,
    HandoverRejected,
    UeAttached,
    UeEvent,
    UeIdle,
)
from mobiscud.core.ue import HandoverKind

Watch = Callable[[str], tuple[list[Event], Monitor]]
FramesOf = Callable[[str], list[Frame]]

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"
ALL = sorted(path.stem for path in CAPTURES.glob("*.pcap"))
WITH_TRUTH = sorted(path.name.removesuffix(".truth.jsonl") for path in CAPTURES.glob("*.truth.jsonl"))

STORY = {
    "epc-attach": ["ue.attached", "ue.detached"],
    "epc-bearer-1": ["ue.attached", "bearer.established", "ue.idle"],
    # The second attach never gets an Initial Context Setup Response, its detach takes both away.
    "epc-guti-1": ["ue.attached", "ue.detached"],
    "epc-idle-1": [
        "ue.attached",
        "ue.idle",
        "ue.connected",
        "tracking_area.updated",
        "ue.connected",
        "tracking_area.updated",
        "ue.idle",
    ],
    "epc-idle-2": ["ue.attached", "tracking_area.updated", "ue.idle", "ue.connected", "ue.idle"],
    "epc-s1setup": [],
    "epc-s1-handover-3": [
        "ue.attached",
        "bearer.established",
        *("handover.preparing", "handover.rejected") * 2,
        "ue.idle",
    ],
    "epc-x2-handover-1": [
        "ue.attached",
        "bearer.established",
        *("handover.prepared", "handover.completed") * 2,
        "ue.idle",
    ],
    "epc-volte-simple": ["ue.attached", *["bearer.established"] * 2, "bearer.released", "ue.detached"],
    "s1-reset-1": ["ue.attached", "ue.idle"],
}


@pytest.mark.parametrize("name", WITH_TRUTH)
def test_events_are_the_truth(
    name: str, watch: Watch, differences: Callable[[str, Iterable[Event]], list[str]]
) -> None:
    events, _ = watch(name)
    assert differences(name, events) == []


@pytest.mark.parametrize("name", ALL)
def test_everything_is_read_and_understood(name: str, watch: Watch) -> None:
    events, monitor = watch(name)
    assert monitor.stats.decode_errors == 0
    assert monitor.stats.gaps == 0
    assert monitor.stats.events == len(events) > 0
    assert not [event for event in events if event.TYPE.startswith("monitor.")]


@pytest.mark.parametrize("name", ALL)
def test_origins_are_unique_within_a_type(name: str, watch: Watch) -> None:
    events, _ = watch(name)
    assert Counter((event.TYPE, event.origin) for event in events).most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", sorted(STORY))
def test_story_of_a_single_ue(name: str, watch: Watch) -> None:
    events, _ = watch(name)
    story = [event.TYPE for event in events if isinstance(event, UeEvent)]
    assert story == STORY[name]


@pytest.mark.parametrize("name", ALL)
def test_a_frame_that_is_shown_twice_counts_once(name: str, frames_of: FramesOf, watch: Watch) -> None:
    events, _ = watch(name)
    doubled = Monitor(UeKeys(bytes(range(32))))
    assert [event for frame in frames_of(name) for event in doubled.receive(frame) + doubled.receive(frame)] == events


def test_two_observers_agree(frames_of: FramesOf, watch: Watch) -> None:
    """The times differ, the places on the wire do not."""
    events, _ = watch("epc-multi-ue-a")
    other = Monitor(UeKeys(bytes(range(32))))
    later = [event for frame in frames_of("epc-multi-ue-a") for event in other.receive(replace(frame, at=frame.at + 7))]
    assert [(event.TYPE, event.origin) for event in later] == [(event.TYPE, event.origin) for event in events]


def test_keys_depend_on_the_secret_and_never_show_the_imsi(frames_of: FramesOf, watch: Watch) -> None:
    events, _ = watch("epc-attach")
    other = Monitor(UeKeys(b"another secret, 32 octets long.."))
    others = [event for frame in frames_of("epc-attach") for event in other.receive(frame)]
    [first] = [event for event in events if isinstance(event, UeAttached)]
    [second] = [event for event in others if isinstance(event, UeAttached)]
    assert first.imsi is not None
    assert first.imsi == second.imsi
    assert first.ue != second.ue
    assert str(first.imsi) not in repr(first)


def test_s1_handover_tells_the_whole_path(watch: Watch) -> None:
    events, _ = watch("epc-s1-handover-1")
    prepared = next(event for event in events if isinstance(event, HandoverPrepared))
    executing = next(event for event in events if isinstance(event, HandoverExecuting))
    completed = next(event for event in events if isinstance(event, HandoverCompleted))
    assert prepared.kind is HandoverKind.S1
    assert [bearer.e_rab_id for bearer in prepared.bearers] == [5, 6]
    assert prepared.bearers == executing.bearers == completed.bearers
    assert all(bearer.uplink and bearer.downlink and bearer.qci for bearer in completed.bearers)
    assert executing.forwarding.kind == "indirect"
    assert completed.source.enb is not None
    assert completed.source.enb.enb_id == 0x1F2
    assert completed.target.enb == completed.enb
    assert completed.enb is not None
    assert completed.enb.enb_id == 0x43
    assert completed.ecgi is not None
    assert completed.ecgi == completed.target.ecgi


def test_enbs_on_one_address_are_told_apart_by_port(watch: Watch) -> None:
    events, _ = watch("epc-s1-handover-1-upstreamaddr")
    completed = [event for event in events if isinstance(event, HandoverCompleted)]
    ids = [(event.source.enb and event.source.enb.enb_id, event.enb and event.enb.enb_id) for event in completed]
    assert ids == [(0x1F2, 0x43), (0x43, 0x1F2)]


def test_a_rejected_handover_says_why(watch: Watch) -> None:
    events, _ = watch("epc-s1-handover-3")
    rejected = [event for event in events if isinstance(event, HandoverRejected)]
    assert {event.cause and event.cause.group for event in rejected} == {"radio_network"}


def test_dedicated_bearers_come_and_go(watch: Watch) -> None:
    events, _ = watch("epc-volte-simple")
    established = [event.bearers for event in events if isinstance(event, BearerEstablished)]
    [released] = [event.bearers for event in events if isinstance(event, BearerReleased)]
    assert [(bearer.e_rab_id, bearer.qci) for [bearer] in established] == [(6, 5), (7, 1)]
    assert released == established[1]


def test_a_reset_makes_idle_without_cause(watch: Watch) -> None:
    events, _ = watch("s1-reset-1")
    [idle] = [event for event in events if isinstance(event, UeIdle)]
    assert idle.cause is None
    assert [event.TYPE for event in events][-1] == EnbDisconnected.TYPE
