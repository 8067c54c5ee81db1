"""Child processes of an experiment: in a namespace, with a log, and surely ended."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from mobiscud.core.errors import AdapterError
from testbed import netns

READY: Final = b"READY\n"
READY_LIMIT_S: Final = 30.0
STOP_LIMIT_S: Final = 10.0
SHOWN_LINES: Final = 5

PYTHON: Final = (sys.executable, "-m")


class Child:
    """One running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.returncode is not None

    async def ready(self) -> None:
        """Wait for the line READY.

        :raises AdapterError: it ended, or was silent for too long; with what it said last
        """
        if self._process.stdout is None:
            raise ValueError(f"{self.name} was not started with ready=True")
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), READY_LIMIT_S)
        except TimeoutError:
            line = b""
        if line != READY:
            raise AdapterError(f"{self.name} did not start: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log, in one line."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return " | ".join(lines[-SHOWN_LINES:]) or "(it said nothing)"

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL; harmless when it has ended."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_LIMIT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended."""
        if self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        return await self._process.wait()


async def spawn(name: str, *arguments: str, log: Path, namespace: str | None = None, ready: bool = False) -> Child:
    """Start a program, in a namespace where one is named; stderr (and stdout, unless ``ready``) go to ``log``.

    The namespace is entered with ``nsenter``: ``ip netns exec`` would hide the BPF file system.
    """
    inside = ("nsenter", f"--net={netns.path(namespace)}") if namespace else ()
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *inside,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if ready else output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the experiment, which then ends its children in order
        )
    return Child(name, process, log)
