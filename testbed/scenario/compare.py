"""``mobiscud experiment compare``: experiments side by side, in one report. Pure but for reading and writing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiscud.core.errors import ConfigError
from testbed.report import comparison_page


@dataclass(frozen=True, slots=True)
class Column:
    """A variant of an experiment."""

    name: str
    summary: Mapping[str, Mapping[str, Any]]


def compare(directories: Sequence[Path], out: Path) -> Path:
    """Write ``report.html``, ``results.json`` and the plots into ``out``; gives the page's path.

    :raises ConfigError: a directory is not one of an experiment
    """
    experiments = {directory: _load(directory) for directory in directories}
    columns = [
        Column(name, variant["summary"])
        for directory, found in experiments.items()
        for variant_name, variant in found["variants"].items()
        for name in (_name(directory, variant_name, found, experiments),)
    ]
    out.mkdir(parents=True, exist_ok=True)
    table = {column.name: dict(column.summary) for column in columns}
    sources = [
        {
            "directory": str(directory),
            "scenario": found["scenario"],
            "seed": found["seed"],
            "repetitions": found["repetitions"],
            "commit": found["environment"]["commit"],
        }
        for directory, found in experiments.items()
    ]
    (out / "results.json").write_text(json.dumps({"experiments": sources, "columns": table}, indent=2) + "\n")
    return comparison_page.write(out, sources, table)


def _load(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory}: no results of an experiment: {error}") from error
    if not isinstance(found, dict) or "variants" not in found:
        raise ConfigError(f"{directory}: results.json is not one of an experiment with variants")
    return found


def _name(
    directory: Path, variant: str, found: Mapping[str, Any], experiments: Mapping[Path, Mapping[str, Any]]
) -> str:
    """As short as it can be and tell the columns apart: the directory, the variant, or both."""
    single = len(found["variants"]) == 1
    return directory.name if single else f"{directory.name}: {variant}" if len(experiments) > 1 else variant
