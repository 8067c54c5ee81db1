"""The section ``offload``: whose traffic is offloaded, which of it, and to which personal VM.

The rules are after the TrafficRule of ETSI GS MEC 011 (6.2.7), in snake_case. What contradicts itself is refused here,
with the path of what is wrong; ``controller/offload_policy`` answers for one UE. docs/offload.md tells it to operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import combinations, product
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from mobiscud.core.edge import MAX_FLOWS, WITH_PORTS, FlowAction, FlowFilter, Pvm
from mobiscud.core.ids import Imsi, PvmId
from mobiscud.core.section import Mac, Name, Section

PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
NOT_FOR_US: Final = ("FORWARD_AS_IS", "DUPLICATE_DECAPSULATED", "DUPLICATE_AS_IS")
MAC_PREFIX: Final = "52:54"
"""Of the personal VMs of groups; their address follows."""


def _several(value: Any) -> Any:
    """One is a list of one."""
    return value if isinstance(value, list | tuple) or value is None else (value,)


def _protocol(value: Any) -> Any:
    return PROTOCOLS.get(value.lower(), value) if isinstance(value, str) else value


def _apn(text: str) -> str:
    if not text or not all(c.isalnum() or c in "-." for c in text):
        raise ValueError("is an APN without operator identifier, such as internet")
    return text.lower()


def _imsi(digits: str) -> Imsi:
    return Imsi(digits)


ImsiDigits = Annotated[str, AfterValidator(_imsi)]
Several = BeforeValidator(_several)
UeName = Annotated[str, Field(pattern=r"^ue-[0-9a-f]{16}$")]
Apn = Annotated[str, Field(max_length=63), BeforeValidator(lambda v: _apn(v) if isinstance(v, str) else v)]
Port = Annotated[int, Field(ge=1, le=65535)]
Protocol = Annotated[int, Field(ge=1, le=255), BeforeValidator(_protocol)]
Dscp = Annotated[int, Field(ge=0, le=63)]


class PvmConfig(Section):
    """A personal VM; address and MAC are its own for ever."""

    id: Name
    address: IPv4Address
    mac: Mac
    image: Name | None = None
    """What it is made of, among ``images``; None: what its host says."""


class SubscriberConfig(Section):
    """A subscriber with a personal VM, by IMSI or by UE key."""

    imsi: ImsiDigits | None = None
    ue: UeName | None = None
    pvm: PvmConfig

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.imsi is None) == (self.ue is None):
            raise ValueError("needs either imsi or ue")
        if self.imsi is not None and self.imsi in self.pvm.id:
            raise ValueError("pvm.id holds the IMSI: it is part of events, logs and file names")
        return self

    def personal_vm(self) -> Pvm:
        """The VM as the rest of the program knows it."""
        return Pvm(PvmId(self.pvm.id), str(self.pvm.address), self.pvm.mac, image=self.pvm.image)


class GroupConfig(Section):
    """Everyone with an address in ``ue_prefix`` (of a PDN connection to ``apn``, where it is named) has a personal VM.

    Its address in ``pvm_network`` has the host part of the UE's address, its MAC follows from that, and its name from
    the UE's key and that address. So all controllers know it without asking each other (docs/adr/0002).
    """

    name: Name
    ue_prefix: IPv4Network
    apn: Apn | None = None
    pvm_network: IPv4Network
    image: Name | None = None
    """What the VMs are made of, as of a single one."""

    @model_validator(mode="after")
    def _one_to_one(self) -> Self:
        if self.ue_prefix.prefixlen != self.pvm_network.prefixlen:
            raise ValueError(f"pvm_network needs the size of ue_prefix: /{self.ue_prefix.prefixlen}")
        return self

    def personal_vm(self, ue: str, ue_ip: IPv4Address) -> Pvm:
        """The VM of the UE that has this address in the prefix."""
        address = self.pvm_network[int(ue_ip) - int(self.ue_prefix.network_address)]
        mac = f"{MAC_PREFIX}:{address.packed.hex(':')}"
        pvm_id = PvmId(f"{self.name}-{ue.removeprefix('ue-')}-{address}")
        return Pvm(pvm_id, str(address), mac, image=self.image)


class WhoConfig(Section):
    """Of whom a rule is. One of the subscribers named, and one of the APNs, and one of the prefixes; nothing: all."""

    imsi: Annotated[tuple[ImsiDigits, ...], Several] = ()
    ue: Annotated[tuple[UeName, ...], Several] = ()
    apn: Annotated[tuple[Apn, ...], Several] = ()
    ue_prefix: Annotated[tuple[IPv4Network, ...], Several] = ()

    def may_meet(self, other: WhoConfig) -> bool:
        """Whether a UE may be of both. (By IMSI here and by key there: it may be the same.)"""
        by_two_names = bool((self.imsi and other.ue) or (self.ue and other.imsi))
        same = by_two_names or (_meet(self.imsi, other.imsi) and _meet(self.ue, other.ue))
        return same and _meet(self.apn, other.apn) and _networks_meet(self.ue_prefix, other.ue_prefix)


class TrafficFilterConfig(Section):
    """Packets from a UE to its personal VM; the answers follow them. Of each kind one must fit; nothing: any."""

    src_address: Annotated[tuple[IPv4Network, ...], Several] = ()
    dst_address: Annotated[tuple[IPv4Network, ...], Several] = ()
    src_port: Annotated[tuple[Port, ...], Several] = ()
    dst_port: Annotated[tuple[Port, ...], Several] = ()
    protocol: Annotated[tuple[Protocol, ...], Several] = ()
    dscp: Annotated[tuple[Dscp, ...], Several] = ()

    @model_validator(mode="after")
    def _ports_of_something(self) -> Self:
        with_ports = all(p in WITH_PORTS for p in self.protocol)
        if (self.src_port or self.dst_port) and not (self.protocol and with_ports):
            raise ValueError("a port needs the protocol that it is of: tcp, udp or sctp")
        return self

    def may_meet(self, other: TrafficFilterConfig) -> bool:
        """Whether a packet may be of both."""
        kinds = ("src_port", "dst_port", "protocol", "dscp")
        return (
            all(_meet(getattr(self, kind), getattr(other, kind)) for kind in kinds)
            and _networks_meet(self.src_address, other.src_address)
            and _networks_meet(self.dst_address, other.dst_address)
        )

    def flows(self, action: FlowAction, rule: str) -> Iterator[FlowFilter]:
        """One for each combination of what the datapath looks at."""
        anything: tuple[None, ...] = (None,)
        for protocol, ue_port, pvm_port, dscp in product(
            self.protocol or anything, self.src_port or anything, self.dst_port or anything, self.dscp or anything
        ):
            yield FlowFilter(protocol, ue_port, pvm_port, dscp, action, rule)


class TrafficRuleConfig(Section):
    """What becomes of some packets of some UEs. Of rules that meet the one with the larger ``priority`` counts."""

    traffic_rule_id: Annotated[Name, Field(max_length=31)]
    filter_type: Literal["FLOW"] = "FLOW"
    priority: int = Field(default=0, ge=0, le=255)
    subscribers: WhoConfig = WhoConfig()
    traffic_filter: tuple[TrafficFilterConfig, ...] = Field(default=(TrafficFilterConfig(),), min_length=1)
    action: FlowAction

    @field_validator("action", mode="before")
    @classmethod
    def _plain_ip(cls, value: Any) -> Any:
        if value in NOT_FOR_US:
            raise ValueError(f"{value}: a personal VM takes each packet once, and plain; say FORWARD_DECAPSULATED")
        return value

    def flows(self) -> Iterator[FlowFilter]:
        """What the datapath is told of it, for a UE whose addresses fit every filter."""
        for traffic_filter in self.traffic_filter:
            yield from traffic_filter.flows(self.action, self.traffic_rule_id)


class OffloadConfig(Section):
    """Who is offloaded, and the network the personal VMs live in: ``gateway`` is its router's address and prefix.

    Without ``rules`` all traffic between a UE and its personal VM is. ``mode: observe`` does nothing of it and tells
    what it would do. What bypasses the P-GW is told every ``usage_interval_s``, and at the end of each bearer or rule.
    """

    mode: Literal["enforce", "observe"] = "enforce"
    gateway: IPv4Interface = IPv4Interface("172.16.0.1/16")
    gateway_mac: Mac = "02:4d:53:ff:ff:01"
    subscribers: tuple[SubscriberConfig, ...] = ()
    groups: tuple[GroupConfig, ...] = ()
    rules: tuple[TrafficRuleConfig, ...] = ()
    usage_interval_s: int = Field(default=60, ge=1, le=86_400)

    def problems(self) -> Iterator[str]:
        """What contradicts itself, each with its path."""
        yield from self._same_twice()
        yield from self._unreachable()
        yield from self._groups_meet()
        yield from self._rules_meet()
        yield from self._too_many_flows()

    def images(self) -> dict[str | None, str]:
        """The images that are named, each with one who names it; None: who names none."""
        return {g.image: g.name for g in self.groups} | {s.pvm.image: s.pvm.id for s in self.subscribers}

    def _same_twice(self) -> Iterator[str]:
        names = "offload.subscribers: pvm"
        yield from repeated(f"{names} id", (s.pvm.id for s in self.subscribers))
        yield from repeated(f"{names} address", (str(s.pvm.address) for s in self.subscribers))
        yield from repeated(f"{names} mac", (s.pvm.mac for s in self.subscribers))
        yield from repeated("offload.groups: name", (g.name for g in self.groups))
        yield from repeated("offload.rules: traffic_rule_id", (r.traffic_rule_id for r in self.rules))
        seen: dict[tuple[str | None, str | None], int] = {}
        for i, subscriber in enumerate(self.subscribers):
            first = seen.setdefault((subscriber.imsi, subscriber.ue), i)
            if first != i:
                yield f"offload.subscribers[{i}]: is the subscriber of subscribers[{first}] too"

    def _unreachable(self) -> Iterator[str]:
        network = self.gateway.network
        for i, subscriber in enumerate(self.subscribers):
            pvm = subscriber.pvm
            if pvm.address not in network:
                yield f"offload.subscribers[{i}].pvm.address: {pvm.address} is outside {network}"
            elif pvm.address in (self.gateway.ip, network.network_address, network.broadcast_address):
                yield f"offload.subscribers[{i}].pvm.address: {pvm.address} is the gateway's, or no host's"
            if pvm.mac == self.gateway_mac:
                yield f"offload.subscribers[{i}].pvm.mac: {pvm.mac} is the gateway's"
        for i, group in enumerate(self.groups):
            inside = group.pvm_network
            if not inside.subnet_of(network):
                yield f"offload.groups[{i}].pvm_network: {inside} is outside {network}"
            elif any(a in inside for a in (self.gateway.ip, network.network_address, network.broadcast_address)):
                yield f"offload.groups[{i}].pvm_network: {inside} holds the gateway's address, or one of no host"
        for i, rule in enumerate(self.rules):
            for k, traffic_filter in enumerate(rule.traffic_filter):
                for address in traffic_filter.dst_address:
                    if not address.overlaps(network):
                        where = f"offload.rules[{i}].traffic_filter[{k}].dst_address"
                        yield f"{where}: {address} cannot be reached: personal VMs live in {network}"

    def _groups_meet(self) -> Iterator[str]:
        for (i, one), (j, other) in combinations(enumerate(self.groups), 2):
            same_apn = one.apn is None or other.apn is None or one.apn == other.apn
            if same_apn and one.ue_prefix.overlaps(other.ue_prefix):
                yield f"offload.groups[{j}].ue_prefix: {other.ue_prefix} meets that of groups[{i}], {one.ue_prefix}"
            if one.pvm_network.overlaps(other.pvm_network):
                yield f"offload.groups[{j}].pvm_network: {other.pvm_network} meets that of groups[{i}]"
        for j, group in enumerate(self.groups):
            for i, subscriber in enumerate(self.subscribers):
                if subscriber.pvm.address in group.pvm_network:
                    yield f"offload.groups[{j}].pvm_network: holds the address of subscribers[{i}].pvm"
                octets = bytes.fromhex(subscriber.pvm.mac.replace(":", ""))
                if subscriber.pvm.mac.startswith(MAC_PREFIX) and IPv4Address(octets[2:]) in group.pvm_network:
                    yield f"offload.groups[{j}].pvm_network: gives a MAC that subscribers[{i}].pvm has"

    def _rules_meet(self) -> Iterator[str]:
        for (i, one), (j, other) in combinations(enumerate(self.rules), 2):
            if one.priority != other.priority or one.action is other.action:
                continue
            if not one.subscribers.may_meet(other.subscribers):
                continue
            for (k, mine), (m, theirs) in product(enumerate(one.traffic_filter), enumerate(other.traffic_filter)):
                if mine.may_meet(theirs):
                    yield (
                        f"offload.rules[{j}].traffic_filter[{m}]: may be the packets of rules[{i}].traffic_filter[{k}]"
                        f" ({one.traffic_rule_id}), with the same priority {one.priority} and another action"
                    )
                    break

    def _too_many_flows(self) -> Iterator[str]:
        named: Iterable[tuple[str, WhoConfig]] = [
            (
                f"subscribers[{i}]",
                WhoConfig(imsi=(s.imsi,)) if s.imsi is not None else WhoConfig(ue=(s.ue or "",)),
            )
            for i, s in enumerate(self.subscribers)
        ]
        groups = [
            (f"groups[{i}]", WhoConfig(apn=(g.apn,) if g.apn else (), ue_prefix=(g.ue_prefix,)))
            for i, g in enumerate(self.groups)
        ]
        for where, who in (*named, *groups):
            rules = [rule for rule in self.in_order() if rule.subscribers.may_meet(who)]
            number = len(shortened(flow for rule in rules for flow in rule.flows()))
            if number > MAX_FLOWS:
                ids = ", ".join(rule.traffic_rule_id for rule in rules)
                yield f"offload.rules: {ids} make {number} flows for {where}; the datapath holds {MAX_FLOWS}"

    def in_order(self) -> list[TrafficRuleConfig]:
        """The rules, those that count first at the front."""
        return sorted(self.rules, key=lambda rule: -rule.priority)


def shortened(flows: Iterable[FlowFilter]) -> tuple[FlowFilter, ...]:
    """Without those that no packet reaches, and without those at the end that say what would happen anyway."""
    kept: list[FlowFilter] = []
    for flow in flows:
        if all(not earlier.covers(flow) for earlier in kept):
            kept.append(flow)
    while kept and kept[-1].action is FlowAction.PASSTHROUGH:
        kept.pop()
    return tuple(kept)


def repeated(what: str, names: Iterable[str]) -> list[str]:
    """Says which names come twice."""
    seen: set[str] = set()
    again: list[str] = []
    for name in names:
        if name in seen:
            again.append(f"{what} {name!r} appears twice")
        seen.add(name)
    return again


def _meet(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return not one or not other or not set(one).isdisjoint(other)


def _networks_meet(one: tuple[IPv4Network, ...], other: tuple[IPv4Network, ...]) -> bool:
    return not one or not other or any(a.overlaps(b) for a, b in product(one, other))
