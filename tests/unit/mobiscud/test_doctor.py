"""What the doctor concludes, and that it looks at everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiscud.app import checks
from mobiscud.app.checks import Finding, Level, Part
from mobiscud.app.cli import cli
from mobiscud.app.doctor import examine, parts_of
from mobiscud.core.config import Config, parse

ALL_CAPABILITIES = (1 << 41) - 1


def levels(findings: object) -> list[str]:
    assert not isinstance(findings, Finding)
    return [finding.level.value for finding in findings]  # type: ignore[attr-defined]


def test_a_line_has_its_level_first_and_its_mend_last() -> None:
    assert str(Finding(Level.FAIL, "broker", "no answer", "start it")) == "fail broker        no answer -> start it"
    assert str(checks.ok("kernel", "Linux 6")) == "ok   kernel        Linux 6"


def test_only_what_a_part_needs_fails() -> None:
    assert levels(checks.capabilities(ALL_CAPABILITIES, set(Part))) == ["ok"] * 3
    assert levels(checks.capabilities(0, set())) == ["warn"] * 3
    assert levels(checks.capabilities(0, {Part.MONITOR})) == ["fail"]
    assert levels(checks.capabilities(0, {Part.CONTROLLER})) == ["fail", "fail"]
    assert levels(checks.capabilities(1 << 13 | 1 << 12 | 1 << 39, set(Part))) == ["ok"] * 3
    assert levels(checks.programs("bpf", {"clang": "clang"}, set(), needed=True)) == ["fail"]
    assert levels(checks.programs("bpf", {"clang": "clang"}, set(), needed=False)) == ["warn"]
    (missing,) = checks.programs("bpf", {"tc": "iproute2", "clang": "clang"}, {"tc"}, needed=True)
    assert missing.found == "clang not found"
    assert missing.mend == "apt-get install clang, or make setup"


@pytest.mark.parametrize(
    ("release", "level"), [("6.1.0-13-amd64", "ok"), ("5.15.0", "ok"), ("5.10.0-8", "warn"), ("odd", "warn")]
)
def test_old_kernels_are_warned_of(release: str, level: str) -> None:
    assert checks.kernel(release).level == level


def test_the_bpf_file_system_is_looked_for_where_it_is_wanted() -> None:
    mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n"
    assert checks.bpf_file_system(mounts, "/sys/fs/bpf", needed=True).level is Level.OK
    assert checks.bpf_file_system(mounts, "/run/bpf", needed=True).level is Level.WARN
    assert checks.bpf_file_system(mounts, "/run/bpf", needed=False).level is Level.OK
    assert checks.bpf_file_system("tmpfs /sys/fs/bpf tmpfs rw 0 0\n", "/sys/fs/bpf", needed=True).level is Level.WARN


def test_a_bridge_is_there_and_as_it_should_be() -> None:
    assert levels(checks.bridge("br", "netdev", "secure")) == ["ok"]
    assert levels(checks.bridge("br", None, None)) == ["fail"]
    assert levels(checks.bridge("br", "system", "[]")) == ["warn", "warn"]


def test_the_mode_is_told_with_its_reason() -> None:
    told = checks.migration("auto", "pre_copy", (7, 2, 22), "tcg", odd_memory=True).found
    assert told.startswith("pre_copy (QEMU 7.2.22, tcg)")
    assert "8 KiB more" in told
    told = checks.migration("post_copy", "post_copy", (10, 0, 2), "kvm", odd_memory=False).found
    assert told == "post_copy (QEMU 10.0.2, kvm): as configured"


def test_a_way_in_the_clear_is_warned_of_and_missing_certificates_fail() -> None:
    ways = {"c1": "qemu+tcp://10.0.0.1/system", "c2": "qemu+tls://10.0.0.2/system"}
    assert levels(checks.ways_to_others(ways)) == ["warn", "ok"]
    assert checks.certificates([]).level is Level.OK
    assert checks.certificates(["CA/cacert.pem"]).level is Level.FAIL


def test_each_gap_of_confinement_is_told_once() -> None:
    assert levels(checks.confinement({})) == ["ok"]
    assert levels(checks.confinement({7: (), 8: ()})) == ["ok"]
    (gap,) = checks.confinement({7: ("it runs as root",), 8: ()})
    assert gap.found == "1 of 2 QEMU: it runs as root"


def test_a_clock_is_synchronised_and_right() -> None:
    assert checks.clock(synchronised=True, error_ms=5).level is Level.OK
    assert checks.clock(synchronised=True, error_ms=500).level is Level.WARN
    assert checks.clock(synchronised=False, error_ms=0).level is Level.WARN


WHOLE = """
site: {node: c1}
bus: {url: "mqtt://127.0.0.1:1"}
monitor: {interfaces: [not-there]}
cloudlets:
  - {id: c1, node: c1, enb_ids: [1]}
  - {id: c2, node: c2, enb_ids: [2], migration_uri: "qemu+tls://10.0.0.2/system"}
switches:
  - {cloudlet: c1, bridge: br0, openflow: "unix:/not/there", enb_port: e, core_port: c, pvm_port: p, peers: {c2: i}}
hypervisors:
  - {cloudlet: c1, uri: "qemu+unix:///system?socket=/not/there", bridge: not-there, kernel: /not/k, initrd: /not/i}
"""


async def test_whatever_a_node_lacks_is_found() -> None:
    config = parse(WHOLE)
    assert parts_of(config) == set(Part)
    failed = {finding.subject for finding in await examine(config) if finding.level is Level.FAIL}
    assert failed >= {"interfaces", "openflow", "libvirt", "images", "hypervisor", "broker"}


async def test_a_monitor_is_not_asked_for_a_hypervisor() -> None:
    findings = await examine(parse("monitor: {interfaces: [lo]}"))
    assert {f.subject for f in findings} == {"capabilities", "kernel", "interfaces", "state", "clock", "broker"}


async def test_without_a_configuration_nothing_fails_for_what_nobody_asked() -> None:
    findings = await examine(Config())
    assert [str(finding) for finding in findings if finding.level is Level.FAIL] == []
    assert {"capabilities", "kernel", "bpf", "openvswitch", "hypervisor", "broker", "clock"} <= {
        f.subject for f in findings
    }


def test_the_command_ends_with_1_when_something_fails(tmp_path: Path) -> None:
    (tmp_path / "c1.yaml").write_text(WHOLE)
    result = CliRunner().invoke(cli, ["doctor", "-c", str(tmp_path / "c1.yaml")])
    assert result.exit_code == 1
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in result.stdout.splitlines())
    assert CliRunner().invoke(cli, ["doctor"]).exit_code == 0
