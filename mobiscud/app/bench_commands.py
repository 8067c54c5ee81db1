"""The commands that measure: ``mobiscud bench NAME``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mobiscud.app.options import FILE, OUT_DIRECTORY, common, prepare


@click.group(short_help="What MobiScud measures of itself.")
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
