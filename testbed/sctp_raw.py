"""SCTP associations for asyncio on a raw IP socket: the thin shell around :mod:`testbed.sctp_association`."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable

from mobiscud.core.errors import DecodeError, SetupError
from testbed.netns_socket import socket_in
from testbed.sctp_association import (
    Association,
    Closed,
    CloseReason,
    Connected,
    Received,
    acknowledge_cookie,
    answer_init,
    refuse,
)
from testbed.sctp_packet import CookieEcho, Init, Packet, decode_packet
from testbed.sctp_transport import (
    IPPROTO_SCTP,
    READ_AT_MOST,
    S1AP_PORT,
    S1AP_PPID,
    SctpConnection,
    ignore_closed,
    ignore_message,
)


class RawConnection:
    """An association on a :class:`RawEndpoint`."""

    def __init__(self, endpoint: RawEndpoint, peer_address: str, association: Association) -> None:
        self.peer_address = peer_address
        self.on_message: Callable[[bytes], None] = ignore_message
        self.on_closed: Callable[[CloseReason], None] = ignore_closed
        self.association = association
        self._endpoint = endpoint
        self._timer: asyncio.TimerHandle | None = None
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()

    def send(self, payload: bytes, *, stream: int) -> None:
        self.association.send(payload, stream=stream, ppid=S1AP_PPID)
        self.pump()

    async def established(self) -> None:
        """Wait for the end of the handshake."""
        await asyncio.wait((self._connected, self._closed), return_when=asyncio.FIRST_COMPLETED)
        if self._closed.done():
            raise ConnectionError(f"SCTP to {self.peer_address}: {self._closed.result().value}")

    async def close(self) -> None:
        self.association.shutdown(time.monotonic())
        self.pump()
        try:
            async with asyncio.timeout(2.0):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self.association.abort()
            self.pump()

    def receive(self, packet: Packet) -> None:
        """Take a packet of this association."""
        self.association.receive(packet, time.monotonic())
        self.pump()

    def pump(self) -> None:
        """Send what is due, tell what happened, and set the alarm for what comes next."""
        for event in self.association.events():
            match event:
                case Connected():
                    self._connected.set_result(None)
                case Received():
                    self.on_message(event.payload)
                case Closed():
                    self._closed.set_result(event.reason)
                    self._endpoint.forget(self)
                    self.on_closed(event.reason)
        for packet in self.association.packets(time.monotonic()):
            self._endpoint.transmit(packet, self.peer_address)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.association.deadline
        if deadline is not None:
            delay = max(0.0, deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._alarm)

    def _alarm(self) -> None:
        self._timer = None
        self.association.handle_timer(time.monotonic())
        self.pump()


class RawEndpoint:
    """All associations of one local address, on one raw socket. Needs CAP_NET_RAW and a running event loop."""

    def __init__(self, namespace: str, address: str) -> None:
        try:
            self._socket = socket_in(namespace, socket.AF_INET, socket.SOCK_RAW, IPPROTO_SCTP)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._socket.bind((address, 0))
        except OSError as error:
            raise SetupError(f"SCTP at {address} in {namespace}: {error.strerror}") from error
        self._secret = secrets.token_bytes(32)
        self._connections: dict[tuple[str, int, int], RawConnection] = {}
        self._listeners: dict[int, Callable[[SctpConnection], None]] = {}
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    async def connect(self, peer: str, port: int = S1AP_PORT, *, within: float = 10.0) -> RawConnection:
        association = Association(self._free_port(), port, random=_random32)
        connection = RawConnection(self, peer, association)
        self._connections[self._key(connection)] = connection
        association.connect(time.monotonic())
        connection.pump()
        try:
            async with asyncio.timeout(within):
                await connection.established()
        except TimeoutError as error:
            association.abort()
            connection.pump()
            raise ConnectionError(f"SCTP to {peer}: no answer") from error
        return connection

    def listen(self, accept: Callable[[SctpConnection], None], port: int = S1AP_PORT) -> None:
        self._listeners[port] = accept

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        for connection in list(self._connections.values()):
            connection.association.abort()
            connection.pump()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def transmit(self, packet: bytes, peer: str) -> None:
        """Put a packet on the wire; what the socket does not take is lost and will be repeated, as on any wire."""
        try:
            self._socket.sendto(packet, (peer, 0))
        except OSError:
            pass

    def forget(self, connection: RawConnection) -> None:
        """Drop an association that has ended."""
        if self._connections.get(self._key(connection)) is connection:
            del self._connections[self._key(connection)]

    def _free_port(self) -> int:
        used = {key[2] for key in self._connections}
        while (port := 32_768 + secrets.randbelow(28_000)) in used:
            pass
        return port

    @staticmethod
    def _key(connection: RawConnection) -> tuple[str, int, int]:
        return connection.peer_address, connection.association.peer_port, connection.association.local_port

    def _readable(self) -> None:
        for _ in range(READ_AT_MOST):
            try:
                datagram, (peer, _) = self._socket.recvfrom(65_535)
            except BlockingIOError:
                return
            header_length = (datagram[0] & 15) * 4  # a raw IPv4 socket gives the IP header too
            try:
                self._receive(decode_packet(datagram[header_length:]), peer)
            except DecodeError:
                continue

    def _receive(self, packet: Packet, peer: str) -> None:
        key = (peer, packet.source_port, packet.destination_port)
        connection = self._connections.get(key)
        first = packet.chunks[0] if packet.chunks else None
        if isinstance(first, Init | CookieEcho) and packet.destination_port in self._listeners:
            self._open(packet, first, key)
        elif connection is not None:
            connection.receive(packet)
        elif (answer := refuse(packet)) is not None:
            self.transmit(answer, peer)

    def _open(self, packet: Packet, first: Init | CookieEcho, key: tuple[str, int, int]) -> None:
        peer = key[0]
        if isinstance(first, Init):
            self.transmit(answer_init(packet, first, self._secret, time.monotonic(), random=_random32), peer)
            return
        ports = (packet.destination_port, packet.source_port)
        association = Association.accept(first.cookie, ports, self._secret, time.monotonic())
        if association is None or packet.tag != association.local_tag:
            return
        known = self._connections.get(key)
        if known is not None:
            if known.association.local_tag == association.local_tag:
                self.transmit(acknowledge_cookie(known.association), peer)
                return
            known.association.abort()  # the peer has restarted (5.2.4, case A)
            known.pump()
        connection = RawConnection(self, peer, association)
        self._connections[key] = connection
        self._listeners[packet.destination_port](connection)
        connection.receive(Packet(packet.source_port, packet.destination_port, packet.tag, packet.chunks[1:]))


def _random32() -> int:
    return secrets.randbits(32)
