"""Talk to the daemon in a guest, from inside a network namespace that reaches it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Final, Self

from mobiscud.core.errors import AdapterError
from testbed.netns_socket import socket_in

ECHO_PORT: Final = 7
CONTROL_PORT: Final = 8


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """What a guest says about itself. ``boot_id`` tells whether it is the same boot; pages are of its working set."""

    boot_id: str
    uptime_s: float
    working_set_mib: int
    rate_mib_s: float
    pages_written: int
    pages_corrupt: int

    @classmethod
    def parse(cls, answer: dict[str, str]) -> Self:
        """Read the answer to ``info``."""
        return cls(
            boot_id=answer["boot_id"],
            uptime_s=float(answer["uptime_s"]),
            working_set_mib=int(answer["working_set_mib"]),
            rate_mib_s=float(answer["rate_mib_s"]),
            pages_written=int(answer["pages_written"]),
            pages_corrupt=int(answer["pages_corrupt"]),
        )


class GuestClient:
    """The guest at ``address``, as seen from ``namespace``, and there from the address ``source`` where one is named.

    Every method raises ``AdapterError`` when there is no whole answer within ``timeout_s``.
    """

    def __init__(self, namespace: str, address: str, *, timeout_s: float = 5.0, source: str | None = None) -> None:
        self._source = source
        self._namespace = namespace
        self._address = address
        self._timeout_s = timeout_s

    async def info(self) -> GuestInfo:
        """Ask who it is."""
        return GuestInfo.parse(await self._ask("info"))

    async def dirty(self, mib: int, mib_per_s: float) -> GuestInfo:
        """Have it keep a working set and rewrite it at that rate; nought and nought frees it."""
        return GuestInfo.parse(await self._ask(f"dirty {mib} {mib_per_s}"))

    async def verify(self) -> int:
        """Have it check all of its working set; gives the number of pages that ever were wrong."""
        return int((await self._ask("verify"))["pages_corrupt"])

    async def write_disk(self, seed: int, mib: int) -> None:
        """Have it fill the first MiB of its disk with what follows from ``seed``, and wait until the disk has them."""
        await self._ask(f"disk write {seed} {mib}")

    async def sum_disk(self, mib: int) -> str:
        """Have it read the first MiB of its disk, from the disk itself; gives their checksum."""
        return (await self._ask(f"disk sum {mib}"))["sum"]

    async def reaches(self, address: str, port: int) -> bool:
        """Have it send datagrams of five octets somewhere; gives whether one was answered."""
        return (await self._ask(f"probe {address} {port}"))["answered"] == "1"

    async def call(self, port: int, count: int, *, interval_ms: int, delay_ms: int) -> GuestInfo:
        """Have it send numbered datagrams to a port of ours, when some time has passed."""
        return GuestInfo.parse(await self._ask(f"call {port} {count} {interval_ms} {delay_ms}"))

    async def echo_stream(self, octets: int) -> float:
        """Send so many over one TCP connection and take them back; gives how many seconds that took."""
        loop = asyncio.get_running_loop()
        with socket_in(self._namespace, socket.AF_INET, socket.SOCK_STREAM) as connection:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await loop.sock_connect(connection, (self._address, ECHO_PORT))
                    began = loop.time()
                    sending = asyncio.ensure_future(loop.sock_sendall(connection, bytes(octets)))
                    try:
                        left = octets
                        while left and (got := len(await loop.sock_recv(connection, 65536))):
                            left -= got
                        await sending
                    finally:
                        sending.cancel()
            except (TimeoutError, OSError) as error:
                raise AdapterError(f"guest {self._address}: {error or 'no answer'}") from error
        if left:
            raise AdapterError(f"guest {self._address}: {left} of {octets} octets did not come back")
        return loop.time() - began

    async def wait_until_up(self, limit_s: float = 60.0) -> GuestInfo:
        """Wait for it to boot.

        :raises AdapterError: it does not within the limit
        """
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    try:
                        return await self.info()
                    except AdapterError:
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise AdapterError(f"guest {self._address} is not up after {limit_s:.0f} s") from None

    async def _ask(self, line: str) -> dict[str, str]:
        loop = asyncio.get_running_loop()
        with socket_in(self._namespace, socket.AF_INET, socket.SOCK_STREAM) as connection:
            try:
                if self._source is not None:
                    connection.bind((self._source, 0))
                async with asyncio.timeout(self._timeout_s):
                    await loop.sock_connect(connection, (self._address, CONTROL_PORT))
                    await loop.sock_sendall(connection, f"{line}\n".encode())
                    answer = b""
                    while not answer.endswith(b"\n"):
                        piece = await loop.sock_recv(connection, 4096)
                        if not piece:
                            break
                        answer += piece
            except (TimeoutError, OSError) as error:
                raise AdapterError(f"guest {self._address}: {error or 'no answer'}") from error
        words = dict(word.split("=", 1) for word in answer.decode().split() if "=" in word)
        if not words or "error" in words:
            raise AdapterError(f"guest {self._address} answers {answer!r}")
        return words
