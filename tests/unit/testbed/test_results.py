"""The figures of a run whose figures are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobiscud.core.errors import DecodeError
from testbed import results


def test_phases_are_the_five_of_the_paper(synthetic: Any) -> None:
    found = results.compute(synthetic.pings, synthetic.events)

    assert found["ue"] == "ue-0123456789abcdef"
    assert [phase["name"] for phase in found["phases"]] == [
        "eNB1",
        "eNB2 before migration",
        "eNB2 after migration",
        "eNB3 before migration",
        "eNB3 after migration",
    ]
    assert [phase["rtt_ms"]["median"] for phase in found["phases"]] == [8, 12, 8, 12, 8]
    assert [phase["sent"] for phase in found["phases"]] == [500, 400, 480, 400, 580]
    assert [phase["lost"] for phase in found["phases"]] == [0, 0, 0, 0, 0]


def test_handover_is_timed_from_wire_to_switch(synthetic: Any) -> None:
    first, second = results.compute(synthetic.pings, synthetic.events)["handovers"]

    assert (first["from"], first["to"]) == ("eNB1", "eNB2")
    assert (second["from"], second["to"]) == ("eNB2", "eNB3")
    assert first["prepare_ms"] == 2.5
    assert first["path_ms"] == 3.25
    # Sent 20 and 10 ms before Handover Notify; the one before came back after 8 ms, the one after in 12.
    assert first["lost"] == 2
    assert first["outage_ms"] == 30 + 12 - 8


def test_rules_that_stand_after_the_arrival_count_for_their_own_handover(synthetic_run: Callable[..., Any]) -> None:
    run = synthetic_run()
    ready = [event for event in run.events if event["type"].endswith("offload.prepared")]
    moved = [event for event in run.events if event["type"].endswith("offload.moved")]
    for event, later in zip(ready, moved[::2], strict=True):
        event["time"] = later["time"]
    found = results.compute(run.pings, run.events)["handovers"]

    # Prepared 40 ms before the arrival, and flipped 3.25 ms after it.
    assert [handover["prepare_ms"] for handover in found] == [43.25, 43.25]


def test_migration_has_outage_and_loss(synthetic: Any) -> None:
    first, second = results.compute(synthetic.pings, synthetic.events)["migrations"]

    assert (first["from"], first["to"], second["from"], second["to"]) == ("c1", "c2", "c2", "c3")
    assert first["total_ms"] == 1200
    assert first["downtime_ms"] == 20
    assert first["lost"] == 2
    assert first["outage_ms"] == 30 + 8 - 12


def test_every_lost_ping_counts_once(synthetic_run: Callable[..., Any]) -> None:
    run = synthetic_run(downtime=150.0)
    run.pings = [replace(p, received_ns=None) if p.seq in (100, 1200, 2300) else p for p in run.pings]
    found = results.compute(run.pings, run.events)

    lost = sum(entry["lost"] for kind in ("phases", "handovers", "migrations") for entry in found[kind])
    assert lost == found["pings"]["lost"] == sum(p.received_ns is None for p in run.pings)
    assert [phase["lost"] for phase in found["phases"]] == [1, 0, 1, 0, 1]


def test_order_and_repeats_of_events_do_not_matter(synthetic: Any) -> None:
    shuffled = [*synthetic.events[::-1], *synthetic.events[::3]]

    assert results.compute(synthetic.pings, shuffled) == results.compute(synthetic.pings, synthetic.events)


def test_events_of_other_ues_do_not_matter(synthetic: Any) -> None:
    others = [
        {**event, "id": "other" + event["id"], "data": {**event["data"], "ue": "ue-ffffffffffffffff"}}
        for event in synthetic.events
        if event["type"] in ("org.mobiscud.offload.moved", "org.mobiscud.pvm.migrated")
    ]

    found = results.compute(synthetic.pings, [*synthetic.events, *others])

    assert found == results.compute(synthetic.pings, synthetic.events)


def test_without_migration_a_cell_is_one_phase(synthetic: Any) -> None:
    events = [event for event in synthetic.events if ".pvm.mig" not in event["type"]]

    found = results.compute(synthetic.pings, events)

    assert [phase["name"] for phase in found["phases"]] == ["eNB1", "eNB2", "eNB3"]
    assert found["migrations"] == []


def test_without_handover_there_is_one_phase(synthetic_run: Callable[..., Any]) -> None:
    run = synthetic_run(handovers_at=())

    (phase,) = results.compute(run.pings, run.events)["phases"]

    assert phase == {"name": "eNB1", "rtt_ms": {"median": 8, "p99": 8}, "sent": 2400, "lost": 0}


def test_rules_that_were_never_confirmed_have_no_time(synthetic: Any) -> None:
    events = [event for event in synthetic.events if not event["type"].endswith(("offload.prepared", "offload.moved"))]

    first, _ = results.compute(synthetic.pings, events)["handovers"]

    assert first["prepare_ms"] is None
    assert first["path_ms"] is None


def test_nothing_answered_is_no_phase(synthetic: Any) -> None:
    pings = [replace(ping, received_ns=None) for ping in synthetic.pings]

    found = results.compute(pings, synthetic.events)

    assert found["phases"] == []
    assert found["migrations"][0]["outage_ms"] is None
    assert results.compute([], [])["phases"] == []


def test_p99_is_a_ping_that_was_seen(synthetic: Any) -> None:
    pings = [
        replace(ping, received_ns=ping.sent_ns + (50_000_000 if ping.seq < 6 else 8_000_000))
        for ping in synthetic.pings[:500]
    ]

    (phase, *_) = results.compute(pings, synthetic.events)["phases"]

    assert phase["rtt_ms"] == {"median": 8, "p99": 50}


def test_files_are_read(synthetic: Any, tmp_path: Path) -> None:
    record = tmp_path / "pings.csv"
    record.write_text("seq,sent_ns,received_ns\n1,2000,\n0,1000,9000\n")
    assert results.load_pings(record) == [results.Ping(0, 1000, 9000), results.Ping(1, 2000, None)]

    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(event) + "\n" for event in synthetic.events))
    assert results.load_events(events) == synthetic.events


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "seq,sent_ns,received_ns\nx,1,2\n"])
def test_other_file_is_told_from_a_record_of_pings(content: str, tmp_path: Path) -> None:
    record = tmp_path / "pings.csv"
    record.write_text(content)

    with pytest.raises(DecodeError, match="not a record of pings"):
        results.load_pings(record)
