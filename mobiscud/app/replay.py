"""``mobiscud replay``: captures in, events out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc_monitor.capture import read_capture
from epc_monitor.frames import Frame
from epc_monitor.garbage import rarely_full
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.app import build
from mobiscud.bus.cloudevents import TYPE_PREFIX, Envelopes
from mobiscud.core.config import Config
from mobiscud.core.errors import AdapterError, ConfigError, MobiScudError
from mobiscud.core.events import Event

if TYPE_CHECKING:
    from mobiscud.bus.mqtt import MqttBus

Sink = Callable[[Event], None]

FLUSH_EVERY: Final = 1000
"""Events that may be on their way to the broker before the replay waits for it."""
AT_ONCE: Final = 512
"""Frames that are read, then followed, then told together: a processor is faster at what it does again and again."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What the command line asked for; ``output`` is ``jsonl``, ``table`` or ``none``."""

    output: str = "jsonl"
    stats: bool = False
    publish: bool = False
    real_time: bool = False


def replay(files: Iterable[Path], config: Config, keys: UeKeys, options: ReplayOptions) -> None:
    """Read the captures one after the other, as one stream.

    :raises MobiScudError: a file is no capture, or is cut off (what came before it was printed), or the broker
        failed
    """
    monitor = build.monitor(config, keys)
    began = time.perf_counter()
    try:
        asyncio.run(_replay(files, config, monitor, options))
    finally:
        sys.stdout.flush()
        if options.stats:
            seconds = round(time.perf_counter() - began, 6)
            print(json.dumps({**monitor.stats.as_dict(), "seconds": seconds}), file=sys.stderr)


async def _replay(files: Iterable[Path], config: Config, monitor: Monitor, options: ReplayOptions) -> None:
    show_imsi = config.privacy.mode == "clear"
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(rarely_full())
        sinks: list[Sink] = []
        if options.output != "none":
            sinks.append(printer(options.output, f"/mobiscud/{config.site.name}/monitor", show_imsi=show_imsi))
        bus = None
        if options.publish:
            from mobiscud.bus.publisher import EventPublisher

            bus = await stack.enter_async_context(_bus(config))
            states = monitor.tracker
            sinks.append(EventPublisher(bus, config.site.name, "monitor", show_imsi=show_imsi, states=states).publish)
        published = 0
        clock = _Clock() if options.real_time else None
        receive = monitor.receive
        for frames in _batches(files, 1 if options.real_time else AT_ONCE):
            if clock is not None:
                await asyncio.sleep(max(0.0, clock.wait_s(frames[0])))
            events = [event for frame in frames for event in receive(frame)]
            for sink in sinks:
                for event in events:
                    sink(event)
            published += len(events)
            if bus is not None and published >= FLUSH_EVERY:
                published = 0
                await _flush(bus)


@contextlib.asynccontextmanager
async def _bus(config: Config) -> AsyncIterator[MqttBus]:
    if config.bus.url is None:
        raise ConfigError("bus.url: --publish needs a broker; name one in the configuration")
    from mobiscud.bus.mqtt import Broker, MqttBus  # takes longer to load than a short capture to read

    async with MqttBus(Broker.from_config(config.bus, config.bus.url)) as bus:
        try:
            yield bus
        finally:
            await _flush(bus)


async def _flush(bus: MqttBus) -> None:
    if not await bus.flush():
        raise AdapterError("the broker no longer takes what is published: is it still there?")


def _batches(files: Iterable[Path], size: int) -> Iterator[list[Frame]]:
    """All frames, so many at once; a file that ends too soon does not keep the others from being read."""
    failure: MobiScudError | None = None
    for path in files:
        frames = read_capture(path)
        more = True
        while more:
            batch: list[Frame] = []
            try:
                batch.extend(islice(frames, size))  # keeps what came before an error
            except MobiScudError as error:
                failure = failure or error
            more = len(batch) == size
            if batch:
                yield batch
    if failure is not None:
        raise failure


class _Clock:
    """Maps capture times onto the present, from the first frame on."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def wait_s(self, frame: Frame) -> float:
        """How long until it is this frame's turn."""
        at = frame.at / 1e9
        if self._offset is None:
            self._offset = time.monotonic() - at
        return at + self._offset - time.monotonic()


def printer(form: str, source: str, *, show_imsi: bool, flush: bool = False) -> Sink:
    """Prints events on stdout, as ``jsonl`` or as a ``table`` for people; ``flush``: each at once."""
    envelopes = Envelopes(source, show_imsi=show_imsi)
    write = sys.stdout.write

    def show(event: Event) -> None:
        write((envelopes.text(event) if form == "jsonl" else describe(envelopes.wrap(event))) + "\n")
        if flush:
            sys.stdout.flush()

    return show


def describe(envelope: dict[str, Any]) -> str:
    """A CloudEvent as a line of a table: time of day, UE, type, and what a person wants to see of it."""
    kind = envelope["type"].removeprefix(TYPE_PREFIX)
    shown = summary(envelope.get("data") or {})
    return f"{envelope.get('time', '')[11:]:16}  {envelope.get('subject', '-'):19}  {kind:22}  {shown}"


def summary(data: dict[str, Any]) -> str:
    """What a person wants to see of an event, in one line."""
    parts: list[str] = []
    if data.get("imsi"):
        parts.append(data["imsi"])
    parts += data.get("ue_ip") or []
    if "source" in data and "target" in data:
        parts.append(f"{data['kind']} {_place(data['source'])} -> {_place(data['target'])}")
    elif "enb" in data or "ecgi" in data:
        parts.append(_place(data))
    if data.get("cause"):
        parts.append(data["cause"]["name"])
    for bearer in data.get("bearers") or []:
        ends = (bearer.get(end) for end in ("uplink", "downlink"))
        shown = " / ".join(f"{end['address']} {end['teid']}" if end else "?" for end in ends)
        parts.append(f"E-RAB {bearer['e_rab_id']}: {shown}")
    parts += [f"{name} {data[name]}" for name in ("via", "detail", "previous_ue", "count") if data.get(name)]
    parts += [f"{name} {data[name]:.1f}" for name in ("downtime_ms", "total_ms") if data.get(name) is not None]
    return "  ".join(parts)


def _place(where: dict[str, Any]) -> str:
    enb, ecgi = where.get("enb") or {}, where.get("ecgi") or {}
    shown = f"eNB {enb['enb_id']:#x}" if enb.get("enb_id") is not None else f"eNB at {enb.get('address') or '?'}"
    return f"{shown} cell {ecgi['cell_id']}" if ecgi else shown
