"""The Internet server's echo (RFC 862), UDP and TCP: ``python -m testbed.echo ADDRESS``, until SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from testbed.guest.client import ECHO_PORT
from testbed.process import announce_ready, stop_event


class _Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while octets := await reader.read(1 << 16):
            writer.write(octets)
            await writer.drain()
    except ConnectionError:
        pass  # the peer has gone
    finally:
        writer.close()


async def serve(address: str) -> None:
    """Echo at an address of this namespace."""
    stop = stop_event()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        _Datagrams, local_addr=(address, ECHO_PORT)
    )
    server = await asyncio.start_server(_stream, address, ECHO_PORT)
    announce_ready()
    await stop.wait()
    server.close()
    transport.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
