"""The MME's end of S11: requests that wait for their response, by sequence number (TS 29.274 7.6)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from mobiscud.core.errors import DecodeError
from mobiscud.core.ids import FTeid
from testbed.gtpv2_build import CAUSE_ACCEPTED, GTPC_PORT, Gtpv2Message, Ie, IeType, MessageType, cause, decode, encode
from testbed.mailbox import PATIENCE_S, ProcedureError


class S11Client:
    """Asks the S-GWs. All ends sit on one host, so that nothing is lost and nothing is repeated."""

    def __init__(self, udp: socket.socket) -> None:
        self.on_downlink_data: Callable[[int], None] = lambda teid: None
        """Called with the MME's TEID of an idle UE for which data waits."""
        self._udp = udp
        self._sequence = 0
        self._pending: dict[int, asyncio.Future[Gtpv2Message]] = {}
        asyncio.get_running_loop().add_reader(udp, self._readable)

    async def request(self, kind: MessageType, sgw: FTeid, *ies: Ie) -> Gtpv2Message:
        """Send a request to an S-GW's end (TEID 0 before there is one), and give its response.

        :raises ProcedureError: when it is refused, or no response comes
        """
        response = await self.command(kind, sgw, *ies)
        code = response.find(IeType.CAUSE)[0]
        if code != CAUSE_ACCEPTED:
            raise ProcedureError(f"{kind.name} refused with cause {code}")
        return response

    async def command(self, kind: MessageType, sgw: FTeid, *ies: Ie) -> Gtpv2Message:
        """Send a command, which the S-GW answers by a request with the same sequence number (TS 29.274 7.6).

        :raises ProcedureError: when none comes
        """
        self._sequence = self._sequence % 0xFF_FFFF + 1
        sequence = self._sequence
        future = self._pending[sequence] = asyncio.get_running_loop().create_future()
        try:
            self._udp.sendto(encode(Gtpv2Message(kind, sgw.teid, sequence, ies)), (sgw.address, GTPC_PORT))
            async with asyncio.timeout(PATIENCE_S):
                response: Gtpv2Message = await future
        except TimeoutError as error:
            raise ProcedureError(f"no response to {kind.name}") from error
        finally:
            del self._pending[sequence]
        return response

    def respond(self, request: Gtpv2Message, sgw: FTeid, *ies: Ie) -> None:
        """Answer a request of an S-GW's."""
        answer = Gtpv2Message(MessageType(request.type + 1), sgw.teid, request.sequence, ies)
        self._udp.sendto(encode(answer), (sgw.address, GTPC_PORT))

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self._udp)
        self._udp.close()

    def _readable(self) -> None:
        try:
            datagram, sender = self._udp.recvfrom(65_535)
            message = decode(datagram)
        except (BlockingIOError, ConnectionError, DecodeError):
            return
        if message.type is MessageType.DOWNLINK_DATA_NOTIFICATION:
            answer = Gtpv2Message(MessageType.DOWNLINK_DATA_NOTIFICATION_ACK, 0, message.sequence, (cause(),))
            self._udp.sendto(encode(answer), sender)
            self.on_downlink_data(message.teid)
        elif (future := self._pending.get(message.sequence)) is not None and not future.done():
            future.set_result(message)
