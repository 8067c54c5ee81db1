"""Traffic flow templates (TS 24.008 10.5.6.12): which packets a dedicated bearer carries.

Only what the emulated UEs ask for: one filter, both directions, by the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mobiscud.core.errors import DecodeError

Protocol = Literal["icmp", "tcp", "udp"]
"""What a bearer may be asked for."""

NUMBERS: Final[dict[Protocol, int]] = {"icmp": 1, "tcp": 6, "udp": 17}
_CREATE_WITH_ONE_FILTER: Final = 0x21
_BOTH_DIRECTIONS: Final = 0x30
_PROTOCOL: Final = 0x30
_PROTOCOL_AT: Final = 9
"""In an IPv4 header."""


@dataclass(frozen=True, slots=True)
class Template:
    """The packets of one protocol. Of several bearers' templates the one with the lowest ``precedence`` has its way."""

    protocol: int
    precedence: int = 0

    def encode(self) -> bytes:
        """As a UE asks for a bearer, and as the network grants it."""
        component = bytes((_PROTOCOL, self.protocol))
        return bytes((_CREATE_WITH_ONE_FILTER, _BOTH_DIRECTIONS, self.precedence, len(component))) + component

    def holds(self, packet: bytes) -> bool:
        """Whether an IPv4 packet is of this traffic."""
        return len(packet) > _PROTOCOL_AT and packet[_PROTOCOL_AT] == self.protocol


def decode(octets: bytes) -> Template:
    """Read a template as :meth:`Template.encode` writes it.

    :raises DecodeError: it is of another kind
    """
    if len(octets) != 6:
        raise DecodeError("not a template of one filter by protocol")
    template = Template(protocol=octets[5], precedence=octets[2])
    if template.encode() != octets:
        raise DecodeError("not a template of one filter by protocol")
    return template
