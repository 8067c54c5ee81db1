"""What the testbed's long-running processes have in common: READY on stdout, and a clean end on a signal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from mobiscud.core.errors import ConfigError, MobiScudError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def announce_ready() -> None:
    """Tell the parent that work can begin."""
    sys.stdout.write("READY\n")
    sys.stdout.flush()


def main(arguments: list[str], run: Callable[[Path], Awaitable[None]]) -> int:
    """Run a process that takes one configuration file, and give its exit status."""
    if len(arguments) != 1:
        sys.stderr.write("one argument is needed: the configuration file\n")
        return EXIT_USAGE

    async def work() -> None:
        await run(Path(arguments[0]))

    status = 0
    try:
        asyncio.run(work())
    except* ConfigError as group:
        status = EXIT_USAGE
        _say(group)
    except* (MobiScudError, ConnectionError) as group:
        status = EXIT_FAILED
        _say(group)
    return status


def _say(group: BaseExceptionGroup[Exception]) -> None:
    """Write each reason once; several tasks often fail for the same."""
    reasons: dict[str, None] = {}
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions
        else:
            reasons[str(error)] = None
    sys.stderr.writelines(f"{reason}\n" for reason in reasons)
