"""Reports, ratios, and workers in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobiscud.core.errors import AdapterError, SetupError
from testbed.bench import common, forms

CAPTURE = Path(__file__).parents[3] / "vectors" / "captures" / "epc-attach.pcap"


def test_a_report_has_the_form_of_the_contract_and_can_be_read() -> None:
    made = common.report("decode", {"messages_per_s": {"pycrate": 7000, "selective_compiled": None}, "ratio": 2.5})
    assert made.keys() == {"bench", "machine", "results"}
    assert {"processor", "load", "commit", "Python"} <= made["machine"].keys()
    lines = common.describe(made).splitlines()
    assert lines[0].startswith("decode: ")
    assert [line.split() for line in lines[1:]] == [
        ["messages/s"],
        ["pycrate", "7,000"],
        ["selective", "compiled", "-"],
        ["ratio", "2.5"],
    ]


def test_rows_can_be_read_too() -> None:
    made = common.report("migrate", {"rows": [{"mode": "pre_copy", "total_ms": {"p50": 1.5}}, {"mode": "post_copy"}]})
    assert [line.split() for line in common.describe(made).splitlines()[1:]] == [
        ["rows", "1"],
        ["mode", "pre_copy"],
        ["total", "ms"],
        ["p50", "1.5"],
        ["rows", "2"],
        ["mode", "post_copy"],
    ]


@pytest.mark.parametrize(
    ("figure", "yardstick", "times"), [(10, 4, 2.5), (1000, 3, 333.0), (None, 3, None), (3, 0, None)]
)
def test_ratios(figure: float | None, yardstick: float | None, times: float | None) -> None:
    assert common.ratio(figure, yardstick) == times


def test_a_worker_measures_the_monitor_that_it_is_given(tmp_path: Path) -> None:
    plain = forms.plain(tmp_path / "plain")
    assert not list(plain.rglob("*.so"))
    answer = common.worker("replay_worker", str(CAPTURE), "2", monitor=plain)
    assert len(answer["seconds"]) == 2
    assert answer["stats"]["events"] > 0
    assert answer["compiled"] is False


def test_failures_say_what_failed() -> None:
    with pytest.raises(AdapterError, match="No such file"):
        common.run(("cat", "/nowhere/at-all"))
    with pytest.raises(SetupError, match="no-such-program is not installed"):
        common.run(("no-such-program",))
