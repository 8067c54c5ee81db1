"""A UE is in one place: whatever is lost, doubled or late on the way to us, what we say of it never contradicts itself.

Who follows the events knows at each moment which eNodeB serves a UE. What ends or leaves must do so there.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epc_monitor.capture import read_capture
from epc_monitor.frames import Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.core.events import (
    Event,
    HandoverCompleted,
    HandoverPreparing,
    MonitorDesynchronised,
    UeDetached,
    UeIdentified,
    UeIdle,
    UePlacedEvent,
)
from mobiscud.core.ue import Enb

CAPTURES = Path(__file__).parents[1] / "vectors" / "captures"
NAMES = (
    "epc-multi-ue-a",
    "epc-lossy",
    "epc-attach-eea2",
    "epc-s1-handover-1-upstreamaddr",
    "epc-x2-handover-1",
    "epc-detach",
)
FRAMES = {name: list(read_capture(CAPTURES / f"{name}.pcap")) for name in NAMES}


def address(enb: Enb | None) -> str | None:
    return None if enb is None else enb.address


class Follower:
    """Somebody who only knows what the events say."""

    def __init__(self) -> None:
        self.place: dict[str, str | None] = {}

    def take(self, event: Event) -> None:
        if isinstance(event, UeIdentified):
            if event.previous_ue in self.place:
                self.place[event.ue] = self.place.pop(event.previous_ue)
        elif isinstance(event, MonitorDesynchronised):
            if event.ue is not None:
                self.place.pop(event.ue, None)
        elif isinstance(event, UePlacedEvent):
            self.place[event.ue] = address(event.enb)
        elif isinstance(event, HandoverPreparing | HandoverCompleted):
            source = address(event.source.enb)
            assert source is None or self.place.get(event.ue, source) == source
            if isinstance(event, HandoverCompleted):
                self.place[event.ue] = address(event.enb)
        elif isinstance(event, UeIdle | UeDetached):
            self.place.pop(event.ue, None)


def follow(frames: list[Frame]) -> None:
    monitor, follower = Monitor(UeKeys(bytes(32))), Follower()
    for frame in frames:
        for event in monitor.receive(frame):
            follower.take(event)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 1 << 30), loss=st.sampled_from((0.0, 0.01, 0.1, 0.4)), doubled=st.booleans())
@settings(max_examples=15, deadline=None)
def test_lost_and_doubled(name: str, seed: int, loss: float, doubled: bool) -> None:
    chance = random.Random(seed)
    kept = [frame for frame in FRAMES[name] if chance.random() >= loss]
    follow([frame for frame in kept for _ in range(chance.choice((1, 2)) if doubled else 1)])


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 1 << 30), late_ms=st.sampled_from((1, 20, 2000)))
@settings(max_examples=10, deadline=None)
def test_late(name: str, seed: int, late_ms: int) -> None:
    chance = random.Random(seed)
    follow(sorted(FRAMES[name], key=lambda frame: frame.at + chance.randrange(late_ms * 1_000_000)))


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 1 << 30))
@settings(max_examples=30, deadline=None)
def test_shuffled(name: str, seed: int) -> None:
    follow(random.Random(seed).sample(FRAMES[name], len(FRAMES[name])))


@given(name=st.sampled_from(NAMES), begin=st.floats(0, 1), hole=st.floats(0, 1), size=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_joined_in_the_middle_and_deaf_for_a_while(name: str, begin: float, hole: float, size: int) -> None:
    frames = FRAMES[name][int(begin * len(FRAMES[name])) :]
    deaf = int(hole * len(frames))
    follow(frames[:deaf] + frames[deaf + size :])
