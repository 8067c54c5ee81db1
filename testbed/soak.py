"""Migrations for hours, with everything that may happen to them: ``make soak`` or ``python -m testbed.soak``.

A UE walks at random between three cells, mostly to the end of a migration, sometimes away or back in its midst; now and
then a controller or a libvirtd is killed and started again. After each walk the guest must be where its user is, once,
be itself (boot id), and have its memory and its disk whole; at the end nothing may be left over: processes, taps,
files, threads, file descriptors, flows. A watch asks all hypervisors all the time who runs the guest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mobiscud.core.errors import AdapterError, MobiScudError
from testbed import netns
from testbed.copies import Belongings, CopyWatch, belongings_of
from testbed.experiment import FIRST, PVM_ADDRESS, UE, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.node_configs import MONITOR
from testbed.spawn import Child
from testbed.topology import Delays

NO_DELAYS: Final = Delays(ue_enb=0, enb_mtso=0, sgw_pgw=0, pgw_internet=0, enb_enb=0)
CELLS: Final = (1, 2, 3)
MEMORY_MIB: Final = 8
DISK_MIB: Final = 4
BASE_MIB: Final = 16
DISKS: Final = Path("/var/lib/libvirt/images/pvms")
"""A path that is another directory on every host."""
LIMIT_S: Final = 60.0
ENOUGH_FAULTS: Final = 10
"""After so many there is nothing left to find out."""
SETTLED_WITHIN_S: Final = 15.0
"""How long libvirt's own second copy may last until it is found and ended; no packet reaches it meanwhile."""
SPARE_THREADS: Final = 4
SPARE_DESCRIPTORS: Final = 8
"""By how much a controller at rest may differ: calls that are just being made, connections that were not yet needed."""

DEEDS: Final = {
    "migrate": 10,  # and wait for its end
    "return": 3,  # go back while the guest is on its way
    "retarget": 3,  # go on to the third cell instead
    "kill_source_daemon": 1,
    "kill_target_daemon": 1,
    "kill_controller": 1,
}
"""What may happen, and how often."""


@dataclass(slots=True)
class Tally:
    """What happened."""

    migrations: int = 0
    deeds: Counter[str] = field(default_factory=Counter)
    guests_lost: int = 0
    corrupt_pages: int = 0
    corrupt_disks: int = 0
    faults: list[str] = field(default_factory=list)


class Soak:
    """One run over one testbed."""

    def __init__(self, bed: RunningTestbed, seed: int) -> None:
        self._bed = bed
        self._chance = random.Random(seed)
        self._at = 1
        self._client = GuestClient(bed.network.namespace("ue"), PVM_ADDRESS, timeout_s=LIMIT_S)
        self._boot_id = ""
        self._written = 0
        self._disk_sum = ""
        self.tally = Tally()

    async def run(self, migrations: int) -> dict[str, Any]:
        """Begin as many migrations, and judge; the report."""
        bed, tally = self._bed, self.tally
        await bed.ran.attach(UE, self._at)
        await bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        self._boot_id = (await self._client.wait_until_up(LIMIT_S)).boot_id
        await self._client.dirty(MEMORY_MIB, 4)
        await self._write_disk()
        uris = {f"c{number}": host.uri for number, host in bed.hosts.items()}
        empty = {number: self._belongings(number) for number in CELLS if number != self._at}
        held = {name: _held_by(node.pid) for name, node in self._controllers()}
        begun = time.monotonic()
        with CopyWatch(FIRST.pvm_id, uris) as watch:
            while tally.migrations < migrations:
                deed = self._chance.choices(list(DEEDS), list(DEEDS.values()))[0]
                tally.deeds[deed] += 1
                mark = len(bed.events)
                try:
                    await getattr(self, f"_{deed}")()
                except AdapterError as error:
                    tally.faults.append(f"{tally.migrations} migrations, {deed}: {error}")
                tally.migrations += sum(e["type"].endswith("pvm.migrating") for e in bed.events[mark:])
                await self._judge(deed, watch)
                bed.say(
                    f"{tally.migrations} of {migrations} migrations, {deed} {tally.deeds.total()}, {len(tally.faults)} "
                    f"faults, {time.monotonic() - begun:.0f} s"
                )
                if len(tally.faults) >= ENOUGH_FAULTS:
                    break
        if watch.seen.longest_double_s > SETTLED_WITHIN_S:
            tally.faults.append(f"two copies for {watch.seen.longest_double_s:.1f} s")
        await self._look_for_leaks(empty, held)
        return {
            "migrations": tally.migrations,
            "seconds": round(time.monotonic() - begun, 1),
            "deeds": dict(sorted(tally.deeds.items())),
            "observations": watch.seen.count,
            "doubles": len(watch.seen.doubles),
            "longest_double_s": round(watch.seen.longest_double_s, 3),
            "guests_lost": tally.guests_lost,
            "corrupt_pages": tally.corrupt_pages,
            "corrupt_disks": tally.corrupt_disks,
            "faults": tally.faults,
        }

    # What happens --------------------------------------------------------------------------------------------------

    async def _migrate(self) -> None:
        await self._leave()

    async def _return(self) -> None:
        home = self._at
        await self._leave(whole=False)
        await self._go(home)

    async def _retarget(self) -> None:
        source = self._at
        await self._leave(whole=False)
        await self._go(next(cell for cell in CELLS if cell not in (source, self._at)))

    async def _kill_source_daemon(self) -> None:
        source = self._at
        await self._leave(whole=False)
        await self._kill_daemon(source)

    async def _kill_target_daemon(self) -> None:
        await self._leave(whole=False)
        await self._kill_daemon(self._at)

    async def _kill_controller(self) -> None:
        nodes = [f"c{self._at}"]
        await self._leave(whole=False)
        nodes.append(f"c{self._at}")
        await self._bed.restart_node(self._chance.choice(nodes))

    async def _leave(self, *, whole: bool = True) -> None:
        """Go to another cell and see the migration begin; to its end, or into its midst."""
        mark = len(self._bed.events)
        await self._go(self._chance.choice([cell for cell in CELLS if cell != self._at]))
        begun = await self._bed.event("pvm.migrating", after=mark, within_s=LIMIT_S)
        if whole:
            await self._bed.event("pvm.migrated", after=begun, within_s=LIMIT_S)
        else:
            await asyncio.sleep(self._chance.uniform(0, 1.0))  # the moment is what is to vary

    async def _go(self, cell: int) -> None:
        await self._bed.ran.handover(UE, cell)
        self._at = cell

    async def _kill_daemon(self, number: int) -> None:
        host = self._bed.hosts[number]
        await host.kill_daemon()
        await asyncio.sleep(self._chance.uniform(0, 1.0))  # until its supervisor sees it
        await host.start_daemon()

    # What must be true ---------------------------------------------------------------------------------------------

    async def _judge(self, deed: str, watch: CopyWatch) -> None:
        """Wait until the guest is where its user is, and nowhere else; then see whether it is itself, and whole."""
        home = frozenset({f"c{self._at}"})
        try:
            async with asyncio.timeout(LIMIT_S):
                while not (watch.runs_at == home and self._where() == home):  # noqa: ASYNC110  # hosts tell nobody
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.tally.faults.append(f"after {deed}: runs at {sorted(watch.runs_at)}, user at c{self._at}")
        try:
            found = await self._client.wait_until_up(LIMIT_S)
            corrupt = await self._client.verify()
            disk_sum = await self._client.sum_disk(DISK_MIB)
            if disk_sum != self._disk_sum:
                self.tally.corrupt_disks += 1
                self.tally.faults.append(f"after {deed}: the disk is not as it was written")
            await self._write_disk()
        except AdapterError as error:
            self.tally.faults.append(f"after {deed}: {error}")
            return
        self.tally.corrupt_pages += corrupt
        if corrupt:
            self.tally.faults.append(f"after {deed}: {corrupt} pages are corrupt")
        if found.boot_id != self._boot_id:
            self.tally.guests_lost += 1
            self.tally.faults.append(f"after {deed}: it is another guest")
            self._boot_id = found.boot_id
            await self._client.dirty(MEMORY_MIB, 4)

    async def _write_disk(self) -> None:
        self._written += 1
        await self._client.write_disk(self._written, DISK_MIB)
        self._disk_sum = await self._client.sum_disk(DISK_MIB)

    def _where(self) -> frozenset[str]:
        """Who has a process of the guest's, as the machine's own process table says."""
        return frozenset(f"c{number}" for number, host in self._bed.hosts.items() if self._belongings(number).processes)

    def _belongings(self, number: int) -> Belongings:
        host = self._bed.hosts[number]
        return belongings_of(
            host.init_pid, host.log_directory.parent, lambda: Path(f"/proc/{host.init_pid}/net/dev").read_text()
        )

    def _controllers(self) -> list[tuple[str, Child]]:
        return [(name, node) for name, node in self._bed.nodes.items() if name != MONITOR]

    def _disks(self) -> frozenset[str]:
        """Who has a disk of the guest's."""
        place = DISKS.relative_to("/var/lib/libvirt")
        hosts = self._bed.hosts.items()
        return frozenset(
            f"c{number}" for number, host in hosts if any((host.log_directory.parent / "lib" / place).glob("*.qcow2"))
        )

    async def _look_for_leaks(self, empty: dict[int, Belongings], held: dict[str, tuple[int, int]]) -> None:
        """At rest: nothing but the guest's own, where it is; at the end, without a user, nothing at all."""
        faults = self.tally.faults
        for number, before in empty.items():
            now = self._belongings(number)
            if number == self._at:
                if (now.processes, now.taps) != (1, 1):
                    faults.append(f"c{number}: {now.processes} processes, {now.taps} taps")
            elif now != before:
                left = sorted(now.files - before.files)
                faults.append(f"c{number} is left with {now.processes} processes, {now.taps} taps, {left}")
        if f"c{self._at}" not in self._disks():  # an empty one waits where a migration was called off
            faults.append(f"disks are at {sorted(self._disks())}, the guest at c{self._at}")
        for name, node in self._controllers():
            (threads, descriptors), (threads_then, descriptors_then) = _held_by(node.pid), held[name]
            if threads > threads_then + SPARE_THREADS:
                faults.append(f"{name} has {threads} threads, had {threads_then}")
            if descriptors > descriptors_then + SPARE_DESCRIPTORS:
                faults.append(f"{name} has {descriptors} file descriptors, had {descriptors_then}")
        mark = len(self._bed.events)
        await self._bed.ran.detach(UE)
        await self._bed.event("pvm.stopped", after=mark, within_s=LIMIT_S)
        try:
            async with asyncio.timeout(LIMIT_S):
                while left := await self._flows():  # noqa: ASYNC110  # a switch tells nobody
                    await asyncio.sleep(0.1)
        except TimeoutError:
            faults.append(f"flows are left: {left}")

    async def _flows(self) -> list[str]:
        found = [
            (await switch.dump_flows(f"br-c{number}")).splitlines() for number, switch in self._bed.switches.items()
        ]
        return [line.strip() for lines in found for line in lines if PVM_ADDRESS in line]


def _held_by(pid: int) -> tuple[int, int]:
    """How many threads and file descriptors a process has."""
    threads, files = (len(list(Path(f"/proc/{pid}/{kind}").iterdir())) for kind in ("task", "fd"))
    return threads, files


async def soak(migrations: int, seed: int, out: Path) -> dict[str, Any]:
    """Soak on a testbed of its own.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: it went so wrong that there is nothing to judge
    """
    base = await asyncio.to_thread(lambda: out.absolute() / "base.qcow2")
    await asyncio.to_thread(base.parent.mkdir, parents=True, exist_ok=True)
    await netns.command("qemu-img", "create", "-q", "-f", "qcow2", str(base), f"{BASE_MIB}M")
    setting = Setting(delays=NO_DELAYS, dwell_s=0.1, disk=base, hypervisor={"disks": str(DISKS)})
    async with RunningTestbed(setting, out, lambda line: print(f"soak: {line}", file=sys.stderr)) as bed:
        return {"seed": seed, **await Soak(bed, seed).run(migrations)}


def main() -> None:
    """Soak, print the report, and fail where there were faults."""
    parser = argparse.ArgumentParser(description="Migrations with random aborts, retargets and kills (as root).")
    parser.add_argument("migrations", type=int)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--out", type=Path, help="keep logs and events here")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        out = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mobiscud-soak-")))
        try:
            report = asyncio.run(soak(arguments.migrations, arguments.seed, out))
        except MobiScudError as error:
            sys.exit(f"soak: {error} (seed {arguments.seed})")
        print(json.dumps(report, indent=2))
        for fault in report["faults"]:
            print(f"soak: {fault}; again: SOAK_ARGS='--seed {arguments.seed}'", file=sys.stderr)
        sys.exit(1 if report["faults"] else 0)


if __name__ == "__main__":
    main()
