"""The demo as a user starts it, and what it leaves behind: nothing, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

Traces = Callable[[], set[str]]
Running = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]

DEMO = (sys.executable, "-m", "mobiscud", "demo", "--quick")
PHASES = ["eNB1", "eNB2 before migration", "eNB2 after migration", "eNB3 before migration", "eNB3 after migration"]


def test_the_vm_follows_and_nothing_is_left(tmp_path: Path, traces: Traces) -> None:
    before = traces()
    done = subprocess.run([*DEMO, "--out", str(tmp_path)], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the guest is the one it was" in done.stderr
    assert traces() - before == set()

    results = json.loads((tmp_path / "results.json").read_text())
    assert [phase["name"] for phase in results["phases"]] == PHASES
    rtt = {phase["name"]: phase["rtt_ms"]["median"] for phase in results["phases"]}
    assert all(rtt[name] >= 8.0 for name in PHASES), "nothing is faster than the delays set"
    for number in (2, 3):
        assert rtt[f"eNB{number} before migration"] >= 12.0, "the detour costs 2 ms each way"
        assert rtt[f"eNB{number} after migration"] < rtt[f"eNB{number} before migration"]
    assert [(h["from"], h["to"]) for h in results["handovers"]] == [("eNB1", "eNB2"), ("eNB2", "eNB3")]
    assert [(m["from"], m["to"]) for m in results["migrations"]] == [("c1", "c2"), ("c2", "c3")]
    assert all(h["prepare_ms"] > 0 and h["path_ms"] > 0 for h in results["handovers"])
    assert all(m["total_ms"] > m["downtime_ms"] > 0 for m in results["migrations"])
    curves = {curve["name"]: curve["segments"] for curve in results["curves"]}
    assert [segment["label"] for segment in curves["follow"]] == PHASES
    assert [segment["expected_ms"] for segment in curves["follow"]] == [8, 12, 8, 12, 8]
    assert [segment["expected_ms"] for segment in curves["internet"]] == [70, 70, 70]
    assert (tmp_path / "curves.svg").exists()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert results["internet"]["sent"] > 0
    assert results["internet"]["lost"] < results["internet"]["sent"] / 10, "other traffic flows on"
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert 'src="http' not in page


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, traces: Traces, running: Running) -> None:
    before = traces()
    with running(*DEMO, "--out", str(tmp_path), until="S1 handover") as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert process.returncode == 130, said
        assert "Traceback" not in said
    assert traces() - before == set()


def test_what_a_killed_demo_leaves_is_swept(tmp_path: Path, traces: Traces, running: Running) -> None:
    before = traces()
    with running(*DEMO, "--out", str(tmp_path), until="starting the EPC") as process:
        process.kill()
        process.wait()
    assert traces() - before, "a killed demo leaves something, or this test proves nothing"
    swept = subprocess.run([*DEMO, "--clean"], stderr=subprocess.PIPE, text=True, check=False)
    assert swept.returncode == 0, swept.stderr
    assert "swept 1 run" in swept.stderr
    assert traces() - before == set()


AS_NOBODY = """
import os, sys
from mobiscud.app.cli import main
import testbed.demo  # while the checkout can still be read, which may lie where only root looks
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
main()
"""


def test_without_root_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AS_NOBODY, "demo", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("mobiscud: the testbed makes network namespaces and needs root")
    assert "Traceback" not in done.stderr
