"""``struct address`` of the datapath program: IPv4 is mapped into IPv6 (RFC 4291 2.5.5.2)."""

from __future__ import annotations

from ipaddress import IPv6Address

MAPPED = bytes(10) + b"\xff\xff"


def packed(text: str) -> bytes:
    """As the program has it."""
    return IPv6Address(text).packed if ":" in text else MAPPED + bytes(map(int, text.split(".")))


def shown(address: bytes) -> str:
    """As people write it."""
    return ".".join(map(str, address[12:])) if address.startswith(MAPPED) else str(IPv6Address(address))
