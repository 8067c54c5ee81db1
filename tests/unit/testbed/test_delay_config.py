"""The configuration of the delay node."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobiscud.core.errors import SetupError
from testbed import delay
from testbed.delay import DelayLink
from testbed.delay_queue import Shape


def test_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    links = [
        DelayLink(name="uu1", a="uu1-a", b="uu1-b", shape=Shape(delay_ms=4.5)),
        DelayLink(
            name="s5", a="x", b="y", shape=Shape(delay_ms=18, jitter_ms=1, loss_percent=0.5, rate_mbit_s=10), capacity=7
        ),
    ]
    delay.write_config(tmp_path / "delay.json", links, tmp_path / "stats.json")

    assert delay.read_config(tmp_path / "delay.json") == (links, tmp_path / "stats.json")
    assert [link.netem for link in links] == [
        "delay 4.5ms limit 2000",
        "delay 18ms 1ms loss 0.5% rate 10mbit limit 7",
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"links": [{"name": "uu1"}], "stats": "x"}', '{"links": []}'])
def test_other_file_is_refused(content: str, tmp_path: Path) -> None:
    config = tmp_path / "delay.json"
    config.write_text(content)

    with pytest.raises(SetupError, match="not a configuration of the delay node"):
        delay.read_config(config)


def test_program_says_in_a_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert delay.main([]) == 2
    assert delay.main([str(tmp_path / "missing.json")]) == 1

    usage, complaint = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m testbed.delay")
    assert "missing.json" in complaint
