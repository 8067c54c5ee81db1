"""The hops of user packets, between fake sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from mobiscud.core.ids import FTeid, Teid
from testbed.user_plane import (
    GTPU_PORT,
    EnbUserPlane,
    PgwUserPlane,
    RadioBearer,
    Session,
    SgwUserPlane,
    echo_response,
    end_marker,
    gpdu_header,
    payload_offset,
)

UE = bytes((45, 45, 0, 2))
SERVER = bytes((198, 51, 100, 8))
UPLINK = bytes(12) + UE + SERVER + b"up"
DOWNLINK = bytes(12) + SERVER + UE + b"down"


def gpdu(teid: int, packet: bytes) -> bytes:
    return gpdu_header(teid, len(packet)) + packet


@pytest.mark.parametrize(
    ("header", "offset"),
    [
        pytest.param("30ff0004" + "00000001", 8, id="plain"),
        pytest.param("32ff0008" + "00000001" + "00010000", 12, id="sequence number"),
        pytest.param("34ff000c" + "00000001" + "00000085" + "01100900", 16, id="one extension"),
        pytest.param("34ff0010" + "00000001" + "00000085" + "01100985" + "01100900", 20, id="two extensions"),
        pytest.param("34ff0008" + "00000001" + "00000085", 0, id="extension is missing"),
        pytest.param("34ff000c" + "00000001" + "00000085" + "00100900", 0, id="extension of no length"),
        pytest.param("34ff000c" + "00000001" + "00000085" + "05100900", 0, id="extension length lies"),
    ],
)
def test_payload_offset(header: str, offset: int) -> None:
    assert payload_offset(bytes.fromhex(header)) == offset


def test_echo_answers_with_the_sequence_number() -> None:
    assert echo_response(bytes.fromhex("320100040000000012340000")).hex() == "320200060000000012340000" + "0e00"


def test_end_marker() -> None:
    assert end_marker(0x1234).hex() == "30fe000000001234"


class FakeSocket:
    """A socket that can be waited for, whose sent packets are kept with their addresses."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._near.setblocking(False)
        self.sent: list[tuple[bytes, Any]] = []

    def arrives(self, packet: bytes) -> None:
        self._far.send(packet)

    def fileno(self) -> int:
        return self._near.fileno()

    def recv(self, size: int) -> bytes:
        return self._near.recv(size)

    def recvfrom(self, size: int) -> tuple[bytes, Any]:
        return self._near.recv(size), ("sender", 1)

    def sendto(self, packet: bytes, address: Any) -> None:
        self.sent.append((packet, address))

    def close(self) -> None:
        self._near.close()
        self._far.close()


def as_socket(fake: FakeSocket) -> socket.socket:
    return cast(socket.socket, fake)


async def turn() -> None:
    """Let the loop see what is readable."""
    for _ in range(3):
        await asyncio.sleep(0)


class EnbHop:
    def __init__(self) -> None:
        self.radio, self.s1u = FakeSocket(), FakeSocket()
        self.plane = EnbUserPlane(as_socket(self.radio), "uu0", b"\2uemac", as_socket(self.s1u))
        self.bearer = RadioBearer(
            ue_address=UE, uplink_teid=0xA, uplink_to=("10.0.0.2", 2152), downlink_teid=0xB, present=True
        )
        self.plane.add(self.bearer)


@pytest.fixture
async def enb() -> AsyncIterator[EnbHop]:
    hop = EnbHop()
    yield hop
    hop.plane.close()


async def test_enb_puts_uplink_into_the_tunnel_and_takes_downlink_out(enb: EnbHop) -> None:
    enb.radio.arrives(UPLINK)
    enb.s1u.arrives(gpdu(0xB, DOWNLINK))
    await turn()
    assert enb.s1u.sent == [(gpdu(0xA, UPLINK), ("10.0.0.2", 2152))]
    assert enb.radio.sent == [(DOWNLINK, ("uu0", 0x0800, 0, 0, b"\2uemac"))]


async def test_enb_drops_and_counts_what_has_no_bearer(enb: EnbHop) -> None:
    enb.radio.arrives(DOWNLINK)
    enb.s1u.arrives(gpdu(0xC, DOWNLINK))
    await turn()
    assert (enb.s1u.sent, enb.radio.sent) == ([], [])
    assert enb.plane.counters.dropped == 2


async def test_enb_keeps_downlink_until_the_ue_arrives(enb: EnbHop) -> None:
    enb.plane.leave(enb.bearer)
    enb.s1u.arrives(gpdu(0xB, DOWNLINK))
    await turn()
    assert enb.radio.sent == []
    enb.plane.arrive(enb.bearer)
    assert [packet for packet, _ in enb.radio.sent] == [DOWNLINK]


async def test_enb_forwards_for_a_ue_that_has_left(enb: EnbHop) -> None:
    enb.plane.leave(enb.bearer)
    enb.bearer.forward_to = (("10.0.0.12", 2152), 0xF)
    enb.s1u.arrives(gpdu(0xB, DOWNLINK))
    await turn()
    assert enb.s1u.sent == [(gpdu(0xF, DOWNLINK), ("10.0.0.12", 2152))]


async def test_removed_bearer_leaves_a_newer_one_alone(enb: EnbHop) -> None:
    newer = RadioBearer(UE, 0x1A, ("10.0.0.2", 2152), 0x1B, present=True)
    enb.plane.add(newer)
    enb.plane.remove(enb.bearer)
    enb.radio.arrives(UPLINK)
    await turn()
    assert enb.s1u.sent == [(gpdu(0x1A, UPLINK), ("10.0.0.2", 2152))]


async def test_echo_is_answered(enb: EnbHop) -> None:
    request = bytes.fromhex("320100040000000012340000")
    enb.s1u.arrives(request)
    await turn()
    assert enb.s1u.sent == [(echo_response(request), ("sender", 1))]


@pytest.mark.parametrize("packet", ["", "30", "30ff", "50ff000400000001", "30ff000000000001"])
async def test_rubbish_does_no_harm(enb: EnbHop, packet: str) -> None:
    enb.s1u.arrives(bytes.fromhex(packet))
    enb.radio.arrives(bytes.fromhex(packet))
    enb.radio.arrives(UPLINK)
    await turn()
    assert enb.s1u.sent[-1:] == [(gpdu(0xA, UPLINK), ("10.0.0.2", 2152))]


class SgwHop:
    def __init__(self) -> None:
        self.s1u, self.s5u = FakeSocket(), FakeSocket()
        self.plane = SgwUserPlane(as_socket(self.s1u), as_socket(self.s5u))
        self.session = Session(s1u_teid=0xA, s5u_teid=0x5, pgw=("10.0.1.2", 2152), pgw_teid=0x9)
        self.plane.add(self.session)


@pytest.fixture
async def sgw() -> AsyncIterator[SgwHop]:
    hop = SgwHop()
    yield hop
    hop.plane.close()


async def test_sgw_changes_teid_and_address(sgw: SgwHop) -> None:
    sgw.plane.point_to(sgw.session, FTeid("10.0.0.11", Teid(0xB)))
    sgw.s1u.arrives(gpdu(0xA, UPLINK))
    sgw.s5u.arrives(gpdu(0x5, DOWNLINK))
    await turn()
    assert sgw.s5u.sent == [(gpdu(0x9, UPLINK), ("10.0.1.2", 2152))]
    assert sgw.s1u.sent == [(gpdu(0xB, DOWNLINK), ("10.0.0.11", GTPU_PORT))]


async def test_sgw_marks_the_end_of_the_old_path(sgw: SgwHop) -> None:
    old, new = FTeid("10.0.0.11", Teid(0xB)), FTeid("10.0.0.12", Teid(0xC))
    sgw.plane.point_to(sgw.session, old)
    sgw.plane.point_to(sgw.session, old)
    assert sgw.s1u.sent == []
    sgw.plane.point_to(sgw.session, new)
    assert sgw.s1u.sent == [(end_marker(0xB), ("10.0.0.11", GTPU_PORT))]


async def test_sgw_keeps_data_for_an_idle_ue_and_tells_once(sgw: SgwHop) -> None:
    told: list[Session] = []
    sgw.plane.on_data_for_idle = told.append
    sgw.plane.point_to(sgw.session, FTeid("10.0.0.11", Teid(0xB)))
    sgw.plane.release(sgw.session)
    for _ in range(2):
        sgw.s5u.arrives(gpdu(0x5, DOWNLINK))
    await turn()
    assert (told, sgw.s1u.sent) == ([sgw.session], [])

    sgw.plane.point_to(sgw.session, FTeid("10.0.0.12", Teid(0xC)))
    assert sgw.s1u.sent == [(gpdu(0xC, DOWNLINK), ("10.0.0.12", GTPU_PORT))] * 2


async def test_sgw_drops_what_has_no_session(sgw: SgwHop) -> None:
    sgw.plane.remove(sgw.session)
    sgw.s1u.arrives(gpdu(0xA, UPLINK))
    sgw.s5u.arrives(gpdu(0x5, DOWNLINK))
    await turn()
    assert (sgw.s1u.sent, sgw.s5u.sent, sgw.plane.counters.dropped) == ([], [], 2)


class PgwHop:
    def __init__(self) -> None:
        self.s5u = FakeSocket()
        near, self.network = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.setblocking(False)
        self.network.setblocking(False)
        self.plane = PgwUserPlane(as_socket(self.s5u), near.detach())
        self.plane.add(UE, 0x9, ("10.0.1.1", 2152), 0x5)

    def came_out(self) -> bytes | None:
        try:
            return self.network.recv(65_535)
        except BlockingIOError:
            return None


@pytest.fixture
async def pgw() -> AsyncIterator[PgwHop]:
    hop = PgwHop()
    yield hop
    hop.plane.close()
    hop.network.close()


async def test_pgw_joins_tunnel_and_network(pgw: PgwHop) -> None:
    pgw.s5u.arrives(gpdu(0x9, UPLINK))
    pgw.network.send(DOWNLINK)
    await turn()
    assert pgw.came_out() == UPLINK
    assert pgw.s5u.sent == [(gpdu(0x5, DOWNLINK), ("10.0.1.1", 2152))]


async def test_pgw_drops_a_source_address_that_is_not_the_ues(pgw: PgwHop) -> None:
    pgw.s5u.arrives(gpdu(0x9, DOWNLINK))
    await turn()
    assert pgw.came_out() is None
    assert pgw.plane.counters.dropped == 1


async def test_pgw_drops_what_is_for_nobody(pgw: PgwHop) -> None:
    pgw.plane.remove(UE, 0x9)
    pgw.network.send(DOWNLINK)
    await turn()
    assert (pgw.s5u.sent, pgw.plane.counters.dropped) == ([], 1)
