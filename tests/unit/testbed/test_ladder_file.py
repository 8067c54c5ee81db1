"""Ladders of captures and of experiments."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from epc_monitor.capture import read_capture
from mobiscud.core.errors import ConfigError
from testbed.report import ladder_file, signalling

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"


def told(capture: str) -> list[tuple[str, str, str]]:
    return [(rung.source, rung.target, rung.label) for rung in signalling.rungs(read_capture(CAPTURES / capture))]


def test_a_capture_tells_who_said_what_to_whom() -> None:
    rungs = told("epc-s1-handover-1.pcap")
    assert rungs[:2] == [("eNB1", "MME", "S1 Setup Request"), ("MME", "eNB1", "S1 Setup Response")]
    wanted = [
        ("UE", "MME", "Attach Request (Initial UE Message)"),
        ("MME", "UE", "Security Mode Command (Downlink NAS Transport)"),
        ("MME", "S-GW", "Create Session Request"),
        ("S-GW", "MME", "Create Session Response"),
        ("MME", "UE", "Attach Accept (Initial Context Setup Request)"),
        ("eNB1", "MME", "Initial Context Setup Response"),
        ("UE", "MME", "Activate Dedicated EPS Bearer Accept (Uplink NAS Transport)"),
        ("eNB1", "MME", "Handover Required [time-critical-handover]"),
        ("MME", "eNB2", "Handover Request [time-critical-handover]"),
        ("eNB2", "MME", "Handover Request Acknowledge"),
        ("MME", "eNB1", "Handover Command"),
        ("eNB2", "MME", "Handover Notify"),
        ("UE", "MME", "Tracking Area Update Request (Uplink NAS Transport)"),
        ("MME", "eNB1", "UE Context Release Command [successful-handover]"),
    ]
    places = [rungs.index(rung) for rung in wanted]
    assert places == sorted(places)


def test_nas_goes_by_way_of_the_enb_that_carried_it() -> None:
    rungs = signalling.rungs(read_capture(CAPTURES / "epc-s1-handover-1.pcap"))
    assert {rung.via for rung in rungs if rung.style == "nas" and "Update" in rung.label} == {"eNB2"}


def test_ciphered_nas_is_called_what_it_is() -> None:
    assert any("NAS, ciphered" in label for _, _, label in told("epc-attach-eea2.pcap"))


@pytest.mark.parametrize("capture", sorted(path.name for path in CAPTURES.glob("*.pcap")))
def test_every_capture_can_be_drawn(capture: str) -> None:
    ET.fromstring(ladder_file.draw(CAPTURES / capture).render_file())


def test_a_part_can_be_chosen() -> None:
    whole = ladder_file.draw(CAPTURES / "epc-s1-handover-1.pcap")
    part = ladder_file.draw(CAPTURES / "epc-s1-handover-1.pcap", begin_s=0.1, end_s=0.2)
    assert part.height < whole.height / 2
    assert "Handover Notify" in part.render()
    assert "Attach Request" not in part.render()
    with pytest.raises(ConfigError, match=r"nothing happens there; the whole takes 1\.0 s"):
        ladder_file.draw(CAPTURES / "epc-s1-handover-1.pcap", begin_s=5)


def test_an_experiment_shows_what_mobiscud_did_among_the_messages(synthetic: Any, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "follow-1"
    run.mkdir(parents=True)
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in synthetic.events))
    (run / "run.json").write_text("{}")
    from_events = ladder_file.draw(tmp_path).render()
    assert "Handover Notify" in from_events
    assert "migration begins" in from_events

    shutil.copy(CAPTURES / "epc-x2-handover-1.pcap", run / "signalling.pcap")
    with_messages = ladder_file.draw(run).render()
    assert "Path Switch Request" in with_messages
    assert "migration begins" in with_messages


def test_what_has_no_signalling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither an experiment nor one of its runs"):
        ladder_file.draw(tmp_path)


def test_a_ladder_needs_no_more_than_the_base_install() -> None:
    program = (
        "import sys; import testbed.report.ladder_file; "
        "print(sorted({'pycrate_asn1dir', 'scapy', 'libvirt', 'os_ken'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
