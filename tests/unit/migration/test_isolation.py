"""The host's settings and QEMU's confinement, as files say them."""

from __future__ import annotations

from pathlib import Path

from migration.isolation import Confinement, close_host, confinements, open_settings


def system(directory: Path, *, value: int = 0) -> Path:
    for setting in ("ipv4/conf/br/rp_filter", "ipv4/conf/br/arp_ignore", "ipv6/conf/br/disable_ipv6"):
        path = directory / setting
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return directory


def test_a_closed_host_is_closed_and_an_open_one_is_seen(tmp_path: Path) -> None:
    settings = system(tmp_path)
    assert len(open_settings("br", settings)) == 3
    assert close_host("br", settings) == []
    assert open_settings("br", settings) == []
    assert (settings / "ipv4/conf/br/arp_ignore").read_text() == "8\n"


def test_what_cannot_be_closed_is_said(tmp_path: Path) -> None:
    assert len(close_host("none", system(tmp_path))) == 3
    assert open_settings("none", tmp_path) == []


def test_a_kernel_without_ipv6_is_closed_to_it(tmp_path: Path) -> None:
    for name in ("rp_filter", "arp_ignore"):
        path = tmp_path / "ipv4/conf/br" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0\n")
    assert close_host("br", tmp_path) == []


def process(proc: Path, pid: int, program: str, *, uid: int, seccomp: int, label: str | None) -> None:
    entry = proc / str(pid)
    (entry / "attr").mkdir(parents=True)
    (entry / "cmdline").write_bytes(b"\0".join((program.encode(), b"-name", b"guest=pvm-1,debug-threads=on", b"")))
    (entry / "status").write_text(f"Name:\tqemu\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nSeccomp:\t{seccomp}\n")
    if label is not None:
        (entry / "attr/current").write_text(label)


def test_confinement_is_read_from_the_process(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    process(tmp_path, 7, "/usr/bin/qemu-system-x86_64", uid=64055, seccomp=2, label="libvirt-0815 (enforce)\n")
    process(tmp_path, 8, "/usr/bin/qemu-system-x86_64", uid=0, seccomp=0, label="unconfined\n")
    process(tmp_path, 9, "/usr/bin/python3", uid=0, seccomp=0, label=None)
    held, loose = confinements(tmp_path)
    assert held == Confinement(7, 64055, filters_calls=True, profile="libvirt-0815 (enforce)")
    assert held.gaps == ()
    assert loose.gaps == ("it runs as root", "no seccomp filter", "no AppArmor or SELinux profile")
