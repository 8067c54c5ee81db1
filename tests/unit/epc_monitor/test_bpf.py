"""The kernel's filter, run by a small interpreter of classic BPF: signalling passes, everything else does not."""

from __future__ import annotations

import struct

import pytest

from epc_monitor.bpf import ethernet_filter, ip_filter
from epc_monitor.live import MOST_INTERFACES

MACS = b"\2\0\0\0\0\1\2\0\0\0\0\2"


HERE, LOOP, ELSEWHERE = 7, 1, 8
"""Interface indices."""
INCOMING, OUTGOING = 0, 4


def run(program: bytes, frame: bytes, interface: int = HERE, kind: int = INCOMING) -> int:
    """What the kernel would do with a frame: how many octets pass (linux/filter.h)."""
    steps = list(struct.iter_unpack("HBBI", program))
    accumulator: int = 0
    index = here = 0
    while True:
        code, then, otherwise, k = steps[here]
        here += 1
        if code in (0x28, 0x48, 0x30, 0x50):
            offset = k + (index if code & 0x40 else 0)
            size = 1 if code & 0x10 else 2
            if offset + size > len(frame):
                return 0
            accumulator = int.from_bytes(frame[offset : offset + size], "big")
        elif code == 0x20:
            accumulator = {0xFFFF_F000 + 4: kind, 0xFFFF_F000 + 8: interface}[k]
        elif code == 0x01:
            index = k
        elif code == 0x07:
            index = accumulator
        elif code == 0x0C:
            accumulator += index
        elif code == 0x54:
            accumulator &= k
        elif code == 0x64:
            accumulator <<= k
        elif code == 0x74:
            accumulator >>= k
        elif code == 0x15:
            here += then if accumulator == k else otherwise
        elif code == 0x45:
            here += then if accumulator & k else otherwise
        elif code == 0x06:
            return int(k)
        else:
            raise AssertionError(f"instruction {code:#x}")


def ipv4(protocol: int, payload: bytes = bytes(20), options: int = 0, fragment: int = 0) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45 + options, 0, 20 + 4 * options + len(payload), 1, fragment, 64, protocol, 0)
    return head + bytes(8 + 4 * options) + payload


def ipv6(following: int, payload: bytes = bytes(20)) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(payload), following, 64) + bytes(32) + payload


def udp(source: int, destination: int) -> bytes:
    return struct.pack(">HHHH", source, destination, 8, 0)


PASS = {
    "sctp": ipv4(132),
    "sctp fragment": ipv4(132, fragment=0x20),
    "gtp-c request": ipv4(17, udp(30000, 2123)),
    "gtp-c response": ipv4(17, udp(2123, 30000)),
    "gtp-c with options": ipv4(17, udp(30000, 2123), options=5),
    "gtp-c, don't fragment": ipv4(17, udp(30000, 2123), fragment=0x4000),
    "first fragment of gtp-c": ipv4(17, udp(30000, 2123), fragment=0x2000),
    "later fragment": ipv4(17, udp(30000, 2152), fragment=0x2010),
    "sctp over udp": ipv4(17, udp(9899, 9899)),
    "sctp over ipv6": ipv6(132),
    "gtp-c over ipv6": ipv6(17, udp(2123, 30000)),
    "ipv6 with more headers": ipv6(0),
    "ipv6 fragment": ipv6(44),
}
DROP = {
    "tcp": ipv4(6),
    "gtp-u": ipv4(17, udp(2152, 2152)),
    "first fragment of gtp-u": ipv4(17, udp(2152, 2152), fragment=0x2000),
    "dns": ipv4(17, udp(53, 30000)),
    "port number elsewhere": ipv4(17, udp(53, 53) + udp(2123, 2123)),
    "gtp-u over ipv6": ipv6(17, udp(2152, 2152)),
    "icmp over ipv6": ipv6(58),
}
TAGS = {"plain": b"", "vlan": b"\x81\0\0\x64", "qinq": b"\x88\xa8\0\x64\x81\0\0\x05"}


def ethernet(packet: bytes, tags: bytes = b"") -> bytes:
    return MACS + tags + (b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("name", PASS)
def test_signalling_passes(name: str, tags: str) -> None:
    assert run(ethernet_filter([HERE]), ethernet(PASS[name], TAGS[tags])) >= 0x10000
    assert run(ip_filter([HERE]), PASS[name]) >= 0x10000


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("name", DROP)
def test_everything_else_is_dropped(name: str, tags: str) -> None:
    assert run(ethernet_filter([HERE]), ethernet(DROP[name], TAGS[tags])) == 0
    assert run(ip_filter([HERE]), DROP[name]) == 0


@pytest.mark.parametrize("frame", [b"", MACS, MACS + b"\x08\0", MACS + b"\x08\x06" + bytes(28), MACS + b"\x81\0" * 4])
def test_short_and_strange_frames_are_dropped(frame: bytes) -> None:
    assert run(ethernet_filter([HERE]), frame) == 0


def test_three_tags_are_too_many() -> None:
    assert run(ethernet_filter([HERE]), ethernet(PASS["sctp"], b"\x81\0\0\1" * 3)) == 0


@pytest.mark.parametrize("interface", [HERE, LOOP])
@pytest.mark.parametrize("kind", [INCOMING, OUTGOING])
def test_only_a_loop_is_not_heard_in_both_directions(interface: int, kind: int) -> None:
    program = ethernet_filter([HERE, LOOP], [LOOP])
    passes = bool(run(program, ethernet(PASS["sctp"]), interface, kind))
    assert passes == (interface == HERE or kind == INCOMING)


def test_other_interfaces_are_not_heard() -> None:
    assert run(ethernet_filter([LOOP, HERE], [LOOP]), ethernet(PASS["sctp"]), ELSEWHERE) == 0
    assert run(ip_filter([LOOP, HERE]), PASS["sctp"], ELSEWHERE) == 0
    assert run(ethernet_filter([]), ethernet(PASS["sctp"]), HERE) == 0


def test_many_interfaces_are_heard() -> None:
    for interface in (1, MOST_INTERFACES):
        assert run(ethernet_filter(range(1, MOST_INTERFACES + 1)), ethernet(PASS["sctp"]), interface)
        assert run(ip_filter(range(1, MOST_INTERFACES + 1)), PASS["sctp"], interface)
