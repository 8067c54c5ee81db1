"""Delay links: two devices of one namespace joined so that each frame takes a set time from one to the other.

Where the kernel has netem, each link is a two-port bridge with a netem queue on both ports. Elsewhere a process of
ours does the same in user space (``testbed.delay_node``): every frame leaves its set time after the kernel's receive
time stamp, in the order in which it came. ``docs/testbed.md`` has what was measured.

``python -m testbed.delay CONFIG.json`` runs the user-space node in the namespace it is started in, in the foreground.
``CONFIG.json``: ``{"links": [{"name":, "a":, "b":, "shape": {"delay_ms":, "jitter_ms":, "loss_percent":,
"rate_mbit_s":}, "capacity":}], "stats": FILE}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from mobiscud.core.errors import AdapterError, MobiScudError, SetupError
from testbed.delay_node import DirectionStats, ask_for_precision, forward, open_link
from testbed.delay_queue import Shape
from testbed.netns import ip_batch, run_in

DEFAULT_CAPACITY: Final = 2000
READY_LIMIT_S: Final = 20.0
STOP_LIMIT_S: Final = 5.0

Engine = Literal["netem", "user space"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayLink:
    """Devices ``a`` and ``b`` joined, with the same shape each way; at most ``capacity`` frames under way each way."""

    name: str
    a: str
    b: str
    shape: Shape
    capacity: int = DEFAULT_CAPACITY

    @property
    def netem(self) -> str:
        """The shape in netem's words."""
        words = f"delay {self.shape.delay_ms}ms"
        if self.shape.jitter_ms:
            words += f" {self.shape.jitter_ms}ms"
        if self.shape.loss_percent:
            words += f" loss {self.shape.loss_percent}%"
        if self.shape.rate_mbit_s:
            words += f" rate {self.shape.rate_mbit_s}mbit"
        return f"{words} limit {self.capacity}"


def write_config(path: Path, links: Sequence[DelayLink], stats: Path) -> None:
    """Write what ``python -m testbed.delay`` reads."""
    path.write_text(json.dumps({"links": [asdict(link) for link in links], "stats": str(stats)}, indent=1) + "\n")


def read_config(path: Path) -> tuple[list[DelayLink], Path]:
    """The links and the file for the counters. Raises ``SetupError`` for a file that is not such a configuration."""
    try:
        content = json.loads(path.read_text())
        links = [DelayLink(**{**link, "shape": Shape(**link["shape"])}) for link in content["links"]]
        return links, Path(content["stats"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path}: not a configuration of the delay node: {error}") from error


def read_stats(path: Path) -> list[DirectionStats]:
    """What the delay node counted. It writes its file when it ends."""
    return [DirectionStats(**entry) for entry in json.loads(path.read_text())]


async def netem_works(namespace: str) -> bool:
    """Whether this kernel has netem: asked by trying it."""
    try:
        await run_in(namespace, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
        await run_in(namespace, "tc", "qdisc", "del", "dev", "lo", "root")
    except AdapterError:
        return False
    return True


class DelayLinks:
    """The delay links of one namespace, whichever engine drives them."""

    def __init__(self, namespace: str, links: Sequence[DelayLink], directory: Path) -> None:
        self.engine: Engine | None = None
        self._namespace = namespace
        self._links = tuple(links)
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The delay node's process, if there is one."""
        return self._process.pid if self._process else None

    async def start(self, engine: Engine | None = None) -> None:
        """Begin to forward; ``engine`` forces one. The devices must be there and up."""
        if not self._links or self.engine:
            return
        chosen: Engine = engine or ("netem" if await netem_works(self._namespace) else "user space")
        if chosen == "netem":
            await self._start_netem()
        else:
            await self._start_node()
        self.engine = chosen

    async def stop(self) -> list[DirectionStats]:
        """Cease to forward, and tell what was counted (nothing with netem). Harmless when not started."""
        process, self._process = self._process, None
        self.engine = None
        if process is None:
            return []
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        stats = self._directory / "delay-stats.json"
        return read_stats(stats) if stats.exists() else []

    async def _start_netem(self) -> None:
        bridges: list[str] = []
        queues = ""
        for number, link in enumerate(self._links):
            bridges.append(f"link add name delay{number} type bridge mcast_snooping 0")
            for port in (link.a, link.b):
                # As a hub: a MAC address may be seen on both sides while a cloudlet redirects traffic.
                bridges += [f"link set {port} master delay{number}", f"link set {port} type bridge_slave learning off"]
                queues += f"tc qdisc replace dev {port} root netem {link.netem}\n"
            bridges.append(f"link set delay{number} up")
        await ip_batch(bridges, self._namespace)
        await run_in(self._namespace, "sh", "-e", stdin=queues)

    async def _start_node(self) -> None:
        config, stats, log = (self._directory / f"delay{suffix}" for suffix in (".json", "-stats.json", ".log"))
        stats.unlink(missing_ok=True)
        write_config(config, self._links, stats)
        with log.open("wb") as errors:
            self._process = process = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", self._namespace, sys.executable, "-m", "testbed.delay", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdout is not None
        try:
            said = await asyncio.wait_for(process.stdout.readline(), READY_LIMIT_S)
        except TimeoutError:
            said = b""
        if said != b"ready\n":
            await self.stop()
            raise AdapterError(f"the delay node did not start: {log.read_text().strip() or 'no answer'}")


def main(arguments: Sequence[str]) -> int:
    """Be the delay node until SIGTERM or SIGINT, then write what was counted."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m testbed.delay CONFIG.json\n")
        return 2
    try:
        links, stats = read_config(Path(arguments[0]))
        directions = [
            direction for link in links for direction in open_link(link.name, link.a, link.b, link.shape, link.capacity)
        ]
    except MobiScudError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not ask_for_precision():
        sys.stderr.write("no real-time priority: the delays jitter when the machine is busy\n")
    forward(directions, on_ready=lambda: print("ready", flush=True))
    stats.write_text(json.dumps([asdict(direction.stats()) for direction in directions], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
