"""Run a program of the system and understand its failure."""

from __future__ import annotations

import asyncio
import shutil

from mobiscud.core.errors import SetupError

MEND = {
    "clang": "apt install clang libbpf-dev linux-libc-dev",
    "bpftool": "apt install bpftool",
    "tc": "apt install iproute2",
}


async def run(program: str, *arguments: str) -> str:
    """Run ``program`` and return what it printed.

    :raises SetupError: it is not installed, or it failed; the message holds what it said
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        raise SetupError(f"{program} is not installed: {MEND.get(program, f'install {program}')}")
    process = await asyncio.create_subprocess_exec(
        path, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip() or f"exit code {process.returncode}"
        hint = "; this needs root (CAP_NET_ADMIN and CAP_BPF)" if "not permitted" in said else ""
        raise SetupError(f"{program} {' '.join(arguments)}: {said}{hint}")
    return out.decode(errors="replace")
