"""Ask the guest about itself, over the network: its control port answers one line to one line."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from mobiscud.core.errors import AdapterError
from testbed.netns_socket import socket_in

CONTROL_PORT: Final = 8
ATTEMPT_S: Final = 2.0
PAUSE_S: Final = 0.1


async def ask(namespace: str, address: str, question: str = "info") -> dict[str, str]:
    """One question from a namespace: ``info``, ``verify`` or ``dirty MIB MIB_PER_S``; the answer's ``key=value``.

    :raises AdapterError: no answer
    """
    loop = asyncio.get_running_loop()
    with socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await loop.sock_connect(sock, (address, CONTROL_PORT))
                await loop.sock_sendall(sock, f"{question}\n".encode())
                answer = await loop.sock_recv(sock, 4096)
        except (OSError, TimeoutError) as error:
            raise AdapterError(f"the guest at {address} does not answer: {error or 'timeout'}") from error
    return dict(part.split("=", 1) for part in answer.decode(errors="replace").split() if "=" in part)


async def wait_for(namespace: str, address: str, *, within_s: float) -> dict[str, str]:
    """What ``info`` says, as soon as the guest answers.

    :raises AdapterError: not in time
    """
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        try:
            return await ask(namespace, address)
        except AdapterError:
            if asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(PAUSE_S)
