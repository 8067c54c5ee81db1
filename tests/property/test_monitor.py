"""The monitor under any input: decoders are total, and no shuffle, loss, repetition or damage breaks the tracker."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epc_monitor import gtpv2, nas, s1ap
from epc_monitor.capture import read_capture
from epc_monitor.frames import LINKTYPE_ETHERNET, LINKTYPE_RAW, LINKTYPE_SLL, LINKTYPE_SLL2, SCTP, Frame, FrameDecoder
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.sctp import Message, SctpDecoder
from epc_monitor.ue_tracker import Limits
from epc_monitor.ue_tracker.registry import Registry
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import (
    Event,
    HandoverCompleted,
    UeAttached,
    UeConnected,
    UeDetached,
    UeEvent,
    UeIdentified,
    UeIdle,
)

CAPTURES = Path(__file__).parents[1] / "vectors" / "captures"
NAMES = ("epc-multi-ue-a", "epc-lossy", "epc-attach-eea2", "epc-s1-handover-1-upstreamaddr", "epc-idle-1", "s1-reset-1")
FRAMES = {name: list(read_capture(CAPTURES / f"{name}.pcap")) for name in NAMES}


def pdus() -> list[bytes]:
    found = []
    for frames in FRAMES.values():
        decoder, sctp = FrameDecoder(), SctpDecoder()
        for frame in frames:
            packet = decoder.receive(frame)
            if packet is not None and packet.protocol == SCTP:
                found += [item.payload for item in sctp.receive(packet) if isinstance(item, Message)]
    return found


PDUS = pdus()

octets = st.binary(max_size=300)
damage = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4)


def damaged(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for where, octet in changes:
        changed[where % len(changed)] = octet
    return bytes(changed)


@given(octets)
def test_s1ap_is_total(data: bytes) -> None:
    try:
        s1ap.decode(data)
    except DecodeError:
        pass


@given(st.sampled_from(PDUS), damage, st.integers(0, 400))
@settings(max_examples=400)
def test_damaged_s1ap_is_a_message_or_an_error(pdu: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    try:
        s1ap.decode(damaged(pdu, changes)[: cut or None])
    except DecodeError:
        pass


@given(octets, st.booleans(), st.sampled_from((None, True, False)))
def test_nas_is_total(data: bytes, uplink: bool, readable: bool | None) -> None:
    for pdu in (data, b"\x07" + data, b"\x27\0\0\0\0\0\x07" + data):
        try:
            nas.decode(pdu, uplink=uplink, readable=readable)
        except DecodeError:
            pass


@given(octets, st.integers(0, 255))
def test_gtpv2_is_total(data: bytes, kind: int) -> None:
    for datagram in (data, bytes((0x48, kind)) + len(data).to_bytes(2, "big") + data):
        try:
            gtpv2.decode(datagram)
        except DecodeError:
            pass


@given(octets, st.sampled_from((LINKTYPE_ETHERNET, LINKTYPE_RAW, LINKTYPE_SLL, LINKTYPE_SLL2, 0)))
def test_the_whole_path_is_total(data: bytes, linktype: int) -> None:
    monitor = Monitor(UeKeys(bytes(32)))
    for frame in (data, b"\x45\0" + len(data).to_bytes(2, "big") + data, bytes(12) + b"\x86\xdd\x60" + data):
        assert monitor.receive(Frame(0, linktype, frame)) == []


# --- a whole network, disturbed ---------------------------------------------------------------------------------------


def disturbed(name: str, seed: int, kind: str) -> list[Frame]:
    """A capture as a bad observer would see it."""
    chance = random.Random(seed)
    frames = FRAMES[name]
    if kind == "lossy":
        return [frame for frame in frames if chance.random() > 0.1]
    if kind == "doubled":
        return [frame for frame in frames for _ in range(chance.choice((1, 1, 2, 3)))]
    if kind == "late":
        return sorted(frames, key=lambda frame: frame.at + chance.randrange(2_000_000))
    if kind == "shuffled":
        return chance.sample(frames, len(frames))
    if kind == "joined in the middle":
        return frames[chance.randrange(len(frames)) :]
    return [
        replace(frame, data=damaged(frame.data, [(chance.randrange(34, 4000), chance.randrange(256))]))
        if chance.random() < 0.2
        else frame
        for frame in frames
    ]


KINDS = ("lossy", "doubled", "late", "shuffled", "joined in the middle", "damaged")


def registry_of(monitor: Monitor) -> Registry:
    return monitor.tracker._registry


def assert_consistent(registry: Registry) -> None:
    """Every index leads to what leads back to it, and nothing leads to what was forgotten."""
    for imsi, ue in registry._by_imsi.items():
        assert ue.imsi == imsi
        assert ue in registry._ues
    for tunnel, ue in registry._by_tunnel.items():
        assert tunnel in ue.tunnels
    for ue in registry._ues:
        for tunnel in ue.tunnels:
            assert registry._by_tunnel[tunnel] is ue
        for node, s_tmsi in ue.s_tmsis:
            assert node.s_tmsis[s_tmsi] is ue
        for session in ue.sessions:
            assert session.ue is ue
            assert registry._sessions[session.sgw] is session
        assert ue.connection is None or ue.connection in ue.legs
        for leg in ue.legs:
            assert leg.ue is ue
            ids = (leg.enb_ue_s1ap_id, leg.mme_ue_s1ap_id)
            by_id = (leg.association.connections, leg.association.mme.connections)
            assert any(number is not None and legs.get(number) is leg for number, legs in zip(ids, by_id, strict=True))
    for association in registry._associations.values():
        for number, connection in association.connections.items():
            assert connection.enb_ue_s1ap_id == number
            assert connection.association is association
            assert connection.ue in registry._ues
        for number, connection in association.mme.connections.items():
            assert connection.mme_ue_s1ap_id == number
        assert association.mme.s_tmsis.keys() <= {
            s_tmsi for ue in association.mme.s_tmsis.values() for _, s_tmsi in ue.s_tmsis
        }


def assert_possible(events: list[Event], frames: list[Frame]) -> None:
    """No fact without its cause on the wire, and nobody becomes idle who was not connected."""
    seen = b"".join(frame.data for frame in frames)
    connected: set[str] = set()
    for event in events:
        if not isinstance(event, UeEvent):
            continue
        if not event.origin.startswith(b"gtp") and len(event.origin) >= 10:
            assert event.origin[:4] in seen
        if isinstance(event, UeIdentified) and event.previous_ue in connected:
            connected.discard(event.previous_ue)
            connected.add(event.ue)
        elif isinstance(event, UeAttached | UeConnected | HandoverCompleted):
            connected.add(event.ue)
        elif isinstance(event, UeIdle):
            assert event.ue in connected
            connected.discard(event.ue)
        elif isinstance(event, UeDetached):
            connected.discard(event.ue)


@pytest.mark.parametrize("kind", KINDS)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None)
def test_a_disturbed_network(kind: str, name: str, seed: int) -> None:
    frames = disturbed(name, seed, kind)
    monitor = Monitor(UeKeys(bytes(32)))
    events = []
    for frame in frames:
        events += monitor.receive(frame)
    assert_consistent(registry_of(monitor))
    assert_possible(events, frames)
    if kind != "damaged":  # a damaged TSN may be another's
        assert max(Counter((event.TYPE, event.origin) for event in events).values(), default=1) == 1


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None)
def test_tight_limits(name: str, seed: int) -> None:
    monitor = Monitor(UeKeys(bytes(32)), Limits(ues=2, half_open=1, transactions=1))
    for frame in disturbed(name, seed, random.Random(seed).choice(KINDS)):
        monitor.receive(frame)
        assert len(registry_of(monitor)._ues) <= 2
    assert_consistent(registry_of(monitor))


@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=20, deadline=None)
def test_repetition_changes_nothing(seed: int) -> None:
    def run(frames: list[Frame]) -> list[Event]:
        monitor = Monitor(UeKeys(bytes(32)))
        return [event for frame in frames for event in monitor.receive(frame)]

    assert run(disturbed("epc-multi-ue-a", seed, "doubled")) == run(FRAMES["epc-multi-ue-a"])


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None)
def test_a_clock_that_steps_changes_nothing(name: str, seed: int) -> None:
    """Order comes from the capture alone: a clock that is set back or forth, as NTP does, moves no fact."""
    chance = random.Random(seed)
    offset, frames = 0, []
    for frame in FRAMES[name]:
        if chance.random() < 0.2:
            offset += chance.choice((-1, 1)) * chance.choice((10_000_000, 1_000_000_000))
        frames.append(replace(frame, at=frame.at + offset))

    def run(frames: list[Frame]) -> list[Event]:
        monitor = Monitor(UeKeys(bytes(32)))
        return [replace(event, at=0) for frame in frames for event in monitor.receive(frame)]

    assert run(frames) == run(FRAMES[name])
