"""SIGHUP: the configuration is read again, and what can change while the node is at work does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import structlog

from mobiscud.core import config as configuration
from mobiscud.core.config import Config
from mobiscud.core.errors import ConfigError, MobiScudError

log = structlog.get_logger(__name__)

FIXED: Final = ("mode", "gateway", "gateway_mac")
"""Keys of ``offload`` that the switch is built on."""
FIXED_OF_MIGRATION: Final = ("absence_s",)
"""Keys of ``migration`` that are part of each UE's record."""

Take = Callable[[Config], Awaitable[None]]
"""Lets the part of a node that it belongs to work by a new configuration."""


def needs_restart(old: Config, new: Config) -> list[str]:
    """The keys that differ and cannot change while the node is at work: all but who and what is offloaded, and when
    personal VMs follow."""
    changing = {"offload": FIXED, "migration": FIXED_OF_MIGRATION}
    differing = [name for name in Config.model_fields if getattr(old, name) != getattr(new, name)]
    keys = [
        f"{section}.{key}"
        for section, fixed in changing.items()
        for key in fixed
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]
    return [name for name in differing if name not in changing] + keys


class Reloader:
    """Reads ``file`` at every SIGHUP. A bad file keeps the running configuration, and why is said."""

    def __init__(self, file: Path | None, config: Config) -> None:
        self._file = file
        self._running = config
        self._told = asyncio.Event()
        self._take: Take | None = None
        self.refused = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """From here on SIGHUP ends nobody."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._told.set)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    def tell(self, take: Take) -> None:
        """Who is to hear of a new configuration."""
        self._take = take

    async def watch(self) -> NoReturn:
        """Read the file whenever told to."""
        while True:
            await self._told.wait()
            self._told.clear()
            try:
                await self._reload()
            except ConfigError as error:
                self.refused += 1
                for problem in error.problems:
                    log.error("configuration refused, the running one stays", problem=problem)
            except MobiScudError as error:
                log.error("configuration not wholly in force", error=str(error))

    async def _reload(self) -> None:
        if self._file is None:
            log.warning("no configuration file to read again")
            return
        new = await asyncio.to_thread(configuration.load, self._file)
        for key in needs_restart(self._running, new):
            log.warning("changed, but in force only after a restart", key=key)
        old = self._running
        if (new.offload, new.migration) == (old.offload, old.migration):
            log.info("configuration read again: the same is offloaded, and follows as before")
            return
        offload = new.offload.model_copy(update={key: getattr(old.offload, key) for key in FIXED})
        migration = new.migration.model_copy(update={key: getattr(old.migration, key) for key in FIXED_OF_MIGRATION})
        running = old.model_copy(update={"offload": offload, "migration": migration})
        if problems := list(offload.problems()):
            raise ConfigError(problems)
        if self._take is not None:
            await self._take(running)
        self._running = running
        log.info("configuration read again and in force")
