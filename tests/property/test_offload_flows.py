"""What is left out of the flows of a policy changes the fate of no packet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from mobiscud.core.edge import WITH_PORTS, FlowAction, FlowFilter
from mobiscud.core.offload import shortened

PROTOCOLS, PORTS, DSCPS = (1, 6, 17), (80, 443), (0, 46)


class Seen(NamedTuple):
    """A packet, as the datapath program sees it."""

    protocol: int
    ue_port: int
    pvm_port: int
    dscp: int
    fragment: bool


def takes(flow: FlowFilter, packet: Seen) -> bool:
    """As ``find_flow`` in gtp.bpf.c."""
    if flow.protocol not in (None, packet.protocol) or flow.dscp not in (None, packet.dscp):
        return False
    if packet.fragment:
        return flow.action is not FlowAction.FORWARD_DECAPSULATED or not (flow.ue_port or flow.pvm_port)
    return flow.ue_port in (None, packet.ue_port) and flow.pvm_port in (None, packet.pvm_port)


def fate(flows: Iterable[FlowFilter], packet: Seen) -> FlowAction:
    return next((flow.action for flow in flows if takes(flow, packet)), FlowAction.PASSTHROUGH)


@st.composite
def flow_filters(draw: st.DrawFn) -> FlowFilter:
    protocol = draw(st.sampled_from((None, *PROTOCOLS)))
    port = st.sampled_from((None, *PORTS)) if protocol in WITH_PORTS else st.none()
    dscp = st.sampled_from((None, *DSCPS))
    return FlowFilter(protocol, draw(port), draw(port), draw(dscp), draw(st.sampled_from(FlowAction)))


packets = st.builds(
    Seen,
    st.sampled_from(PROTOCOLS),
    st.sampled_from((1, *PORTS)),
    st.sampled_from((1, *PORTS)),
    st.sampled_from((*DSCPS, 10)),
    st.booleans(),
)


@given(st.lists(flow_filters(), max_size=8), st.lists(packets, min_size=1, max_size=20))
def test_shortening_changes_no_fate(flows: list[FlowFilter], seen: list[Seen]) -> None:
    short = shortened(flows)
    assert len(short) <= len(flows)
    for packet in seen:
        assert fate(short, packet) is fate(flows, packet), packet
