"""On what a run was made: the machine, the versions of the parts, the commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import testbed

_VERSION: Final = re.compile(r"\d+(\.\d+)+\S*")
_PARTS: Final = {
    "Open vSwitch": ("ovs-vswitchd", "--version"),
    "libvirt": ("libvirtd", "--version"),
    "QEMU": ("qemu-system-x86_64", "--version"),
    "Mosquitto": ("mosquitto", "-h"),
    "clang": ("clang", "--version"),
}


def describe() -> dict[str, str]:
    """Names and values in the order in which one reads them; a part that is not there is left out."""
    found = {
        "system": _distribution(),
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "KVM device": "present" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "absent: guests are emulated",
        "Python": platform.python_version(),
    }
    for name, command in _PARTS.items():
        if version := _VERSION.search(_said(command)):
            found[name] = version[0].rstrip(",.")
    return found


def commit() -> str:
    """The commit of the source tree, with ``+`` when files differ from it; "unknown" outside of one."""
    root = str(Path(testbed.__file__).resolve().parents[1])
    sha = _said(("git", "-C", root, "rev-parse", "--short=10", "HEAD")).strip()
    changed = _said(("git", "-C", root, "status", "--porcelain", "--untracked-files=no")).strip()
    return f"{sha}{'+' if changed else ''}" if sha else "unknown"


def _said(command: Sequence[str]) -> str:
    """What a program prints; nothing when it is missing, fails, or hangs."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, env={**os.environ, "PATH": path}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _processor() -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return model[1] if model else platform.machine()
