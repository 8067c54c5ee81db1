from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from migration.fencing import end_by_force
from mobiscud.core.ids import PvmId

PVM_ID = PvmId("pvm-fenced-in-a-test")

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that looks like what it is told to, and lives long."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        program = "import sys; sys.stdout.buffer.write(b'x'); sys.stdout.flush(); sys.stdin.read()"
        process = subprocess.Popen(
            [name, "-c", program, *arguments],
            executable=sys.executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_guests_process_is_ended_for_certain(start: Start) -> None:
    guest = start("qemu-system-x86_64", "-name", f"guest={PVM_ID},debug-threads=on")
    assert end_by_force(PVM_ID) == 1
    assert guest.wait() == -9
    assert end_by_force(PVM_ID) == 0


def test_others_live_on(start: Start) -> None:
    others = [
        start("qemu-system-x86_64", "-name", f"guest={PVM_ID}-2,debug-threads=on"),
        start("qemu-system-x86_64", f"guest={PVM_ID}"),
        start("qemu-system-x86_64", "-name"),
        start("editor", "-name", f"guest={PVM_ID}"),
    ]
    assert end_by_force(PVM_ID) == 0
    assert [other.poll() for other in others] == [None] * 4
