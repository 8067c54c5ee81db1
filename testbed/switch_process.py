"""One cloudlet's switch in a process of its own, so that it can be killed: ``python -m testbed.switch_process``.

Standard input brings the job, a pickle of ``Job``. Standard output gets one line of JSON when the paths are in force,
``Started``; the process then waits to be killed.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import structlog

from flows.service import CloudletSwitch
from mobiscud.core.config import OffloadConfig, SwitchConfig
from mobiscud.core.edge import PathSpec
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import UeKey
from testbed.netns_socket import inside

START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """Where the switch is, and the paths that the process knows from before."""

    namespace: str
    switch: SwitchConfig
    offload: OffloadConfig
    paths: Mapping[UeKey, PathSpec]


@dataclass(frozen=True, slots=True)
class Started:
    """How long it took to take the switch over, on the clock and of processor, and how many stale rules were found."""

    seconds: float
    cpu_seconds: float
    swept: int


async def work(job: Job) -> None:
    """Take the switch over and hold it."""
    began, began_cpu = time.perf_counter(), time.process_time()
    with inside(job.namespace):
        async with CloudletSwitch(job.switch, job.offload) as switch:
            await switch.apply_all(job.paths)
            swept = await switch.adopted(job.paths.keys())
            took = Started(time.perf_counter() - began, time.process_time() - began_cpu, swept)
            sys.stdout.write(json.dumps(asdict(took)) + "\n")
            sys.stdout.flush()
            await asyncio.Event().wait()


@asynccontextmanager
async def started(job: Job) -> AsyncIterator[tuple[asyncio.subprocess.Process, Started]]:
    """The process at work; killed at the end, with SIGKILL as ever.

    :raises AdapterError: it did not start
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(pickle.dumps(job))
        process.stdin.write_eof()
        async with asyncio.timeout(START_LIMIT_S):
            line = await process.stdout.readline()
        if not line:
            raise AdapterError("the process of the switch ended before it was ready")
        yield process, Started(**json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(work(pickle.load(sys.stdin.buffer)))
