"""The switch of one cloudlet: the wire, the tunnels and the bridge, held to what the controller desires."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Multiset
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType
from typing import Self

import structlog

from flows.arp import announcement
from flows.encode import AddFlow, DeleteFlow, DeleteFound, DeleteOurs, FoundFlow, understand
from flows.gtp_datapath.datapath import GtpDatapath, WirePorts
from flows.gtp_datapath.entries import Counter
from flows.keeping import Link, PacketKeeper
from flows.next_hop import NextHop
from flows.openflow import OpenFlowChannel, TlsFiles, connect
from flows.path import path_rules
from flows.pipeline import Layout, link_mac, static_rules
from flows.plan import PathPlan, diff
from flows.rules import OURS, Action, AnswerArp, DecapRule, EncapRule, FlowRule, Rule, Slot, ue_cookie
from mobiscud.core.config import OffloadConfig, SwitchConfig
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.errors import AdapterError, ConfigError, DecodeError, SetupError
from mobiscud.core.ids import CloudletId, Cookie, UeKey
from mobiscud.core.usage import Usage

RETRY_S = 0.5
TOGETHER = 256
"""UEs whose changes share one bundle, at most: it keeps the event loop busy for some ten milliseconds."""
LINGER_S = 1.0  # Open vSwitch looks at each cached flow at least every 0.5 s (other_config:max-revalidator)
DRAIN_S = 0.005  # what has just left its tunnel still has to come through Open vSwitch
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A path that one UE is to have, and who waits for it."""

    ue: UeKey
    rules: frozenset[Rule]
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class SwitchCounters:
    """``rules``: what each rule of the datapath program has carried; ``datapath``: packets by what became of them."""

    rules: dict[str, Counter]
    datapath: dict[str, int]


def layout_of(switch: SwitchConfig, offload: OffloadConfig) -> Layout:
    """The bridge's ports and surroundings, as configured.

    :raises ConfigError: two cloudlets would get the same address on the links
    """
    return Layout(
        cloudlet=CloudletId(switch.cloudlet),
        gi_port=switch.gi_switch_port,
        pvm_port=switch.pvm_port,
        peers={CloudletId(peer): port for peer, port in switch.peers.items()},
        gateway_address=str(offload.gateway.ip),
        gateway_mac=offload.gateway_mac,
        sgi_port=switch.sgi_port or "",
        sgi_gateway=str(switch.sgi_gateway or ""),
    )


class CloudletSwitch:
    """Use as a context manager; inside, the wire passes and ``apply`` works. After it, the wire still passes.

    Runs in the network namespace of the cloudlet. What an earlier run had to leave there (it was killed) stays at
    work: apply the path of every UE that is known from before, which changes only what differs, then sweep the rest
    with ``adopted``. When the switch goes away and comes back, it is given whatever it lacks.
    """

    def __init__(self, switch: SwitchConfig, offload: OffloadConfig) -> None:
        self._config = switch
        self._layout = layout_of(switch, offload)
        self._next_hop = NextHop(self._layout)
        ports = WirePorts(switch.enb_port, switch.core_port, switch.gi_port)
        self._datapath = GtpDatapath(switch.cloudlet, ports, switch.bpffs, link_mac(self._layout.cloudlet))
        self._packets = PacketKeeper(switch.pvm_port)
        self._installed: dict[Cookie, dict[Slot, Rule]] = {}
        self._occupied: dict[Slot, Rule] = {}
        self._lingering: dict[Slot, asyncio.TimerHandle] = {}
        self._draining: set[Rule] = set()
        self._drains: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._wanted: deque[_Wanted] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._ue_of: dict[Cookie, UeKey] = {}
        self._last_usage: list[Usage] | None = None
        self._generation = time.time_ns()
        self._channel: OpenFlowChannel | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Make the wire first, then the bridge.

        :raises SetupError: an interface, a program or a privilege is missing, no switch answers, or another process
            controls this one
        :raises AdapterError: who answers speaks no OpenFlow 1.3, or the bridge lacks a port
        """
        self._datapath.claim()
        try:
            await self._datapath.attach()
            for rule in self._datapath.rules():
                self._adopt(rule)
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._stay_connected(ready), name=f"switch {self._config.cloudlet}")
            await ready
        except BaseException:
            await self.close(leave=self._datapath.found_wire)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End as a wire: a node that stops must not take the cell with it. To uninstall, ``close(leave=False)``."""
        await self.close(leave=True)

    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        """Bring one UE's path to what is desired (None: no offload) and name the rules then in force.

        Safe to repeat. Returns when the switch has confirmed and the maps are written; new state first, old last.
        Open vSwitch's flow cache may follow its tables a millisecond later; both ways lead to the UE until it does.

        What many UEs ask for while the switch is busy goes to it in one bundle; what it refuses, it refuses to one.

        :raises AdapterError: the switch refused a rule or is gone; what was done stays known, so apply again
        """
        rules = path_rules(ue, path, self._layout)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.append(_Wanted(ue, rules, done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work_off(), name=f"apply {self._config.cloudlet}")
        await done
        return _names(rules)

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> dict[UeKey, tuple[str, ...]]:
        """As ``apply``, for many UEs at once: one step of the switch for all that may happen at one moment.

        :raises AdapterError: as ``apply``; a path that no port leads to is refused before anything is done
        """
        desired = {ue: path_rules(ue, path, self._layout) for ue, path in paths.items()}
        async with self._changing:
            await self._bring_about(desired)
        return {ue: _names(rules) for ue, rules in desired.items()}

    async def _work_off(self) -> None:
        """Bring about what is wanted, some UEs at a time, until nothing is."""
        try:
            while self._wanted:
                async with self._changing:
                    await self._together(self._next_wanted())
        finally:
            self._worker = None

    def _next_wanted(self) -> list[_Wanted]:
        """The next changes in their order, no two of one UE."""
        chosen: dict[UeKey, _Wanted] = {}
        while self._wanted and self._wanted[0].ue not in chosen and len(chosen) < TOGETHER:
            wanted = self._wanted.popleft()
            chosen[wanted.ue] = wanted
        return list(chosen.values())

    async def _together(self, changes: list[_Wanted]) -> None:
        try:
            await self._bring_about({wanted.ue: wanted.rules for wanted in changes})
        except Exception as error:  # a fault of ours too: somebody waits for an answer
            if len(changes) > 1:  # one of them is to blame, and the others shall not suffer
                for wanted in changes:
                    await self._together([wanted])
            elif not changes[0].done.done():
                changes[0].done.set_exception(error)
        else:
            for wanted in changes:
                if not wanted.done.done():
                    wanted.done.set_result(None)

    async def _bring_about(self, desired: Mapping[UeKey, frozenset[Rule]]) -> None:
        self._ue_of.update((ue_cookie(ue), ue) for ue in desired)
        installed = [rule for ue in desired for rule in self._installed.get(ue_cookie(ue), {}).values()]
        wanted: frozenset[Rule] = frozenset().union(*desired.values())
        self._draining -= wanted
        await self._carry_out(diff(wanted, [rule for rule in installed if rule not in self._draining]))

    def keep_packets(self, pvm: Pvm) -> None:
        """Keep what the personal VM is sent here, each packet for a moment: it may stop at any time.

        :raises AdapterError: its port cannot be listened to
        """
        self._packets.keep(pvm)

    def resend_packets(self, pvm: Pvm, to: CloudletId) -> int:
        """Send what was kept once more, to where the VM goes on, and what still comes by; gives how many were kept.

        :raises AdapterError: nothing can be sent, or no port leads there
        """
        if to not in self._layout.peers:
            raise AdapterError(f"cloudlet {self._layout.cloudlet!r} has no link towards {to!r}")
        link = Link(self._layout.peers[to], link_mac(self._layout.cloudlet), link_mac(to))
        return self._packets.resend(pvm, link)

    def forget_packets(self, pvm: Pvm) -> None:
        """Keep no more of the personal VM."""
        self._packets.forget(pvm)

    async def adopted(self, keep: Collection[UeKey]) -> int:
        """Remove every rule that belongs to none of these UEs, and say how many there were.

        To be called once after a start, when ``apply`` has been called for every UE that is known from before.

        :raises AdapterError: as ``apply``
        """
        async with self._changing:
            known = {ue_cookie(ue) for ue in keep}
            stale = [r for cookie, rules in self._installed.items() if cookie not in known for r in rules.values()]
            await self._carry_out(diff((), stale))
        if stale:
            log.info("stale rules removed", cloudlet=self._config.cloudlet, rules=len(stale))
        return len(stale)

    async def counters(self) -> SwitchCounters:
        """What was carried since the rules were made."""
        entries = [rule for rule in self._occupied.values() if not isinstance(rule, FlowRule)]
        return SwitchCounters(rules=self._datapath.counters(entries), datapath=self._datapath.statistics())

    def accounts(self) -> list[int]:
        """The accounts of bearers and rules, by number."""
        return self._datapath.accounts() if self._last_usage is None else [one.number for one in self._last_usage]

    def usage(self, of: Iterable[int] | None = None) -> list[Usage]:
        """What was carried on these accounts (None: all); after the end, for the last time."""
        if self._last_usage is None:
            return self._datapath.usage(of=of)
        wanted = None if of is None else set(of)
        return [one for one in self._last_usage if wanted is None or one.number in wanted]

    def settle(self, numbers: Iterable[int]) -> None:
        """These accounts have ended, and what they have carried is known to who needs it."""
        if self._last_usage is None:
            self._datapath.settle(numbers)

    def rules_in_force(self) -> dict[str, int]:
        """How many rules of UEs there are, by kind."""
        kinds = {FlowRule: "flow", DecapRule: "uplink", EncapRule: "downlink"}
        counted = Multiset(map(type, self._occupied.values()))
        return {name: counted[kind] for kind, name in kinds.items()}

    def statistics(self) -> dict[str, int]:
        """Packets of the datapath program by what became of them."""
        return self._datapath.statistics()

    async def close(self, *, leave: bool) -> None:
        """Remove every rule; then let the wire go on passing (``leave``), or detach and leave the ports as found.

        Twice is harmless.
        """
        self._packets.close()
        async with self._changing:
            for timer in self._lingering.values():
                timer.cancel()
            self._lingering.clear()
            self._draining.clear()
            for drain in self._drains:
                drain.cancel()
            for rule in self._occupied.values():
                if not isinstance(rule, FlowRule):
                    self._datapath.delete(rule)
            self._occupied.clear()
            self._installed.clear()
            if self._channel is not None:
                try:
                    await self._channel.commit([DeleteOurs()])
                except AdapterError as error:
                    log.warning("flows not removed", cloudlet=self._config.cloudlet, reason=str(error))
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.wait([self._keeper])
                self._keeper = None
            if self._datapath.at_work:
                self._last_usage = self._datapath.usage(over=True)
            if leave:
                self._datapath.leave()
            else:
                await self._datapath.detach()

    async def _stay_connected(self, ready: asyncio.Future[None]) -> None:
        while True:
            try:
                async with connect(self._config.openflow, self._tls()) as channel:
                    await channel.lead(self._generation)
                    async with self._changing:
                        await self._bring_in_line(channel, adopt=not ready.done())
                        self._channel = channel
                    if not ready.done():
                        ready.set_result(None)
                    await self._next_hop.keep(channel, self._changing)
                    log.warning("switch lost", cloudlet=self._config.cloudlet)
            except (SetupError, AdapterError, ConfigError) as error:
                if not ready.done():
                    ready.set_exception(error)
                    return
                log.warning("switch not reached", cloudlet=self._config.cloudlet, reason=str(error))
            finally:
                self._channel = None
            await asyncio.sleep(RETRY_S)

    def _tls(self) -> TlsFiles | None:
        files = self._config.tls
        return None if files is None else TlsFiles(files.ca_file, files.certificate_file, files.key_file)

    async def _bring_in_line(self, channel: OpenFlowChannel, *, adopt: bool) -> None:
        """Give the switch what it lacks and take away what is not ours to keep, at one moment.

        ``adopt``: what it holds for UEs is taken over as it is. Otherwise only what we know of may stay.
        """
        found, strange = _understood(await channel.our_flows(), channel)
        if adopt:
            self._next_hop.adopt(found)
            for rule in found:
                if rule.cookie != OURS:
                    self._adopt(rule)
        known = (rule for rule in self._occupied.values() if isinstance(rule, FlowRule))
        plan = diff({*static_rules(self._layout), *self._next_hop.rules(), *known}, found)
        adds = [AddFlow(rule) for rule in plan.adds if isinstance(rule, FlowRule)]
        deletes = [DeleteFlow(rule) for rule in plan.deletes if isinstance(rule, FlowRule)]
        await channel.commit([*map(DeleteFound, strange), *deletes, *adds])

    def _adopt(self, rule: Rule) -> None:
        """Take a rule that is at work for one of ours, whichever UE it was made for."""
        self._installed.setdefault(rule.cookie, {})[rule.slot] = self._occupied[rule.slot] = rule

    async def _carry_out(self, plan: PathPlan) -> None:
        if self._channel is None:
            raise AdapterError(f"the switch of cloudlet {self._config.cloudlet!r} is not connected")
        for _, rules in groupby(plan.adds, key=type):
            await self._add(list(rules), self._channel)
        closed = False
        for kind, rules in groupby(plan.deletes, key=type):
            if kind is FlowRule and closed:
                self._drain(set(rules))
            else:
                await self._delete(list(rules), self._channel)
            closed = kind is DecapRule

    async def _add(self, rules: list[Rule], channel: OpenFlowChannel) -> None:
        """Make rules of one kind, and keep account of them."""
        await channel.commit([AddFlow(rule) for rule in rules if isinstance(rule, FlowRule)])
        for rule in rules:
            if not isinstance(rule, FlowRule):
                self._datapath.add(rule, self._ue_of.get(rule.cookie))
            self._adopt(rule)
        # Who begins to answer for an address says so unasked: the core then brings the VM's packets here at once.
        for rule in rules:
            if isinstance(rule, FlowRule) and rule.actions and isinstance(answer := rule.actions[0], AnswerArp):
                channel.inject(announcement(answer.address, answer.mac), rule.match.in_port)

    async def _delete(self, rules: list[Rule], channel: OpenFlowChannel) -> None:
        """Unmake rules of one kind, but for those whose slot another UE has taken since (the same one, renamed)."""
        still_there = [rule for rule in rules if self._occupied.get(rule.slot) == rule]
        await channel.commit([DeleteFlow(rule) for rule in still_there if isinstance(rule, FlowRule)])
        self._let_go(rules)
        for rule in still_there:
            if isinstance(rule, EncapRule) and self._still_offloaded(rule.cookie):
                self._linger(rule)
            elif not isinstance(rule, FlowRule):
                self._datapath.delete(rule)

    def _still_offloaded(self, cookie: Cookie) -> bool:
        return any(rule not in self._draining for rule in self._installed.get(cookie, {}).values())

    def _let_go(self, rules: Iterable[Rule]) -> None:
        """Keep no account of rules any more."""
        for rule in rules:
            if self._occupied.get(rule.slot) == rule:
                del self._occupied[rule.slot]
            of_ue = self._installed[rule.cookie]
            del of_ue[rule.slot]
            if not of_ue:
                del self._installed[rule.cookie]

    def _drain(self, rules: set[Rule]) -> None:
        """Unmake flows a little later: what has just left its tunnel still has to come through them. Nobody waits."""
        self._draining |= rules
        drain = asyncio.create_task(self._drained(rules), name=f"drain {self._config.cloudlet}")
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    async def _drained(self, rules: set[Rule]) -> None:
        await asyncio.sleep(DRAIN_S)
        async with self._changing:
            going = [rule for rule in rules & self._draining if self._installed_as(rule)]
            self._draining -= rules
            try:
                if self._channel is not None:
                    await self._delete(going, self._channel)
            except AdapterError as error:
                log.warning("flows not removed", cloudlet=self._config.cloudlet, reason=str(error))
            self._let_go(filter(self._installed_as, going))  # a switch that is away has to give them up when it is back

    def _installed_as(self, rule: Rule) -> bool:
        """Whether it is this rule that is accounted for in its slot, and not one that has taken its place."""
        return self._installed.get(rule.cookie, {}).get(rule.slot) == rule

    def _linger(self, rule: EncapRule) -> None:
        """Forget a tunnel towards a UE a little later: the switch's flow cache may still send packets there."""
        if timer := self._lingering.pop(rule.slot, None):
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._lingering[rule.slot] = loop.call_later(LINGER_S, self._forget, rule)

    def _forget(self, rule: EncapRule) -> None:
        del self._lingering[rule.slot]
        if rule.slot not in self._occupied:
            self._datapath.delete(rule)


def _names(rules: Iterable[Rule]) -> tuple[str, ...]:
    return tuple(sorted(rule.id for rule in rules))


def _understood(flows: Iterable[FoundFlow], channel: OpenFlowChannel) -> tuple[list[FlowRule], list[FoundFlow]]:
    """The rules behind flows; and the flows that are like no rule of ours, as an older version may have left."""
    names: dict[int, str] = {number: name for name, number in channel.ports.items()}
    rules, strange = [], []
    actions: dict[bytes, tuple[Action, ...]] = {}  # most flows do what others do
    for flow in flows:
        try:
            rules.append(understand(flow, names, actions))
        except DecodeError:
            strange.append(flow)
    return rules, strange
