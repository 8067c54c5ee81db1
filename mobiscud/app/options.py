"""What the commands of the command line share: their common options, the configuration, how they fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from mobiscud.app import logs
from mobiscud.core import config as configuration
from mobiscud.core.config import Config

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT_DIRECTORY = click.Path(file_okay=False, path_type=Path)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    for option in (
        click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True),
        click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True),
        click.option("--config", "-c", "config_file", type=FILE, help="The configuration, one YAML file."),
    ):
        command = option(command)
    return command


def prepare(config_file: Path | None, log_level: str, log_format: str) -> Config:
    """Set logging up and read the configuration; the defaults where there is none."""
    logs.configure(log_level, log_format)
    return read_configuration(config_file)


def read_configuration(config_file: Path | None) -> Config:
    """The configuration; the defaults where there is none."""
    return configuration.load(config_file) if config_file else Config()


def fail(message: str, code: int) -> NoReturn:
    """End the program with one clear line for each problem."""
    for line in message.splitlines():
        click.echo(f"mobiscud: {line}", err=True)
    sys.exit(code)
