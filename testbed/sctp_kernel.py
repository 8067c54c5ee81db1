"""SCTP associations of the kernel, for asyncio (RFC 6458, one-to-one style).

Used where the kernel has SCTP loaded: it would answer packets of raw sockets with ABORT.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from mobiscud.core.errors import SetupError
from testbed.netns_socket import socket_in
from testbed.sctp_association import STREAMS, CloseReason
from testbed.sctp_transport import (
    IPPROTO_SCTP,
    READ_AT_MOST,
    S1AP_PORT,
    S1AP_PPID,
    SctpConnection,
    ignore_closed,
    ignore_message,
)

_SCTP_INITMSG: Final = 2
_SCTP_NODELAY: Final = 3
_SCTP_SNDINFO: Final = 2
_SCTP_EVENTS: Final = 11

_MSG_NOTIFICATION: Final = 0x8000
_ASSOC_CHANGE: Final = 0x8001
_SHUTDOWN_COMPLETE: Final = 3

_INITMSG: Final = struct.Struct("HHHH")
_SNDINFO: Final = struct.Struct("HHIIi")
_ASSOC_CHANGE_HEAD: Final = struct.Struct("HHIH")


class KernelConnection:
    """One association; ``send`` and the callbacks are as in :class:`testbed.sctp_transport.SctpConnection`."""

    def __init__(self, sctp: socket.socket, peer_address: str) -> None:
        self.peer_address = peer_address
        self.on_message: Callable[[bytes], None] = ignore_message
        self.on_closed: Callable[[CloseReason], None] = ignore_closed
        self._socket = sctp
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._partial = b""
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(sctp, self._readable)

    def send(self, payload: bytes, *, stream: int) -> None:
        if self._ended.done():
            return
        self._waiting.append((payload, stream))
        self._flush()

    async def close(self) -> None:
        if self._ended.done():
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(2.0):
                await asyncio.shield(self._ended)
        except (OSError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        """End at once, with ABORT to the peer if it is still there."""
        if not self._ended.done():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._end(CloseReason.ABORT)

    def _flush(self) -> None:
        while self._waiting:
            payload, stream = self._waiting[0]
            info = _SNDINFO.pack(stream, 0, socket.htonl(S1AP_PPID), 0, 0)
            try:
                self._socket.sendmsg([payload], [(IPPROTO_SCTP, _SCTP_SNDINFO, info)])
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                self._waiting.clear()  # the reader is told why the association has ended
                break
            self._waiting.popleft()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        for _ in range(READ_AT_MOST):
            if self._ended.done():
                return
            try:
                chunk, _, flags, _ = self._socket.recvmsg(65_535)
            except BlockingIOError:
                return
            except ConnectionResetError:
                self._end(CloseReason.ABORT)
                return
            except OSError:
                self._end(CloseReason.LOST)
                return
            if not chunk:
                self._end(CloseReason.SHUTDOWN)
                return
            if flags & _MSG_NOTIFICATION:
                self._notice(chunk)
                continue
            self._partial += chunk
            if flags & socket.MSG_EOR:
                message, self._partial = self._partial, b""
                self.on_message(message)

    def _notice(self, notification: bytes) -> None:
        """Hear that the shutdown we began is complete: nothing else tells (RFC 6458 6.1.1)."""
        kind, _, _, state = _ASSOC_CHANGE_HEAD.unpack_from(notification)
        if kind == _ASSOC_CHANGE and state == _SHUTDOWN_COMPLETE:
            self._end(CloseReason.SHUTDOWN)

    def _end(self, reason: CloseReason) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._ended.set_result(None)
        self.on_closed(reason)


class KernelEndpoint:
    """All associations of one local address, one socket each."""

    def __init__(self, namespace: str, address: str) -> None:
        self._namespace = namespace
        self._address = address
        self._listeners: list[socket.socket] = []
        self._connections: list[KernelConnection] = []

    async def connect(self, peer: str, port: int = S1AP_PORT, *, within: float = 10.0) -> KernelConnection:
        sctp = self._open(0)
        writable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_writer(sctp, writable.set)
        try:
            sctp.connect_ex((peer, port))
            async with asyncio.timeout(within):
                await writable.wait()
            error = sctp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise ConnectionError(f"SCTP to {peer}: {os.strerror(error)}")
        except TimeoutError as error:
            sctp.close()
            raise ConnectionError(f"SCTP to {peer}: no answer") from error
        except ConnectionError:
            sctp.close()
            raise
        finally:
            loop.remove_writer(sctp)
        return self._keep(sctp, peer)

    def listen(self, accept: Callable[[SctpConnection], None], port: int = S1AP_PORT) -> None:
        listener = self._open(port)
        listener.listen(64)
        self._listeners.append(listener)

        def take() -> None:
            try:
                sctp, (peer, _) = listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            sctp.setblocking(False)
            accept(self._keep(sctp, peer))

        asyncio.get_running_loop().add_reader(listener, take)

    def close(self) -> None:
        for connection in self._connections:
            connection.abort()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _open(self, port: int) -> socket.socket:
        try:
            sctp = socket_in(self._namespace, socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
            sctp.setsockopt(IPPROTO_SCTP, _SCTP_INITMSG, _INITMSG.pack(STREAMS, STREAMS, 0, 0))
            sctp.setsockopt(IPPROTO_SCTP, _SCTP_NODELAY, 1)
            association_events_only = bytes((0, 1))
            sctp.setsockopt(IPPROTO_SCTP, _SCTP_EVENTS, association_events_only)
            sctp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sctp.bind((self._address, port))
        except OSError as error:
            raise SetupError(f"SCTP at {self._address} in {self._namespace}: {error.strerror}") from error
        return sctp

    def _keep(self, sctp: socket.socket, peer: str) -> KernelConnection:
        connection = KernelConnection(sctp, peer)
        self._connections.append(connection)
        return connection
