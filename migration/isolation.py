"""What keeps personal VMs from their host and shows how far QEMU is confined.

From each other they are kept by isolated ports (``domain_xml``), and from what is behind the switch by its rules. But
Linux answers for all of its addresses on all of its interfaces, so a guest that asks on the bridge for the host's
management address would be answered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSTEM: Final = Path("/proc/sys/net")
PROC: Final = Path("/proc")

CLOSED: Final = {
    "ipv4/conf/{bridge}/rp_filter": 1,  # the bridge has no address, so no packet from there has the right way back
    "ipv4/conf/{bridge}/arp_ignore": 8,  # answer for no address of the host's
    "ipv6/conf/{bridge}/disable_ipv6": 1,
}


def close_host(bridge: str, system: Path = SYSTEM) -> list[str]:
    """Have the host deaf on the VMs' bridge, of this network namespace; gives what could not be done.

    A bridge that has an address of the host's stays open to those it is for.
    """
    problems = []
    for setting, value in CLOSED.items():
        path = system / setting.format(bridge=bridge)
        try:
            if int(path.read_text()) != value:
                path.write_text(f"{value}\n")
        except OSError as error:
            if not setting.startswith("ipv6") or (system / "ipv6").is_dir():
                problems.append(f"{path}: {os.strerror(error.errno or 0)}")
    return problems


def open_settings(bridge: str, system: Path = SYSTEM) -> list[str]:
    """Say which settings leave the host open on the bridge; a bridge that is not there leaves nothing open."""
    return [
        f"{setting} is {found}, not {value}"
        for setting, value in ((name.format(bridge=bridge), value) for name, value in CLOSED.items())
        if (found := _number(system / setting)) not in (None, value)
    ]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a QEMU process is held. ``profile``: AppArmor's or SELinux's; ``None`` where there is none."""

    pid: int
    user: int
    filters_calls: bool
    profile: str | None

    @property
    def gaps(self) -> tuple[str, ...]:
        """What is left open."""
        return tuple(
            gap
            for gap, is_open in (
                ("it runs as root", self.user == 0),
                ("no seccomp filter", not self.filters_calls),
                ("no AppArmor or SELinux profile", self.profile is None),
            )
            if is_open
        )


def confinements(proc: Path = PROC) -> Iterator[Confinement]:
    """Look at every QEMU of this machine that this process may look at (proc(5))."""
    for entry in sorted(proc.iterdir()):
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"qemu" not in Path(os.fsdecode(words[0])).name.encode() or b"-name" not in words:
                continue
            status = (entry / "status").read_text()
        except OSError:
            continue  # it has ended, or is none of ours
        yield Confinement(int(entry.name), _field(status, "Uid"), _field(status, "Seccomp") == 2, _profile(entry))


def _field(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _profile(process: Path) -> str | None:
    try:
        label = (process / "attr/current").read_text().strip("\0\n ")
    except OSError:
        return None
    return label if label and label != "unconfined" else None
