"""Serves metrics to Prometheus: ``GET /metrics``, in its text format, and nothing else.

Runs in the node's own event loop, so that what is asked for is read between two events and needs no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from mobiscud.core.errors import SetupError

HEAD_LIMIT: Final = 16_384
HEAD_S: Final = 5.0
"""How long who asks may take to say what."""

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def served(host: str, port: int, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve what is in the registry; the port, which is another where 0 was asked for.

    :raises SetupError: the address cannot be had
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, lambda: generate_latest(registry)))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever it was has gone, or is no HTTP client
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=HEAD_LIMIT)
    except OSError as error:
        raise SetupError(f"metrics.listen: {host}:{port}: {error.strerror or error}") from error
    async with server:
        bound: int = server.sockets[0].getsockname()[1]
        log.info("metrics are served", address=f"{host}:{bound}")
        yield bound


def _response(head: bytes, render: Callable[[], bytes]) -> bytes:
    """The whole answer to the head of a request (RFC 9112)."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _message("400 Bad Request", "text/plain", b"no HTTP/1 request\n")
    method, target, _ = words
    if target.split(b"?", 1)[0] != b"/metrics":
        return _message("404 Not Found", "text/plain", b"there is only /metrics\n")
    if method not in (b"GET", b"HEAD"):
        return _message("405 Method Not Allowed", "text/plain", b"only GET\n")
    body = render()
    return _message("200 OK", CONTENT_TYPE_PLAIN_0_0_4, body, with_body=method == b"GET")


def _message(status: str, kind: str, body: bytes, *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        "Cache-Control: no-store\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
