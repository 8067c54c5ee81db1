"""Matches and actions of our rules as the octets of OpenFlow 1.3, there and back. Pure.

A general codec builds a tree of objects for every message; ten thousand flows take it two seconds. Our rules have a
handful of shapes, so their octets are laid out from templates here, and the general codec is the tests' oracle. The way
back is what lets a controller that was restarted recognise its flows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final, assert_never

from os_ken.ofproto import ofproto_v1_3 as of

from flows.rules import (
    ANY_DSCP,
    Action,
    AnswerArp,
    DecrementTtl,
    Goto,
    Match,
    Output,
    OutputBack,
    SetEthernet,
    Tell,
)
from mobiscud.core.errors import AdapterError, DecodeError
from mobiscud.core.ids import PortNo, TableId

Ports = Mapping[str, PortNo]
PortNames = Mapping[int, str]

ARP_REQUEST, ARP_REPLY = 1, 2  # RFC 826
OXM_BASIC: Final = 0x8000_0000  # OpenFlow 1.3, 7.2.3.2: the class
MASKED: Final = 0x100

NICIRA: Final = 0x2320  # the vendor of Open vSwitch's own actions
REGISTER_MOVE: Final = 6
NXM_ETH_DST, NXM_ETH_SRC, NXM_ARP_SPA, NXM_ARP_TPA = 0x0206, 0x0406, 0x2004, 0x2204
NXM_ARP_SHA, NXM_ARP_THA = 0x12206, 0x12406


class Oxm(IntEnum):
    """The fields that our matches and actions name (7.2.3.7)."""

    IN_PORT = 0
    ETH_DST = 3
    ETH_SRC = 4
    ETH_TYPE = 5
    IP_DSCP = 8
    IP_PROTO = 10
    IPV4_SRC = 11
    IPV4_DST = 12
    TCP_SRC = 13
    TCP_DST = 14
    UDP_SRC = 15
    UDP_DST = 16
    SCTP_SRC = 17
    SCTP_DST = 18
    ARP_OP = 21
    ARP_SPA = 22
    ARP_TPA = 23
    ARP_SHA = 24
    IPV6_SRC = 26
    IPV6_DST = 27


PORT_FIELDS: Final[Mapping[int, tuple[Oxm, Oxm]]] = {
    6: (Oxm.TCP_SRC, Oxm.TCP_DST),
    17: (Oxm.UDP_SRC, Oxm.UDP_DST),
    132: (Oxm.SCTP_SRC, Oxm.SCTP_DST),
}
"""Source and destination port, by the protocol that they are of."""

APPLY_ACTIONS = struct.Struct("!HHxxxx")
GOTO_TABLE = struct.Struct("!HHBxxx")
OUTPUT = struct.Struct("!HHIHxxxxxx")


def address(text: str) -> bytes:
    """An IPv4 address, in four numbers."""
    return bytes(map(int, text.split(".")))


def mac(text: str) -> bytes:
    """An Ethernet address."""
    return bytes.fromhex(text.replace(":", ""))


def number(port: str, ports: Ports) -> PortNo:
    """The switch's number of a port.

    :raises AdapterError: it has none of that name
    """
    if port not in ports:
        raise AdapterError(f"the switch has no port {port!r}; it has {', '.join(sorted(ports)) or 'none'}")
    return ports[port]


def field(which: int, value: bytes) -> bytes:
    """One field of a match: header and value (7.2.3.2)."""
    return _header(which, len(value)).to_bytes(4) + value


def _header(which: int, length: int) -> int:
    return OXM_BASIC | which << 9 | length


def match_fields(match: Match, ports: Ports) -> bytes:
    """The fields of a match, each after those it presupposes (7.2.3.8).

    :raises AdapterError: the switch lacks the port
    """
    found = b""
    if match.in_port:
        found += field(Oxm.IN_PORT, number(match.in_port, ports).to_bytes(4))
    if match.eth_dst:
        found += field(Oxm.ETH_DST, mac(match.eth_dst))
    if match.eth_src:
        found += field(Oxm.ETH_SRC, mac(match.eth_src))
    if match.eth_type:
        found += field(Oxm.ETH_TYPE, match.eth_type.to_bytes(2))
    if match.ip_src:
        found += _address_field(Oxm.IPV4_SRC, Oxm.IPV6_SRC, match.ip_src)
    if match.ip_dst:
        found += _address_field(Oxm.IPV4_DST, Oxm.IPV6_DST, match.ip_dst)
    if match.dscp != ANY_DSCP:
        found += field(Oxm.IP_DSCP, match.dscp.to_bytes(1))
    if match.ip_proto:
        found += field(Oxm.IP_PROTO, match.ip_proto.to_bytes(1))
        for ours, port in zip(PORT_FIELDS.get(match.ip_proto, ()), (match.l4_src, match.l4_dst), strict=False):
            found += field(ours, port.to_bytes(2)) if port else b""
    if match.arp_target:
        found += field(Oxm.ARP_OP, ARP_REQUEST.to_bytes(2)) + field(Oxm.ARP_TPA, address(match.arp_target))
    if match.arp_sender:
        found += field(Oxm.ARP_OP, ARP_REPLY.to_bytes(2)) + field(Oxm.ARP_SPA, address(match.arp_sender))
    return found


def _address_field(ipv4: Oxm, ipv6: Oxm, text: str) -> bytes:
    if ":" not in text:
        return field(ipv4, address(text))
    bits, _, length = text.partition("/")
    if not length:
        return field(ipv6, IPv6Address(bits).packed)
    mask = IPv6Network((0, int(length))).netmask.packed
    return (_header(ipv6, 2 * len(mask)) | MASKED).to_bytes(4) + IPv6Address(bits).packed + mask


def read_match(fields: bytes, names: PortNames) -> Match:
    """The match behind its fields, in whatever order the switch gives them.

    :raises DecodeError: it is not one of ours
    """
    found: dict[str, str | int] = {}
    operation = 0
    for header, value in _tlvs(fields):
        which = header >> 9 & 0x7F
        if header >> 16 != OXM_BASIC >> 16 or (header & MASKED and which not in (Oxm.IPV6_SRC, Oxm.IPV6_DST)):
            raise DecodeError(f"a match on {header:#x}")
        match which:
            case Oxm.IN_PORT:
                found["in_port"] = _name(value, names)
            case Oxm.ETH_DST:
                found["eth_dst"] = value.hex(":")
            case Oxm.ETH_SRC:
                found["eth_src"] = value.hex(":")
            case Oxm.ETH_TYPE:
                found["eth_type"] = int.from_bytes(value)
            case Oxm.IPV4_SRC:
                found["ip_src"] = str(IPv4Address(value))
            case Oxm.IPV4_DST:
                found["ip_dst"] = str(IPv4Address(value))
            case Oxm.IPV6_SRC:
                found["ip_src"] = _ipv6_text(value)
            case Oxm.IPV6_DST:
                found["ip_dst"] = _ipv6_text(value)
            case Oxm.IP_DSCP:
                found["dscp"] = int.from_bytes(value)
            case Oxm.IP_PROTO:
                found["ip_proto"] = int.from_bytes(value)
            case Oxm.TCP_SRC | Oxm.UDP_SRC | Oxm.SCTP_SRC:
                found["l4_src"] = int.from_bytes(value)
            case Oxm.TCP_DST | Oxm.UDP_DST | Oxm.SCTP_DST:
                found["l4_dst"] = int.from_bytes(value)
            case Oxm.ARP_OP:
                operation = int.from_bytes(value)
            case Oxm.ARP_TPA:
                found["arp_target"] = str(IPv4Address(value))
            case Oxm.ARP_SPA:
                found["arp_sender"] = str(IPv4Address(value))
            case other:
                raise DecodeError(f"a match on field {other}")
    if operation != (ARP_REQUEST if "arp_target" in found else ARP_REPLY if "arp_sender" in found else 0):
        raise DecodeError(f"a match on ARP operation {operation}")
    return Match(**found)  # type: ignore[arg-type]


def _ipv6_text(value: bytes) -> str:
    """The address, with its prefix length if it came with a mask."""
    bits, mask = str(IPv6Address(value[:16])), int.from_bytes(value[16:])
    return f"{bits}/{mask.bit_count()}" if mask else bits


def instructions(actions: tuple[Action, ...], ports: Ports) -> bytes:
    """What is done with the packet now, and where it goes on (7.2.4).

    :raises AdapterError: the switch lacks a port
    """
    steps = b"".join(_step(action, ports) for action in actions)
    found = APPLY_ACTIONS.pack(of.OFPIT_APPLY_ACTIONS, APPLY_ACTIONS.size + len(steps)) + steps if steps else b""
    for action in actions:
        if isinstance(action, Goto):
            found += GOTO_TABLE.pack(of.OFPIT_GOTO_TABLE, GOTO_TABLE.size, action.table)
    return found


def _step(action: Action, ports: Ports) -> bytes:
    """The action's octets (7.2.5); ``Goto`` is an instruction instead."""
    match action:
        case SetEthernet(source, destination):
            whose = set_field(Oxm.ETH_SRC, mac(source)) if source else b""
            return whose + set_field(Oxm.ETH_DST, mac(destination))
        case DecrementTtl():
            return struct.pack("!HHxxxx", of.OFPAT_DEC_NW_TTL, 8)
        case Output(port):
            return OUTPUT.pack(of.OFPAT_OUTPUT, OUTPUT.size, number(port, ports), 0)
        case OutputBack():
            return OUTPUT.pack(of.OFPAT_OUTPUT, OUTPUT.size, of.OFPP_IN_PORT, 0)
        case Tell():
            return OUTPUT.pack(of.OFPAT_OUTPUT, OUTPUT.size, of.OFPP_CONTROLLER, of.OFPCML_NO_BUFFER)
        case AnswerArp(of_address, at):
            return _arp_answer(mac(at), address(of_address))
        case Goto():
            return b""
        case _ as never:
            assert_never(never)


def _arp_answer(at: bytes, of_address: bytes) -> bytes:
    return b"".join(
        (
            _move(NXM_ETH_SRC, NXM_ETH_DST, 48),
            set_field(Oxm.ETH_SRC, at),
            set_field(Oxm.ARP_OP, ARP_REPLY.to_bytes(2)),
            _move(NXM_ARP_SHA, NXM_ARP_THA, 48),
            _move(NXM_ARP_SPA, NXM_ARP_TPA, 32),
            set_field(Oxm.ARP_SHA, at),
            set_field(Oxm.ARP_SPA, of_address),
        )
    )


def set_field(which: int, value: bytes) -> bytes:
    """Give a field this value; padded to eight octets (7.2.5)."""
    body = field(which, value)
    length = (4 + len(body) + 7) // 8 * 8
    return struct.pack("!HH", of.OFPAT_SET_FIELD, length) + body.ljust(length - 4, b"\0")


def _move(source: int, destination: int, bits: int) -> bytes:
    """Copy one field to another (nicira-ext.h, NXAST_REG_MOVE)."""
    head = (of.OFPAT_EXPERIMENTER, 24, NICIRA, REGISTER_MOVE, bits, 0, 0)
    return struct.pack("!HHIHHHHII", *head, source, destination)


def read_instructions(octets: bytes, names: PortNames) -> tuple[Action, ...]:
    """The actions behind the instructions of a flow for a UE.

    :raises DecodeError: it does something that these never do
    """
    found: list[Action] = []
    following: list[Action] = []
    for kind, body in _blocks(octets):
        if kind == of.OFPIT_APPLY_ACTIONS:
            found += _read_actions(body[4:], names)
        elif kind == of.OFPIT_GOTO_TABLE:
            following.append(Goto(TableId(body[0])))
        else:
            raise DecodeError(f"an instruction of type {kind}")
    return *found, *following


def _read_actions(octets: bytes, names: PortNames) -> Iterator[Action]:
    if (answer := _read_arp_answer(octets)) is not None:
        yield answer
        octets = octets[len(_arp_answer(bytes(6), bytes(4))) :]
    source = ""
    for kind, body in _blocks(octets):
        match kind:
            case of.OFPAT_SET_FIELD:
                header, value = next(_tlvs(body), (0, b""))
                if header == _header(Oxm.ETH_SRC, 6) and not source:
                    source = value.hex(":")
                elif header == _header(Oxm.ETH_DST, 6):
                    yield SetEthernet(source, value.hex(":"))
                    source = ""
                else:
                    raise DecodeError(f"a change of {header:#x}")
            case of.OFPAT_DEC_NW_TTL:
                yield DecrementTtl()
            case of.OFPAT_OUTPUT if body[:4] == of.OFPP_IN_PORT.to_bytes(4):
                yield OutputBack()
            case of.OFPAT_OUTPUT if body[:4] == of.OFPP_CONTROLLER.to_bytes(4):
                yield Tell()
            case of.OFPAT_OUTPUT:
                yield Output(_name(body[:4], names))
            case other:
                raise DecodeError(f"an action of type {other}")
    if source:
        raise DecodeError("half a change of the Ethernet header")


def _read_arp_answer(octets: bytes) -> AnswerArp | None:
    """The answer with whose octets these begin, if they do: its addresses are in its last two actions."""
    blank = _arp_answer(bytes(6), bytes(4))
    at, of_address = (octets[len(blank) - end : len(blank) - end + size] for end, size in ((24, 6), (8, 4)))
    if len(octets) < len(blank) or not octets.startswith(_arp_answer(at, of_address)):
        return None
    return AnswerArp(str(IPv4Address(of_address)), at.hex(":"))


def _name(value: bytes, names: PortNames) -> str:
    port = int.from_bytes(value)
    if port not in names:
        raise DecodeError(f"a port {port}, which the switch has no more")
    return names[port]


def _tlvs(octets: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(octets):
        header = int.from_bytes(octets[offset : offset + 4])
        offset += 4 + (header & 0xFF)
        yield header, octets[offset - (header & 0xFF) : offset]


def _blocks(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each structure that begins with its type and length."""
    offset = 0
    while offset + 4 <= len(octets):
        kind, length = struct.unpack_from("!HH", octets, offset)
        if length < 8 or offset + length > len(octets):
            raise DecodeError("a structure that contradicts its length", offset=offset)
        yield kind, octets[offset + 4 : offset + length]
        offset += length
