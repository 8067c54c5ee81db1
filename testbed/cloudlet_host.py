"""A cloudlet's host on one machine: namespaces, private system directories, a bridge, and a libvirtd of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Final

from mobiscud.core.errors import SetupError
from testbed import priority

CAPABILITY_CACHE: Final = Path("/var/cache/mobiscud/libvirt")
"""What a libvirtd found out about QEMU (libvirt sees for itself when it is stale); to find it out takes 1 to 4 s."""

PRIVATE_DIRECTORIES: Final = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "run": "/run",
}
"""Bound in this order: ``/run`` comes last, because it hides what of the others may lie below it."""
ACCOUNTS: Final = {"passwd": "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin", "group": "libvirt-qemu:x:64055:"}
"""Debian's libvirtd does not start without its account, which only a package that needs systemd makes."""

IN_GROUP: Final = ("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"')
"""Before the group and a command. A real hypervisor shares its processors with no load generator and no other host;
here all are on the same few, and a guest that has just arrived would wait for its turn."""

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0

LIBVIRTD_CONF: Final = """\
host_uuid = "{host_uuid}"
listen_tls = {tls}
listen_tcp = {tcp}
listen_addr = "{address}"
tcp_port = "16509"
tls_port = "16514"
auth_tcp = "none"
auth_tls = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_dir = "/run/libvirt"
keepalive_interval = 1
keepalive_count = 3
ovs_timeout = 5
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

QEMU_CONF: Final = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
migration_address = "{address}"
migration_host = "{address}"
migration_port_min = 49152
migration_port_max = 49215
keepalive_interval = 1
keepalive_count = 3
"""

QEMU_TLS_CONF: Final = """default_tls_x509_cert_dir = "/etc/pki/qemu"
default_tls_x509_verify = 1
"""


class CloudletHost:
    """One host, in a network namespace that somebody else made and that holds ``management_address`` already.

    Everything in it dies with this process, or with :meth:`crash`; :meth:`stop` also sweeps its directory.
    Without ``pki`` the libvirtd listens without authentication, which is safe only because that address is in a
    namespace; with it, it takes TLS alone, from those with a certificate of the same authority.
    """

    def __init__(
        self,
        name: str,
        *,
        netns: str,
        management_address: str,
        run_dir: Path,
        bridge: str = "br-pvm",
        bridge_ports: tuple[str, ...] = (),
        pki: Path | None = None,
    ) -> None:
        """Describe the host.

        :param run_dir: where its private directories are made, in a directory of its name
        :param bridge: the Linux bridge that its guests' NICs are plugged into
        :param bridge_ports: devices of the namespace to plug into it as well
        :param pki: what ``scripts/make-certificates.sh`` made for this host: its ``/etc/pki``
        """
        self.name = name
        self.netns = netns
        self.management_address = management_address
        self.bridge = bridge
        self._bridge_ports = bridge_ports
        self._pki = pki
        self._directory = run_dir / name
        self._init: asyncio.subprocess.Process | None = None
        self._init_pid = 0
        self._daemon: asyncio.subprocess.Process | None = None

    @property
    def uri(self) -> str:
        """How a process of this machine reaches the host's libvirtd."""
        return f"qemu+unix:///system?socket={self._directory}/run/libvirt/libvirt-sock"

    @property
    def migration_uri(self) -> str:
        """How another host's libvirtd reaches this one's."""
        return f"qemu+{'tcp' if self._pki is None else 'tls'}://{self.management_address}/system"

    @property
    def log_directory(self) -> Path:
        """What libvirtd, QEMU and the guests' serial consoles wrote; gone after :meth:`stop`."""
        return self._directory / "log"

    @property
    def init_pid(self) -> int:
        """The host's PID 1, as the machine numbers it."""
        return self._init_pid

    async def start(self) -> None:
        """Give a host whose libvirtd answers.

        :raises SetupError: a right or a program is missing, or libvirtd does not come up
        """
        try:
            await asyncio.to_thread(self._prepare_directories)
            await self._make_bridge()
            await self._start_init()
            await self.start_daemon()
        except BaseException:
            await self.stop()
            raise
        await asyncio.to_thread(self._keep_capabilities)

    async def stop(self) -> None:
        """Stop libvirtd, kill what is left, sweep. Calling it twice, or after a crash, is harmless."""
        await self.kill_daemon(signal.SIGTERM)
        await self.crash()
        await _run("ip", "-n", self.netns, "link", "delete", self.bridge, check=False)
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        priority.leave_no_group()

    async def crash(self) -> None:
        """Pull the plug: every process of the host dies at once."""
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init_pid, signal.SIGKILL)
            await self._init.wait()
            self._init = None
        if self._daemon is not None:
            await self._daemon.wait()
            self._daemon = None

    async def start_daemon(self) -> None:
        """Start libvirtd in a host that has none (any more), and wait until it answers.

        :raises SetupError: it does not
        """
        daemon = ("/usr/sbin/libvirtd", "--listen", "--config", "/etc/libvirt/libvirtd.conf")
        group = priority.group()
        command = (*(() if group is None else (*IN_GROUP, str(group))), *self.inside(*daemon))
        with (self.log_directory / "stderr.log").open("ab") as output:
            self._daemon = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while await _run("virsh", "--quiet", "--connect", self.uri, "version", check=False) != 0:
                    if self._daemon.returncode is not None:
                        raise SetupError(f"libvirtd of {self.name} ended at once: {self._last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise SetupError(f"libvirtd of {self.name} is silent: {self._last_words()}") from None

    async def kill_daemon(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End libvirtd alone; its QEMUs run on. Does nothing where there is none."""
        if self._daemon is None:
            return
        daemon = self.daemon_pid
        if daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, number)
            try:
                await asyncio.wait_for(self._daemon.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                os.kill(daemon, signal.SIGKILL)
        await self._daemon.wait()
        self._daemon = None

    def inside(self, *command: str) -> tuple[str, ...]:
        """The command that runs ``command`` inside the host."""
        return ("nsenter", f"--target={self._init_pid}", "--mount", "--uts", "--net", "--pid", "--", *command)

    @property
    def daemon_pid(self) -> int | None:
        """The libvirtd that nsenter(1) forked: nsenter stays outside the host's PID namespace and waits for it."""
        if self._daemon is None:
            return None
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children")
        try:
            pids = children.read_text().split()
        except OSError:
            return None
        return int(pids[0]) if pids else None

    def _last_words(self) -> str:
        """What libvirtd wrote last, for the one who has to find out why."""
        for name in ("libvirtd.log", "stderr.log"):
            with contextlib.suppress(OSError):
                lines = (self.log_directory / name).read_text(errors="replace").strip().splitlines()
                if lines:
                    return lines[-1]
        return "it said nothing"

    def _prepare_directories(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        for name in ("run/libvirt", "run/lock", "etc", "lib/qemu", "lib/images", "cache/qemu", "log/qemu"):
            (self._directory / name).mkdir(parents=True)
        if CAPABILITY_CACHE.is_dir():
            shutil.copytree(CAPABILITY_CACHE, self._directory / "cache/qemu/capabilities")
        host_uuid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.mobiscud")
        tls = int(self._pki is not None)
        values = {"host_uuid": host_uuid, "address": self.management_address, "tls": tls, "tcp": 1 - tls}
        (self._directory / "etc/libvirtd.conf").write_text(LIBVIRTD_CONF.format(**values))
        qemu = QEMU_CONF.format(**values) + (QEMU_TLS_CONF if tls else "")
        (self._directory / "etc/qemu.conf").write_text(qemu)
        for name, account in ACCOUNTS.items():
            accounts = Path("/etc", name).read_text()
            if "libvirt-qemu:" not in accounts:
                accounts += account + "\n"
            (self._directory / name).write_text(accounts)
        if self._pki is not None:
            shutil.copytree(self._pki, self._directory / "pki")
        for _, target in self._private_directories():
            Path(target).mkdir(parents=True, exist_ok=True)  # where the private ones are bound over

    def _private_directories(self) -> list[tuple[str, str]]:
        pki = [] if self._pki is None else [("pki", "/etc/pki")]
        return [*pki, *PRIVATE_DIRECTORIES.items()]

    def _keep_capabilities(self) -> None:
        """Save what this libvirtd found out, for the hosts and runs after it."""
        found = self._directory / "cache/qemu/capabilities"
        if CAPABILITY_CACHE.is_dir() or not found.is_dir() or not any(found.iterdir()):
            return
        CAPABILITY_CACHE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CAPABILITY_CACHE.parent) as scratch:
            copy = Path(shutil.copytree(found, Path(scratch) / "capabilities"))
            with contextlib.suppress(OSError):  # another host was faster
                copy.rename(CAPABILITY_CACHE)

    async def _make_bridge(self) -> None:
        """An existing bridge is kept, with what is plugged into it."""
        if await _run("ip", "-n", self.netns, "link", "show", self.bridge, check=False) != 0:
            options = ("type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
            await _run("ip", "-n", self.netns, "link", "add", self.bridge, *options)
        await _run("ip", "-n", self.netns, "link", "set", self.bridge, "up")
        for port in self._bridge_ports:
            await _run("ip", "-n", self.netns, "link", "set", port, "master", self.bridge, "up")

    async def _start_init(self) -> None:
        binds = [f"{self._directory}/{name}:/etc/{name}" for name in ACCOUNTS]
        binds += [f"{self._directory}/{name}:{target}" for name, target in self._private_directories()]
        program = Path(__file__).with_name("nsinit.py")
        self._init = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(program), self.netns, self.name, *binds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the one who holds the pipe
        )
        assert self._init.stdout is not None  # a pipe, as asked for above
        assert self._init.stderr is not None
        line = await self._init.stdout.readline()
        if not line.startswith(b"READY "):
            said = (await self._init.stderr.read()).decode().strip().splitlines()
            await self._init.wait()
            self._init = None
            raise SetupError(f"host {self.name} did not start: {said[-1] if said else 'no reason given'}")
        self._init_pid = int(line.split()[1])


async def _run(*command: str, check: bool = True) -> int:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    if check and process.returncode != 0:
        raise SetupError(f"{' '.join(command)}: {said.decode().strip()}")
    return process.returncode
