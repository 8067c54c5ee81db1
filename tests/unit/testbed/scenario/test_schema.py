"""What a scenario may say, and what is answered to one that says something else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mobiscud.core.errors import ConfigError
from testbed.scenario import experiment, schema

LEAST: dict[str, Any] = {"name": "least", "title": "Least", "duration_s": 10, "ues": [{"name": "walker"}]}


def parse(**more: Any) -> schema.Scenario:
    return schema.parse(yaml.safe_dump({**LEAST, **more}))


def test_the_least_scenario_has_the_papers_network() -> None:
    scenario = parse()
    assert scenario.network.cells == 3
    assert scenario.network.delays.internet_rtt_ms == 70
    assert scenario.runs == {"only": {}}
    assert scenario.network.shapes == {}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"networks": {}}, r"networks: there is no such key"),
    "unknown key below": ({"network": {"cell": 3}}, r"network\.cell: there is no such key"),
    "cell that is none": ({"ues": [{"name": "w", "cell": 5}]}, r"ues 'w': there is no cell 5"),
    "walk out of the network": (
        {"ues": [{"name": "w", "mobility": {"model": "walk", "cells": [1, 4]}}]},
        r"ues 'w': there is no cell 4",
    ),
    "step to nowhere": (
        {"ues": [{"name": "w", "steps": [{"do": "handover", "to": 7, "at_s": 1}]}]},
        r"ues 'w': there is no cell 7",
    ),
    "no UE": ({"ues": []}, r"ues: at least one group is needed"),
    "two groups of a name": ({"ues": [{"name": "w"}, {"name": "w"}]}, r"ues: 'w' appears twice"),
    "no such group": (
        {"applications": [{"name": "a", "ue": "nobody"}]},
        r"applications 'a': there is no group 'nobody'",
    ),
    "no such variant": (
        {"applications": [{"name": "a", "ue": "walker", "variants": ["other"]}]},
        r"applications 'a': there is no variant 'other'",
    ),
    "VM that is none": (
        {"ues": [{"name": "walker", "pvm": "none"}], "applications": [{"name": "a", "ue": "walker"}]},
        r"applications 'a': the UEs of 'walker' have no personal VM",
    ),
    "more VMs than a machine holds": ({"ues": [{"name": "w", "count": 100}]}, r"100 personal VMs are more than"),
    "fault at no moment": ({"faults": [{"do": "kill", "part": "c1"}]}, r"faults\[0\].*needs either at_s or when"),
    "fault at two moments": (
        {"faults": [{"do": "kill", "part": "c1", "at_s": 1, "when": "pvm.migrating"}]},
        r"needs either at_s or when",
    ),
    "fault of a cell that is none": (
        {"faults": [{"do": "cut", "link": "isl-3", "at_s": 1}]},
        r"faults: there is no cell for 'isl-3'",
    ),
    "X2 that fails": (
        {"ues": [{"name": "w", "steps": [{"do": "handover", "to": 2, "at_s": 1, "kind": "x2", "outcome": "cancel"}]}]},
        r"outcome must be ok",
    ),
    "jitter beyond the delay": (
        {"network": {"jitter_ms": {"enb_enb": 3}}},
        r"network: jitter_ms\.enb_enb is more than the delay",
    ),
    "policy that is none": ({"migration": {"policy": "fly"}}, r"migration\.policy: "),
    "policy of a variant": (
        {"variants": {"a": {"migration": {"policy": "follow", "dwel_s": 1}}}},
        r"variants\.a\.migration\.dwel_s: there is no such key",
    ),
    "UEs in a network that is not ours": (
        {"epc": {"external": {"interfaces": ["eth0"], "cells": {1: "c1"}}}},
        r"epc\.external: ues belong to an emulated network",
    ),
}


@pytest.mark.parametrize(("more", "why"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_key_is_named(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse(**more)
    assert re.search(why, str(told.value)), str(told.value)


@pytest.mark.parametrize(("text", "why"), [("a: [", "not YAML"), ("- a", "not a mapping")])
def test_what_is_no_scenario_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        schema.parse(text)


def test_links_may_do_more_than_delay() -> None:
    links = {"jitter_ms": {"ue_enb": 1}, "loss_percent": {"enb_mtso": 0.5}, "rate_mbit_s": {"sgw_pgw": 10}}
    scenario = parse(network=links)
    shapes = scenario.network.shapes
    assert sorted(shapes) == ["enb_mtso", "sgw_pgw", "ue_enb"]
    assert (shapes["ue_enb"].delay_ms, shapes["ue_enb"].jitter_ms) == (4, 1)
    assert shapes["enb_mtso"].loss_percent == 0.5
    assert shapes["sgw_pgw"].rate_mbit_s == 10


def test_an_epc_that_is_not_ours_needs_no_ue() -> None:
    scenario = parse(ues=[], epc={"external": {"interfaces": ["eth0", "lo"], "cells": {411: "c1"}}})
    assert scenario.external is not None
    assert scenario.external.cells == {411: "c1"}


def test_the_gallery_is_whole() -> None:
    gallery = experiment.gallery()
    assert {"paper", "x2", "ping-pong", "highway", "fault-storm", "policies"} <= set(gallery)
    for name, source in gallery.items():
        assert source.scenario.name == name
        assert experiment.find(name).text == source.text


def test_a_scenario_is_found_by_file_or_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(LEAST))
    assert experiment.find(str(file)).scenario.name == "least"
    with pytest.raises(ConfigError, match=r"nothing: no such file, and no scenario of the gallery \(crowd, "):
        experiment.find("nothing")
    with pytest.raises(ConfigError, match="No such file"):
        experiment.find(str(tmp_path / "other.yaml"))
