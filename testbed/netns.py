"""Network namespaces and what stands in them: a thin layer over ``ip``, ``ethtool`` and ``/proc/sys``.

``ip -batch`` makes all links of the testbed in one process and a few milliseconds; a shell per namespace does the
rest. No library is needed, and every step can be read and repeated by hand.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mobiscud.core.errors import AdapterError, SetupError

NETNS_DIRECTORY: Final = Path("/run/netns")
"""Where ``ip netns`` keeps a handle of each named namespace."""

COMMAND_LIMIT_S: Final = 60.0

# Frames must look on the veths as they would on a wire: whole checksums, no super-packets, tags in place.
_OFFLOADS_OFF: Final = "tx off rx off tso off gso off gro off txvlan off rxvlan off"

# No router solicitations or neighbour discovery on the S1 wire; asymmetric paths are what this testbed is about;
# each address is answered for only on its own wire.
_SYSCTLS: Final = (
    ("net/ipv6/conf/all/disable_ipv6", 1),
    ("net/ipv6/conf/default/disable_ipv6", 1),
    ("net/ipv4/conf/all/rp_filter", 0),
    ("net/ipv4/conf/default/rp_filter", 0),
    ("net/ipv4/conf/all/arp_ignore", 1),
    ("net/ipv4/conf/all/arp_announce", 2),
    ("net/ipv4/conf/all/send_redirects", 0),
    ("net/ipv4/conf/default/send_redirects", 0),
)


async def command(*arguments: str, stdin: str = "") -> str:
    """Run a program to its end and return its standard output.

    Raises ``SetupError`` when the program is missing, ``AdapterError`` with what it said when it fails or hangs.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise SetupError(f"the program {arguments[0]!r} is missing (make setup installs it)") from None
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), COMMAND_LIMIT_S)
    except TimeoutError:
        raise AdapterError(f"{' '.join(arguments)}: no end after {COMMAND_LIMIT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise AdapterError(f"{' '.join(arguments)}: {err.decode(errors='replace').strip() or process.returncode}")
    return out.decode(errors="replace")


async def ip_batch(lines: Iterable[str], namespace: str | None = None) -> None:
    """Run ``ip`` commands (written without the word ``ip``) in one process, stopping at the first that fails."""
    where = () if namespace is None else ("-n", namespace)
    await command("ip", *where, "-batch", "-", stdin="\n".join(lines) + "\n")


async def run_in(namespace: str, *arguments: str, stdin: str = "") -> str:
    """Run a program inside a namespace and return its standard output."""
    return await command("ip", "netns", "exec", namespace, *arguments, stdin=stdin)


async def create(namespaces: Iterable[str]) -> None:
    """Make namespaces with ``lo`` up and the system settings of the testbed."""
    names = list(namespaces)
    if os.geteuid() != 0:
        raise SetupError("network namespaces need root: run the testbed with sudo")
    await ip_batch(f"netns add {name}" for name in names)
    script = (
        "set -e\n" + "".join(f"echo {value} > /proc/sys/{key}\n" for key, value in _SYSCTLS) + "ip link set lo up\n"
    )
    await asyncio.gather(*(run_in(name, "sh", stdin=script) for name in names))


async def delete(namespaces: Iterable[str]) -> None:
    """Remove namespaces and with them their devices; those that are gone already are no error."""
    there = set(await existing())
    await ip_batch(f"netns del {name}" for name in namespaces if name in there)


async def existing(prefix: str = "") -> list[str]:
    """The named namespaces of this machine that begin with ``prefix``."""
    if not NETNS_DIRECTORY.is_dir():
        return []
    return sorted(entry.name for entry in NETNS_DIRECTORY.iterdir() if entry.name.startswith(prefix))


def path(namespace: str) -> Path:
    """The handle of a namespace, for ``setns`` and for programs that take a file."""
    return NETNS_DIRECTORY / namespace


def veth(
    a: tuple[str, str], b: tuple[str, str], *, mtu: int, a_mac: str | None = None, b_mac: str | None = None
) -> str:
    """The ``ip`` command for a pair of devices; each end is ``(namespace, device)``."""

    def end(where: tuple[str, str], mac: str | None) -> str:
        address = f" address {mac}" if mac else ""
        return f"name {where[1]} mtu {mtu}{address} netns {where[0]}"

    return f"link add {end(a, a_mac)} type veth peer {end(b, b_mac)}"


def offloads_off(devices: Iterable[str]) -> str:
    """A shell script that turns off every offload of devices."""
    return "".join(f"ethtool -K {device} {_OFFLOADS_OFF} > /dev/null\n" for device in devices)


def stable_mac(node: str, device: str) -> str:
    """A locally administered address that is the same in every run, so that captures can be compared."""
    digest = hashlib.sha256(f"{node}/{device}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))
