"""The commands of the testbed: the demo, experiments, ladders, simulation."""

from __future__ import annotations

from pathlib import Path

import click

from mobiscud.app import logs
from mobiscud.app.options import OUT_DIRECTORY, common, prepare


@click.command(short_help="The paper's handover experiment, here.")
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


@click.command(short_help="Draw the messages of a capture or an experiment.")
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


@click.group(short_help="Handover experiments that anyone can repeat.")
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


@click.command(short_help="Policies on a hundred thousand users, in virtual time.")
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
