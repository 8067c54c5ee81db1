"""Captures, the monitor over them, and the truth of the emulated UEs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epc_monitor.capture import read_capture
from epc_monitor.frames import SCTP, Frame, FrameDecoder
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.sctp import Message, SctpDecoder
from mobiscud.core.events import Event, HandoverEvent, UeEvent, UePlacedEvent

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"
SECRET = bytes(range(32))

_FACTS = {
    "attach": ["ue.attached"],
    "service": ["ue.connected"],
    "paging+service": ["ue.connected"],
    "idle": ["ue.idle"],
    "detach": ["ue.detached"],
    "tau": ["tracking_area.updated"],
    "x2_handover": ["handover.completed"],
    "s1_handover": ["handover.preparing", "handover.executing", "handover.completed"],
    "s1_handover_cancel": ["handover.preparing", "handover.executing", "handover.cancelled"],
    "s1_handover_failure": ["handover.preparing", "handover.rejected"],
}
_WATCHED = frozenset(fact for facts in _FACTS.values() for fact in facts)


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(UeKeys(SECRET))


@pytest.fixture
def frames_of() -> Callable[[str], list[Frame]]:
    return lambda name: list(read_capture(CAPTURES / f"{name}.pcap"))


@pytest.fixture
def watch(frames_of: Callable[[str], list[Frame]]) -> Callable[[str], tuple[list[Event], Monitor]]:
    """Run a capture through a new monitor."""

    def run(name: str) -> tuple[list[Event], Monitor]:
        monitor = Monitor(UeKeys(SECRET))
        return [event for frame in frames_of(name) for event in monitor.receive(frame)], monitor

    return run


@pytest.fixture(scope="session")
def captured_pdus() -> list[bytes]:
    """Every S1AP PDU of every capture."""
    return [pdu for path in sorted(CAPTURES.glob("*.pcap")) for pdu in _pdus(path)]


def _pdus(path: Path) -> Iterator[bytes]:
    frames, sctp = FrameDecoder(), SctpDecoder()
    for frame in read_capture(path):
        packet = frames.receive(frame)
        if packet is not None and packet.protocol == SCTP:
            yield from (item.payload for item in sctp.receive(packet) if isinstance(item, Message))


@pytest.fixture
def differences() -> Callable[[str, Iterable[Event]], list[str]]:
    """Hold events against the truth of a capture: what is missing, surplus or wrong, in words."""
    return _differences


def _differences(name: str, events: Iterable[Event]) -> list[str]:
    wanted: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    end = 0.0
    for line in (CAPTURES / f"{name}.truth.jsonl").read_text().splitlines():
        truth = json.loads(line)
        end = max(end, truth["t"])
        for fact in _FACTS.get(truth["ev"], []):
            wanted[truth["imsi"]].append((fact, truth))
    seen: dict[str, list[UeEvent]] = defaultdict(list)
    for event in events:
        if isinstance(event, UeEvent) and event.TYPE in _WATCHED and event.at / 1e9 <= end + 0.1:
            seen[str(event.imsi or event.ue)].append(event)
    found = [f"{imsi}: nobody knows of it" for imsi in seen.keys() - wanted.keys()]
    for imsi, facts in wanted.items():
        keys = {event.ue for event in seen[imsi]}
        if len(keys) > 1:
            found.append(f"{imsi}: {len(keys)} keys")
        rest = iter(seen[imsi])
        following = next(rest, None)
        for fact, truth in facts:
            if following is not None and fact == following.TYPE:
                found += [f"{imsi} {fact}: {field}" for field in _wrong_fields(following, truth)]
                following = next(rest, None)
            elif not truth.get("unreadable"):
                found.append(f"{imsi} {fact}: missing, saw {following and following.TYPE}")
        if following is not None:
            found.append(f"{imsi} {following.TYPE}: surplus")
    return found


def _wrong_fields(event: UeEvent, truth: dict[str, Any]) -> Iterator[str]:
    if isinstance(event, HandoverEvent):
        if event.kind != truth["ev"][:2]:
            yield "kind"
        if event.source.enb is None or event.source.enb.enb_id != truth["from_enb_id"]:
            yield "source"
    if not (isinstance(event, UePlacedEvent) or event.TYPE == "handover.completed"):
        return
    placed: Any = event
    if placed.enb.enb_id != truth["enb_id"]:
        yield "enb"
    if placed.ecgi.cell_id != truth["cell"]:
        yield "ecgi"
    if truth["ue_ip"] not in placed.ue_ip:
        yield "ue_ip"
    ends = [(bearer.uplink.teid, bearer.downlink.teid, bearer.downlink.address) for bearer in placed.bearers]
    if (truth["sgw_s1u_teid"], truth["enb_s1u_teid"], truth["enb"]) not in ends:
        yield "bearers"
