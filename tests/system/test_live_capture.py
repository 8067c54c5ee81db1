"""Live capture on real interfaces, in a network namespace of its own that ends with its thread."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from epc_monitor.capture import read_capture
from epc_monitor.frames import LINKTYPE_ETHERNET, LINKTYPE_RAW, SCTP, Frame, FrameDecoder
from epc_monitor.identity import UeKeys
from epc_monitor.live import LiveCapture
from epc_monitor.pipeline import Monitor
from epc_monitor.service import watch
from mobiscud.core.errors import SetupError
from mobiscud.core.events import Event, MonitorDropped

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets and namespaces need root"),
]

CAPTURE = Path(__file__).parents[1] / "vectors" / "captures" / "epc-multi-ue-a.pcap"
CLONE_NEWNET = 0x4000_0000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x4004_54CA, 1, 0x1000
NOISE = bytes(12) + b"\x08\x06" + bytes(46)
SO_TIMESTAMPNS, ETH_P_ALL = 35, 3
LIMIT_S = 30


PAIR = "link add one address 02:00:00:00:00:01 type veth peer name two address 02:00:00:00:00:02"


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def in_new_network(work: Callable[[], None]) -> None:
    """Run in a thread with its own network: a loopback, and a veth pair ``one`` - ``two``."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0
            for command in ("link set lo up", PAIR, "link set one up", "link set two up"):
                ip(command)
            wait_until_up("one", "two")
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="own network")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def wait_until_up(*interfaces: str) -> None:
    """A veth passes frames only some time after it was told to be up."""
    limit = time.monotonic() + LIMIT_S
    while True:
        shown = subprocess.run(["ip", "-json", "link", "show", "up"], capture_output=True, text=True, check=True)
        states = {link["ifname"]: link["operstate"] for link in json.loads(shown.stdout)}
        if all(states.get(interface) == "UP" for interface in interfaces):
            return
        assert time.monotonic() < limit, states


@contextmanager
def sender(interface: str) -> Iterator[Callable[[bytes], int]]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sending:
        sending.bind((interface, 0))
        yield sending.send


def frames_of_file() -> list[Frame]:
    return list(read_capture(CAPTURE))


def replayed() -> list[Event]:
    monitor = Monitor(UeKeys(bytes(32)))
    return [event for frame in frames_of_file() for event in monitor.receive(frame)]


def identities(events: list[Event]) -> list[tuple[str, bytes]]:
    return [(event.TYPE, event.origin) for event in events]


async def live(interfaces: list[str], send_on: str, wanted: int) -> tuple[list[Event], Monitor]:
    """Send a capture file, between much that is no signalling, and watch until as many events have come."""
    monitor = Monitor(UeKeys(bytes(32)))
    events: list[Event] = []
    async with LiveCapture(interfaces) as capture, asyncio.timeout(LIMIT_S):
        with sender(send_on) as send:
            for frame in frames_of_file():
                send(frame.data)
                send(NOISE)
        async for event in watch(capture, monitor):
            events.append(event)
            if len(events) == wanted:
                break
    return events, monitor


@pytest.mark.parametrize(
    ("interfaces", "send_on"),
    [(["lo"], "lo"), (["two"], "one"), (["one"], "one"), (["one", "two"], "one")],
    ids=["loopback", "received", "sent", "shown twice"],
)
def test_live_is_what_a_replay_is(interfaces: list[str], send_on: str) -> None:
    expected = replayed()

    def work() -> None:
        events, monitor = asyncio.run(live(interfaces, send_on, len(expected)))
        assert identities(events) == identities(expected)
        assert monitor.stats.decode_errors == 0
        assert all(abs(event.at - time.time_ns()) < LIMIT_S * 1_000_000_000 for event in events)

    in_new_network(work)


def test_the_time_of_a_frame_is_the_kernels() -> None:
    """Another socket on the same interface is told the same nanosecond; nobody who asks a clock later would be."""
    frames = [frame for frame in frames_of_file() if is_signalling(frame)][:20]

    async def receive() -> None:
        seen: list[Frame] = []
        async with LiveCapture(["two"]) as capture, asyncio.timeout(LIMIT_S):
            with witness("two") as told, sender("one") as send:
                batches = capture.batches()
                while True:  # the kernel begins to stamp what arrives a little after it was first asked to
                    send(frames[0].data)
                    [frame] = await anext(batches)
                    if (frame.at, frame.data) == told():
                        break
                for frame in frames:
                    send(frame.data)
                async for batch in batches:
                    seen += batch
                    if len(seen) == len(frames):
                        break
                assert [(frame.at, frame.data) for frame in seen] == [told() for _ in frames]

    in_new_network(lambda: asyncio.run(receive()))


@contextmanager
def witness(interface: str) -> Iterator[Callable[[], tuple[int, bytes]]]:
    """A socket of one's own: each frame of the monitor's kinds, and when the kernel says that it came."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as listening:
        listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        listening.settimeout(LIMIT_S)
        listening.bind((interface, ETH_P_ALL))

        def told() -> tuple[int, bytes]:
            while True:
                data, ancillary, _, _ = listening.recvmsg(65536, 64)
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                if is_signalling(Frame(0, LINKTYPE_ETHERNET, data)):
                    return seconds * 1_000_000_000 + nanoseconds, data

        yield told


def is_signalling(frame: Frame) -> bool:
    packet = FrameDecoder().receive(frame)
    return packet is not None and (packet.protocol == SCTP or b"\x08\x4b" in packet.payload[:4])


def test_the_kernel_drops_what_is_no_signalling() -> None:
    wanted = [frame.data for frame in frames_of_file() if is_signalling(frame)]

    async def receive() -> None:
        seen: list[bytes] = []
        async with LiveCapture(["lo"]) as capture, asyncio.timeout(LIMIT_S):
            with sender("lo") as send:
                for frame in frames_of_file():
                    send(NOISE)
                    send(frame.data)
            async for frames in capture.batches():
                seen += [frame.data for frame in frames]
                if len(seen) >= len(wanted):
                    break
        assert seen == wanted

    in_new_network(lambda: asyncio.run(receive()))


def test_what_does_not_fit_is_counted_and_told() -> None:
    async def overrun() -> None:
        async with LiveCapture(["lo"], buffer_bytes=4096) as capture, asyncio.timeout(LIMIT_S):
            with sender("lo") as send:
                for frame in frames_of_file():
                    send(frame.data)
            async for event in watch(capture, Monitor(UeKeys(bytes(32)))):  # nothing comes any more, and it is told
                if isinstance(event, MonitorDropped) and event.where.reason == "kernel":
                    break
        assert isinstance(event, MonitorDropped)
        assert event.where.interface == "lo"
        assert event.count > 100

    in_new_network(lambda: asyncio.run(overrun()))


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (["link set two down"], ["link set two up"]),
        (["link del two"], [PAIR, "link set one up", "link set two up"]),
    ],
    ids=["down", "gone"],
)
@pytest.mark.parametrize("interfaces", [["two"], ["lo", "two"]], ids=["alone", "one of two"])
def test_an_interface_that_was_away_is_seen_again(
    interfaces: list[str], away: list[str], back: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    frame = frames_of_file()[0].data

    async def arrived(batches: AsyncIterator[list[Frame]]) -> list[str | None]:
        async for frames in batches:
            if frames:
                return [frame.interface for frame in frames]
        return []

    async def watch_on() -> None:
        async with LiveCapture(interfaces) as capture, asyncio.timeout(LIMIT_S):
            batches = capture.batches()
            for command in away:
                ip(command)
            while capture.away != ["two"]:
                await anext(batches)
            if "lo" in interfaces:
                with sender("lo") as send:
                    send(frame)
                assert await arrived(batches) == ["lo"]
            for command in back:
                ip(command)
            reading = asyncio.create_task(arrived(batches))
            with sender("one") as send:
                while not reading.done():
                    send(frame)
                    await asyncio.sleep(0.05)
            assert set(reading.result()) == {"two"}
            while capture.away:
                await anext(batches)

    in_new_network(lambda: asyncio.run(watch_on()))
    said = capfd.readouterr()
    assert "down or gone" in said.out + said.err


def test_two_directions_on_two_interfaces_keep_their_order() -> None:
    """As a tap gives them, with more waiting than is read at once.

    On one processor, since the kernel hands over in order only what one processor received.
    """
    signalling = [frame.data for frame in frames_of_file() if is_signalling(frame)]
    sent: list[tuple[str, bytes]] = []

    async def receive() -> None:
        seen: list[tuple[str | None, bytes]] = []
        async with LiveCapture(["lo", "two"]) as capture, asyncio.timeout(LIMIT_S):
            with sender("lo") as send_up, sender("one") as send_down:
                for number, data in enumerate(signalling * 2):
                    down = number % 3 == 0
                    (send_down if down else send_up)(data)
                    sent.append(("two" if down else "lo", data))
            wanted = set(sent)
            async for batch in capture.batches():
                for frame in batch:  # the kernel itself says something now and then
                    if (frame.interface, frame.data) in wanted:
                        seen.append((frame.interface, frame.data))
                if len(seen) >= len(sent):
                    break
        assert seen == sent

    def on_one_processor() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this thread
        asyncio.run(receive())

    in_new_network(on_one_processor)


def test_an_interface_without_ethernet_beside_one_with_it() -> None:
    frame = frames_of_file()[0].data

    async def receive(tun: int) -> None:
        seen: dict[str | None, Frame] = {}
        async with LiveCapture(["tun", "lo"]) as capture, asyncio.timeout(LIMIT_S):
            os.write(tun, frame[14:])
            with sender("lo") as send:
                send(frame)
            async for batch in capture.batches():
                seen |= {frame.interface: frame for frame in batch}
                if len(seen) == 2:
                    break
        assert (seen["lo"].linktype, seen["lo"].data) == (LINKTYPE_ETHERNET, frame)
        assert (seen["tun"].linktype, seen["tun"].data) == (LINKTYPE_RAW, frame[14:])

    def work() -> None:
        tun = os.open("/dev/net/tun", os.O_RDWR)
        try:
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tun", IFF_TUN | IFF_NO_PI))
            ip("link set tun up")
            asyncio.run(receive(tun))
        finally:
            os.close(tun)

    in_new_network(work)


def test_more_interfaces_than_one_monitor_takes() -> None:
    with pytest.raises(SetupError, match="64 at most"):
        LiveCapture([f"eth{number}" for number in range(65)]).open()


def test_a_missing_interface_says_which_there_are() -> None:
    def work() -> None:
        with pytest.raises(SetupError, match=r"no interface eth7; there are: lo, two, one"):
            LiveCapture(["lo", "eth7"]).open()

    in_new_network(work)


def test_a_missing_privilege_says_the_mend() -> None:
    script = "from epc_monitor.live import LiveCapture; LiveCapture(['lo']).open()"
    without = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    finished = subprocess.run([*without, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "CAP_NET_RAW" in finished.stderr.splitlines()[-1]


def test_a_smaller_buffer_is_said() -> None:
    script = "from epc_monitor.live import LiveCapture; c = LiveCapture(['lo']); c.open(); print(c.notes)"
    without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    finished = subprocess.run([*without, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "CAP_NET_ADMIN" in finished.stdout
