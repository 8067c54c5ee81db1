"""What tc is told, and when."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from migration import bandwidth
from migration.bandwidth import NetworkCard, TrafficLimits
from migration.lifecycle import PvmResumed, PvmStopped, StopReason
from mobiscud.core.ids import PvmId

A, B = PvmId("a"), PvmId("b")
LIMITED = NetworkCard("vnet3", "52:54:00:10:01:10", down_mbit_s=80, up_mbit_s=0.5)


def test_both_directions_in_the_words_of_tc() -> None:
    assert list(bandwidth.down(LIMITED)) == [
        "qdisc replace dev vnet3 root tbf rate 80000000bit burst 100000b latency 50ms"
    ]
    assert list(bandwidth.up(LIMITED, "pvm1", 10)) == [
        "class replace dev pvm1 parent 1: classid 1:a htb rate 500000bit burst 16384b",
        "filter add dev pvm1 parent 1: protocol all prio 10 u32 match u32 0x52540010 0xffffffff at -8 "
        "match u16 0x0110 0xffff at -4 flowid 1:a",
    ]


def test_without_limits_nothing_is_done() -> None:
    free = NetworkCard("vnet3", "52:54:00:10:01:10")
    assert [*bandwidth.down(free), *bandwidth.up(free, "pvm1", 1)] == []


def test_the_ports_that_lead_out_are_those_without_a_guest() -> None:
    described = [
        {"ifname": "vnet0", "linkinfo": {"info_kind": "tun", "info_slave_kind": "bridge"}},
        {"ifname": "pvm1", "linkinfo": {"info_kind": "veth"}},
        {"ifname": "eth1"},
    ]
    assert bandwidth.ports_out(json.dumps(described)) == ["eth1", "pvm1"]
    assert bandwidth.ports_out("") == []


@dataclass
class Host:
    """What is plugged in, and what tc was told."""

    cards: dict[PvmId, NetworkCard] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    async def network_card(self, pvm_id: PvmId) -> NetworkCard | None:
        return self.cards.get(pvm_id)

    async def run(self, program: str, *arguments: str, stdin: str = "") -> str:
        if program == "ip":
            return json.dumps([{"ifname": "pvm1", "linkinfo": {"info_kind": "veth"}}])
        self.told += [" ".join(line.split()[:4]) for line in stdin.splitlines()]
        return ""

    def heard(self) -> list[str]:
        told, self.told = self.told, []
        return told


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(bandwidth, "_run", made.run)
    return made


async def test_whoever_runs_is_limited_until_it_has_gone(host: Host) -> None:
    host.cards = {A: LIMITED, B: NetworkCard("vnet4", "52:54:00:10:01:11")}
    limits = TrafficLimits("br", host)
    await limits.begin([A, B])
    assert host.heard() == [
        "qdisc replace dev vnet3",
        "qdisc replace dev pvm1",
        "class replace dev pvm1",
        "filter add dev pvm1",
    ]
    del host.cards[A]
    host.cards[B] = LIMITED
    limits.on_notice(PvmStopped(A, 0, StopReason.DESTROYED))
    limits.on_notice(PvmResumed(B, 0, migrated=True))
    await limits.close()
    assert host.heard() == [
        *("filter del dev pvm1", "class del dev pvm1"),
        *("qdisc replace dev vnet3", "class replace dev pvm1", "filter add dev pvm1"),
    ]
    await limits.begin([])
    limits.on_notice(PvmStopped(B, 0, StopReason.DESTROYED))
    await limits.close()
    assert host.heard() == []
