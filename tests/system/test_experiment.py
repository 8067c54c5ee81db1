"""Experiments as a user runs them, and what they leave behind: their results, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from testbed.results import load_pings

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(600),
]

Traces = Callable[[], set[str]]
Running = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]

MOBISCUD = (sys.executable, "-m", "mobiscud")
CAPTURE = Path(__file__).parents[1] / "vectors" / "captures" / "epc-s1-handover-1.pcap"

SCENARIO = """
name: small
title: All kinds of steps, applications and faults that need no personal VM
duration_s: 9
network: {cells: 2, jitter_ms: {ue_enb: 0.5}, rate_mbit_s: {sgw_pgw: 20}}
ues:
  - name: one
    pvm: none
    steps:
      - {at_s: 1, do: bearer, qci: 1}
      - {at_s: 1.5, do: handover, to: 2}
      - {at_s: 2.2, do: handover, to: 1, outcome: failure}
      - {at_s: 2.5, do: handover, to: 1, outcome: cancel}
      - {at_s: 3, do: tau}
      - {at_s: 3.5, do: handover, to: 1, kind: x2}
      - {when: handover.completed, nth: 2, after_s: 0.5, do: bearer, qci: 5}
      - {at_s: 6, do: bearer, qci: 5, release: true}
  - name: other
    pvm: none
    steps: [{at_s: 1, do: idle}, {at_s: 2, do: page}, {at_s: 4, do: detach}, {at_s: 5, do: attach, cell: 2}]
  - {name: crowd, count: 6, pvm: none, mobility: {model: random, mean_stay_s: 1}}
applications:
  - {name: ping, ue: one, to: internet, interval_ms: 20}
  - {name: stream, kind: udp, ue: one, to: internet, interval_ms: 5}
  - {name: requests, kind: request, ue: one, to: internet, interval_ms: 50}
  - {name: bulk, kind: tcp, ue: one, to: internet, octets: 4096}
faults:
  - {at_s: 7, do: cut, link: sgi, for_s: 0.5}
  - {when: pvm.migrating, do: kill, part: c1}
"""

PROCEDURES = {0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 17, 18, 23}
"""Of S1AP, what is in it (TS 36.413 9.3.7): handover, path switch, cancel, E-RABs, context, paging, NAS, release."""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SCENARIO)
    return file


def test_an_experiment_leaves_its_results_and_nothing_else(scenario: Path, tmp_path: Path, traces: Traces) -> None:
    before, out = traces(), tmp_path / "out"
    done = subprocess.run(
        [*MOBISCUD, "experiment", "run", str(scenario), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert traces() - before == set()

    results = json.loads((out / "results.json").read_text())
    (run,) = results["variants"]["only"]["runs"]
    # A policy without personal VMs never migrates; all else was carried out.
    assert run["failures"] == ["no pvm.migrating came 1 time(s): a step was left out"]
    assert [fault["what"] for fault in run["faults"]] == ["link sgi is cut", "link sgi is mended"]
    assert run["applications"]["ping"]["lost"] > 0, "a cut link loses packets"
    for name in ("ping", "stream", "requests", "bulk"):
        packets = load_pings(out / "runs" / "only-1" / f"{name}.csv")
        answered = [packet for packet in packets if packet.rtt_ms is not None]
        assert answered, name
        assert all((packet.rtt_ms or 0) >= 68 for packet in answered), "nothing is faster than the delays set"
    truths = [json.loads(line) for line in (out / "runs/only-1/truths.jsonl").read_text().splitlines()]
    done_by_one = [truth["ev"] for truth in truths if truth["imsi"].endswith("1")]
    assert done_by_one == [
        *("attach", "bearer_setup", "s1_handover", "s1_handover_failure", "s1_handover_cancel", "tau", "x2_handover"),
        *("bearer_setup", "bearer_release", "detach"),
    ]
    assert "page" in [truth["ev"] for truth in truths]
    kinds = {
        json.loads(line)["type"].removeprefix("org.mobiscud.")
        for line in (out / "runs/only-1/events.jsonl").read_text().splitlines()
    }
    assert {"handover.cancelled", "handover.completed", "bearer.established", "bearer.released"} <= kinds
    assert {"tracking_area.updated", "ue.idle", "ue.connected", "ue.detached"} <= kinds
    assert "monitor.desynchronised" not in kinds
    for plot in ("curves.svg", "curves.png", "report.html"):
        assert (out / plot).stat().st_size > 1000

    capture = out / "runs" / "only-1" / "signalling.pcap"
    assert tshark(capture, "-Y", "_ws.malformed || _ws.expert.severity >= 0x600000") == [], "all of it decodes cleanly"
    procedures = set(tshark(capture, "-Y", "s1ap", "-T", "fields", "-e", "s1ap.procedureCode", "-E", "occurrence=f"))
    assert {int(code) for code in procedures} >= PROCEDURES

    ladder = subprocess.run([*MOBISCUD, "ladder", str(out)], stdout=subprocess.PIPE, text=True, check=True)
    assert "Handover Cancel" in ladder.stdout
    assert "Activate Dedicated EPS Bearer" in ladder.stdout


def tshark(capture: Path, *arguments: str) -> list[str]:
    command = ["tshark", "-n", "-r", str(capture), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_an_interrupted_experiment_leaves_nothing(
    scenario: Path, tmp_path: Path, traces: Traces, running: Running
) -> None:
    before = traces()
    command = (*MOBISCUD, "experiment", "run", str(scenario), "--out", str(tmp_path / "out"))
    with running(*command, until="handover to eNB2") as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert process.returncode == 130, said
        assert "Traceback" not in said
    assert traces() - before == set()


def test_an_experiment_that_fails_says_why_and_leaves_nothing(scenario: Path, tmp_path: Path, traces: Traces) -> None:
    before = traces()
    # An application of a UE that only attaches later has no address to send from.
    scenario.write_text(SCENARIO.replace("- {at_s: 1, do: bearer, qci: 1}", "- {at_s: 1, do: attach}"))
    command = [*MOBISCUD, "experiment", "run", str(scenario), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "mobiscud: ue1 has no address" in done.stderr
    assert "Traceback" not in done.stderr
    assert traces() - before == set()


INJECT = """
import socket, sys
from epc_monitor.capture import read_capture
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("lo", 0))
for frame in read_capture(sys.argv[1]):
    wire.send(bytes(frame.data))
"""


def test_an_epc_that_is_not_ours_is_only_watched(tmp_path: Path, traces: Traces, running: Running) -> None:
    before, out = traces(), tmp_path / "out"
    file = tmp_path / "external.yaml"
    file.write_text(
        "name: external\ntitle: Not ours\nduration_s: 4\n"
        "epc: {external: {interfaces: [lo], cells: {411: c1, 412: c2}}}\n"
    )
    inner = f"ip link set lo up && exec {' '.join(MOBISCUD)} experiment run {file} --out {out}"
    with running("unshare", "--net", "sh", "-c", inner, until="watching lo") as process:
        inside = ("nsenter", f"--net=/proc/{process.pid}/ns/net")
        subprocess.run([*inside, sys.executable, "-c", INJECT, str(CAPTURE)], check=True)
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert traces() - before == set()
    results = json.loads((out / "results.json").read_text())
    assert results["ues"] == 1
    assert results["handovers"] == results["events"]["handover.completed"] == 2
    assert "curves" not in results
    assert (out / "report.html").exists()
