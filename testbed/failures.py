"""Whatever dies in a migration, and whenever: ``make failures`` or ``python -m testbed.failures [PART/MOMENT]...``.

A UE hands over between two cells, and its personal VM follows. In each cell of the table one real part is killed before
the migration begins, during its copy, at the switch-over (the source says that the guest has stopped) or after it (the
target says that it runs), and started again a moment later. In the end the guest runs where its user is, once: a
watch and the machine's process table say so, which know nothing of the controllers. It answers its user, is itself
and has its memory whole, unless what died was the one that had it; and what became of it was announced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import libvirt

from migration.libvirt_words import notice_of
from migration.lifecycle import PvmResumed, PvmSuspended
from migration.threads import run_libvirt_events
from mobiscud.core.errors import AdapterError, MobiScudError
from mobiscud.core.ids import PvmId
from testbed.copies import CopyWatch
from testbed.experiment import FIRST, PVM_ADDRESS, UE, Progress, RunningTestbed, Setting
from testbed.guest.client import GuestClient
from testbed.netns_socket import socket_in
from testbed.priority import guests_of
from testbed.topology import Delays

NO_DELAYS: Final = Delays(ue_enb=0, enb_mtso=0, sgw_pgw=0, pgw_internet=0, enb_enb=0)
BANDWIDTH_MIB_S: Final = 32
"""Some second a migration: time to die in the midst of it."""
MEMORY_MIB: Final = 2
DEAD_S: Final = 0.3
"""How long a part is missing after it is found to be dead."""
LIMIT_S: Final = 60.0
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1


class Part(StrEnum):
    """What dies."""

    TARGET_DAEMON = "target-libvirtd"
    SOURCE_DAEMON = "source-libvirtd"
    TARGET_QEMU = "target-qemu"
    SOURCE_QEMU = "source-qemu"
    TARGET_HOST = "target-host"
    SOURCE_HOST = "source-host"
    TARGET_CONTROLLER = "target-controller"
    SOURCE_CONTROLLER = "source-controller"
    BROKER = "broker"
    LINK = "link"


class Moment(StrEnum):
    """When it dies."""

    BEFORE = "before"
    DURING = "during"
    AT = "at"
    AFTER = "after"


Cell = tuple[Part, Moment]

MAY_LOSE_GUEST: Final = frozenset(
    {
        # Whoever has the only whole copy dies with it; at the switch-over that is the one or the other.
        *((part, moment) for part in (Part.SOURCE_QEMU, Part.SOURCE_HOST) for moment in list(Moment)[:3]),
        *((part, moment) for part in (Part.TARGET_QEMU, Part.TARGET_HOST) for moment in (Moment.AT, Moment.AFTER)),
        (Part.SOURCE_HOST, Moment.AFTER),  # a target that has not heard the last word ends what it got
    }
)
"""Where the guest may begin anew; everywhere else it must be the one it was."""
CELLS: Final = tuple(
    (part, moment)
    for part in Part
    for moment in Moment
    if (part, moment) != (Part.TARGET_QEMU, Moment.BEFORE)  # there is none yet
)
ANNOUNCED: Final = ("pvm.migrating", "pvm.migrated", "pvm.migration_failed", "pvm.stopped", "pvm.started")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cell. ``announced``: the events about the PVM, in order; ``fault``: what must not have been."""

    cell: str
    announced: tuple[str, ...]
    same_guest: bool
    longest_double_s: float
    seconds: float
    fault: str | None = None


class Trigger:
    """Calls at the switch-over, in the thread in which libvirt says so: milliseconds count."""

    def __init__(self, uri: str, guest: str, kind: type[PvmSuspended | PvmResumed], act: Callable[[], None]) -> None:
        run_libvirt_events()
        self._guest = PvmId(guest)
        self._kind = kind
        self._act = act
        self._connection = libvirt.open(uri)
        self._callback = self._connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None
        )
        self.pulled = False

    def _on_event(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        notice = notice_of(PvmId(domain.name()), 0, event, detail)
        if not self.pulled and notice is not None and notice.pvm_id == self._guest and isinstance(notice, self._kind):
            self.pulled = True
            self._act()

    def close(self) -> None:
        """Listen no longer; the other side may be dead."""
        for undo in (lambda: self._connection.domainEventDeregisterAny(self._callback), self._connection.close):
            with contextlib.suppress(libvirt.libvirtError):
                undo()


class Table:
    """Cells one after the other, on one testbed as long as it is whole."""

    def __init__(self, bed: RunningTestbed) -> None:
        self._bed = bed
        self._at = 1
        self._client = GuestClient(bed.network.namespace("ue"), PVM_ADDRESS, timeout_s=LIMIT_S)
        self._boot_id = ""

    async def begin(self) -> None:
        """Have a guest at the first cell.

        :raises AdapterError: there is none
        """
        await self._bed.ran.attach(UE, 1)
        await self._bed.event("offload.activated", after=0, within_s=LIMIT_S, cloudlet="c1")
        await self._note_guest()

    async def play(self, cell: Cell) -> Outcome:
        """Let a part die, and judge."""
        source, target = self._at, 3 - self._at
        begun, mark = time.monotonic(), len(self._bed.events)
        same, fault = False, None
        uris = {f"c{number}": host.uri for number, host in self._bed.hosts.items()}
        with CopyWatch(FIRST.pvm_id, uris) as watch:
            try:
                await self._kill_at(*cell, source, target)
                await self._revive(cell[0], source, target)
                same = await self._judge(watch, target, mark)
                if not same and cell not in MAY_LOSE_GUEST:
                    fault = "it is another guest"
            except MobiScudError as error:
                fault = str(error)
        return Outcome(
            "/".join(cell), self._announced(mark), same, watch.seen.longest_double_s, time.monotonic() - begun, fault
        )

    async def _note_guest(self) -> None:
        self._boot_id = (await self._client.wait_until_up(LIMIT_S)).boot_id
        await self._client.dirty(MEMORY_MIB, 0)

    # What happens --------------------------------------------------------------------------------------------------

    async def _kill_at(self, part: Part, moment: Moment, source: int, target: int) -> None:
        """Hand over, and have the part die at its moment."""
        bed, mark = self._bed, len(self._bed.events)
        self._at = target
        if moment is Moment.BEFORE:
            self._blow(part, source, target)()
            await bed.ran.handover(UE, target)
            return
        if moment is Moment.DURING:
            await bed.ran.handover(UE, target)
            await bed.event("pvm.migrating", after=mark, within_s=LIMIT_S)
            await self._until(lambda: bool(self._guests(target)), "no copy begins")
            self._blow(part, source, target)()
            return
        heard_at, kind = (source, PvmSuspended) if moment is Moment.AT else (target, PvmResumed)
        blow = asyncio.get_running_loop().create_future()
        trigger = await asyncio.to_thread(
            Trigger, bed.hosts[heard_at].uri, FIRST.pvm_id, kind, lambda: blow.result()() if blow.done() else None
        )
        try:
            await bed.ran.handover(UE, target)
            await bed.event("pvm.migrating", after=mark, within_s=LIMIT_S)
            await self._until(lambda: bool(self._guests(target)), "no copy begins")
            blow.set_result(self._blow(part, source, target))
            await self._until(lambda: trigger.pulled, "the guest does not change sides")
        finally:
            await asyncio.to_thread(trigger.close)

    def _blow(self, part: Part, source: int, target: int) -> Callable[[], None]:
        """What kills the part, as it is now, in no time."""
        if part is Part.LINK:
            return lambda: self._set_link(target, up=False)
        pids = self._pids(part, source, target)

        def strike() -> None:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        return strike

    def _pids(self, part: Part, source: int, target: int) -> list[int]:
        number = target if part.startswith("target") else source
        host, controller = self._bed.hosts[number], self._bed.nodes[f"c{number}"].pid
        match part:
            case Part.TARGET_DAEMON | Part.SOURCE_DAEMON:
                return [pid for pid in (host.daemon_pid,) if pid is not None]
            case Part.TARGET_QEMU | Part.SOURCE_QEMU:
                return self._guests(number)
            case Part.TARGET_HOST | Part.SOURCE_HOST:
                return [host.init_pid, controller]
            case Part.TARGET_CONTROLLER | Part.SOURCE_CONTROLLER:
                return [controller]
            case _:
                return [self._bed.broker.pid]

    async def _revive(self, part: Part, source: int, target: int) -> None:
        """What died comes back, as a supervisor or an operator brings it."""
        bed, number = self._bed, target if part.startswith("target") else source
        match part:
            case Part.TARGET_DAEMON | Part.SOURCE_DAEMON:
                await asyncio.sleep(DEAD_S)
                await bed.hosts[number].kill_daemon()
                await bed.hosts[number].start_daemon()
            case Part.TARGET_QEMU | Part.SOURCE_QEMU:
                pass  # nobody but the controllers
            case Part.TARGET_HOST | Part.SOURCE_HOST:
                await bed.hosts[number].crash()
                await asyncio.sleep(DEAD_S)
                await bed.hosts[number].start()
                await bed.restart_node(f"c{number}")
            case Part.TARGET_CONTROLLER | Part.SOURCE_CONTROLLER:
                await bed.restart_node(f"c{number}", DEAD_S)
            case Part.BROKER:
                await bed.kill("broker", DEAD_S)
            case Part.LINK:
                await asyncio.sleep(DEAD_S)
                self._set_link(target, up=True)

    def _set_link(self, number: int, *, up: bool) -> None:
        """As ``ip link set mgmt0 up`` or ``down`` in the host's namespace (netdevice(7))."""
        with socket_in(self._bed.network.namespace(f"c{number}"), socket.AF_INET, socket.SOCK_DGRAM) as handle:
            request = struct.pack("16sh", b"mgmt0", 0)
            (flags,) = struct.unpack("h", fcntl.ioctl(handle, SIOCGIFFLAGS, request)[16:18])
            flags = flags | IFF_UP if up else flags & ~IFF_UP
            fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh", b"mgmt0", flags))

    # What must be true ---------------------------------------------------------------------------------------------

    async def _judge(self, watch: CopyWatch, home: int, mark: int) -> bool:
        """Wait until the guest is where its user is, and that was told; gives whether it is the one it was.

        :raises AdapterError: what must be true is not
        """
        place = frozenset({f"c{home}"})
        await self._until(
            lambda: watch.runs_at == place == self._processes() and self._is_told_at(f"c{home}", mark),
            lambda: (
                f"runs at {sorted(watch.runs_at)}, processes at {sorted(self._processes())}, user at c{home}, "
                f"told {self._announced(mark)}"
            ),
        )
        found = await self._client.wait_until_up(LIMIT_S)
        if found.boot_id != self._boot_id:
            await self._note_guest()
            return False
        if corrupt := await self._client.verify():
            raise AdapterError(f"{corrupt} pages are corrupt")
        return True

    def _is_told_at(self, home: str, mark: int) -> bool:
        """Whether the last word about the PVM says that it runs there."""
        told = [event for event in self._bed.events[mark:] if _kind(event) in ANNOUNCED]
        return (
            bool(told)
            and _kind(told[-1]) in ("pvm.migrated", "pvm.started")
            and told[-1]["data"]["to_cloudlet"] == home
        )

    def _announced(self, mark: int) -> tuple[str, ...]:
        told = [event for event in self._bed.events[mark:] if _kind(event) in ANNOUNCED]
        return tuple(
            f"{_kind(event).removeprefix('pvm.')} {data['from_cloudlet'] or ''}>{data['to_cloudlet'] or ''}"
            for event in told
            for data in (event["data"],)
        )

    def _guests(self, number: int) -> list[int]:
        try:
            return guests_of(self._bed.hosts[number].init_pid)
        except OSError:
            return []  # the host is dead

    def _processes(self) -> frozenset[str]:
        return frozenset(f"c{number}" for number in self._bed.hosts if self._guests(number))

    async def _until(self, condition: Callable[[], bool], complaint: str | Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition():  # noqa: ASYNC110  # hosts tell nobody
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AdapterError(complaint if isinstance(complaint, str) else complaint()) from None


def _kind(event: dict[str, Any]) -> str:
    return str(event["type"]).removeprefix("org.mobiscud.")


async def play(cells: Sequence[Cell], out: Path, say: Progress) -> list[Outcome]:
    """Play cells, on a testbed that is made anew after each fault.

    :raises SetupError: not root, or a part is missing
    :raises AdapterError: a testbed does not come up
    """
    outcomes: list[Outcome] = []
    setting = Setting(delays=NO_DELAYS, dwell_s=0.1, cloudlets=2, hypervisor={"bandwidth_mib_s": BANDWIDTH_MIB_S})
    while len(outcomes) < len(cells):
        async with RunningTestbed(setting, out / f"from-{len(outcomes)}", lambda line: None) as bed:
            table = Table(bed)
            await table.begin()
            while len(outcomes) < len(cells):
                outcome = await table.play(cells[len(outcomes)])
                outcomes.append(outcome)
                say(shown(outcome))
                if outcome.fault is not None:
                    break
    return outcomes


def shown(outcome: Outcome) -> str:
    """A line for people."""
    guest = "the same guest" if outcome.same_guest else "a new guest"
    end = outcome.fault or f"one copy, {guest}"
    double = f", two for {outcome.longest_double_s:.1f} s" if outcome.longest_double_s else ""
    return f"{outcome.cell}: {end}{double} ({outcome.seconds:.1f} s; {', '.join(outcome.announced)})"


def chosen(names: Sequence[str]) -> tuple[Cell, ...]:
    """The cells whose names begin with one of these; none: all."""
    return tuple(cell for cell in CELLS if not names or any("/".join(cell).startswith(name) for name in names))


def main() -> None:
    """Play the table, print what became of it, and fail where something must not have been."""
    parser = argparse.ArgumentParser(description="Every part dies in a migration, at every moment (as root).")
    parser.add_argument("cells", nargs="*", metavar="PART/MOMENT", help="those that begin like this; none: all")
    parser.add_argument("--out", type=Path, help="keep logs and events here")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        out = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mobiscud-failures-")))
        try:
            outcomes = asyncio.run(play(chosen(arguments.cells), out, lambda line: print(line, file=sys.stderr)))
        except MobiScudError as error:
            sys.exit(f"failures: {error}")
    faults = [outcome.cell for outcome in outcomes if outcome.fault is not None]
    print(json.dumps({"cells": len(outcomes), "faults": faults}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
