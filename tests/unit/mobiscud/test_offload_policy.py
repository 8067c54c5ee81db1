"""What is offloaded for whom: the policy's answers, and what contradicts itself is refused by its path."""

from __future__ import annotations

import pytest

from mobiscud.controller.offload_policy import UNKNOWN_E_RAB, OffloadPolicy, pdns_of
from mobiscud.core.config import parse
from mobiscud.core.edge import FlowAction, FlowFilter, Pvm
from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import ERabId, Imsi, PvmId, UeKey
from mobiscud.core.ue import Pdn

ALICE, BOB, CAROL = (UeKey(f"ue-000000000000000{k}") for k in (1, 2, 3))
FORWARD, PASS, DROP = FlowAction.FORWARD_DECAPSULATED, FlowAction.PASSTHROUGH, FlowAction.DROP
INTERNET = Pdn(ERabId(5), "internet", ("45.45.0.2",))
IMS = Pdn(ERabId(6), "ims", ("45.46.0.2",))

SUBSCRIBERS = """
offload:
  gateway: 172.16.0.1/16
  subscribers:
    - {imsi: "999700000000001", pvm: {id: p1, address: 172.16.1.10, mac: "52:54:00:00:00:10"}}
    - {ue: ue-0000000000000002, pvm: {id: p2, address: 172.16.1.11, mac: "52:54:00:00:00:11"}}
"""
GROUP = """
  groups: [{name: home, apn: internet, ue_prefix: 45.45.0.0/24, pvm_network: 172.16.32.0/24}]
"""


def rule(name: str, rest: str, action: str = "FORWARD_DECAPSULATED") -> str:
    return f"    - {{traffic_rule_id: {name}, action: {action}, {rest}}}\n"


def rules(*texts: str) -> str:
    return SUBSCRIBERS + "  rules:\n" + "".join(texts)


def key_of(imsi: Imsi) -> UeKey:
    return UeKey(f"ue-{int(imsi[-3:]):016x}")


def policy(text: str) -> OffloadPolicy:
    return OffloadPolicy(parse(text).offload, key_of)


def flows(text: str, ue: UeKey = ALICE, *pdns: Pdn) -> tuple[FlowFilter, ...] | None:
    found = policy(text).of(ue, pdns or (INTERNET,))
    return None if found is None else found.flows


def test_without_rules_all_traffic_of_the_subscribers_is_offloaded() -> None:
    answers = policy(SUBSCRIBERS)
    found = answers.of(ALICE, (INTERNET,))
    assert found is not None
    assert (found.pvm.id, found.pdn, found.flows) == ("p1", INTERNET, ())
    assert answers.of(BOB, ()) is not None, "whatever its address"
    assert answers.of(CAROL, (INTERNET,)) is None
    assert [(ue, pvm.id) for ue, pvm in answers.named] == [(ALICE, "p1"), (BOB, "p2")]


def test_a_group_has_a_personal_vm_for_each_address() -> None:
    answers = policy(SUBSCRIBERS + GROUP)
    found = answers.of(CAROL, (IMS, INTERNET))
    assert found is not None
    assert found.pdn == INTERNET
    assert found.pvm == Pvm(PvmId("home-0000000000000003-172.16.32.2"), "172.16.32.2", "52:54:ac:10:20:02")
    assert answers.of(CAROL, (IMS,)) is None
    assert answers.of(CAROL, (Pdn(ERabId(5), "ims", ("45.45.0.2",)),)) is None, "of another APN"
    assert answers.of(CAROL, (Pdn(ERabId(5), None, ("45.45.0.2",)),)) is None, "of an APN that is not known"
    named = answers.of(ALICE, (INTERNET,))
    assert named is not None
    assert named.pvm.id == "p1", "who is named has its own"


def test_only_what_a_rule_says_is_offloaded() -> None:
    text = rules(rule("web", "traffic_filter: [{protocol: tcp, dst_port: [80, 443]}]"))
    assert flows(text) == (FlowFilter(6, None, 80), FlowFilter(6, None, 443))
    assert [flow.rule for flow in flows(text) or ()] == ["web", "web"]


def test_the_larger_priority_counts() -> None:
    text = rules(
        rule("all", "priority: 1"),
        rule("ssh", "priority: 3, traffic_filter: [{protocol: tcp, dst_port: 22}]", "PASSTHROUGH"),
        rule("telnet", "priority: 2, traffic_filter: [{protocol: tcp, dst_port: 23}]", "DROP"),
    )
    expected = FlowFilter(6, None, 22, action=PASS), FlowFilter(6, None, 23, action=DROP), FlowFilter()
    assert flows(text) == expected


def test_what_no_packet_reaches_is_left_out() -> None:
    text = rules(
        rule("udp", "priority: 9, traffic_filter: [{protocol: udp}]"),
        rule("dns", "priority: 5, traffic_filter: [{protocol: udp, dst_port: 53}]"),
        rule("rest", "priority: 1", "PASSTHROUGH"),
    )
    assert flows(text) == (FlowFilter(17),)


def test_fragments_of_what_passes_are_not_covered_by_a_port_that_is_offloaded() -> None:
    web, passed = FlowFilter(6, None, 80), FlowFilter(6, None, 80, action=PASS)
    assert not web.covers(passed)
    assert passed.covers(web)


@pytest.mark.parametrize(
    ("who", "fits"),
    [
        ("imsi: '999700000000001'", True),
        ("imsi: ['999700000000009', '999700000000001']", True),
        ("imsi: '999700000000009'", False),
        ("ue: ue-0000000000000001", True),
        ("ue: ue-0000000000000002", False),
        ("apn: Internet", True),
        ("apn: [ims, mms]", False),
        ("ue_prefix: 45.45.0.0/16", True),
        ("ue_prefix: 45.46.0.0/16", False),
        ("apn: internet, ue_prefix: 45.46.0.0/16", False),
    ],
)
def test_of_whom_a_rule_is(who: str, fits: bool) -> None:
    text = (SUBSCRIBERS + GROUP).rstrip() + "\n  rules:\n" + rule("web", f"subscribers: {{{who}}}")
    assert (flows(text) == (FlowFilter(),)) is fits
    assert (flows(text) is None) is not fits, "without traffic that is offloaded there is no personal VM"


@pytest.mark.parametrize(
    ("addresses", "fits"),
    [
        ("dst_address: 172.16.1.0/24", True),
        ("dst_address: 172.16.2.0/24", False),
        ("src_address: [10.0.0.0/8, 45.45.0.0/16]", True),
        ("src_address: 10.0.0.0/8", False),
    ],
)
def test_addresses_of_a_filter(addresses: str, fits: bool) -> None:
    assert (flows(rules(rule("web", f"traffic_filter: [{{{addresses}}}]"))) is not None) is fits


def test_the_first_pdn_connection_that_has_something_to_offload() -> None:
    text = rules(rule("voice", "subscribers: {apn: ims}, traffic_filter: [{dscp: 46}]"))
    found = policy(text).of(ALICE, (INTERNET, IMS))
    assert found is not None
    assert (found.pdn, found.flows) == (IMS, (FlowFilter(dscp=46),))


def test_an_event_that_tells_only_addresses() -> None:
    assert pdns_of((INTERNET,), ("45.45.0.2",)) == (INTERNET,)
    assert pdns_of((), ()) == ()
    assert list(pdns_of((), ("45.45.0.2",))) == [Pdn(UNKNOWN_E_RAB, None, ("45.45.0.2",))]


def test_a_subscriber_with_two_names() -> None:
    with pytest.raises(ConfigError, match=r"offload\.subscribers\[1\]: ue-0000000000000001 is a subscriber already"):
        policy(SUBSCRIBERS.replace("ue-0000000000000002", "ue-0000000000000001"))


WEB = "traffic_filter: [{protocol: tcp, dst_port: 80}]"
MANY = "traffic_filter: [{protocol: tcp, dst_port: [1, 2, 3, 4, 5, 6, 7, 8, 9]}]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            rules(rule("a", WEB), rule("b", "priority: 0", "DROP")),
            "offload.rules[1].traffic_filter[0]: may be the packets of rules[0].traffic_filter[0] (a)",
        ),
        (
            rules(rule("a", "subscribers: {imsi: '999700000000001'}"), rule("b", WEB, "DROP")),
            "offload.rules[1].traffic_filter[0]: may be",
        ),
        (rules(rule("a", MANY)), "offload.rules: a make 9 flows for subscribers[0]; the datapath holds 8"),
        (rules(rule("a", WEB), rule("a", WEB)), "offload.rules: traffic_rule_id 'a' appears twice"),
        (rules(rule("a", "traffic_filter: [{dst_port: 80}]")), "offload.rules[0].traffic_filter[0]: a port needs"),
        (rules(rule("a", "traffic_filter: [{protocol: icmp, src_port: 80}]")), "a port needs the protocol"),
        (
            rules(rule("a", "traffic_filter: [{dst_address: 10.0.0.0/8}]")),
            "offload.rules[0].traffic_filter[0].dst_address: 10.0.0.0/8 cannot be reached",
        ),
        (rules(rule("a", "traffic_filter: [{dscp: 64}]")), "offload.rules[0].traffic_filter[0].dscp"),
        (rules(rule("a", "traffic_filter: []")), "offload.rules[0].traffic_filter"),
        (rules(rule("a", "priority: 256")), "offload.rules[0].priority"),
        (rules(rule("a", "subscribers: {imei: '1'}")), "offload.rules[0].subscribers.imei: there is no such key"),
        (rules(rule("a", "filter_type: PACKET")), "offload.rules[0].filter_type"),
        (rules(rule("a", "", "FORWARD_AS_IS")), "offload.rules[0].action: FORWARD_AS_IS: a personal VM takes each"),
        (rules(rule("a", "", "MIRROR")), "offload.rules[0].action"),
        (rules(rule("a" * 32, "")), "offload.rules[0].traffic_rule_id"),
        (SUBSCRIBERS + GROUP.replace("172.16.32.0/24", "172.16.32.0/25"), "needs the size of ue_prefix: /24"),
        (SUBSCRIBERS + GROUP.replace("172.16.32.0", "172.17.32.0"), "groups[0].pvm_network: 172.17.32.0/24 is outside"),
        (SUBSCRIBERS + GROUP.replace("172.16.32.0", "172.16.0.0"), "pvm_network: 172.16.0.0/24 holds the gateway's"),
        (SUBSCRIBERS + GROUP.replace("172.16.32.0", "172.16.1.0"), "pvm_network: holds the address of subscribers[0]"),
        (
            (SUBSCRIBERS + GROUP).replace("52:54:00:00:00:10", "52:54:ac:10:20:07"),
            "pvm_network: gives a MAC that subscribers[0].pvm has",
        ),
        (
            SUBSCRIBERS + GROUP.rstrip()[:-1] + ", {name: all, ue_prefix: 45.45.0.0/25, pvm_network: 172.16.32.0/25}]",
            "groups[1].ue_prefix: 45.45.0.0/25 meets that of groups[0]",
        ),
        (SUBSCRIBERS.replace("172.16.1.10", "172.16.0.1"), "subscribers[0].pvm.address: 172.16.0.1 is the gateway's"),
        (SUBSCRIBERS.replace("00:00:11", "00:00:10"), "pvm mac '52:54:00:00:00:10' appears twice"),
        (
            SUBSCRIBERS.replace("ue: ue-0000000000000002", "imsi: '999700000000001'"),
            "offload.subscribers[1]: is the subscriber of subscribers[0] too",
        ),
        ("offload: {mode: dry}", "offload.mode"),
    ],
)
def test_what_is_wrong_is_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "texts",
    [
        (rule("a", WEB), rule("b", "priority: 1", "DROP")),
        (rule("a", WEB), rule("b", WEB.replace("80", "81"), "DROP")),
        (rule("a", WEB), rule("b", WEB.replace("tcp", "udp"), "DROP")),
        (rule("a", WEB), rule("b", WEB)),
        (rule("a", "subscribers: {apn: ims}"), rule("b", "subscribers: {apn: internet}", "DROP")),
        (rule("a", "subscribers: {ue_prefix: 10.0.0.0/9}"),
         rule("b", "subscribers: {ue_prefix: 10.128.0.0/9}", "DROP")),
        (rule("a", "traffic_filter: [{src_address: 10.0.0.0/9}]"),
         rule("b", "traffic_filter: [{src_address: 10.128.0.0/9}]", "DROP")),
        (rule("a", "subscribers: {ue: ue-0000000000000002}, " + MANY.replace(", 9", "")),
         rule("b", "subscribers: {ue: ue-0000000000000003}, " + MANY.replace(", 9", ""))),
    ],
)  # fmt: skip
def test_rules_that_do_not_meet(texts: tuple[str, ...]) -> None:
    parse(rules(*texts))
