"""The channel against a scripted switch that speaks just enough OpenFlow 1.3, written from the specification."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flows.encode import AddFlow, DeleteFlow, DeleteOurs
from flows.openflow import OpenFlowChannel, connect
from flows.rules import OURS, AnswerArp, DecrementTtl, FlowRule, Goto, Match, Output, OutputBack, SetEthernet, ue_cookie
from mobiscud.core.errors import AdapterError, ConfigError, SetupError
from mobiscud.core.ids import TableId, UeKey

HEADER = struct.Struct("!BBHI")
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER = 0, 1, 2, 3, 4
FLOW_MOD, MULTIPART_REQUEST, MULTIPART_REPLY, BARRIER_REQUEST, BARRIER_REPLY = 14, 18, 19, 20, 21
BUNDLE_CONTROL, BUNDLE_ADD = 2300, 2301
OPEN, OPENED, COMMIT, COMMITTED = 0, 1, 4, 5
FLOW_MOD_FAILED, TABLE_FULL = 5, 1
EXPERIMENTER_ERROR, BUNDLE_FAILED, ONF = 0xFFFF, 2315, 0x4F4E4600  # as Open vSwitch says it in OpenFlow 1.3

COOKIE = ue_cookie(UeKey("ue-0000000000000001"))
RULE = FlowRule(COOKIE, "uplink", TableId(10), 100, Match(eth_type=0x800, ip_src="45.45.0.2"), (Output("pvm"),))


class ScriptedSwitch:
    """Answers as a switch would, remembers the flow-mods of committed bundles, and misbehaves on demand."""

    def __init__(self, version: int = 4, refuse: int = -1, mute: bool = False) -> None:
        self.version = version
        self.refuse = refuse
        self.mute = mute
        self.committed: list[bytes] = []
        self.echoes: list[bytes] = []
        self.connection: asyncio.StreamWriter | None = None
        self._bundle: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = writer
        try:
            while True:
                _, kind, length, xid = HEADER.unpack(await reader.readexactly(HEADER.size))
                self._answer(kind, xid, await reader.readexactly(length - HEADER.size))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def say(self, kind: int, xid: int, body: bytes = b"") -> None:
        assert self.connection is not None
        self.connection.write(HEADER.pack(self.version, kind, HEADER.size + len(body), xid) + body)

    def _answer(self, kind: int, xid: int, body: bytes) -> None:
        if kind == HELLO:
            self.say(HELLO, xid)
        elif self.version != 4:
            self.say(ERROR, xid, struct.pack("!HH", 1, 0))
        elif kind == ECHO_REPLY:
            self.echoes.append(body)
        elif self.mute and kind != MULTIPART_REQUEST:
            pass
        elif kind == MULTIPART_REQUEST:
            self.say(MULTIPART_REPLY, xid, struct.pack("!HHxxxx", 13, 1) + port(1, b"gi1"))
            self.say(MULTIPART_REPLY, xid, struct.pack("!HHxxxx", 13, 0) + port(2, b"pvm") + port(0xFFFFFFFE, b"br0"))
        elif kind == BARRIER_REQUEST:
            self.say(BARRIER_REPLY, xid)
        elif kind == EXPERIMENTER:
            self._bundles(xid, body)

    def _bundles(self, xid: int, body: bytes) -> None:
        _, what = struct.unpack_from("!II", body)
        if what == BUNDLE_ADD:
            if len(self._bundle) == self.refuse:
                self.say(ERROR, xid, struct.pack("!HH", FLOW_MOD_FAILED, TABLE_FULL))
            self._bundle.append(body[16:])
            return
        bundle, step, flags = struct.unpack_from("!IHH", body, 8)
        if step == OPEN:
            self._bundle = []
        elif self.refuse >= 0:
            self.say(ERROR, xid, struct.pack("!HHI", EXPERIMENTER_ERROR, BUNDLE_FAILED, ONF))
            return
        else:
            self.committed += self._bundle
        self.say(EXPERIMENTER, xid, body[:8] + struct.pack("!IHH", bundle, step + 1, flags))


def port(number: int, name: bytes) -> bytes:
    """``struct ofp_port`` (OpenFlow 1.3, 7.2.1)."""
    return struct.pack("!I4x6s2x16s8I", number, bytes(6), name, *[0] * 8)


@asynccontextmanager
async def switched(path: Path, switch: ScriptedSwitch) -> AsyncIterator[OpenFlowChannel]:
    """A channel to the switch, over a unix socket."""
    server = await asyncio.start_unix_server(switch.serve, path / "mgmt")
    try:
        async with connect(f"unix:{path / 'mgmt'}") as channel:
            yield channel
    finally:
        server.close()
        await server.wait_closed()


async def test_ports_are_learnt_from_all_parts_of_the_answer(tmp_path: Path) -> None:
    async with switched(tmp_path, ScriptedSwitch()) as channel:
        assert channel.ports == {"gi1": 1, "pvm": 2}


async def test_answers_that_nobody_awaits_are_not_kept(tmp_path: Path) -> None:
    switch = ScriptedSwitch()
    async with switched(tmp_path, switch) as channel:
        for xid in range(1000, 1100):
            switch.say(MULTIPART_REPLY, xid, struct.pack("!HHxxxx", 13, 1) + port(1, b"gi1"))
        await channel.barrier()
        assert not channel._parts


async def test_changes_are_committed_in_order(tmp_path: Path) -> None:
    switch = ScriptedSwitch()
    async with switched(tmp_path, switch) as channel:
        await channel.commit([DeleteOurs(), AddFlow(RULE), DeleteFlow(RULE)])
    assert [mod[1] for mod in switch.committed] == [FLOW_MOD] * 3
    commands = [mod[25] for mod in switch.committed]
    assert commands == [3, 0, 4]  # delete, add, delete strict
    cookies = [struct.unpack_from("!QQ", mod, 8) for mod in switch.committed]
    assert cookies == [(OURS, 0xFFFF << 48), (COOKIE, 0), (COOKIE, (1 << 64) - 1)]


async def test_every_action_has_its_encoding(tmp_path: Path) -> None:
    switch = ScriptedSwitch()
    match = Match(in_port="pvm", eth_type=0x806, eth_dst="02:00:00:00:00:01", arp_target="172.16.0.1")
    actions = (
        SetEthernet("02:00:00:00:00:01", "02:00:00:00:00:02"),
        AnswerArp("172.16.0.1", "02:00:00:00:00:03"),
        DecrementTtl(),
        OutputBack(),
        Goto(TableId(30)),
    )
    async with switched(tmp_path, switch) as channel:
        await channel.commit([AddFlow(FlowRule(OURS, "all", TableId(0), 1, match, actions))])
    (mod,) = switch.committed
    for octets in ("020000000001", "020000000002", "020000000003", "ac100001", "fffffff8", "0001 0008 1e000000"):
        assert bytes.fromhex(octets) in mod


async def test_nothing_to_do_is_nothing_said(tmp_path: Path) -> None:
    switch = ScriptedSwitch(mute=True)
    async with switched(tmp_path, switch) as channel:
        await channel.commit([])


async def test_a_refused_change_is_named(tmp_path: Path) -> None:
    switch = ScriptedSwitch(refuse=1)
    async with switched(tmp_path, switch) as channel:
        with pytest.raises(AdapterError, match=rf"refused {RULE.id}: .*TABLE_FULL"):
            await channel.commit([DeleteOurs(), AddFlow(RULE)])
        switch.refuse = -1
        await channel.commit([AddFlow(RULE)])  # one refusal does not end the connection
    assert len(switch.committed) == 1


async def test_an_unknown_port_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    switch = ScriptedSwitch()
    rule = FlowRule(COOKIE, "uplink", TableId(10), 100, Match(), (Output("nowhere"),))
    async with switched(tmp_path, switch) as channel:
        with pytest.raises(AdapterError, match="no port 'nowhere'; it has gi1, pvm"):
            await channel.commit([AddFlow(rule)])
    assert switch.committed == []


async def test_a_lost_connection_fails_what_waits_and_what_comes(tmp_path: Path) -> None:
    switch = ScriptedSwitch(mute=True)
    async with switched(tmp_path, switch) as channel:
        waiting = asyncio.create_task(channel.commit([AddFlow(RULE)]))
        await asyncio.sleep(0)
        assert switch.connection is not None
        switch.connection.close()
        with pytest.raises(AdapterError, match="lost"):
            await waiting
        await channel.lost.wait()
        with pytest.raises(AdapterError, match="lost"):
            await channel.barrier()


async def test_an_echo_is_answered(tmp_path: Path) -> None:
    switch = ScriptedSwitch()
    async with switched(tmp_path, switch) as channel:
        switch.say(ECHO_REQUEST, 77, b"are you there")
        await channel.barrier()
        await channel.barrier()  # the second question cannot overtake the echo
    assert switch.echoes == [b"are you there"]


async def test_another_version_is_not_spoken_to(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"OpenFlow 1\.3"):
        async with switched(tmp_path, ScriptedSwitch(version=1)):
            pass


async def test_who_is_no_switch_is_found_out(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await reader.read()
        writer.close()
        over.set()

    server = await asyncio.start_unix_server(chatter, tmp_path / "mgmt")
    async with server:
        with pytest.raises(AdapterError, match="not OpenFlow"):
            async with connect(f"unix:{tmp_path / 'mgmt'}"):
                pass
        await over.wait()


async def test_tcp_serves_too() -> None:
    server = await asyncio.start_server(ScriptedSwitch().serve, "127.0.0.1", 0)
    async with server:
        number = server.sockets[0].getsockname()[1]
        async with connect(f"tcp:127.0.0.1:{number}") as channel:
            assert set(channel.ports) == {"gi1", "pvm"}


async def test_nobody_there_is_a_matter_of_setup(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no switch answers"):
        async with connect(f"unix:{tmp_path / 'nothing'}"):
            pass


@pytest.mark.parametrize("target", ["", "unix:", "tcp:localhost", "tcp:localhost:http", "ssl:h:1", "/run/br0.mgmt"])
async def test_a_target_that_is_none_is_a_wrong_configuration(target: str) -> None:
    with pytest.raises(ConfigError, match="neither unix:PATH nor tcp:HOST:PORT"):
        async with connect(target):
            pass
