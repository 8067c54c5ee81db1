"""Hold each personal VM's traffic to what its image allows, by tc(8) on its tap and on the bridge's way out.

To the guest: a token bucket on the tap. From the guest: a class of its own, found by its MAC, on the bridge's other
ports. libvirt could do it, but with queues and policers that not every kernel has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from migration.lifecycle import Notice, PvmResumed, PvmStopped
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId

log = structlog.get_logger(__name__)

SMALLEST_BURST: Final = 16_384
"""Octets: some packets of the largest size, or nothing passes."""
BURST_S: Final = 0.01
"""How much of a second may come at once."""
QUEUE: Final = "50ms"
"""How long a packet may wait for its turn; one that would wait longer is dropped."""


@dataclass(frozen=True, slots=True)
class NetworkCard:
    """Where a PVM that is here is plugged in, and how many Mbit/s it may get and send; ``None``: any number."""

    tap: str
    mac: str
    down_mbit_s: float | None = None
    up_mbit_s: float | None = None


class Cards(Protocol):
    """Who knows where the PVMs are plugged in."""

    async def network_card(self, pvm_id: PvmId) -> NetworkCard | None: ...


def down(card: NetworkCard) -> Iterator[str]:
    """What tc(8) does on the tap of a guest that is limited."""
    if card.down_mbit_s is not None:
        yield f"qdisc replace dev {card.tap} root tbf {_rate(card.down_mbit_s)} latency {QUEUE}"


def up(card: NetworkCard, port: str, number: int) -> Iterator[str]:
    """What it does on a port that leads out; ``number`` is the PVM's own there. Offsets count from the IP header."""
    if card.up_mbit_s is None:
        return
    mac = card.mac.replace(":", "")
    source = f"match u32 0x{mac[:8]} 0xffffffff at -8 match u16 0x{mac[8:]} 0xffff at -4"
    yield f"class replace dev {port} parent 1: classid 1:{number:x} htb {_rate(card.up_mbit_s)}"
    yield f"filter add dev {port} parent 1: protocol all prio {number} u32 {source} flowid 1:{number:x}"


def lift(port: str, number: int) -> tuple[str, ...]:
    """The reverse of ``up``."""
    return (f"filter del dev {port} parent 1: prio {number}", f"class del dev {port} classid 1:{number:x}")


def fresh(port: str) -> tuple[str, ...]:
    """Have no classes on a port; what has none passes as before."""
    return (f"qdisc replace dev {port} root handle 1: htb default 0",)


def _rate(mbit_s: float) -> str:
    burst = max(SMALLEST_BURST, round(mbit_s * 1e6 / 8 * BURST_S))
    return f"rate {round(mbit_s * 1e6)}bit burst {burst}b"


def ports_out(described: str) -> list[str]:
    """The ports of a bridge that no guest is plugged into, by what ``ip -json -details link show master`` says."""
    links = json.loads(described or "[]")
    return sorted(link["ifname"] for link in links if link.get("linkinfo", {}).get("info_kind") != "tun")


class TrafficLimits:
    """The limits of all PVMs on one bridge, of this network namespace."""

    def __init__(self, bridge: str, cards: Cards) -> None:
        self._bridge = bridge
        self._cards = cards
        self._numbers: dict[PvmId, int] = {}
        self._ports: set[str] = set()
        self._in_turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, running: Iterable[PvmId]) -> None:
        """Forget what was limited before, and limit those that run."""
        self._ports.clear()
        self._numbers.clear()
        for pvm_id in running:
            await self._apply(pvm_id)

    def on_notice(self, notice: Notice) -> None:
        """Limit whoever begins to run here, and forget who has gone."""
        match notice:
            case PvmResumed(pvm_id=pvm_id):
                self._spawn(pvm_id)
            case PvmStopped(pvm_id=pvm_id) if pvm_id in self._numbers:
                self._spawn(pvm_id)
            case _:
                pass

    async def close(self) -> None:
        """Wait for what is being done; limits stay."""
        await asyncio.gather(*self._tasks)

    def _spawn(self, pvm_id: PvmId) -> None:
        task = asyncio.create_task(self._apply(pvm_id), name=f"limits of {pvm_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _apply(self, pvm_id: PvmId) -> None:
        try:
            async with self._in_turn:
                card = await self._cards.network_card(pvm_id)
                await self._lift(pvm_id)
                if card is not None and (card.down_mbit_s or card.up_mbit_s):
                    await self._limit(pvm_id, card)
        except AdapterError as error:
            log.warning("traffic is not limited", pvm=pvm_id, reason=str(error))

    async def _limit(self, pvm_id: PvmId, card: NetworkCard) -> None:
        lines = list(down(card))
        if card.up_mbit_s is not None:
            number = self._numbers[pvm_id] = next(n for n in range(1, 0xFFFF) if n not in self._numbers.values())
            described = await _run("ip", "-json", "-details", "link", "show", "master", self._bridge)
            for port in ports_out(described):
                if port not in self._ports:
                    lines += fresh(port)
                    self._ports.add(port)
                lines += up(card, port, number)
        await _tc(lines)
        log.info("traffic limited", pvm=pvm_id, down_mbit_s=card.down_mbit_s, up_mbit_s=card.up_mbit_s)

    async def _lift(self, pvm_id: PvmId) -> None:
        number = self._numbers.pop(pvm_id, None)
        if number is not None:
            await _tc([line for port in sorted(self._ports) for line in lift(port, number)])


async def _tc(lines: Iterable[str]) -> None:
    """Have tc(8) do things, in one process, up to the first that fails."""
    await _run("tc", "-batch", "-", stdin="\n".join([*lines, ""]))


async def _run(program: str, *arguments: str, stdin: str = "") -> str:
    """Run a program of iproute2, which sees what this process sees; ``/sys`` may show another network namespace."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(program, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise AdapterError(f"{program} is not installed (package iproute2)") from None
    out, said = await process.communicate(stdin.encode())
    if process.returncode:
        raise AdapterError(f"{program}: {' '.join(said.decode(errors='replace').split())}")
    return out.decode()
