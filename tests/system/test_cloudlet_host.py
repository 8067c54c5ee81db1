"""A cloudlet's host really is one of its own, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mobiscud.core.errors import SetupError
from testbed import netns
from testbed.cloudlet_host import CloudletHost

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

NAMESPACE = f"th{os.getpid():x}-c1"
ADDRESS = "10.90.0.1"


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    await netns.delete([NAMESPACE])
    await netns.create([NAMESPACE])
    await netns.ip_batch([f"addr add {ADDRESS}/24 dev lo"], NAMESPACE)
    yield NAMESPACE
    await netns.delete([NAMESPACE])


def host_in(namespace: str, directory: Path) -> CloudletHost:
    return CloudletHost("c1", netns=namespace, management_address=ADDRESS, run_dir=directory)


def processes_of(namespace: str) -> list[int]:
    """The processes in a network namespace."""
    there = os.stat(netns.path(namespace)).st_ino
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.stat(entry / "ns/net").st_ino == there:
                found.append(int(entry.name))
        except OSError:
            pass  # it ended meanwhile
    return found


def machine_mounts() -> str:
    """What is mounted as this process sees it."""
    return Path("/proc/self/mounts").read_text()


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


async def test_its_libvirtd_answers_under_its_own_name_and_nothing_stays(namespace: str, tmp_path: Path) -> None:
    host = host_in(namespace, tmp_path)
    await host.start()
    try:
        assert (await netns.command("virsh", "--connect", host.uri, "hostname")).strip() == "c1"
        assert await netns.command(*host.inside("ls", "/sys/fs/cgroup")) == ""
    finally:
        await host.stop()
    await host.stop()
    assert processes_of(namespace) == []
    assert not (tmp_path / "c1").exists()
    assert "br-pvm" not in await netns.run_in(namespace, "ip", "link")
    assert str(tmp_path) not in machine_mounts()


async def test_a_crash_takes_everything_at_once_and_it_can_start_again(namespace: str, tmp_path: Path) -> None:
    host = host_in(namespace, tmp_path)
    try:
        await host.start()
        await host.crash()
        assert processes_of(namespace) == []
        await host.start()
        assert processes_of(namespace) != []
    finally:
        await host.stop()


async def test_the_daemon_can_die_alone(namespace: str, tmp_path: Path) -> None:
    host = host_in(namespace, tmp_path)
    try:
        await host.start()
        await host.kill_daemon()
        assert host.init_pid in processes_of(namespace)
        await host.start_daemon()
    finally:
        await host.stop()


async def test_it_dies_with_the_process_that_started_it(namespace: str, tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from testbed.cloudlet_host import CloudletHost\n"
        "async def main():\n"
        "    host = CloudletHost('c1', netns=sys.argv[1], management_address=sys.argv[2],"
        " run_dir=pathlib.Path(sys.argv[3]))\n"
        "    await host.start()\n"
        "    print('up', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    runner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, namespace, ADDRESS, str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert runner.stdout is not None
        assert await runner.stdout.readline() == b"up\n"
        assert processes_of(namespace) != []
    finally:
        os.kill(runner.pid, signal.SIGKILL)
        await runner.wait()
    await asyncio.to_thread(wait_until, lambda: processes_of(namespace) == [])


async def test_a_missing_namespace_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not-there"):
        await host_in("not-there", tmp_path).start()
