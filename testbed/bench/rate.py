"""How many handovers a second one controller carries: the part ``rate`` of ``mobiscud bench flows``.

A controller of a real switch (Open vSwitch and the datapath program) on a real broker serves a thousand UEs, each of
which goes from one eNodeB of the cloudlet to the other and back, once a second. The events come from here, by the
broker, as a monitor sends them (handover.prepared, executing, completed, and the retained state); each handover is two
changes of the switch, confirmed, and two events of the controller. Times run from the event handed to our bus until the
controller's own event is back here, on one clock that never jumps; so they hold three crossings of the broker's sockets
more than the path does. The flood comes all at once, and shows what the controller makes of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

from mobiscud.bus import topics
from mobiscud.bus.cloudevents import TYPE_PREFIX, decode
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.publisher import EventPublisher
from mobiscud.core.config import BusConfig
from mobiscud.core.errors import AdapterError
from mobiscud.core.events import HandoverCompleted, HandoverExecuting, HandoverPrepared, OffloadMoved, OffloadPrepared
from mobiscud.core.ids import EnbId, ERabId, FTeid, Teid
from mobiscud.core.ue import BearerContext, Enb, Forwarding, HandoverEnd, HandoverKind
from testbed import population, priority, results
from testbed.bench.common import say
from testbed.controller_process import SITE, Done, finish, prepare, started
from testbed.mosquitto import Mosquitto
from testbed.switch_bench import SwitchBench

UES: Final = 1_000
RATE: Final = 1_000
SECONDS: Final = 10
FLOOD: Final = 5_000
EXECUTING_S: Final = 0.02
"""From a handover's preparation to its end."""
TICK_S: Final = 0.001
LIMIT_S: Final = 120.0
MILLISECONDS: Final = 1e3


class Walkers:
    """UEs that hand over when they are told to, and what became of that."""

    def __init__(self, bus: MqttBus, ues: int = UES) -> None:
        self.prepared_s: list[float] = []
        self.moved_s: list[float] = []
        self._publisher = EventPublisher(bus, SITE, "monitor", show_imsi=False)
        self._asked: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._at = [0] * ues
        self._moments = time.time_ns()
        self._enbs = [Enb(None, EnbId(k), address) for k, address in enumerate(population.ENBS, 1)]
        self._news = asyncio.Event()

    async def listen(self, bus: MqttBus) -> None:
        """Hear of what the controller has done."""
        for kind in (OffloadPrepared, OffloadMoved):
            await bus.subscribe(topics.of_type(kind), self._hear)

    def prepare(self, number: int) -> None:
        """The target's end points are known."""
        about = self._about(number)
        self._publisher.publish(HandoverPrepared(**about))
        self._publisher.publish(HandoverExecuting(**about, forwarding=Forwarding()))
        self._asked[about["ue"], OffloadPrepared.TYPE].append(time.monotonic())

    def complete(self, number: int) -> None:
        """The UE is there."""
        about = self._about(number)
        self._publisher.publish(HandoverCompleted(**about, ecgi=None, tai=None))
        self._asked[about["ue"], OffloadMoved.TYPE].append(time.monotonic())
        self._at[number] = 1 - self._at[number]

    async def all_moved(self, handovers: int) -> None:
        """Wait until so many have been carried out.

        :raises AdapterError: they were not
        """
        try:
            async with asyncio.timeout(LIMIT_S):
                while len(self.moved_s) < handovers:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AdapterError(f"{len(self.moved_s)} of {handovers} handovers were carried out") from None

    def _about(self, number: int) -> dict[str, Any]:
        self._moments += 1
        source, target = self._enbs[self._at[number]], self._enbs[1 - self._at[number]]
        downlink = FTeid(population.ENBS[1 - self._at[number]], Teid(0x20000 + number))
        return {
            "at": self._moments,
            "origin": b"%d" % self._moments,
            "ue": population.key(number),
            "ue_ip": (population.path(number).ue_ip,),
            "kind": HandoverKind.S1,
            "source": HandoverEnd(source),
            "target": HandoverEnd(target),
            "enb": target,
            "bearers": (BearerContext(ERabId(5), 9, population.uplink(number), downlink),),
        }

    def _hear(self, topic: str, payload: bytes) -> None:
        event = decode(payload)
        kind = event["type"].removeprefix(TYPE_PREFIX)
        asked = self._asked[event["subject"], kind].popleft()
        taken = self.prepared_s if kind == OffloadPrepared.TYPE else self.moved_s
        taken.append(time.monotonic() - asked)
        self._news.set()


async def steady(walkers: Walkers, rate: int, seconds: int) -> None:
    """So many handovers a second, of one UE after the other."""
    numbers = (number % UES for number in range(rate * seconds))
    due: list[tuple[float, int]] = []
    began = time.monotonic()
    begun = 0
    while due or begun < rate * seconds:
        now = time.monotonic()
        late = min(rate * seconds, int((now - began) * rate) + 1) - begun
        for number in islice(numbers, late):
            walkers.prepare(number)
            due.append((now + EXECUTING_S, number))
        begun += late
        ended = sum(at <= now for at, _ in due)
        for _, number in due[:ended]:
            walkers.complete(number)
        del due[:ended]
        await asyncio.sleep(TICK_S)


def flood(walkers: Walkers, numbers: Iterable[int]) -> None:
    """One handover of each of these UEs, all at once."""
    for number in numbers:
        walkers.prepare(number)
        walkers.complete(number)


async def measure(bench: SwitchBench, folder: Path) -> dict[str, Any]:
    """A steady rate, then a flood, each on a controller of its own, which find the switch as the one before left it.

    :raises AdapterError: not all handovers were carried out
    """
    say(f"{RATE} handovers a second through one controller")
    steady_s, walkers, done = await _run(bench, folder, RATE * SECONDS, flooded=False)
    of_steady = {
        "ues": UES,
        "handovers": RATE * SECONDS,
        "asked_per_s": RATE,
        "carried_per_s": round(RATE * SECONDS / steady_s),
        "prepare_ms": results.quantiles(MILLISECONDS * taken for taken in walkers.prepared_s),
        "path_ms": results.quantiles(MILLISECONDS * taken for taken in walkers.moved_s),
        **_of_controller(done, RATE * SECONDS),
    }
    say(f"{FLOOD} handovers at once")
    flood_s, _, done = await _run(bench, folder, FLOOD, flooded=True)
    return {
        **of_steady,
        "flood": {"handovers": FLOOD, "carried_per_s": round(FLOOD / flood_s), **_of_controller(done, FLOOD)},
    }


def _of_controller(done: Done, handovers: int) -> dict[str, Any]:
    backlog = done.backlog
    return {
        "cpu_ms_per_handover": round(MILLISECONDS * done.cpu_seconds / handovers, 3),
        "backlog": {
            "limit": backlog.limit,
            "highest": backlog.highest,
            "seconds_at_limit": round(backlog.seconds_at_limit, 3),
        },
    }


async def _run(bench: SwitchBench, folder: Path, handovers: int, *, flooded: bool) -> tuple[float, Walkers, Done]:
    run = folder / ("flood" if flooded else "steady")
    run.mkdir()
    async with Mosquitto(run / "mosquitto") as broker:
        job = prepare(bench.config, run, broker.unix_url, population.records(UES))
        async with (
            started(job) as (process, _),
            MqttBus(Broker.from_config(BusConfig(), broker.unix_url)) as speaker,
            MqttBus(Broker.from_config(BusConfig(), broker.unix_url)) as listener,
        ):
            priority.prefer([os.getpid(), process.pid, broker.pid, bench.ovs.pid])
            walkers = Walkers(speaker)
            await walkers.listen(listener)
            began = time.monotonic()
            if flooded:
                flood(walkers, (number % UES for number in range(handovers)))
            else:
                await steady(walkers, RATE, SECONDS)
            await walkers.all_moved(handovers)
            took_s = time.monotonic() - began
            return took_s, walkers, await finish(process)
