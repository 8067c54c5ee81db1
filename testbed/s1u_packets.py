"""Frames as they look on S1-U, and crafted ones that a bump in the wire must not touch.

Whole Ethernet frames as bytes, so that tests can compare them octet by octet.
"""

from __future__ import annotations

import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

GTPU_PORT = 2152
ENB_MAC, SGW_MAC = "02:00:00:00:00:11", "02:00:00:00:00:01"
G_PDU, ECHO_REQUEST, ECHO_RESPONSE, ERROR_INDICATION, EXTENSION_NOTIFICATION, END_MARKER = 255, 1, 2, 26, 31, 254

# What may follow the mandatory header (TS 29.281 5.1, 5.2): flags, and the octets.
NO_OPTIONS = (0x30, b"")
OPTIONS = {
    "sequence number": (0x32, bytes.fromhex("12340000")),
    "n-pdu number": (0x31, bytes.fromhex("00000700")),
    "pdcp pdu number": (0x34, bytes.fromhex("000000c001000900")),
    "sequence number and pdu session container": (0x36, bytes.fromhex("1234008501100900")),
    "two extensions": (0x34, bytes.fromhex("000000c00100098501100900")),
}


def udp(source: str, destination: str, payload: bytes = b"x" * 40, **ip: int) -> bytes:
    """An inner packet; ``ip`` sets fields of its IPv4 header."""
    return bytes(IP(src=source, dst=destination, **ip) / UDP(sport=1111, dport=2222) / Raw(payload))


def gtpu(teid: int, payload: bytes, kind: int = G_PDU, options: tuple[int, bytes] = NO_OPTIONS) -> bytes:
    """A GTP-U message (TS 29.281 5.1)."""
    flags, extra = options
    return struct.pack("!BBHI", flags, kind, len(extra) + len(payload), teid) + extra + payload


def s1u_packet(source: str, destination: str, message: bytes, **fields: int) -> Packet:
    """A GTP-U message in its UDP packet. ``fields``: of the IPv4 header, or ``sport`` and ``chksum`` of the UDP one."""
    of_udp = {name: fields.pop(name) for name in ("sport", "chksum") if name in fields}
    ports: dict[str, int] = {"sport": GTPU_PORT, "dport": GTPU_PORT} | of_udp
    of_ip: dict[str, int] = {"ttl": 61, "id": 0x4242} | fields
    return IP(src=source, dst=destination, **of_ip) / UDP(**ports) / Raw(message)


def from_enb(packet: Packet | bytes) -> bytes:
    """A frame that the eNodeB sends."""
    return bytes(Ether(src=ENB_MAC, dst=SGW_MAC) / packet)


def from_core(packet: Packet | bytes) -> bytes:
    """A frame that the core sends."""
    return bytes(Ether(src=SGW_MAC, dst=ENB_MAC) / packet)


def crafted(source: str, destination: str, teid: int, ue: str, pvm: str) -> dict[str, list[Packet]]:
    """Packets that must cross as they are, by name, even where the tunnel and the personal VM are known.

    None is offloaded: not G-PDUs, not to the personal VM, from somebody else, or not to be understood.
    """

    def tunnelled(inner: bytes, **fields: int) -> list[Packet]:
        return [s1u_packet(source, destination, gtpu(teid, inner), **fields)]

    def message(kind: int, payload: bytes, options: tuple[int, bytes] = NO_OPTIONS, **fields: int) -> list[Packet]:
        return [s1u_packet(source, destination, gtpu(teid, payload, kind, options), **fields)]

    internet = udp(ue, "8.8.8.8")
    to_pvm = udp(ue, pvm)
    plain = s1u_packet(source, destination, gtpu(teid, to_pvm))
    cases = {
        "to the internet": tunnelled(internet),
        "outer dscp 46": tunnelled(internet, tos=0xB8),
        "inner dscp and congestion": tunnelled(udp(ue, "8.8.8.8", tos=0xBB)),
        "udp source port 40000": tunnelled(internet, sport=40000),
        "udp checksum 0": tunnelled(internet, chksum=0),
        "wrong udp checksum": tunnelled(internet, chksum=0x1234),
        "do not fragment": tunnelled(internet, flags=2),
        "inner ipv6": tunnelled(bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP() / Raw(b"y" * 20))),
        "inner not ip": tunnelled(bytes(40)),
        "inner empty": tunnelled(b""),
        "inner fragment": tunnelled(bytes(IP(src=ue, dst="8.8.8.8", flags="MF", proto=17) / Raw(b"z" * 64))),
        "1500 octets": tunnelled(udp(ue, "8.8.8.8", b"x" * (1500 - 36 - 28))),
        "echo request": message(ECHO_REQUEST, b"", OPTIONS["sequence number"]),
        "echo response": message(ECHO_RESPONSE, b"\x0e\x00", OPTIONS["sequence number"]),
        "error indication": message(ERROR_INDICATION, bytes.fromhex("10000010018500040a00000b"), (0x32, bytes(4))),
        "extension headers supported": message(EXTENSION_NOTIFICATION, bytes.fromhex("8d0185"), (0x32, bytes(4))),
        "end marker": message(END_MARKER, b""),
        "end marker, dscp 46": message(END_MARKER, b"", tos=0xB8),
        "end marker with a packet to the vm": message(END_MARKER, to_pvm),
        "unknown message type": message(77, to_pvm),
        "gtp version 0": [s1u_packet(source, destination, b"\x1e\xff" + b"A" * 30)],
        "gtp'": [s1u_packet(source, destination, b"\x20" + gtpu(teid, to_pvm)[1:])],
        "garbage": [s1u_packet(source, destination, b"\xff" * 60)],
        "nothing but udp": [s1u_packet(source, destination, b"")],
        "4 octets of gtp": [s1u_packet(source, destination, b"\x30\xff\x00\x00")],
        "gtp length too long": [s1u_packet(source, destination, gtpu(teid, to_pvm)[:2] + b"\x7f\xff" + plain.load[4:])],
        "gtp length too short": [
            s1u_packet(source, destination, gtpu(teid, to_pvm)[:2] + b"\x00\x08" + plain.load[4:])
        ],
        "extension of length 0": message(G_PDU, to_pvm, (0x34, bytes.fromhex("000000c000000900"))),
        "extensions without end": message(G_PDU, to_pvm, (0x34, bytes.fromhex("000000c0") + b"\x01\x00\x09\xc0" * 9)),
        "truncated extension": [s1u_packet(source, destination, gtpu(teid, b"", G_PDU, (0x34, b"\0\0\0\xc0")))],
        "to the vm, another tunnel": [s1u_packet(source, destination, gtpu(teid ^ 0xDEAD, to_pvm))],
        "to the vm, another enb": [s1u_packet("10.0.0.66", destination, gtpu(teid, to_pvm))],
        "to the vm, another s-gw": [s1u_packet(source, "10.0.0.67", gtpu(teid, to_pvm))],
        "to the vm, another port": [IP(src=source, dst=destination) / UDP(sport=2152, dport=2153) / plain[UDP].payload],
        "to the vm, forged source": tunnelled(udp("9.9.9.9", pvm)),
        "to the vm, inner version 6": tunnelled(b"\x60" + to_pvm[1:]),
        "to the vm, inner length too long": tunnelled(to_pvm[:2] + b"\x0f\xff" + to_pvm[4:]),
        "to the vm, inner length too short": tunnelled(to_pvm[:2] + b"\x00\x08" + to_pvm[4:]),
        "to the vm, not in a tunnel": [IP(src=ue, dst=pvm) / UDP() / Raw(b"x")],
        "outer fragments": fragment(s1u_packet(source, destination, gtpu(teid, udp(ue, pvm, b"f" * 2000))), 1200),
        "tcp": [IP(src=source, dst=destination) / TCP(sport=5, dport=36412, flags="S")],
        "icmp": [IP(src=source, dst=destination) / ICMP()],
        "sctp": [IP(src=source, dst=destination, proto=132) / Raw(b"\x8e\x3c\x8e\x3c" + bytes(24))],
        "ipv6": [IPv6(src="2001:db8::11", dst="2001:db8::1") / UDP(sport=2152, dport=2152) / Raw(plain.load)],
        "arp": [ARP(psrc=source, pdst=destination, hwsrc=ENB_MAC)],
        "tagged": [Dot1Q(vlan=7) / s1u_packet(source, destination, gtpu(teid, internet))],
        "twice tagged": [Dot1Q(vlan=7) / Dot1Q(vlan=8) / plain],
    }
    for ttl in (1, 63, 64, 128, 255):
        cases[f"inner ttl {ttl}"] = tunnelled(udp(ue, "8.8.8.8", ttl=ttl))
    for name, options in OPTIONS.items():
        cases[f"to the internet with {name}"] = message(G_PDU, internet, options)
    return cases
