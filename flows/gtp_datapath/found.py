"""What one process of a cloudlet leaves for the next: that the wire is taken, and how its ports were found."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from flows.gtp_datapath.interfaces import Interface
from mobiscud.core.errors import SetupError

FOLDER = Path("/run/mobiscud")
NAMESPACE = "/proc/thread-self/ns/net"
PEER = struct.Struct("=iII")  # struct ucred


def claim(cloudlet: str) -> socket.socket:
    """Take the wire of a cloudlet, until the socket that is returned is closed or the process ends, however it ends.

    A name in the abstract space of unix(7) sockets belongs to one process of a network namespace, and leaves no trace.

    :raises SetupError: another process has it
    """
    name = f"\0mobiscud/wire/{cloudlet}"
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mine.bind(name)
        mine.listen()
    except OSError as error:
        mine.close()
        raise SetupError(f"process {_owner(name)} controls cloudlet {cloudlet!r} already; stop it first") from error
    return mine


def _owner(name: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.connect(name)
        pid, _, _ = PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        return str(pid)
    return "unknown"


def _note(cloudlet: str) -> Path:
    """Several network namespaces of a machine may have a cloudlet of that name, as in tests."""
    return FOLDER / f"wire-{cloudlet}-{os.stat(NAMESPACE).st_ino}.json"


def remember(cloudlet: str, found: Iterable[Interface], *, changed: bool) -> list[Interface]:
    """The interfaces as they were found, noted down where they were not as plain as most.

    ``changed``: we have been here before, and what can be seen now is what we made of them. Then the note of that time
    is what counts; without a note they were plain.
    """
    if not changed:
        originals = list(found)
        forget(cloudlet)
        if any(interface.promiscuous or interface.merges for interface in originals):
            FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
            note = _note(cloudlet)
            temporary = note.with_suffix(".new")
            temporary.write_text(json.dumps([asdict(interface) for interface in originals]))
            temporary.replace(note)
        return originals
    noted: dict[tuple[str, int], Interface] = {}
    with suppress(OSError, ValueError, TypeError):
        noted = {(i["name"], i["index"]): Interface(**i) for i in json.loads(_note(cloudlet).read_text())}
    return [noted.get((i.name, i.index), replace(i, promiscuous=False)) for i in found]


def forget(cloudlet: str) -> None:
    """The ports are as they were found."""
    _note(cloudlet).unlink(missing_ok=True)
