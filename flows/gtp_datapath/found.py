"""The ports of the wire as they were before we came: noted down, so that a later process can put them back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from flows.gtp_datapath.interfaces import Interface

FOLDER = Path("/run/mobiscud")
NAMESPACE = "/proc/thread-self/ns/net"


def _note(cloudlet: str) -> Path:
    """Several network namespaces of a machine may have a cloudlet of that name, as in tests."""
    return FOLDER / f"wire-{cloudlet}-{os.stat(NAMESPACE).st_ino}.json"


def remember(cloudlet: str, found: Iterable[Interface], *, changed: bool) -> list[Interface]:
    """Note the interfaces down as they were found.

    ``changed``: we have been here before, and what can be seen now is what we made of them. Then an earlier note is
    what counts.
    """
    noted: dict[tuple[str, int], Interface] = {}
    if changed:
        with suppress(OSError, ValueError, TypeError):
            noted = {(i["name"], i["index"]): Interface(**i) for i in json.loads(_note(cloudlet).read_text())}
    originals = [noted.get((interface.name, interface.index), interface) for interface in found]
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = FOLDER / f"{_note(cloudlet).name}.{os.getpid()}"
    temporary.write_text(json.dumps([asdict(interface) for interface in originals]))
    temporary.replace(_note(cloudlet))
    return originals


def forget(cloudlet: str) -> None:
    """The ports are as they were found."""
    _note(cloudlet).unlink(missing_ok=True)
