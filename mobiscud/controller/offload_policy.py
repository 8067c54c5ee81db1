"""What is offloaded for one UE: the section ``offload`` of the configuration, asked UE by UE. Pure.

Every controller of a site has the same section and hears of the same UEs, so that all give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from mobiscud.core.edge import FlowAction, FlowFilter, Pvm
from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import ERabId, Imsi, UeKey
from mobiscud.core.offload import OffloadConfig, TrafficRuleConfig, WhoConfig, shortened
from mobiscud.core.ue import Pdn


@dataclass(frozen=True, slots=True)
class Offload:
    """What is offloaded for a UE. ``pdn``: the PDN connection whose traffic it is; None while none is known.

    ``flows``: as in ``PathSpec``; none: everything between the UE and its personal VM.
    """

    pvm: Pvm
    pdn: Pdn | None
    flows: tuple[FlowFilter, ...] = ()

    @property
    def traffic(self) -> tuple[FlowFilter, ...]:
        """The flows, equal where the same traffic is offloaded, by whatever rules."""
        return self.flows or (FlowFilter(),)

    @property
    def accounts(self) -> tuple[tuple[FlowFilter, str], ...]:
        """The flows, each with the rule that it is of."""
        return tuple((flow, flow.rule) for flow in self.flows)


class OffloadPolicy:
    """Answers for one UE at a time."""

    def __init__(self, config: OffloadConfig, key_of: Callable[[Imsi], UeKey]) -> None:
        """``key_of``: the UE key behind an IMSI.

        :raises ConfigError: a subscriber is named by IMSI and by key
        """
        self._groups = config.groups
        self._rules = [(rule, _Who(rule.subscribers, key_of)) for rule in config.in_order()]
        self._pvm_of: dict[UeKey, Pvm] = {}
        for i, subscriber in enumerate(config.subscribers):
            ue = key_of(Imsi(subscriber.imsi)) if subscriber.imsi is not None else UeKey(subscriber.ue or "")
            if ue in self._pvm_of:
                raise ConfigError(f"offload.subscribers[{i}]: {ue} is a subscriber already, by another name")
            self._pvm_of[ue] = subscriber.personal_vm()

    @classmethod
    def plain(cls, pvm_of: Mapping[UeKey, Pvm]) -> OffloadPolicy:
        """All traffic between these UEs and their personal VMs."""
        policy = cls(OffloadConfig(), UeKey)
        policy._pvm_of = dict(pvm_of)
        return policy

    @property
    def named(self) -> Iterator[tuple[UeKey, Pvm]]:
        """The subscribers that are named one by one, and their personal VMs."""
        return iter(self._pvm_of.items())

    def of(self, ue: UeKey, pdns: Iterable[Pdn]) -> Offload | None:
        """What is offloaded for a UE with these PDN connections: for the first of which anything is. None: nothing.

        While none is known (the UE was overheard in the middle of its life), what a rule says of APN and address fits.
        """
        known = [(pdn, address) for pdn in pdns if (address := _ipv4(pdn.addresses)) is not None]
        for pdn, address in known:
            pvm = self._pvm_of.get(ue) or self._pvm_of_group(ue, pdn.apn, address)
            if pvm is not None and (found := self._offload(ue, pvm, pdn, address)) is not None:
                return found
        pvm = self._pvm_of.get(ue)
        return self._offload(ue, pvm, None, None) if pvm is not None and not known else None

    def _pvm_of_group(self, ue: UeKey, apn: str | None, address: IPv4Address) -> Pvm | None:
        for group in self._groups:
            if address in group.ue_prefix and group.apn in (None, apn):
                return group.personal_vm(ue, address)
        return None

    def _offload(self, ue: UeKey, pvm: Pvm, pdn: Pdn | None, address: IPv4Address | None) -> Offload | None:
        if not self._rules:
            return Offload(pvm, pdn)
        apn = None if pdn is None else pdn.apn
        rules = (rule for rule, who in self._rules if who.fits(ue, apn, address))
        flows = shortened(flow for rule in rules for flow in _flows(rule, address, IPv4Address(pvm.address)))
        if all(flow.action is not FlowAction.FORWARD_DECAPSULATED for flow in flows):
            return None
        return Offload(pvm, pdn, flows)


class _Who:
    """Of whom a rule is, by UE key."""

    def __init__(self, config: WhoConfig, key_of: Callable[[Imsi], UeKey]) -> None:
        self._keys = frozenset((*(key_of(Imsi(imsi)) for imsi in config.imsi), *map(UeKey, config.ue)))
        self._apns = frozenset(config.apn)
        self._prefixes = config.ue_prefix

    def fits(self, ue: UeKey, apn: str | None, address: IPv4Address | None) -> bool:
        """An APN that was not overheard is not one of those named."""
        if self._keys and ue not in self._keys:
            return False
        if address is None:
            return True
        return (not self._apns or apn in self._apns) and _inside(address, self._prefixes)


def _flows(rule: TrafficRuleConfig, ue_ip: IPv4Address | None, pvm_ip: IPv4Address) -> Iterator[FlowFilter]:
    for traffic_filter in rule.traffic_filter:
        ours = ue_ip is None or _inside(ue_ip, traffic_filter.src_address)
        if ours and _inside(pvm_ip, traffic_filter.dst_address):
            yield from traffic_filter.flows(rule.action, rule.traffic_rule_id)


def _inside(address: IPv4Address, networks: Sequence[IPv4Network]) -> bool:
    return not networks or any(address in network for network in networks)


def _ipv4(addresses: Iterable[str]) -> IPv4Address | None:
    """A personal VM has an IPv4 address, so that is what it is reached from."""
    return next((IPv4Address(address) for address in addresses if ":" not in address), None)


def pdns_of(pdns: Sequence[Pdn], ue_ip: Sequence[str]) -> Sequence[Pdn]:
    """The PDN connections that an event tells; where it tells only addresses, they are of one that is not known."""
    return pdns or ([Pdn(UNKNOWN_E_RAB, None, tuple(ue_ip))] if ue_ip else ())


UNKNOWN_E_RAB = ERabId(0)
"""Of no default bearer (TS 24.007 11.2.3.1.5: 5 to 15)."""
