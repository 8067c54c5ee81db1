"""What one process of a cloudlet leaves for the next: that the wire is taken, and how its ports were found."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from flows.gtp_datapath.interfaces import Interface
from mobiscud.core.errors import SetupError

FOLDER = Path("/run/mobiscud")
NAMESPACE = "/proc/thread-self/ns/net"


def _file(cloudlet: str, suffix: str) -> Path:
    """Several network namespaces of a machine may have a cloudlet of that name, as in tests."""
    return FOLDER / f"wire-{cloudlet}-{os.stat(NAMESPACE).st_ino}.{suffix}"


def claim(cloudlet: str) -> IO[str]:
    """Take the wire of a cloudlet, until the file that is returned is closed or the process ends, however it ends.

    :raises SetupError: another process has it, or no privilege
    """
    try:
        FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = _file(cloudlet, "lock").open("a+")
    except OSError as error:
        raise SetupError(f"cannot write to {FOLDER}: {error.strerror}; run as root") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise SetupError(f"process {owner} controls cloudlet {cloudlet!r} already; stop it first") from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def remember(cloudlet: str, found: Iterable[Interface], *, changed: bool) -> list[Interface]:
    """Note the interfaces down as they were found.

    ``changed``: we have been here before, and what can be seen now is what we made of them. Then an earlier note is
    what counts.
    """
    noted: dict[tuple[str, int], Interface] = {}
    if changed:
        with suppress(OSError, ValueError, TypeError):
            noted = {(i["name"], i["index"]): Interface(**i) for i in json.loads(_file(cloudlet, "json").read_text())}
    originals = [noted.get((interface.name, interface.index), interface) for interface in found]
    note = _file(cloudlet, "json")
    temporary = note.with_suffix(".new")
    temporary.write_text(json.dumps([asdict(interface) for interface in originals]))
    temporary.replace(note)
    return originals


def forget(cloudlet: str) -> None:
    """The ports are as they were found."""
    _file(cloudlet, "json").unlink(missing_ok=True)
