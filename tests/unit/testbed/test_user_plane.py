"""The hops of user packets, between fake sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from mobiscud.core.ids import FTeid, Teid
from testbed import enb_user_plane
from testbed.enb_user_plane import EnbUserPlane, RadioBearer, Stage
from testbed.gateway_user_plane import PgwUserPlane, Session, SgwUserPlane
from testbed.gtpu_socket import GTPU_PORT, echo_response, end_marker, gpdu_header, payload_offset
from testbed.tft import Template

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
        self.bearer = RadioBearer(ue_address=UE, uplink_teid=0xA, uplink_to=("10.0.0.2", 2152), downlink_teid=0xB)
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


def of_protocol(packet: bytes, protocol: int) -> bytes:
    return packet[:9] + bytes((protocol,)) + packet[10:]


async def test_enb_takes_the_bearer_whose_template_holds_the_packet(enb: EnbHop) -> None:
    # Set up in this order; both want UDP, and the lower precedence has its way.
    later = RadioBearer(UE, 0x1B, ("10.0.0.2", 2152), 0x2B, traffic=Template(17, precedence=1))
    first = RadioBearer(UE, 0x1A, ("10.0.0.2", 2152), 0x2A, traffic=Template(17, precedence=0))
    enb.plane.add(later)
    enb.plane.add(first)
    udp, icmp = of_protocol(UPLINK, 17), of_protocol(UPLINK, 1)

    async def teids() -> list[int]:
        enb.s1u.sent.clear()
        for packet in (udp, icmp):
            enb.radio.arrives(packet)
        await turn()
        return [int.from_bytes(packet[4:8], "big") for packet, _ in enb.s1u.sent]

    assert await teids() == [0x1A, 0xA]
    enb.plane.remove(first)
    assert await teids() == [0x1B, 0xA]
    enb.plane.remove(later)
    assert await teids() == [0xA, 0xA]
    enb.s1u.arrives(gpdu(0x2A, DOWNLINK))
    await turn()
    assert enb.radio.sent == [], "a bearer that is gone carries nothing down"


async def test_a_new_default_bearer_ends_those_beside_the_old_one(enb: EnbHop) -> None:
    enb.plane.add(RadioBearer(UE, 0x1A, ("10.0.0.2", 2152), 0x2A, traffic=Template(17)))
    enb.plane.add(RadioBearer(UE, 0xAA, ("10.0.0.2", 2152), 0xBB))
    enb.radio.arrives(of_protocol(UPLINK, 17))
    await turn()
    assert [packet[4:8].hex() for packet, _ in enb.s1u.sent] == ["000000aa"]


class Target(EnbHop):
    """An eNodeB to which a UE is on its way: S1-U by TEID 0xB, forwarded packets by 0xF."""

    def __init__(self) -> None:
        super().__init__()
        self.plane.remove(self.bearer)
        self.bearer = RadioBearer(UE, 0xA, ("10.0.0.2", 2152), 0xB, Stage.EXPECTED, forwarding_teid=0xF)
        self.plane.add(self.bearer)

    async def hears(self, *packets: bytes) -> None:
        for packet in packets:
            self.s1u.arrives(packet)
        await turn()

    @property
    def delivered(self) -> list[bytes]:
        return [packet for packet, _ in self.radio.sent]


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    hop = Target()
    yield hop
    hop.plane.close()


@pytest.fixture
async def patient(target: Target, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A target that waits for ever for an End Marker."""
    monkeypatch.setattr(enb_user_plane, "END_MARKER_LIMIT_S", 3600.0)
    return target


FORWARDED = [gpdu(0xF, bytes((number,))) for number in (1, 2, 3)]
FRESH = [gpdu(0xB, bytes((number,))) for number in (11, 12, 13)]
IN_ORDER = [bytes((number,)) for number in (1, 2, 3, 11, 12, 13)]
NEXT = FTeid("10.0.0.13", Teid(0xE))


@pytest.mark.parametrize("arrives_after", range(8))
async def test_target_delivers_forwarded_packets_first(patient: Target, arrives_after: int) -> None:
    wire = [FORWARDED[0], FRESH[0], FORWARDED[1], FRESH[1], FORWARDED[2], end_marker(0xF), FRESH[2]]
    await patient.hears(*wire[:arrives_after])
    assert patient.delivered == []
    patient.plane.arrive(patient.bearer)
    await patient.hears(*wire[arrives_after:])
    assert patient.delivered == IN_ORDER


async def test_fresh_packets_wait_for_the_end_marker(patient: Target) -> None:
    patient.plane.arrive(patient.bearer)
    await patient.hears(FRESH[0], FORWARDED[0])
    assert patient.delivered == [b"\1"]
    await patient.hears(end_marker(0xF))
    assert patient.delivered == [b"\1", b"\x0b"]


async def test_fresh_packets_do_not_wait_for_ever(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enb_user_plane, "END_MARKER_LIMIT_S", 0.0)
    target.plane.arrive(target.bearer)
    await target.hears(FRESH[0])
    async with asyncio.timeout(10):
        while target.delivered != [b"\x0b"]:
            await turn()


async def test_packets_forwarded_after_the_end_marker_are_delivered_too(patient: Target) -> None:
    patient.plane.arrive(patient.bearer)
    await patient.hears(end_marker(0xF), FORWARDED[0], FRESH[0])
    assert patient.delivered == [b"\1", b"\x0b"]


async def test_without_forwarding_nothing_is_waited_for(patient: Target) -> None:
    patient.plane.remove(patient.bearer)
    bearer = RadioBearer(UE, 0xA, ("10.0.0.2", 2152), 0xB, Stage.EXPECTED)
    patient.plane.add(bearer)
    await patient.hears(FRESH[0])
    assert patient.delivered == []
    patient.plane.arrive(bearer)
    await patient.hears(FRESH[1])
    assert patient.delivered == [b"\x0b", b"\x0c"]


async def test_uplink_waits_until_the_ue_is_there(patient: Target) -> None:
    patient.radio.arrives(UPLINK)
    await turn()
    assert patient.s1u.sent == []
    patient.plane.arrive(patient.bearer)
    assert patient.s1u.sent == [(gpdu(0xA, UPLINK), ("10.0.0.2", 2152))]


async def test_what_waits_is_bounded(patient: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enb_user_plane, "HELD_PACKETS", 1)
    await patient.hears(*FORWARDED)
    assert patient.plane.counters.dropped == 2
    patient.plane.arrive(patient.bearer)
    assert patient.delivered == [b"\1"]


async def test_source_forwards_with_the_end_marker(enb: EnbHop) -> None:
    enb.plane.leave(enb.bearer, NEXT)
    for packet in (gpdu(0xB, DOWNLINK), end_marker(0xB), gpdu(0xB, DOWNLINK)):
        enb.s1u.arrives(packet)
    enb.radio.arrives(UPLINK)
    await turn()
    to = (NEXT.address, GTPU_PORT)
    forwarded = [sent for sent in enb.s1u.sent if sent[1] == to]
    assert forwarded == [(gpdu(0xE, DOWNLINK), to), (end_marker(0xE), to), (gpdu(0xE, DOWNLINK), to)]
    assert (gpdu(0xA, UPLINK), ("10.0.0.2", 2152)) in enb.s1u.sent, "what was on the air is taken"
    assert (enb.radio.sent, enb.plane.counters.forwarded) == ([], 2)


async def test_source_goes_on_forwarding_for_a_while_when_it_is_released(
    enb: EnbHop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enb_user_plane, "FORWARDING_LIMIT_S", 0.0)
    enb.plane.leave(enb.bearer, NEXT)
    enb.plane.remove(enb.bearer)
    enb.s1u.arrives(gpdu(0xB, DOWNLINK))
    async with asyncio.timeout(10):
        while not enb.plane.counters.dropped:
            enb.s1u.arrives(gpdu(0xB, DOWNLINK))
            await turn()
    assert enb.plane.counters.forwarded >= 1


async def test_source_without_a_tunnel_to_the_target_drops(enb: EnbHop) -> None:
    enb.plane.leave(enb.bearer, None)
    enb.s1u.arrives(gpdu(0xB, DOWNLINK))
    await turn()
    assert (enb.radio.sent, enb.s1u.sent, enb.plane.counters.dropped) == ([], [], 1)


async def test_packets_follow_a_ue_that_moves_on_before_the_end_marker(patient: Target) -> None:
    patient.plane.arrive(patient.bearer)
    await patient.hears(FRESH[0])
    patient.plane.leave(patient.bearer, NEXT)
    await patient.hears(FRESH[1], FORWARDED[0], end_marker(0xB), end_marker(0xF))
    assert [packet for packet, _ in patient.s1u.sent] == [
        gpdu(0xE, b"\1"),
        gpdu(0xE, b"\x0b"),
        gpdu(0xE, b"\x0c"),
        end_marker(0xE),
    ]


async def test_removed_bearer_leaves_a_newer_one_alone(enb: EnbHop) -> None:
    newer = RadioBearer(UE, 0x1A, ("10.0.0.2", 2152), 0x1B)
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


async def test_sgw_forwards_indirectly_with_the_end_marker(sgw: SgwHop) -> None:
    sgw.plane.forward(0xF, FTeid("10.0.0.12", Teid(0xE)))
    sgw.s1u.arrives(gpdu(0xF, DOWNLINK))
    sgw.s1u.arrives(end_marker(0xF))
    sgw.s1u.arrives(end_marker(0xA))
    await turn()
    to = ("10.0.0.12", GTPU_PORT)
    assert (sgw.s1u.sent, sgw.s5u.sent) == ([(gpdu(0xE, DOWNLINK), to), (end_marker(0xE), to)], [])
    assert sgw.plane.counters.forwarded == 1

    sgw.plane.stop_forwarding(0xF)
    sgw.s1u.arrives(gpdu(0xF, DOWNLINK))
    await turn()
    assert sgw.plane.counters.dropped == 1


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


async def test_pgw_takes_the_tunnel_whose_template_holds_the_packet(pgw: PgwHop) -> None:
    pgw.plane.add(UE, 0x19, ("10.0.1.1", 2152), 0x15, Template(17))
    udp, icmp = of_protocol(DOWNLINK, 17), of_protocol(DOWNLINK, 1)
    pgw.network.send(udp)
    pgw.network.send(icmp)
    pgw.s5u.arrives(gpdu(0x19, UPLINK))
    await turn()
    to = ("10.0.1.1", 2152)
    assert pgw.s5u.sent == [(gpdu(0x15, udp), to), (gpdu(0x5, icmp), to)]
    assert pgw.came_out() == UPLINK

    pgw.plane.remove(UE, 0x19)
    pgw.network.send(udp)
    pgw.s5u.arrives(gpdu(0x19, UPLINK))
    await turn()
    assert pgw.s5u.sent[2:] == [(gpdu(0x5, udp), to)]
    assert pgw.came_out() is None
