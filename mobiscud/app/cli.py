"""The command line: one program, ``mobiscud``.

Data goes to stdout, logs and progress to stderr. Exit codes: 0 done; 1 the work failed; 2 bad arguments or bad
configuration; 130 interrupted. What a command needs beyond the base install is imported when it runs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from mobiscud.app import logs
from mobiscud.app.bench_commands import bench
from mobiscud.app.options import FILE, common, fail, prepare, read_configuration
from mobiscud.app.trial_commands import demo, experiment, ladder, simulate
from mobiscud.core import config as configuration
from mobiscud.core.config import Config
from mobiscud.core.errors import ConfigError, MobiScudError
from mobiscud.core.vm_config import missing_files


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mobiscud", message="%(prog)s %(version)s")
def cli() -> None:
    """Personal VMs that follow their users through an unmodified LTE/EPC network.

    \b
    See what a capture says:      mobiscud replay attach.pcap --output table
    Watch a live network:         mobiscud monitor -i eth0 --stdout
    Run a node beside an EPC:     mobiscud run -c mobiscud.yaml
    The experiment of the paper:  mobiscud demo --quick
    """


@cli.command(short_help="Captures in, events out.")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--output", type=click.Choice(["jsonl", "table", "none"]), default="jsonl", show_default=True)
@click.option("--stats", is_flag=True, help="Print one JSON object of counts on stderr at the end.")
@click.option("--publish", is_flag=True, help="Publish to the bus as well (bus.url of the configuration).")
@click.option("--speed", type=click.Choice(["max", "real"]), default="max", show_default=True)
@click.option("--privacy", type=click.Choice(["pseudonym", "clear"]), help="Show IMSIs (clear), or do not.")
@common
def replay(
    files: tuple[Path, ...],
    output: str,
    stats: bool,
    publish: bool,
    speed: str,
    privacy: str | None,
    config_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Read captures (pcap, pcapng) and print the events in them as CloudEvents, one JSON object a line."""
    if publish:  # nothing else here logs
        logs.configure(log_level, log_format)
    config = with_privacy(read_configuration(config_file), privacy)
    from mobiscud.app import pseudonym
    from mobiscud.app.replay import ReplayOptions
    from mobiscud.app.replay import replay as run_replay

    options = ReplayOptions(output, stats, publish, speed == "real")
    run_replay(files, config, pseudonym.keys(config.privacy), options)


@cli.command(short_help="Watch the signalling of a live network.")
@click.option("--interface", "-i", "interfaces", multiple=True, help="Where S1-MME and S11 can be seen; repeatable.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print the events as JSON lines, publish nothing.")
@click.option("--privacy", type=click.Choice(["pseudonym", "clear"]), help="Show IMSIs (clear), or do not.")
@common
def monitor(
    interfaces: tuple[str, ...],
    to_stdout: bool,
    privacy: str | None,
    config_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Watch the signalling live and publish the events to the bus.

    Needs CAP_NET_RAW. Without bus.url in the configuration an embedded broker serves on loopback.
    """
    config = with_privacy(prepare(config_file, log_level, log_format), privacy)
    if interfaces:
        config = config.model_copy(update={"monitor": config.monitor.model_copy(update={"interfaces": interfaces})})
    if not config.monitor.interfaces:
        raise click.UsageError("name an interface: mobiscud monitor -i eth0")
    from mobiscud.app import node

    node.run_monitor(config, to_stdout=to_stdout)


@cli.command(short_help="Run a node from its configuration file.")
@common
def run(config_file: Path | None, log_level: str, log_format: str) -> None:
    """Run a whole node from one configuration file: the monitor, the controller, or both.

    \b
    The node is a monitor when monitor.interfaces names any, and the controller of
    the cloudlet whose node is site.node. SIGHUP reads the file again: who and what
    is offloaded changes at once, and a bad file changes nothing.
    """
    if config_file is None:
        raise click.UsageError("name the configuration: mobiscud run -c mobiscud.yaml")
    config = prepare(config_file, log_level, log_format)
    from mobiscud.app import node

    node.run(config, config_file)


@cli.command(short_help="Show the events on the bus as they come.")
@click.option("--type", "-t", "types", multiple=True, help="Only this type, e.g. handover.completed; repeatable.")
@click.option("--ue", "-u", "ues", multiple=True, help="Only this UE key; repeatable.")
@click.option("--bus", "url", metavar="URL", help="The broker, e.g. mqtt://127.0.0.1:1883; else bus.url.")
@click.option("--output", type=click.Choice(["jsonl", "table"]), default="jsonl", show_default=True)
@common
def events(
    types: tuple[str, ...],
    ues: tuple[str, ...],
    url: str | None,
    output: str,
    config_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Print the events on the bus as they come, until interrupted."""
    config = prepare(config_file, log_level, log_format)
    from mobiscud.app import tail

    tail.run(config, url=url, types=types, ues=ues, form=output)


@cli.command(short_help="UEs, offloads, personal VMs and cloudlets now.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("--bus", "url", metavar="URL", help="The broker, e.g. mqtt://127.0.0.1:1883; else bus.url.")
@common
def status(as_json: bool, url: str | None, config_file: Path | None, log_level: str, log_format: str) -> None:
    """UEs, offloads, personal VMs and cloudlets, as the controllers see them now.

    Asks the controllers of the cloudlets in the configuration; without any, those that are online on the bus.
    """
    config = prepare(config_file, log_level, log_format)
    from mobiscud.app import status as asked

    asked.run(config, url=url, as_json=as_json)


@cli.command("check-config", short_help="Say OK, or name every wrong key.")
@click.argument("file", type=FILE)
@common
def check_config(file: Path, config_file: Path | None, log_level: str, log_format: str) -> None:
    """Say OK, or name every wrong key of a configuration with its path and why.

    Files of personal VMs that are not here are named on stderr: the node may be another machine.
    """
    logs.configure(log_level, log_format)
    config = configuration.load(file)
    for problem in dict.fromkeys(p for host in config.hypervisors for p in missing_files(config.images, host)):
        click.echo(f"mobiscud: {problem}", err=True)
    click.echo("OK")


@cli.command(short_help="What this machine lacks, and the mend.")
@common
def doctor(config_file: Path | None, log_level: str, log_format: str) -> None:
    """Look at this machine, one line a finding: ok, warn or fail, with the mend. Changes nothing.

    With -c FILE it looks at what that node needs; without, at what any node may. Ends with 1 when something fails.
    """
    config = prepare(config_file, log_level, log_format)
    from mobiscud.app import doctor as consultation

    findings = asyncio.run(consultation.examine(config))
    for finding in findings:
        click.echo(str(finding))
    failed = sum(finding.level == "fail" for finding in findings)
    if failed:
        fail(f"{failed} of {len(findings)} checks failed: mend what is said above", 1)


def with_privacy(config: Config, mode: str | None) -> Config:
    """The configuration, with the privacy that the command line asks for."""
    if mode is None:
        return config
    return config.model_copy(update={"privacy": config.privacy.model_copy(update={"mode": mode})})


for command in (demo, experiment, ladder, simulate, bench):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    try:
        cli.main(prog_name="mobiscud", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.UsageError as error:
        program = error.ctx.command_path if error.ctx else "mobiscud"
        fail(f"{' '.join(error.format_message().split())} (see {program} --help)", 2)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", 130)
    except ConfigError as error:
        fail(str(error), 2)
    except MobiScudError as error:
        fail(str(error), 1)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRAS:
            raise
        fail(f"this needs {error.name}: {EXTRAS[error.name.split('.')[0]]}", 1)


EXTRAS = {
    "matplotlib": "pip install 'mobiscud[testbed]'",
    "os_ken": "pip install 'mobiscud[node]'",
    "libvirt": "pip install 'mobiscud[node]' (with libvirt-dev and pkg-config installed)",
    "pycrate_asn1dir": "pip install 'mobiscud[testbed]'",
    "pycrate_mobile": "pip install 'mobiscud[testbed]'",
    "scapy": "pip install 'mobiscud[testbed]'",
}
