"""Build the datapath program with clang, once a source text."""

from __future__ import annotations

import os
import platform
from hashlib import sha256
from pathlib import Path

from flows.gtp_datapath.commands import run

SOURCE = Path(__file__).with_name("gtp.bpf.c")
HEADERS = tuple(SOURCE.with_name(name) for name in ("maps.h", "packet.h"))
SYSTEM_CACHE = Path("/var/cache/mobiscud")


def cache_directory() -> Path:
    """Where built objects are kept: the system's cache for root, else the user's."""
    if os.geteuid() == 0:
        return SYSTEM_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobiscud"


def _flags() -> tuple[str, ...]:
    # Debian keeps <asm/types.h> in a folder named after the architecture, which clang does not search for BPF.
    return (
        "-O2",
        "-g",
        "-target",
        "bpf",
        "-Wall",
        "-Werror",
        f"-I{HEADERS[0].parent}",
        f"-I/usr/include/{platform.machine()}-linux-gnu",
    )


async def build(cache: Path | None = None) -> Path:
    """The object file of the program; built when the cache has none of this source and these flags.

    :raises SetupError: clang or the headers are missing
    """
    cache = cache or cache_directory()
    text = b"".join(path.read_bytes() for path in (SOURCE, *HEADERS))
    name = sha256(text + " ".join(_flags()).encode()).hexdigest()[:16]
    target = cache / f"gtp-{name}.o"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Several cloudlets may start at once: each builds its own and puts it in place whole.
        temporary = cache / f"{target.name}.{os.getpid()}"
        await run("clang", *_flags(), "-c", str(SOURCE), "-o", str(temporary))
        temporary.replace(target)
    return target
