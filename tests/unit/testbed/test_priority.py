"""Where hypervisors get the processors before others do."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import priority


def mount(monkeypatch: pytest.MonkeyPatch, first: Path, second: Path) -> None:
    monkeypatch.setattr(priority, "WEIGHTS", ((first, "cpu.shares", "10240"), (second, "cpu.weight", "1000")))


def test_the_group_weighs_more_than_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, tmp_path, tmp_path / "absent")
    group = priority.group()
    assert group is not None
    assert (group / "cpu.shares").read_text() == "10240"
    assert priority.group() == group


def test_in_the_newer_version_it_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, tmp_path / "absent", tmp_path)
    asked = tmp_path / "cgroup.subtree_control"
    asked.touch()
    group = priority.group()
    assert group is not None
    assert asked.read_text() == "+cpu"
    assert (group / "cpu.weight").read_text() == "1000"


def test_without_either_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, tmp_path / "absent", tmp_path / "absent")
    assert priority.group() is None


def test_nothing_is_left_unless_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, tmp_path, tmp_path / "absent")
    (tmp_path / priority.GROUP).mkdir()
    priority.leave_no_group()
    assert not (tmp_path / priority.GROUP).exists()
    priority.group()  # here its files are ordinary ones, which hold it as processes would
    priority.leave_no_group()
    assert (tmp_path / priority.GROUP).exists()
