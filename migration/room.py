"""What fits on one host: a pure check, and the places that are promised to those who are not here yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from migration.hypervisor import Hypervisor
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId
from mobiscud.core.vm_config import HypervisorConfig

PROMISED_S: Final = 15.0
"""How long a place is kept for one that is to come: a migration that begins makes its guest appear here at once."""


def refusal(config: HypervisorConfig, taken_mib: Mapping[PvmId, int], wanted_mib: int) -> str | None:
    """Say why one more guest does not fit beside those whose memory is given; ``None``: it does."""
    if config.max_pvms is not None and len(taken_mib) >= config.max_pvms:
        return f"{config.cloudlet} has no room: at most {config.max_pvms} personal VMs"
    if config.max_memory_mib is not None and sum(taken_mib.values()) + wanted_mib > config.max_memory_mib:
        return f"{config.cloudlet} has no room: at most {config.max_memory_mib} MiB, {wanted_mib} MiB are wanted"
    return None


class Room:
    """The places of a host. Guests that stand still on request give way to those that are to run."""

    def __init__(
        self, config: HypervisorConfig, hypervisor: Hypervisor, put_aside: Callable[[], Awaitable[bool]]
    ) -> None:
        """``put_aside``: take one that stands still out of memory; gives whether there was one."""
        self._config = config
        self._hypervisor = hypervisor
        self._put_aside = put_aside
        self._promised: dict[PvmId, tuple[int, float]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def promise(self, pvm_id: PvmId, mib: int) -> None:
        """Keep a place for a guest for a while, or until ``forget``.

        :raises AdapterError: it does not fit
        """
        async with self._one_at_a_time:
            while True:
                reason = await self.refuses(pvm_id, mib)
                if reason is None:
                    break
                if not await self._put_aside():
                    raise AdapterError(reason)
            self._promised[pvm_id] = mib, time.monotonic() + PROMISED_S

    async def refuses(self, pvm_id: PvmId, mib: int) -> str | None:
        """Say why a guest does not fit as things are; ``None``: it does.

        :raises AdapterError: the hypervisor does not answer
        """
        return refusal(self._config, await self._taken(pvm_id), mib)

    def forget(self, pvm_id: PvmId) -> None:
        """Take a promise back, whether the guest is here now or does not come."""
        self._promised.pop(pvm_id, None)

    async def _taken(self, wanting: PvmId) -> dict[PvmId, int]:
        now = time.monotonic()
        self._promised = {pvm_id: kept for pvm_id, kept in self._promised.items() if kept[1] > now}
        taken = {pvm_id: mib for pvm_id, (mib, _) in self._promised.items()}
        if self._config.max_pvms is not None or self._config.max_memory_mib is not None:
            taken |= await self._hypervisor.memory()
        taken.pop(wanting, None)
        return taken
