"""The traffic of the benches: real to those who read it, and the same every time."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from epc_monitor import s1ap
from epc_monitor.capture import read_capture
from epc_monitor.frames import LINKTYPE_ETHERNET, SCTP, Frame, FrameDecoder
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from epc_monitor.sctp import Message, SctpDecoder
from mobiscud.core.errors import AdapterError
from mobiscud.core.events import EnbConnected, Event, UeAttached, UeEvent, UeIdle
from testbed.bench import corpus, long_capture, traffic
from testbed.bench.ue_life import UeLives
from testbed.bench.wire import MOST_DATA, S1Wire, write_capture

CAPTURES = Path(__file__).parents[3] / "vectors" / "captures"


def events_of(frames: list[Frame]) -> tuple[list[Event], Monitor]:
    monitor = Monitor(UeKeys(bytes(32)))
    return [event for frame in frames for event in monitor.receive(frame)], monitor


def test_the_corpus_has_every_message_and_no_two_runs_differ() -> None:
    pdus = traffic.generate(1, 200)
    assert pdus == traffic.generate(1, 200)
    assert len({pdu.name for pdu in pdus}) == 40
    kinds = {s1ap.decode(pdu.octets).type for pdu in pdus}
    assert kinds <= set(s1ap.MessageType)
    assert len(kinds) == 40


def test_a_corpus_file_gives_back_what_was_written(tmp_path: Path) -> None:
    pdus = [b"", b"a", bytes(70_000)]
    corpus.write(tmp_path / "corpus", pdus)
    assert corpus.read(tmp_path / "corpus") == pdus


def test_the_wire_carries_pdus_whole_and_in_order(tmp_path: Path) -> None:
    pdus = [b"one", bytes(range(256)) * 20, b"three"]
    assert len(pdus[1]) > 3 * MOST_DATA
    wire = S1Wire(IPv4Address("10.0.0.2"), IPv4Address("10.0.0.1"), 7)
    octets = [data for pdu in pdus for data in wire.frames(pdu, downlink=True)]
    path = tmp_path / "wire.pcap"
    assert write_capture(path, [Frame(i, LINKTYPE_ETHERNET, data) for i, data in enumerate(octets)]) == len(octets)
    frames, sctp = FrameDecoder(), SctpDecoder()
    packets = [frames.receive(frame) for frame in read_capture(path)]
    assert all(packet is not None and packet.protocol == SCTP for packet in packets)
    items = [item for packet in packets if packet for item in sctp.receive(packet)]
    assert [item.payload for item in items if isinstance(item, Message)] == pdus


def test_ues_attach_and_fall_idle_each_with_names_of_its_own() -> None:
    lives = UeLives(3)
    octets = [*lives.setups(), *lives.attach(0), *lives.attach(1), *lives.attach(70_000), *lives.idle(1)]
    events, monitor = events_of([Frame(i, LINKTYPE_ETHERNET, data) for i, data in enumerate(octets)])
    assert [type(event) for event in events] == [EnbConnected] * 3 + [UeAttached] * 3 + [UeIdle]
    attached = [event for event in events if isinstance(event, UeAttached)]
    assert len({event.ue for event in attached}) == len({event.imsi for event in attached}) == 3
    assert len({event.bearers[0].uplink for event in attached}) == len({event.ue_ip for event in attached}) == 3
    assert [event.ue for event in events if isinstance(event, UeEvent)][3] == attached[1].ue
    assert monitor.stats.decode_errors == 0


@pytest.mark.parametrize("name", ["epc-multi-ue-a", "epc-s1-handover-1", "epc-idle-1"])
def test_copies_of_a_capture_are_networks_of_their_own(name: str, tmp_path: Path) -> None:
    source, target = CAPTURES / f"{name}.pcap", tmp_path / "long.pcap"
    frames = list(read_capture(source))
    copies, count = long_capture.write(source, target, 5 * len(frames) - 1)
    assert (copies, count) == (5, 5 * len(frames))
    once, single = events_of(frames)
    repeated, monitor = events_of(list(read_capture(target)))
    assert monitor.stats.messages == 5 * single.stats.messages
    assert monitor.stats.decode_errors == 5 * single.stats.decode_errors
    enbs = [event for event in once if isinstance(event, EnbConnected)]
    assert len({event.enb.address for event in repeated if isinstance(event, EnbConnected)}) == 5 * len(enbs)


def test_a_capture_without_signalling_cannot_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "noise.pcap"
    write_capture(path, [Frame(0, LINKTYPE_ETHERNET, bytes(60))])
    with pytest.raises(AdapterError, match="no SCTP or UDP over IPv4"):
        long_capture.write(path, tmp_path / "long.pcap", 10)
