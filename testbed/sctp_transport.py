"""What an SCTP transport for S1AP is: the Protocols that the raw and the kernel's implementation share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from testbed.sctp_association import CloseReason

S1AP_PORT: Final = 36412
S1AP_PPID: Final = 18
"""IANA payload protocol identifier of S1AP (TS 36.412 7)."""

IPPROTO_SCTP: Final = 132

READ_AT_MOST: Final = 64
"""Packets taken in one turn of the event loop, so that user traffic is not starved."""


class SctpConnection(Protocol):
    """One association, established."""

    peer_address: str
    on_message: Callable[[bytes], None]
    on_closed: Callable[[CloseReason], None]

    def send(self, payload: bytes, *, stream: int) -> None:
        """Send one S1AP message in order on a stream."""

    async def close(self) -> None:
        """Shut down gracefully, and abort when the peer does not answer."""


class SctpEndpoint(Protocol):
    """What connects and listens at one address."""

    async def connect(self, peer: str, port: int = S1AP_PORT, *, within: float = 10.0) -> SctpConnection:
        """Open an association.

        :raises ConnectionError: when the peer does not answer or refuses
        """

    def listen(self, accept: Callable[[SctpConnection], None], port: int = S1AP_PORT) -> None:
        """Call ``accept`` with each association that a peer opens."""

    def close(self) -> None:
        """Close the sockets; associations that still stand are aborted. Harmless the second time."""


def ignore_message(payload: bytes) -> None:
    """Drop what comes before the owner has said what to do with it."""


def ignore_closed(reason: CloseReason) -> None:
    """Do nothing, as the owner has not asked to know."""
