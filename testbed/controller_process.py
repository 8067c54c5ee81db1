"""One cloudlet's controller in a process of its own, with real switch, journal and bus: for floods, and for kills.

``python -m testbed.controller_process JOB.json``, inside the cloudlet's network namespace. Only the hypervisor is
a stand-in, on which every personal VM runs. Standard output gets a line of JSON, ``Ready``, when the
controller has taken its switch over; another, ``Done``, when SIGTERM has ended it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog
from pydantic import TypeAdapter

from epc_monitor.garbage import rarely_full
from flows.service import CloudletSwitch
from mobiscud.bus.listener import listen
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.publisher import EventPublisher
from mobiscud.bus.requests import Requests
from mobiscud.controller.backlog import Backlog
from mobiscud.controller.hearing import HEARD
from mobiscud.controller.journal import Journal
from mobiscud.controller.observe import ObservedHypervisor
from mobiscud.controller.offload_policy import OffloadPolicy
from mobiscud.controller.ports import Neighbourhood
from mobiscud.controller.record import UeRecord
from mobiscud.controller.service import CloudletController
from mobiscud.core.config import BusConfig, MigrationConfig, OffloadConfig, SwitchConfig
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import UeKey
from testbed import population

SITE: Final = "bench"
START_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """Where everything is, and who is offloaded."""

    switch: SwitchConfig
    journal: Path
    broker: str
    subscribers: Mapping[UeKey, Pvm]


_JOB: Final = TypeAdapter(Job)


@dataclass(frozen=True, slots=True)
class Ready:
    """Since the process began: seconds of processor. And how many stale rules it found."""

    cpu_seconds: float
    swept: int


@dataclass(frozen=True, slots=True)
class Done:
    """Seconds of processor since it was ready, and what its backlog was."""

    cpu_seconds: float
    backlog: Backlog


async def work(job: Job) -> None:
    """Control the switch until SIGTERM."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    with rarely_full():
        await _control(job, over)


async def _control(job: Job, over: asyncio.Event) -> None:
    here = population.HERE
    hypervisor = ObservedHypervisor()
    for pvm in job.subscribers.values():
        await hypervisor.start(pvm)
    async with (
        MqttBus(Broker.from_config(BusConfig(), job.broker)) as bus,
        CloudletSwitch(job.switch, OffloadConfig()) as switch,
    ):
        requests = Requests(bus, SITE, here)
        await requests.start()
        with Journal(job.journal) as journal:
            controller = CloudletController(
                Neighbourhood(here, dict.fromkeys(range(1, len(population.ENBS) + 1), here), {here: here}, {}),
                OffloadPolicy.plain(job.subscribers),
                MigrationConfig(),
                switch=switch,
                hypervisor=hypervisor,
                requests=requests,
                journal=journal,
                inlet=bus,
                publish=EventPublisher(bus, SITE, "controller", show_imsi=False).publish,
            )
            async with controller:
                swept = await switch.adopted(controller.offloaded)
                await listen(bus, HEARD, controller.on_event, controller.on_state)
                ready = Ready(time.process_time(), swept)
                print(json.dumps(asdict(ready)), flush=True)
                await over.wait()
                done = Done(time.process_time() - ready.cpu_seconds, controller.backlog)
                print(json.dumps(asdict(done)), flush=True)
            await requests.stop()


def prepare(switch: SwitchConfig, folder: Path, broker: str, records: Mapping[UeKey, UeRecord]) -> Path:
    """A job for a controller that remembers these records; the file that holds it."""
    job = Job(switch, folder / "c1.journal", broker, {ue: record.pvm for ue, record in records.items()})
    with Journal(job.journal) as journal:
        journal.put(records)
    file = folder / "job.json"
    file.write_bytes(_JOB.dump_json(job))
    return file


@asynccontextmanager
async def started(file: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Ready]]:
    """The process of the job in ``file``, at work; killed at the end, with SIGKILL.

    :raises AdapterError: it did not start
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, str(file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_LIMIT_S):
            line = await process.stdout.readline()
        if not line:
            raise AdapterError("the controller ended before it was ready")
        yield process, Ready(**json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def finish(process: asyncio.subprocess.Process) -> Done:
    """End the process in good order; what it has to tell.

    :raises AdapterError: it had died
    """
    assert process.stdout is not None
    if process.returncode is None:
        process.terminate()
    async with asyncio.timeout(START_LIMIT_S):
        said = await process.stdout.read()
    if not said:
        raise AdapterError("the controller died")
    told = json.loads(said)
    return Done(told["cpu_seconds"], Backlog(**told["backlog"]))


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(work(_JOB.validate_json(Path(sys.argv[1]).read_bytes())))
