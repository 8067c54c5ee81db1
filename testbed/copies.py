"""An observer that trusts nobody: it asks every hypervisor itself, all the time, and counts who runs a guest.

A process and connections of its own, apart from the controllers'. The hosts cannot be asked at one moment, and a guest
may change sides between two questions: so whoever seems to run in two places is asked for once more, in the same order.
Both answers can only be true of two copies, since no guest goes there and back that fast.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import libvirt

from testbed.priority import guests_of

PAUSE_S: Final = 0.05


@dataclass(slots=True)
class Observations:
    """What was seen. ``doubles`` are spells of two copies: when they began, and how long they lasted, in seconds."""

    count: int = 0
    doubles: list[tuple[float, float]] = field(default_factory=list)

    @property
    def longest_double_s(self) -> float:
        """The longest spell of two copies."""
        return max((length for _, length in self.doubles), default=0.0)


class CopyWatch:
    """Watches one guest on all hosts, as a context manager; ``seen`` may be read at any time."""

    def __init__(self, guest: str, uris: Mapping[str, str]) -> None:
        """Make a watch.

        :param uris: of the hypervisors, by the name of the host
        """
        self._guest = guest
        self._uris = uris
        self._connections: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="copies", daemon=True)
        self._double_since: float | None = None
        self.seen = Observations()
        self.runs_at: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; they need no line on stderr as well
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for connection in self._connections.values():
            connection.close()

    def _watch(self) -> None:
        while not self._stop.wait(PAUSE_S):
            running = self._running()
            if len(running) > 1:
                running &= self._running()
            now = time.monotonic()
            self.seen.count += 1
            self.runs_at = running
            if len(running) > 1:
                self._double_since = self._double_since or now
            elif self._double_since is not None:
                self.seen.doubles.append((self._double_since, now - self._double_since))
                self._double_since = None

    def _running(self) -> frozenset[str]:
        return frozenset(host for host in self._uris if self._runs(host))

    def _runs(self, host: str) -> bool:
        try:
            connection = self._connections.get(host)
            if connection is None:
                connection = self._connections[host] = libvirt.openReadOnly(self._uris[host])
            return bool(connection.lookupByName(self._guest).state()[0] == libvirt.VIR_DOMAIN_RUNNING)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                self._connections.pop(host, None)  # a daemon that was killed; it is asked again
            return False


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a host holds on behalf of guests: to be the same after a guest has come and gone."""

    processes: int
    taps: int
    files: frozenset[str]


def belongings_of(init: int, directory: Path, devices: Callable[[], str]) -> Belongings:
    """Look.

    :param init: PID 1 of the host
    :param directory: the host's own directories
    :param devices: gives the text of its ``/proc/net/dev``
    """
    # What libvirt writes while a guest is there: its state, its pid, its monitor's socket, its memory's directory.
    places = ("run/libvirt/qemu", "lib/qemu")
    files = {
        str(path.relative_to(directory)) for place in places for path in (directory / place).rglob("*") if path.exists()
    }
    taps = sum(line.split(":")[0].strip().startswith("vnet") for line in devices().splitlines())
    return Belongings(len(guests_of(init)), taps, frozenset(files))
