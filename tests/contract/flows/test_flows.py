"""Only what the policy names is offloaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from mobiscud.core.edge import FlowAction, FlowFilter
from mobiscud.core.errors import AdapterError
from testbed.switch_bench import HERE
from tests.contract.flows.switches import (
    C2,
    LOCAL,
    PVM,
    UE,
    UE_IP,
    Bench,
    from_pvm,
    hear_enb,
    link,
    to_pvm,
    uplink,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def datagram(source: str, destination: str, sport: int, dport: int, **ip: Any) -> bytes:
    return bytes(IP(src=source, dst=destination, **ip) / UDP(sport=sport, dport=dport) / b"some")


DROP, PASS = FlowAction.DROP, FlowAction.PASSTHROUGH
GAME = FlowFilter(protocol=17, pvm_port=5000)
VOICE = FlowFilter(protocol=17, ue_port=5004, dscp=46)


@pytest.mark.parametrize(
    ("flows", "fields", "taken"),
    [
        ((GAME,), {"pvm": 5000}, True),
        ((GAME,), {"pvm": 5001}, False),
        ((GAME,), {"ue": 5000}, False),
        ((GAME, VOICE), {"ue": 5004, "tos": 0xB8}, True),
        ((GAME, VOICE), {"ue": 5004, "tos": 0xBB}, True),
        ((GAME, VOICE), {"ue": 5004, "tos": 0}, False),
        ((FlowFilter(protocol=6),), {"pvm": 5000}, False),
        ((FlowFilter(dscp=0),), {"tos": 0}, True),
        ((FlowFilter(dscp=0),), {"tos": 0xB8}, False),
    ],
)
async def test_only_the_flows_named_are_offloaded(
    bench: Bench, flows: tuple[FlowFilter, ...], fields: dict[str, int], taken: bool
) -> None:
    await bench.apply(UE, replace(LOCAL, flows=flows))
    await hear_enb(bench)
    ue_port, pvm_port, tos = fields.get("ue", 1), fields.get("pvm", 2), fields.get("tos", 0)
    inner = datagram(UE_IP, PVM.address, ue_port, pvm_port, tos=tos)
    expected = ("pvm", to_pvm(inner)) if taken else ("core", uplink(inner))
    assert await bench.emerges("enb", uplink(inner), at=expected[0]) == [expected]
    back = from_pvm(datagram(PVM.address, UE_IP, pvm_port, ue_port, tos=tos))
    at = "enb" if taken else "sgi"
    assert [port for port, _ in await bench.emerges("pvm", back, at=at)] == [at], "the way that it came"


@pytest.mark.parametrize(
    ("pvm_port", "action"), [(80, None), (22, PASS), (23, DROP)], ids=["offloaded", "passed", "dropped"]
)
async def test_the_first_flow_that_fits_says_what_becomes_of_a_packet(
    bench: Bench, pvm_port: int, action: FlowAction | None
) -> None:
    exceptions = FlowFilter(17, None, 22, action=PASS), FlowFilter(17, None, 23, action=DROP)
    await bench.apply(UE, replace(LOCAL, flows=(*exceptions, FlowFilter(protocol=17))))
    await hear_enb(bench)
    inner = datagram(UE_IP, PVM.address, 1, pvm_port)
    expected = {None: [("pvm", to_pvm(inner))], PASS: [("core", uplink(inner))], DROP: []}[action]
    at = expected[0][0] if expected else None
    dropped = await bench.count("discarded")
    assert await bench.emerges("enb", uplink(inner), at=at) == expected
    back = from_pvm(datagram(PVM.address, UE_IP, pvm_port, 1))
    ways = {None: "enb", PASS: "sgi", DROP: None}
    assert [port for port, _ in await bench.emerges("pvm", back, at=ways[action])] == [ways[action]] * (action != DROP)
    assert await bench.count("discarded") == dropped + (action is DROP)


async def test_what_is_offloaded_goes_on_to_a_ue_elsewhere_and_the_rest_by_the_core(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, ue_at=C2, flows=(GAME,)))
    game, other = datagram(PVM.address, UE_IP, 5000, 1), datagram(PVM.address, UE_IP, 80, 1)
    assert [port for port, _ in await bench.emerges("pvm", from_pvm(game), at="isl-c2")] == ["isl-c2"]
    assert [port for port, _ in await bench.emerges("pvm", from_pvm(other), at="sgi")] == ["sgi"]


async def test_what_comes_for_a_ue_over_the_link_was_chosen_where_its_vm_is(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, pvm_at=C2, flows=(GAME,)))
    await hear_enb(bench)
    game, other = datagram(PVM.address, UE_IP, 5000, 1), datagram(PVM.address, UE_IP, 80, 1)
    assert [port for port, _ in await bench.emerges("isl-c2", link(C2, HERE, game), at="enb")] == ["enb"]
    before = await bench.count("not_offloaded")
    assert await bench.emerges("isl-c2", link(C2, HERE, other)) == []
    assert await bench.count("not_offloaded") == before + 1


async def test_flows_change_while_they_are_at_work(bench: Bench) -> None:
    await bench.apply(UE, replace(LOCAL, flows=(GAME,)))
    inner = uplink(datagram(UE_IP, PVM.address, 1, 80))
    assert await bench.emerges("enb", inner, at="core") == [("core", inner)]
    await bench.apply(UE, replace(LOCAL, flows=(GAME, FlowFilter(protocol=17, pvm_port=80))))
    assert [port for port, _ in await bench.emerges("enb", inner, at="pvm")] == ["pvm"]


async def test_more_flows_than_there_is_room_for_are_refused(bench: Bench) -> None:
    many = tuple(FlowFilter(protocol=17, pvm_port=port) for port in range(1, 10))
    with pytest.raises(AdapterError, match="9 flows"):
        await bench.apply(UE, replace(LOCAL, flows=many))
