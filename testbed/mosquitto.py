"""A Mosquitto of our own: loopback and a unix socket, nobody else reaches it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mobiscud.core.errors import SetupError

START_LIMIT_S = 10.0


def free_port() -> int:
    """A TCP port of the loopback interface on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mosquitto:
    """The broker, running while the context lasts.

    ``url`` is for who shares the network namespace, ``unix_url`` for nodes in namespaces of their own.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port if port is not None else free_port()
        self.directory = directory
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.unix_url = f"unix://{directory}/mqtt.sock"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 when it does not run."""
        return self._process.pid if self._process else 0

    async def __aenter__(self) -> Self:
        """As :meth:`start`."""
        await self.start()
        return self

    async def start(self) -> None:
        """Start, also after it was stopped, and wait until it listens.

        :raises SetupError: it is not installed, or does not start
        """
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            raise SetupError("mosquitto is not installed: apt install mosquitto")
        self.directory.mkdir(parents=True, exist_ok=True)
        socket_path = self.directory / "mqtt.sock"
        socket_path.unlink(missing_ok=True)
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nlistener 0 {socket_path}\n"
            "allow_anonymous true\npersistence false\nset_tcp_nodelay true\nmax_inflight_messages 0\n"
            "max_queued_messages 0\nuser root\nlog_dest stderr\nlog_type error\nlog_type warning\n"
        )
        with (self.directory / "mosquitto.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                program, "-c", str(config), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            async with asyncio.timeout(START_LIMIT_S):
                while not await self._listens():
                    if self._process.returncode is not None:
                        raise SetupError(f"mosquitto did not start: see {self.directory / 'mosquitto.log'}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.stop()
            raise SetupError(f"mosquitto does not listen: see {self.directory / 'mosquitto.log'}") from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self, *, kill: bool = False) -> None:
        """End it, in good order or not; harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill() if kill else process.terminate()
            await process.wait()

    async def _listens(self) -> bool:
        return await _opens(asyncio.open_connection("127.0.0.1", self.port)) and await _opens(
            asyncio.open_unix_connection(self.directory / "mqtt.sock")
        )


async def _opens(door: Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> bool:
    try:
        _, writer = await door
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
