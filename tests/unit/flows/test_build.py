"""Building the datapath program, and running programs at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flows.gtp_datapath import build as builder
from flows.gtp_datapath.build import build
from flows.gtp_datapath.commands import run
from mobiscud.core.errors import SetupError


@pytest.mark.skipif(shutil.which("clang") is None, reason="apt install clang libbpf-dev")
async def test_the_program_is_built_once_a_source_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await build(tmp_path)
    assert first.read_bytes().startswith(b"\x7fELF")
    made = first.stat().st_mtime_ns
    assert await build(tmp_path) == first
    assert first.stat().st_mtime_ns == made
    changed = tmp_path / "gtp.bpf.c"
    changed.write_text(builder.SOURCE.read_text() + "/* changed */\n")
    monkeypatch.setattr(builder, "SOURCE", changed)
    assert await build(tmp_path) != first
    assert len([name for name in os.listdir(tmp_path) if ".o" in name]) == 2  # and no half-made ones


async def test_a_missing_program_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(SetupError, match="clang is not installed: apt install clang"):
        await build(tmp_path)


async def test_what_a_failing_program_said_is_told() -> None:
    with pytest.raises(SetupError, match="cannot access '/nonexistent'"):
        await run("ls", "/nonexistent")


async def test_what_a_program_printed_is_returned() -> None:
    assert await run("echo", "a", "b") == "a b\n"
