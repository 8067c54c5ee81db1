"""The datapath program at work: loaded, attached, its maps open."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.gtp_datapath import bpffs, entries, found
from flows.gtp_datapath.accounts import ACCOUNT, MAX_ACCOUNTS, Accounts
from flows.gtp_datapath.build import build
from flows.gtp_datapath.commands import run
from flows.gtp_datapath.entries import Counter, Statistic
from flows.gtp_datapath.interfaces import Interface, inspect, prepare, restore
from flows.gtp_datapath.maps import BpfMap, program_id
from flows.rules import DecapRule, MapRule
from mobiscud.core.edge import FlowAction
from mobiscud.core.errors import SetupError
from mobiscud.core.ids import UeKey
from mobiscud.core.usage import Usage, UsageOf

PREFERENCE = "19795"  # 0x4d53, "MS": tells our filter from others on the same port


@dataclass(frozen=True, slots=True)
class WirePorts:
    """Interfaces in this network namespace: the two ends of the wire, and the port towards Open vSwitch."""

    enb: str
    core: str
    gi: str

    @property
    def programs(self) -> dict[str, str]:
        """Which program belongs on which port."""
        return {"from_core": self.core, "from_gi": self.gi, "from_enb": self.enb}


class GtpDatapath:
    """The program of one cloudlet. ``attach`` makes the wire, ``detach`` leaves the ports as they were found."""

    def __init__(self, cloudlet: str, ports: WirePorts, file_system: Path, link_mac: str) -> None:
        self._cloudlet = cloudlet
        self._ports = ports
        self._file_system = file_system
        self._link_mac = link_mac
        self._maps: dict[str, BpfMap] = {}
        self._accounts: Accounts | None = None
        self._found: list[Interface] = []
        self._claim: socket.socket | None = None
        self.found_wire = False

    @property
    def at_work(self) -> bool:
        """Whether the maps are open."""
        return self._accounts is not None

    def claim(self) -> None:
        """Make sure that no other process has this wire, now and until ``leave`` or ``detach``.

        :raises SetupError: one has
        """
        self._claim = found.claim(self._cloudlet)

    async def attach(self) -> None:
        """Load and attach; from here on the wire passes everything.

        Where this program is at work already, it and its maps are adopted as they are, and no packet notices. (The
        kernel may have killed the process that made them.) Another version of it is replaced in place.


        :raises SetupError: a port, a program or a privilege is missing
        """
        ports = self._ports
        enb, core, gi = inspect(ports.enb), inspect(ports.core), inspect(ports.gi)
        at_work = await _program_at_work(ports.enb)
        self.found_wire = at_work is not None
        program = await build()
        folder = bpffs.prepare(self._file_system, self._cloudlet)
        pins = folder / program.stem
        # Pins alone prove nothing: they outlive the interfaces of a namespace that has gone.
        if at_work is None or at_work != program_id(pins / "progs" / "from_enb"):
            shutil.rmtree(pins, ignore_errors=True)
            pins.mkdir()
            await run("bpftool", "prog", "loadall", str(program), str(pins / "progs"), "pinmaps", str(pins / "maps"))
        self._open(pins / "maps")
        wiring = entries.settings(enb.index, core.index, gi.index, gi_destination=self._link_mac, gi_source=gi.mac)
        self._maps["settings"].update(entries.ONLY_KEY, wiring)
        self._found = found.remember(self._cloudlet, [enb, core, gi], changed=self.found_wire)
        for interface in self._found:
            prepare(interface, promiscuous=interface.name != ports.gi)
        for name, port in ports.programs.items():
            await _attach(port, pins / "progs" / name)
        for other in folder.iterdir():
            if other != pins:
                shutil.rmtree(other)

    async def detach(self) -> None:
        """Take the programs from the ports; the wire is cut."""
        self.leave()
        for port in self._ports.programs.values():
            await _detach(port)
        for interface in self._found:
            restore(interface)
        if self._found:
            found.forget(self._cloudlet)
        self._found.clear()

    def leave(self) -> None:
        """Let go of the program and leave it at work. The wire needs no pins, only who wants the maps does."""
        for opened in self._maps.values():
            opened.close()
        self._maps.clear()
        self._accounts = None
        if self._claim is not None:
            bpffs.sweep(self._file_system, self._cloudlet)
            self._claim.close()
            self._claim = None

    def add(self, rule: MapRule, ue: UeKey | None = None) -> None:
        """Write the entry of the rule; a packet sees the old one or the new one, whole.

        ``ue``: whose usage is accounted; None: nobody's.

        :raises AdapterError: the map is full, or no account is free
        """
        table, key = self._entry(rule)
        numbers: tuple[int, ...] = ()
        if ue is not None and self._accounts is not None:
            numbers = self._accounts.take(rule.slot, _usage(rule, ue), now=time.monotonic(), at=time.time_ns())
        table.update(key, entries.value(rule, numbers))

    def delete(self, rule: MapRule) -> None:
        """Remove the entry; harmless where there is none."""
        table, key = self._entry(rule)
        table.delete(key)
        if self._accounts is not None:
            self._accounts.leave(rule.slot, now=time.monotonic())

    def rules(self) -> Iterator[MapRule]:
        """The rules that the maps hold, whoever wrote them; their accounts go on."""
        accounts = self._opened_accounts()

        def adopted(rule: MapRule, value: bytes) -> MapRule:
            accounts.hold(rule.slot, entries.accounts(rule, value), now=time.monotonic())
            return rule

        for key, value in self._maps["uplink"].items(entries.UPLINK_KEY.size):
            yield adopted(entries.decap_rule(key, value, accounts.rule_of), value)
        for key, value in self._maps["downlink"].items(entries.DOWNLINK_KEY.size):
            yield adopted(entries.encap_rule(key, value, accounts.rule_of), value)

    def accounts(self) -> list[int]:
        """The accounts that there are, by number."""
        return self._opened_accounts().numbers()

    def usage(self, *, over: bool = False, of: Iterable[int] | None = None) -> list[Usage]:
        """What these accounts have carried (None: all). ``over``: nothing more will come."""
        return self._opened_accounts().usage(now=time.monotonic(), over=over, of=of)

    def settle(self, numbers: Iterable[int]) -> None:
        """Forget accounts that have ended and were read."""
        if self._accounts is not None:
            self._accounts.settle(numbers)

    def counters(self, rules: Iterable[MapRule]) -> dict[str, Counter]:
        """What the rules have carried, by rule id; where a rule names flows, by each of them as well (``ID/FLOW``)."""
        carried: dict[str, Counter] = {}
        for rule in rules:
            table, key = self._entry(rule)
            if value := table.lookup(key):
                carried |= entries.counters(rule, value)
        return carried

    def statistics(self) -> dict[str, int]:
        """Packets by what became of them."""
        table = self._maps["statistics"]
        read = {which.name.lower(): table.lookup(entries.statistic_key(which)) for which in Statistic}
        return {name: entries.statistic(value) for name, value in read.items() if value is not None}

    def _opened_accounts(self) -> Accounts:
        if self._accounts is None:
            raise ValueError("the datapath is not attached")
        return self._accounts

    def _entry(self, rule: MapRule) -> tuple[BpfMap, bytes]:
        return self._maps["uplink" if isinstance(rule, DecapRule) else "downlink"], entries.key(rule)

    def _open(self, folder: Path) -> None:
        sizes = {
            "settings": entries.SETTINGS.size,
            "uplink": entries.UPLINK_VALUE_SIZE,
            "downlink": entries.DOWNLINK_VALUE_SIZE,
            "statistics": 8 * _possible_processors(),
            "accounts": ACCOUNT.size,
        }
        self._maps = {name: BpfMap(folder / name, size) for name, size in sizes.items()}
        self._accounts = Accounts(self._maps["accounts"].memory(MAX_ACCOUNTS * ACCOUNT.size))


def _usage(rule: MapRule, ue: UeKey) -> list[UsageOf | None]:
    """What each flow of a rule is accounted as; None for one that is not carried."""
    flows = rule.flows or (entries.ANYTHING,)
    names = rule.names or ("",) * len(flows)
    forward = FlowAction.FORWARD_DECAPSULATED
    return [
        UsageOf(ue, rule.bearer, name) if flow.action is forward else None
        for flow, name in zip(flows, names, strict=True)
    ]


def _possible_processors() -> int:
    """How many values a per-CPU entry has: those that could ever be plugged in, not those at work."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return max(int(number) for number in re.findall(r"\d+", text)) + 1


async def _program_at_work(port: str) -> int | None:
    """The kernel's number of the program that our filter on the port runs."""
    said = await run("tc", "-json", *_filter("show", port))
    for line in json.loads(said or "[]"):
        if program := line.get("options", {}).get("prog"):
            return int(program["id"])
    return None


async def _attach(port: str, pin: Path) -> None:
    with suppress(SetupError):  # it may be there already; if it cannot be made, the next command says why
        await run("tc", "qdisc", "add", "dev", port, "clsact")
    await run("tc", *_filter("replace", port), "handle", "1", "bpf", "direct-action", "object-pinned", str(pin))


async def _detach(port: str) -> None:
    try:
        await run("tc", *_filter("delete", port))
    except SetupError:
        return  # the filter or the port is gone already
    left = [await run("tc", "filter", "show", "dev", port, side) for side in ("ingress", "egress")]
    if not any(text.strip() for text in left):
        await run("tc", "qdisc", "delete", "dev", port, "clsact")


def _filter(verb: str, port: str) -> tuple[str, ...]:
    return "filter", verb, "dev", port, "ingress", "pref", PREFERENCE, "protocol", "all"
