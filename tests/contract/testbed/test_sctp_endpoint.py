"""One suite for both SCTP transports, in a network namespace of its own.

Only one of them can work on a kernel at a time: its own SCTP answers what raw sockets receive.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import pytest

from testbed.sctp_association import CloseReason
from testbed.sctp_kernel import KernelEndpoint
from testbed.sctp_link import kernel_has_sctp, open_endpoint
from testbed.sctp_raw import RawEndpoint
from testbed.sctp_transport import SctpConnection, SctpEndpoint

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets and network namespaces need root"),
]

SERVER, CLIENT, NOBODY = "127.0.0.2", "127.0.0.3", "127.0.0.4"
PATIENCE_S = 10.0

T = TypeVar("T")
Make = Callable[[str], SctpEndpoint]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"ms-sctp-{os.getpid()}"
    subprocess.run(("ip", "netns", "add", name), check=True)
    try:
        subprocess.run(("ip", "-n", name, "link", "set", "lo", "up"), check=True)
        yield name
    finally:
        subprocess.run(("ip", "netns", "del", name), check=True)


@pytest.fixture(
    params=[
        pytest.param(
            RawEndpoint, marks=pytest.mark.skipif(kernel_has_sctp(), reason="the kernel's SCTP is loaded"), id="raw"
        ),
        pytest.param(
            KernelEndpoint,
            marks=pytest.mark.skipif(not kernel_has_sctp(), reason="the kernel's SCTP is not loaded"),
            id="kernel",
        ),
    ]
)
def make(request: pytest.FixtureRequest, namespace: str) -> Make:
    return lambda address: request.param(namespace, address)


class Listening:
    """A server that keeps what it is sent, and the ends of its associations."""

    def __init__(self, endpoint: SctpEndpoint) -> None:
        self.endpoint = endpoint
        self.connections: asyncio.Queue[SctpConnection] = asyncio.Queue()
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.ends: asyncio.Queue[CloseReason] = asyncio.Queue()
        endpoint.listen(self._accept)

    def _accept(self, connection: SctpConnection) -> None:
        connection.on_message = self.messages.put_nowait
        connection.on_closed = self.ends.put_nowait
        self.connections.put_nowait(connection)


@pytest.fixture
async def server(make: Make) -> AsyncIterator[Listening]:
    listening = Listening(make(SERVER))
    yield listening
    listening.endpoint.close()


@pytest.fixture
async def client(make: Make) -> AsyncIterator[SctpEndpoint]:
    endpoint = make(CLIENT)
    yield endpoint
    endpoint.close()


async def soon(queue: asyncio.Queue[T]) -> T:
    return await asyncio.wait_for(queue.get(), PATIENCE_S)


async def test_messages_go_both_ways(server: Listening, client: SctpEndpoint) -> None:
    near = await client.connect(SERVER)
    far = await soon(server.connections)
    assert (near.peer_address, far.peer_address) == (SERVER, CLIENT)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    near.on_message = answers.put_nowait

    near.send(b"question", stream=0)
    assert await soon(server.messages) == b"question"
    far.send(b"answer", stream=29)
    assert await soon(answers) == b"answer"


async def test_boundaries_and_order_are_kept(server: Listening, client: SctpEndpoint) -> None:
    near = await client.connect(SERVER)
    sent = [bytes((number % 256,)) * (1 + number * 7 % 1_300) for number in range(300)]
    for message in sent:
        near.send(message, stream=3)
    assert [await soon(server.messages) for _ in sent] == sent


async def test_several_associations_of_one_client(server: Listening, client: SctpEndpoint) -> None:
    near = [await client.connect(SERVER) for _ in range(3)]
    for number, connection in enumerate(near):
        connection.send(bytes((number,)), stream=1)
    assert {await soon(server.messages) for _ in near} == {b"\0", b"\1", b"\2"}


async def test_shutdown_is_told_to_both(server: Listening, client: SctpEndpoint) -> None:
    near = await client.connect(SERVER)
    ends: asyncio.Queue[CloseReason] = asyncio.Queue()
    near.on_closed = ends.put_nowait
    near.send(b"last words", stream=0)
    await near.close()
    assert await soon(server.messages) == b"last words"
    assert await soon(server.ends) is CloseReason.SHUTDOWN
    assert await soon(ends) is CloseReason.SHUTDOWN
    near.send(b"too late", stream=0)
    await near.close()


async def test_abort_is_told(server: Listening, client: SctpEndpoint) -> None:
    await client.connect(SERVER)
    await soon(server.connections)
    client.close()
    assert await soon(server.ends) is CloseReason.ABORT


async def test_refused_connection_is_an_error(server: Listening, client: SctpEndpoint) -> None:
    with pytest.raises(ConnectionError, match=SERVER):
        await client.connect(SERVER, port=7)


async def test_silence_is_an_error(client: SctpEndpoint) -> None:
    with pytest.raises(ConnectionError, match=NOBODY):
        await client.connect(NOBODY, within=0.3)


async def test_the_fitting_one_is_chosen(namespace: str) -> None:
    endpoint = open_endpoint(namespace, SERVER)
    try:
        assert isinstance(endpoint, KernelEndpoint if kernel_has_sctp() else RawEndpoint)
    finally:
        endpoint.close()
