"""ARP on the core's side (RFC 826): who is the next hop, and where a personal VM is now. Pure, whole frames."""

from __future__ import annotations

import struct

from flows.oxm import ARP_REPLY, ARP_REQUEST, address, mac
from mobiscud.core.errors import DecodeError

FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")
EVERYBODY = b"\xff" * 6
ETHERTYPE, ETHERNET, IPV4 = 0x0806, 1, 0x0800
NOBODY = bytes(4)


def question(target: str, asker_mac: str) -> bytes:
    """Ask who has ``target``, as one who has no address of his own (a probe, RFC 5227 2.1.1)."""
    return _frame(ARP_REQUEST, mac(asker_mac), NOBODY, bytes(6), address(target))


def announcement(of_address: str, at: str) -> bytes:
    """Tell everybody that ``of_address`` is at the MAC ``at``: switches learn the way there by it.

    It is an answer that nobody asked for (RFC 5227 3). The usual question for one's own address would be answered by
    the cloudlet that the VM has just left, and show switches the wrong way.
    """
    return _frame(ARP_REPLY, mac(at), address(of_address), bytes(6), address(of_address))


def _frame(operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    head = (EVERYBODY, sender_mac, ETHERTYPE, ETHERNET, IPV4, 6, 4, operation)
    return FRAME.pack(*head, sender_mac, sender, target_mac, target)


def sender_of_answer(frame: bytes) -> tuple[str, str]:
    """Address and MAC of who answers.

    :raises DecodeError: the frame is no ARP answer
    """
    if len(frame) < FRAME.size:
        raise DecodeError("too short for ARP", offset=len(frame))
    _, _, ethertype, hardware, protocol, mac_size, size, operation, at, sender, _, _ = FRAME.unpack_from(frame)
    if (ethertype, hardware, protocol, mac_size, size) != (ETHERTYPE, ETHERNET, IPV4, 6, 4) or operation != ARP_REPLY:
        raise DecodeError("no ARP answer", offset=0)
    return ".".join(map(str, sender)), at.hex(":")
