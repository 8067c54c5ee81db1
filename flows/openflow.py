"""One OpenFlow 1.3 connection over asyncio: the os-ken codec, our own channel.

The channel connects to the switch, as ``ovs-ofctl`` does: to ``unix:/run/openvswitch/BRIDGE.mgmt``, or with ``tcp:``
to a ``ptcp:`` listener, with ``ssl:`` to a ``pssl:`` one. So no controller need be set on the bridge, and Open vSwitch
never flushes the flows because one was. What goes wrong is raised where it was asked for, naming the rule.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from os_ken.ofproto import ofproto_common, ofproto_parser
from os_ken.ofproto import ofproto_v1_3 as of
from os_ken.ofproto import ofproto_v1_3_parser as parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

from flows.encode import AddFlow, Change, DeleteFlow, DeleteFound, DeleteOurs, FoundFlow, flow_mod, read_flows
from flows.rules import OURS, OURS_MASK
from mobiscud.core.errors import AdapterError, ConfigError, SetupError
from mobiscud.core.ids import PortNo

HEADER_SIZE = of.OFP_HEADER_SIZE
ANSWER_TIMEOUT_S = 10.0
PROBE_INTERVAL_S = 5.0
MULTIPART_SIZE = of.OFP_MULTIPART_REPLY_SIZE
FLOWS = of.OFPMP_FLOW.to_bytes(2)
ATOMIC_ORDERED = of.ONF_BF_ATOMIC | of.ONF_BF_ORDERED


XID_LIMIT = 1 << 32
BARE = struct.Struct("!BBHI")
BUNDLE_CONTROL = struct.Struct("!BBHIIIIHH")  # EXT-230, ONF_ET_BUNDLE_CONTROL
IN_BUNDLE = struct.Struct("!BBHIIIIxxH")  # EXT-230, ONF_ET_BUNDLE_ADD_MESSAGE, up to the message


@dataclass(slots=True)
class _Batch:
    """Changes on their way, with consecutive transaction ids from ``first``, and what the switch said against them."""

    first: int
    changes: Sequence[Change]
    errors: list[str] = field(default_factory=list)

    def blame(self, xid: int, reason: str) -> None:
        """Note an error if it is about one of these."""
        if 0 <= xid - self.first < len(self.changes):
            self.errors.append(f"the switch refused {_name(self.changes[xid - self.first])}: {reason}")


class OpenFlowChannel:
    """A connection that has said hello. Made by ``connect``."""

    def __init__(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._target = target
        self._reader = reader
        self._writer = writer
        self._version = ProtocolDesc(version=of.OFP_VERSION)
        self._next_xid = 1
        self._bundles = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._parts: dict[int, list[Any]] = {}
        self._batches: list[_Batch] = []
        self._hello: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._why_lost = ""
        self.lost = asyncio.Event()
        self.ports: dict[str, PortNo] = {}
        self.on_frame: Callable[[bytes], None] = lambda frame: None
        """Called with each frame that a flow tells us (``Tell``), once ``listen`` has asked for them."""

    async def listen(self) -> None:
        """Have frames sent to us, whole; Open vSwitch sends none to who has not said how much of them he wants."""
        self._check()
        self._send(parser.OFPSetConfig(self._version, of.OFPC_FRAG_NORMAL, of.OFPCML_MAX))
        await self.barrier()

    def inject(self, frame: bytes, port: str) -> None:
        """Send a frame of our own out of a port.

        :raises AdapterError: the switch lacks the port, or the connection is lost
        """
        self._check()
        if port not in self.ports:
            raise AdapterError(f"the switch has no port {port!r}")
        out = [parser.OFPActionOutput(self.ports[port], 0)]
        self._send(
            parser.OFPPacketOut(
                self._version, buffer_id=of.OFP_NO_BUFFER, in_port=of.OFPP_CONTROLLER, actions=out, data=frame
            )
        )

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes at one moment, in order, or none of them; return when the switch has confirmed.

        :raises AdapterError: a change was refused (the message names its rule), or the connection was lost
        """
        if not changes:
            return
        self._check()
        bundle = next(self._bundles)
        batch = _Batch(self._take_xids(len(changes)), changes)
        mods = [flow_mod(change, self.ports, batch.first + number) for number, change in enumerate(changes)]
        self._batches.append(batch)
        try:
            xid = self._take_xids(3)
            octets = [_bundle_control(bundle, xid, of.ONF_BCT_OPEN_REQUEST)]
            octets += (_in_bundle(bundle, batch.first + i, mod) for i, mod in enumerate(mods))
            octets += _bundle_control(bundle, xid + 1, of.ONF_BCT_COMMIT_REQUEST), _barrier(xid + 2)
            await self._answers(b"".join(octets), (xid + 1, xid + 2))
        except AdapterError as error:
            raise AdapterError("; ".join(batch.errors) or str(error)) from error
        finally:
            self._batches.remove(batch)

    async def lead(self, generation: int) -> None:
        """Become the only one who may change this switch (OpenFlow 1.3, 6.3.4).

        Of two controllers the one with the later ``generation`` leads, at every connection anew. So one that was
        replaced and does not know it yet can never take the switch back.

        :raises AdapterError: a later one leads already
        """
        try:
            await self._ask(parser.OFPRoleRequest(self._version, of.OFPCR_ROLE_MASTER, generation))
        except AdapterError as error:
            raise AdapterError(
                f"{self._target} does not let us lead; has a later controller taken over? {error}"
            ) from error

    async def our_flows(self) -> list[FoundFlow]:
        """All flows in the switch that carry our mark, whoever installed them."""
        request = parser.OFPFlowStatsRequest(self._version, cookie=OURS, cookie_mask=OURS_MASK)
        found: list[FoundFlow] = await self._ask(request)
        return found

    async def barrier(self) -> None:
        """Return when everything sent before has been done (OpenFlow 1.3, 7.3.8)."""
        self._check()
        xid = self._take_xids(1)
        await self._answers(_barrier(xid), (xid,))

    async def read_ports(self) -> None:
        """Ask for the ports anew and fill ``ports``."""
        answer = await self._ask(parser.OFPPortDescStatsRequest(self._version, 0))
        self.ports = {
            port.name.decode(errors="replace"): PortNo(port.port_no) for port in answer if port.port_no <= of.OFPP_MAX
        }

    def _check(self) -> None:
        if self.lost.is_set():
            raise AdapterError(f"the connection to {self._target} is lost: {self._why_lost}")

    def _take_xids(self, count: int) -> int:
        """The first of ``count`` consecutive transaction ids."""
        if self._next_xid + count >= XID_LIMIT:
            self._next_xid = 1
        first = self._next_xid
        self._next_xid += count
        return first

    def _send(self, message: Any, xid: int | None = None) -> int:
        xid = self._take_xids(1) if xid is None else xid
        message.set_xid(xid)
        message.serialize()
        self._writer.write(message.buf)
        return xid

    async def _ask(self, message: Any) -> Any:
        self._check()
        xid = self._take_xids(1)
        message.set_xid(xid)
        message.serialize()
        (answer,) = await self._answers(message.buf, (xid,))
        return answer

    async def _answers(self, octets: bytes, xids: Sequence[int]) -> list[Any]:
        """Send questions together, and wait for the answer to each."""
        loop = asyncio.get_running_loop()
        awaited = {xid: loop.create_future() for xid in xids}
        self._waiting |= awaited
        self._writer.write(octets)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._drain()
                return [await answer for answer in awaited.values()]
        except TimeoutError as error:
            raise AdapterError(f"{self._target} did not answer within {ANSWER_TIMEOUT_S:g} s") from error
        finally:
            for xid, answer in awaited.items():
                del self._waiting[xid]
                self._parts.pop(xid, None)
                if answer.done() and not answer.cancelled():
                    answer.exception()  # seen, also of one that nobody came to wait for

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            pass  # the reader notices too, and says why

    async def handshake(self) -> None:
        """Say hello, agree on OpenFlow 1.3, and learn the ports."""
        versions = parser.OFPHelloElemVersionBitmap(versions=[of.OFP_VERSION])
        self._send(parser.OFPHello(self._version, elements=[versions]))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._hello
        except TimeoutError as error:
            raise AdapterError(f"{self._target} did not say hello: is it an OpenFlow switch?") from error
        await self.read_ports()

    async def probe(self) -> None:
        """Ask for a sign of life now and then; a switch that gives none has lost the connection."""
        while not self.lost.is_set():
            await asyncio.sleep(PROBE_INTERVAL_S)
            try:
                await self._ask(parser.OFPEchoRequest(self._version, b""))
            except AdapterError as error:
                self._lose(str(error))

    async def receive(self) -> None:
        """Take in what the switch says, until it says no more."""
        try:
            while True:
                header = await self._reader.readexactly(HEADER_SIZE)
                version, kind, length, xid = ofproto_parser.header(header)
                if length < HEADER_SIZE or not (self._hello.done() or kind in (of.OFPT_HELLO, of.OFPT_ERROR)):
                    raise AdapterError("this is not OpenFlow")
                body = await self._reader.readexactly(length - HEADER_SIZE)
                self._take(version, kind, length, xid, header + body)
                await self._drain()  # who does not read our answers is not listened to either
        except (OSError, asyncio.IncompleteReadError) as error:
            self._lose(str(error) or "closed by the switch")
        except Exception as error:  # whatever the codec stumbled over, nothing can be read after it
            self._lose(str(error) or repr(error))

    def _take(self, version: int, kind: int, length: int, xid: int, data: bytes) -> None:
        if kind == of.OFPT_HELLO:
            if not self._hello.done():
                self._hello.set_result(None)
            return
        if kind == of.OFPT_ECHO_REQUEST:
            self._send(parser.OFPEchoReply(self._version, data[HEADER_SIZE:]), xid)
            return
        if version != of.OFP_VERSION:
            raise AdapterError(f"the switch does not speak OpenFlow 1.3 (it answers in version {version})")
        if kind == of.OFPT_MULTIPART_REPLY and data[HEADER_SIZE : HEADER_SIZE + 2] == FLOWS:
            more = int.from_bytes(data[HEADER_SIZE + 2 : HEADER_SIZE + 4]) & of.OFPMPF_REPLY_MORE
            self._take_part(xid, read_flows(data[MULTIPART_SIZE:]), bool(more))
            return
        if kind in (
            of.OFPT_BARRIER_REPLY,
            of.OFPT_EXPERIMENTER,
        ):  # done, or a bundle's step is: no more is asked of them
            self._answer(xid, None)
            return
        message = ofproto_parser.msg(self._version, version, kind, length, xid, data)
        if kind == of.OFPT_ERROR:
            self._fail(xid, _reason(message))
        elif kind == of.OFPT_PACKET_IN:
            self.on_frame(message.data)
        elif kind == of.OFPT_MULTIPART_REPLY:
            self._take_part(xid, message.body, bool(message.flags & of.OFPMPF_REPLY_MORE))
        else:
            self._answer(xid, message)

    def _take_part(self, xid: int, part: Iterable[Any], more: bool) -> None:
        if xid not in self._waiting:
            return  # nobody asked, or no longer: it would be kept for ever
        self._parts.setdefault(xid, []).extend(part)
        if not more:
            self._answer(xid, self._parts.pop(xid))

    def _answer(self, xid: int, message: Any) -> None:
        waiting = self._waiting.get(xid)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def _fail(self, xid: int, reason: str) -> None:
        if not self._hello.done():
            self._hello.set_exception(AdapterError(f"{self._target} does not speak OpenFlow 1.3: {reason}"))
        for batch in self._batches:
            batch.blame(xid, reason)
        waiting = self._waiting.get(xid)
        if waiting is not None and not waiting.done():
            waiting.set_exception(AdapterError(f"the switch refused: {reason}"))

    def _lose(self, why: str) -> None:
        self._why_lost = why
        self.lost.set()
        self._writer.close()
        for waiting in (self._hello, *self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(AdapterError(f"the connection to {self._target} is lost: {why}"))


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: who may be a switch (``ca``), and who we are."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Both sides show a certificate of the CA. It names no host: Open vSwitch's own (ovs-pki) do not either.

        :raises ConfigError: a file cannot be used
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        try:
            context.load_verify_locations(self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an ssl.SSLError is one too
            raise ConfigError(f"switches: tls: {error.strerror or error}; see {self}") from error
        return context


@asynccontextmanager
async def connect(target: str, tls: TlsFiles | None = None) -> AsyncIterator[OpenFlowChannel]:
    """A channel to the switch at ``target``, closed at the end: ``unix:PATH``, ``tcp:HOST:PORT`` or ``ssl:HOST:PORT``.

    :raises SetupError: nobody listens there, or one side does not accept the other's certificate
    :raises AdapterError: who listens does not speak OpenFlow 1.3
    """
    reader, writer = await _open(target, tls)
    channel = OpenFlowChannel(target, reader, writer)
    # No TaskGroup: it would wrap what the body raises, and callers tell errors by their class.
    tasks = [
        asyncio.create_task(channel.receive(), name=f"openflow-receive {target}"),
        asyncio.create_task(channel.probe(), name=f"openflow-probe {target}"),
    ]
    try:
        await channel.handshake()
        yield channel
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()


async def _open(target: str, tls: TlsFiles | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    kind, _, rest = target.partition(":")
    host, _, port = rest.rpartition(":")
    try:
        if kind == "unix" and rest:
            return await asyncio.open_unix_connection(rest)
        if kind == "tcp" and host and port.isdigit():
            return await asyncio.open_connection(host.strip("[]"), int(port))
        if kind == "ssl" and host and port.isdigit() and tls is not None:
            return await asyncio.open_connection(host.strip("[]"), int(port), ssl=tls.context())
    except ssl.SSLError as error:
        raise SetupError(f"{target} and we do not trust each other: {error.reason or error}") from error
    except OSError as error:
        raise SetupError(f"no switch answers at {target}: {error.strerror or error}; is ovs-vswitchd up?") from error
    raise ConfigError(
        f"switches: openflow: {target!r} is neither unix:PATH nor tcp:HOST:PORT, nor ssl:HOST:PORT with tls"
    )


def _barrier(xid: int) -> bytes:
    return BARE.pack(of.OFP_VERSION, of.OFPT_BARRIER_REQUEST, BARE.size, xid)


def _bundle_control(bundle: int, xid: int, kind: int) -> bytes:
    head = (of.OFP_VERSION, of.OFPT_EXPERIMENTER, BUNDLE_CONTROL.size, xid)
    what = (ofproto_common.ONF_EXPERIMENTER_ID, of.ONF_ET_BUNDLE_CONTROL, bundle, kind, ATOMIC_ORDERED)
    return BUNDLE_CONTROL.pack(*head, *what)


def _in_bundle(bundle: int, xid: int, mod: bytes) -> bytes:
    """A message as part of a bundle; both bear the same transaction id."""
    head = (of.OFP_VERSION, of.OFPT_EXPERIMENTER, IN_BUNDLE.size + len(mod), xid)
    what = (ofproto_common.ONF_EXPERIMENTER_ID, of.ONF_ET_BUNDLE_ADD_MESSAGE, bundle, ATOMIC_ORDERED)
    return IN_BUNDLE.pack(*head, *what) + mod


def _name(change: Change) -> str:
    match change:
        case AddFlow(rule) | DeleteFlow(rule):
            return rule.id
        case DeleteFound(flow):
            return flow.id
        case DeleteOurs():
            return "the sweep of our flows"


def _reason(message: Any) -> str:
    """An error message in words (OpenFlow 1.3, 7.4.4). Of a bundle's, the codec knows numbers only (EXT-230)."""
    if message.type == of.OFPET_EXPERIMENTER:
        return f"error {message.exp_type} of experimenter {message.experimenter:#010x}"
    kind = of.ofp_error_type_to_str(message.type)
    code = of.ofp_error_code_to_str(message.type, message.code)
    return f"{kind} {code}"
