"""The kernel's part of the capture: classic BPF programs that let signalling pass and nothing else.

Passed are SCTP, UDP with one of our ports at either end, later fragments of UDP (they carry no ports), and IPv6 with
extension headers; behind no, one or two VLAN tags; of the interfaces that are asked for. What is passed in vain is
dropped when it is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from epc_monitor.frames import SCTP, UDP
from epc_monitor.gtpv2 import GTPV2_PORT

SCTP_OVER_UDP_PORT: Final = 9899
"""RFC 6951 4.1."""

PORTS: Final = (GTPV2_PORT, SCTP_OVER_UDP_PORT)

_LD_W_ABS, _LD_H_ABS, _LD_B_ABS, _LD_H_IND, _LD_B_IND = 0x20, 0x28, 0x30, 0x48, 0x50
_LDX_IMM, _JEQ, _JSET, _RET = 0x01, 0x15, 0x45, 0x06
_AND, _LSH, _RSH, _ADD_X, _TAX = 0x54, 0x64, 0x74, 0x0C, 0x07

_WHOLE_FRAME = 0x40000

_PACKET_TYPE, _INTERFACE_INDEX = 0xFFFF_F000 + 4, 0xFFFF_F000 + 8
"""Places in no frame, where the kernel shows what it knows of one (SKF_AD_PKTTYPE, SKF_AD_IFINDEX)."""
_OUTGOING = 4

_IPV4, _IPV6 = 0x0800, 0x86DD
_TAGS = (0x8100, 0x88A8, 0x9100)
_IPV6_MORE_HEADERS = (0, 43, 44, 51, 60, 135)


class Step(NamedTuple):
    """An instruction, or with ``label`` alone a place to jump to. Jumps name labels; None is the next instruction."""

    code: int = 0
    k: int = 0
    then: str | None = None
    otherwise: str | None = None
    label: str | None = None


def _label(name: str) -> Step:
    return Step(label=name)


def _goto_if(values: Iterable[int], target: str) -> list[Step]:
    """Jump when the accumulator is one of ``values``."""
    return [Step(_JEQ, value, target) for value in values]


_DROP = Step(_RET, 0)


def _after_link_layer() -> list[Step]:
    """With X at the IP header: at ``ipv4`` or ``ipv6``, whether the packet passes."""
    return [
        _label("ipv4"),
        Step(_LD_B_IND, 9),
        Step(_JEQ, SCTP, "pass"),
        Step(_JEQ, UDP, None, "drop"),
        Step(_LD_H_IND, 6),
        Step(_JSET, 0x1FFF, "pass"),
        Step(_LD_B_IND, 0),
        Step(_AND, 15),
        Step(_LSH, 2),
        Step(_ADD_X),
        Step(_TAX),
        Step(_LD_H_IND, 0),
        *_goto_if(PORTS, "pass"),
        Step(_LD_H_IND, 2),
        *_goto_if(PORTS, "pass"),
        _DROP,
        _label("ipv6"),
        Step(_LD_B_IND, 6),
        *_goto_if((SCTP, *_IPV6_MORE_HEADERS), "pass"),
        Step(_JEQ, UDP, None, "drop"),
        Step(_LD_H_IND, 40),
        *_goto_if(PORTS, "pass"),
        Step(_LD_H_IND, 42),
        *_goto_if(PORTS, "pass"),
        _label("drop"),
        _DROP,
        _label("pass"),
        Step(_RET, _WHOLE_FRAME),
    ]


def _of_interfaces(wanted: Iterable[int], loops: Iterable[int]) -> list[Step]:
    """Let go on what one of these interfaces shows; of those that loop, which show each frame twice, as it comes in."""
    return [
        Step(_LD_W_ABS, _INTERFACE_INDEX),
        *_goto_if(loops, "loop"),
        *_goto_if(wanted, "frame"),
        _DROP,
        _label("loop"),
        Step(_LD_W_ABS, _PACKET_TYPE),
        Step(_JEQ, _OUTGOING, None, "frame"),
        _DROP,
        _label("frame"),
    ]


def ethernet_filter(wanted: Collection[int], loops: Collection[int] = ()) -> bytes:
    """For interfaces whose frames begin with an Ethernet header; those wanted, and those of them that ``loops``.

    Both are interface indices, 250 at the very most.
    """
    steps = _of_interfaces(wanted, loops)
    for depth, next_depth in ((0, "tag 1"), (1, "tag 2"), (2, None)):
        offset = 14 + 4 * depth
        steps += [
            _label(f"tag {depth}"),
            Step(_LDX_IMM, offset),
            Step(_LD_H_ABS, offset - 2),
            Step(_JEQ, _IPV4, "ipv4"),
            Step(_JEQ, _IPV6, "ipv6"),
        ]
        if next_depth is not None:
            steps += _goto_if(_TAGS, next_depth)
        steps.append(_DROP)
    return assemble(steps + _after_link_layer())


def ip_filter(wanted: Collection[int]) -> bytes:
    """For interfaces whose packets are handed over without a link layer: those with the indices wanted, at most 250."""
    steps = [
        *_of_interfaces(wanted, ()),
        Step(_LDX_IMM, 0),
        Step(_LD_B_ABS, 0),
        Step(_RSH, 4),
        Step(_JEQ, 4, "ipv4"),
        Step(_JEQ, 6, "ipv6"),
        _DROP,
    ]
    return assemble(steps + _after_link_layer())


def assemble(steps: Sequence[Step]) -> bytes:
    """Resolve the labels; the program as an array of ``struct sock_filter``."""
    places: dict[str, int] = {}
    instructions: list[Step] = []
    for step in steps:
        if step.label is None:
            instructions.append(step)
        else:
            places[step.label] = len(instructions)

    def distance(label: str | None, here: int) -> int:
        return 0 if label is None else places[label] - here - 1

    return b"".join(
        struct.pack("HBBI", step.code, distance(step.then, here), distance(step.otherwise, here), step.k)
        for here, step in enumerate(instructions)
    )
