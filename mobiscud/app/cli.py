"""The command line: one program, ``mobiscud``.

Data goes to stdout, logs and progress to stderr. Exit codes: 0 done; 1 the work failed; 2 bad arguments or bad
configuration; 130 interrupted. What a command needs beyond the base install is imported when it runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from mobiscud.app import logs
from mobiscud.core import config as configuration
from mobiscud.core.config import Config
from mobiscud.core.errors import ConfigError, MobiScudError
from mobiscud.core.vm_config import missing_files

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


@cli.command(short_help="The paper's handover experiment, here.")
@click.option("--out", type=OUT_DIRECTORY, default=Path("out/demo"), show_default=True, help="Where the report goes.")
@click.option("--quick", is_flag=True, help="Shorter phases: done within 90 s on two idle cores.")
@click.option("--clean", is_flag=True, help="Only sweep what a killed run left behind.")
@common
def demo(out: Path, quick: bool, clean: bool, config_file: Path | None, log_level: str, log_format: str) -> None:
    """The handover experiment of the paper, on real parts, on this machine (as root).

    A UE attaches, its personal VM starts beside its base station, the UE hands over twice, and path and VM
    follow. Everything runs in network namespaces; nothing else on the machine is touched. Writes report.html,
    results.json and plots.
    """
    if config_file is not None:
        raise click.UsageError("the demo makes its own configurations; --config does not apply")
    logs.configure("warning" if log_level == "info" else log_level, log_format)
    from testbed import demo as experiment

    experiment.run(out, quick=quick, clean_only=clean)


@cli.command(short_help="Draw the messages of a capture or an experiment.")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="The SVG file; else stdout.")
@click.option("--from", "begin_s", type=click.FloatRange(min=0), default=0.0, metavar="S", help="Begin there.")
@click.option("--to", "end_s", type=click.FloatRange(min=0), metavar="S", help="End there.")
@common
def ladder(
    source: Path,
    output: Path | None,
    begin_s: float,
    end_s: float | None,
    config_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Draw who said what to whom, in the order of time, as SVG.

    SOURCE is a capture (pcap, pcapng): the S1AP and NAS messages between UEs, eNodeBs and MME, and GTPv2-C to the
    S-GW. Or it is the directory of an experiment: then what MobiScud itself did is in it too. Seconds of --from and
    --to count from the first message.
    """
    prepare(config_file, log_level, log_format)
    from testbed.report import ladder_file

    picture = ladder_file.draw(source, begin_s=begin_s, end_s=end_s).render_file()
    if output is None:
        click.echo(picture, nl=False)
    else:
        output.write_text(picture, encoding="utf-8")


@cli.group(short_help="Handover experiments that anyone can repeat.")
def experiment() -> None:
    """Run scenarios on the built-in testbed: UEs that move, what they send, what goes wrong, and the policy.

    \b
    What there is to run:     mobiscud experiment list
    One of them, as a file:   mobiscud experiment show x2 > mine.yaml
    Run it (as root):         mobiscud experiment run mine.yaml --out out/mine
    Several side by side:     mobiscud experiment compare out/mine out/other
    """


@experiment.command("list", short_help="The scenarios that come with MobiScud.")
@common
def experiment_list(config_file: Path | None, log_level: str, log_format: str) -> None:
    """List the scenarios that come with MobiScud: name, how long one run of all takes at least, what it is."""
    prepare(config_file, log_level, log_format)
    from testbed.scenario import experiment as engine

    for name, source in engine.gallery().items():
        scenario = source.scenario
        runs = scenario.repetitions * len(scenario.runs)
        click.echo(f"{name:16} {runs} x {scenario.duration_s:g} s  {scenario.title}")


@experiment.command("show", short_help="Print a scenario, to begin one's own with.")
@click.argument("scenario")
@common
def experiment_show(scenario: str, config_file: Path | None, log_level: str, log_format: str) -> None:
    """Print a scenario of the gallery (or check a file and print it)."""
    prepare(config_file, log_level, log_format)
    from testbed.scenario import experiment as engine

    click.echo(engine.find(scenario).text, nl=False)


@experiment.command("run", short_help="Run a scenario (as root).")
@click.argument("scenario")
@click.option("--out", type=OUT_DIRECTORY, help="Where the results go; by default out/NAME.")
@common
def experiment_run(scenario: str, out: Path | None, config_file: Path | None, log_level: str, log_format: str) -> None:
    """Run a SCENARIO: a YAML file, or a name that `experiment list` shows.

    All variants and repetitions, each on a testbed of its own. Leaves raw data (CSV, JSON lines), results.json,
    report.html and the plots as SVG and PNG in the directory, and nothing else on the machine, also when it is
    interrupted or fails.
    """
    logs.configure("warning" if log_level == "info" else log_level, log_format)
    if config_file is not None:
        raise click.UsageError("an experiment makes its own configurations; --config does not apply")
    from testbed.scenario import experiment as engine

    source = engine.find(scenario)
    engine.run(source, out or Path("out") / source.scenario.name)


@experiment.command("report", short_help="Write the report anew from the raw data.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@common
def experiment_report(directory: Path, config_file: Path | None, log_level: str, log_format: str) -> None:
    """Compute results.json, report.html and the plots of an experiment anew, from the raw data in its DIRECTORY."""
    prepare(config_file, log_level, log_format)
    from testbed.scenario import experiment as engine

    click.echo(engine.write_report(directory))


@experiment.command("compare", short_help="Several experiments in one report.")
@click.argument("directories", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=OUT_DIRECTORY, default=Path("out/comparison"), show_default=True)
@common
def experiment_compare(
    directories: tuple[Path, ...], out: Path, config_file: Path | None, log_level: str, log_format: str
) -> None:
    """Put experiments that were run side by side: every metric of every variant, with confidence intervals."""
    prepare(config_file, log_level, log_format)
    from testbed.scenario.compare import compare

    click.echo(compare(directories, out))


@cli.command(short_help="Policies on a hundred thousand users, in virtual time.")
@click.argument("scenario", required=False)
@click.option("--ues", type=click.IntRange(1, 1_000_000), help="Users, each with a personal VM.")
@click.option("--cloudlets", type=click.IntRange(2, 60_000), help="Cells with a cloudlet each.")
@click.option("--hours", type=click.FloatRange(0, 8784, min_open=True))
@click.option("--policy", "-p", "policies", multiple=True, type=click.Choice(["stay", "follow", "hysteresis", "cost"]))
@click.option("--seed", type=int)
@click.option("--out", type=OUT_DIRECTORY, default=Path("out/simulation"), show_default=True)
@common
def simulate(
    scenario: str | None,
    out: Path,
    policies: tuple[str, ...],
    config_file: Path | None,
    log_level: str,
    log_format: str,
    **numbers: float | None,
) -> None:
    """What migration policies bring and cost: the controller's own table and policies, in virtual time, no sockets.

    SCENARIO is a file, or city or trade-off, which come with MobiScud. Without: 10,000 users, 1,000 cloudlets, a day,
    and the four policies. Options win over the file. Writes results.json, policies.csv, hours.csv, and the pictures
    trade-off and day as SVG and PNG.
    """
    if config_file is not None:
        raise click.UsageError("a simulation has a scenario; --config does not apply")
    logs.configure("warning" if log_level == "info" else log_level, log_format)
    from testbed.simulation import run
    from testbed.simulation import scenario as scenarios

    file = None if scenario is None else scenarios.find(scenario)
    chosen = scenarios.load(file, {key: value for key, value in numbers.items() if value is not None}, policies)
    click.echo(run.describe(run.run(chosen, out)))


@cli.group(short_help="What MobiScud measures of itself.")
def bench() -> None:
    """MobiScud's own measurements, each beside a yardstick measured in the same run.

    \b
    Decoding S1AP, beside pycrate and tshark:     mobiscud bench decode
    From frame to event, and memory for each UE:  mobiscud bench replay attach.pcap
    From the wire to an MQTT subscriber:          mobiscud bench latency
    What a handover costs a stream (as root):     mobiscud bench handover
    What a migration costs a stream (as root):    mobiscud bench migrate
    Rules, and a restart under traffic (as root): mobiscud bench flows
    A packet's way through the tunnel (as root):  mobiscud bench datapath
    How exact the testbed's delays are (as root): mobiscud bench delay
    """


def measures(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every bench has."""
    return common(click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command))


def show_bench(report: dict[str, Any], *, as_json: bool) -> None:
    """Print what a bench has found."""
    from testbed.bench.common import describe

    click.echo(json.dumps(report) if as_json else describe(report))


@bench.command("decode", short_help="S1AP messages a second, beside pycrate and tshark.")
@measures
def bench_decode(as_json: bool, config_file: Path | None, log_level: str, log_format: str) -> None:
    """S1AP messages a second: our decoder, plain and compiled, pycrate and tshark, on one corpus.

    Takes about two minutes. Without a compiled form (MOBISCUD_COMPILE=1 at install, or a checkout with a C
    compiler) its figure is null.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import decode

    show_bench(decode.run(), as_json=as_json)


@bench.command("replay", short_help="From frame to event, and memory for each UE.")
@click.argument("file", type=FILE)
@measures
def bench_replay(file: Path, as_json: bool, config_file: Path | None, log_level: str, log_format: str) -> None:
    """From frame to event: signalling messages a second, as a library and as a program beside tshark.

    The capture is repeated until it has 150,000 frames, each time as a network of its own. Also weighs 100,000
    UEs with a bearer each. Takes about four minutes.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import replay

    show_bench(replay.run(file), as_json=as_json)


@bench.command("handover", short_help="What a handover costs a stream to the personal VM.")
@click.option("--each", type=click.IntRange(min=1), default=100, show_default=True, help="Handovers by S1, and by X2.")
@click.option("--out", type=OUT_DIRECTORY, help="Keep the stream, the events and the logs here.")
@measures
def bench_handover(
    each: int, out: Path | None, as_json: bool, config_file: Path | None, log_level: str, log_format: str
) -> None:
    """What S1 and X2 handovers cost a stream between a UE and its personal VM, which stays where it is.

    On the built-in testbed, as root, with the paper's delays. Packets lost and reordered of one a millisecond in
    both directions; milliseconds from the wire to the target's rules, and to the downlink flipped. Takes about two
    minutes.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import handover

    show_bench(handover.run(each, out), as_json=as_json)


@bench.command("flows", short_help="One rule, ten thousand rules, a restart with ten thousand UEs.")
@measures
def bench_flows(as_json: bool, config_file: Path | None, log_level: str, log_format: str) -> None:
    """One rule with its barrier, ten thousand at once, and a controller killed and restarted under a stream.

    On a real switch in namespaces of its own, as root. Takes about half a minute.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import flows

    show_bench(flows.run(), as_json=as_json)


@bench.command("datapath", short_help="What a packet costs out of the tunnel and into it.")
@measures
def bench_datapath(as_json: bool, config_file: Path | None, log_level: str, log_format: str) -> None:
    """What a packet costs on its way out of the tunnel and into it, beside the kernel's bridge.

    On a real switch in namespaces of its own, as root. Takes about half a minute.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import datapath

    show_bench(datapath.run(), as_json=as_json)


@bench.command("migrate", short_help="What a migration costs a stream to the personal VM.")
@click.option("--idle", type=click.IntRange(min=0), default=200, show_default=True, help="Migrations of an idle guest.")
@click.option("--dirtying", type=click.IntRange(min=0), default=50, show_default=True, help="Of one that writes.")
@click.option("--starts", type=click.IntRange(min=0), default=10, show_default=True, help="Attaches, in each way.")
@click.option("--all-modes", is_flag=True, help="Measure the modes that are not the default too.")
@click.option("--out", type=OUT_DIRECTORY, help="Keep the records there.")
@measures
def bench_migrate(
    idle: int,
    dirtying: int,
    starts: int,
    all_modes: bool,
    out: Path | None,
    as_json: bool,
    config_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Outage and loss of a stream of a packet a millisecond, while the personal VM behind it migrates.

    Runs the testbed (as root): a UE walks between three cells, and its VM follows each time. The guest that writes
    has 32 MiB and rewrites 50 MiB/s. Takes about four seconds a migration. Also how soon the VM answers its UE's
    attach: from the pool, from a saved image, cold; about two minutes with ten each.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import migrate, start

    runs: dict[migrate.Guest, int] = {"idle": idle, "dirtying": dirtying}
    report = migrate.run(runs, all_modes=all_modes, out=out)
    if starts:
        report["results"]["start"] = start.run(starts, out)
    show_bench(report, as_json=as_json)


@bench.command("delay", short_help="How exact the testbed's delays are.")
@measures
def bench_delay(as_json: bool, config_file: Path | None, log_level: str, log_format: str) -> None:
    """The error of a set delay at 100 to 20,000 packets a second, and jitter, loss and rate, in namespaces (as root).

    Of the user-space node, and of the kernel's netem where there is one. Takes about a minute; the machine should be
    idle.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import delay

    show_bench(delay.run(), as_json=as_json)


@bench.command("latency", short_help="From the wire to an MQTT subscriber.")
@measures
def bench_latency(as_json: bool, config_file: Path | None, log_level: str, log_format: str) -> None:
    """From a frame on the wire to an MQTT subscriber, through a real monitor and Mosquitto (as root).

    At 1,000 and 5,000 signalling messages a second, and again with 150,000 packets a second of GTP-U beside them.
    Everything runs in a network namespace of its own. Takes about a minute; the machine should be idle.
    """
    prepare(config_file, log_level, log_format)
    from testbed.bench import latency

    show_bench(latency.run(), as_json=as_json)


def with_privacy(config: Config, mode: str | None) -> Config:
    """The configuration, with the privacy that the command line asks for."""
    if mode is None:
        return config
    return config.model_copy(update={"privacy": config.privacy.model_copy(update={"mode": mode})})


def fail(message: str, code: int) -> NoReturn:
    """End the program with one clear line for each problem."""
    for line in message.splitlines():
        click.echo(f"mobiscud: {line}", err=True)
    sys.exit(code)


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
