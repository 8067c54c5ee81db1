"""The configuration files of RAN and EPC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import CellId, Ecgi, Plmn, Tac, Tai
from testbed.lte_config import EpcConfig, RanConfig, load

RAN: dict[str, Any] = {
    "control_socket": "/run/ran.sock",
    "mme_address": "10.0.0.1",
    "ue_namespace": "ue",
    "enbs": [
        {
            "number": 1,
            "namespace": "enb1",
            "address": "10.0.0.11",
            "enb_id": "0x19b",
            "cell_id": "0x19b01",
            "ue_device": "uu1",
        }
    ],
    "ues": [{"name": "ue1", "imsi": "999700000000001"}],
}


def write(directory: Path, content: Any) -> Path:
    file = directory / "config.json"
    file.write_text(json.dumps(content))
    return file


def test_numbers_may_be_hexadecimal(tmp_path: Path) -> None:
    config = load(RanConfig, write(tmp_path, RAN))
    (enb,) = config.enbs
    plmn = config.plmn.plmn
    assert enb.enb_id == 0x19B
    assert enb.ecgi(plmn) == Ecgi(Plmn("999", "70"), CellId(0x19B01))
    assert enb.tai(plmn) == Tai(plmn, Tac(1))
    assert config.uu_delay_s == 0.004


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"uu_dealy_s": 1}, "uu_dealy_s"),
        ({"enbs": [{**RAN["enbs"][0], "enb_id": 0x10_0000}]}, "enbs.0.enb_id"),
        ({"ues": []}, "ues"),
        ({"mme_address": "mme"}, "mme_address"),
        ({"ues": [{"name": "ue1", "imsi": "99970x"}]}, "ues.0.imsi"),
    ],
)
def test_wrong_key_is_named(tmp_path: Path, change: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(RanConfig, write(tmp_path, RAN | change))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [path]


def test_missing_file_is_the_operators_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(EpcConfig, tmp_path / "none.json")


def test_no_json_is_the_operators_fault(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        load(EpcConfig, file)
