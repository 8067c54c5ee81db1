"""An Open vSwitch of one's own: database, daemon and bridges in a network namespace, without systemd.

Everything lies in one run directory, so that several can stand side by side and each be taken down whole, even by a
later run that finds the directory of one that was killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mobiscud.core.errors import AdapterError, SetupError
from testbed import netns
from testbed.netns import command

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
DAEMONS = ("ovs-vswitchd", "ovsdb-server")  # in the order in which they stop
STOP_TIMEOUT_S = 5.0


class OpenVSwitch:
    """Use as a context manager. ``namespace`` names the one whose interfaces become ports; None for this process's."""

    def __init__(self, run_dir: Path, namespace: str | None = None) -> None:
        self._run_dir = run_dir.absolute()
        self._namespace = namespace

    async def __aenter__(self) -> Self:
        """Start, after sweeping what a killed run left in the run directory.

        :raises SetupError: Open vSwitch is not installed
        :raises AdapterError: a daemon does not come up
        """
        _check_installed()
        await sweep(self._run_dir)
        self._run_dir.mkdir(parents=True)
        try:
            await self._start()
        except BaseException:
            await sweep(self._run_dir)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await sweep(self._run_dir)

    async def add_bridge(self, name: str, ports: Sequence[str]) -> None:
        """A bridge with the userspace datapath that forwards nothing until it is told to.

        :raises SetupError: a port cannot be added
        """
        arguments = ["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail_mode=secure"]
        for port in ports:
            arguments += ["--", "add-port", name, port]
        await self.vsctl(*arguments)
        for port in ports:
            # ovs-vsctl is content when the daemon has looked at a port, not when the port works.
            if (problem := await self.vsctl("get", "interface", port, "error")).strip() != "[]":
                raise SetupError(f"Open vSwitch cannot use {port!r}: {problem.strip()}")

    def management_target(self, bridge: str) -> str:
        """Where the bridge listens for OpenFlow, as the configuration key ``switches.openflow`` wants it."""
        return f"unix:{self._run_dir}/{bridge}.mgmt"

    @property
    def pid(self) -> int:
        """Process id of ovs-vswitchd, which holds the flows and moves the packets."""
        return int((self._run_dir / "ovs-vswitchd.pid").read_text())

    async def vsctl(self, *arguments: str) -> str:
        """Run ovs-vsctl on this database."""
        return await command("ovs-vsctl", f"--db=unix:{self._run_dir}/db.sock", "--timeout=10", *arguments)

    async def dump_flows(self, bridge: str) -> str:
        """The flows of a bridge in ovs-ofctl's words, for people and tests."""
        return await command("ovs-ofctl", "-O", "OpenFlow13", "dump-flows", self.management_target(bridge))

    async def settle(self) -> None:
        """Wait until the flow cache agrees with the flow tables, which it does within a millisecond or so anyway."""
        await command("ovs-appctl", "-t", str(self._run_dir / "ovs-vswitchd.ctl"), "--timeout=10", "revalidator/wait")

    async def start_switch(self) -> None:
        """Start ovs-vswitchd; after it has been killed the bridges come back, without their flows."""
        # Without the system datapath the daemon leaves the kernel's alone, which others may use.
        await self._daemon("ovs-vswitchd", f"unix:{self._run_dir}/db.sock", "--disable-system")

    async def _start(self) -> None:
        database = self._run_dir / "conf.db"
        await command("ovsdb-tool", "create", str(database), str(SCHEMA))
        await self._daemon("ovsdb-server", str(database), f"--remote=punix:{self._run_dir}/db.sock")
        await self.start_switch()
        await self.vsctl("--no-wait", "init")

    async def _daemon(self, name: str, *arguments: str) -> None:
        """Start a daemon; it detaches when it is ready."""
        # Not `ip netns exec`, which would also give the daemon a /sys of its own.
        inside = ("nsenter", f"--net={netns.path(self._namespace)}") if self._namespace else ()
        common = (
            "--detach",
            "--no-chdir",
            f"--pidfile={self._run_dir / name}.pid",
            f"--unixctl={self._run_dir / name}.ctl",
            f"--log-file={self._run_dir / name}.log",
            "-vconsole:off",
        )
        await command(*inside, "env", f"OVS_RUNDIR={self._run_dir}", name, *arguments, *common)


def _check_installed() -> None:
    if not SCHEMA.exists():
        raise SetupError(f"{SCHEMA} is missing: apt install openvswitch-switch")


async def sweep(run_dir: Path) -> None:
    """Stop the daemons whose pid files lie in ``run_dir`` and remove it; harmless where there is nothing."""
    for name in DAEMONS:
        pidfile = run_dir / f"{name}.pid"
        with suppress(FileNotFoundError, ValueError):
            await _stop(int(pidfile.read_text()), name, run_dir)
    shutil.rmtree(run_dir, ignore_errors=True)


async def _stop(pid: int, name: str, run_dir: Path) -> None:
    if not _is(pid, name):
        return
    with suppress(AdapterError):
        # Asked in this way, ovs-vswitchd takes its bridges' devices away.
        manner = ("--cleanup",) if name == "ovs-vswitchd" else ()
        await command("ovs-appctl", "-t", str(run_dir / f"{name}.ctl"), "--timeout=5", "exit", *manner)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if await _ended(pid):
            return
        with suppress(ProcessLookupError):
            os.kill(pid, sign)


async def _ended(pid: int) -> bool:
    """Whether the process, which need not be our child, ends in time."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(watch, ended.set)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(watch)
        os.close(watch)
    return True


def _is(pid: int, name: str) -> bool:
    """Whether the process still is what the pid file says; its number may have gone to another."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except OSError:
        return False
