"""The emulated RAN and EPC as processes, on the wires of this machine's kernel."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from testbed import netns
from testbed.netns_socket import socket_in
from testbed.ran_client import RanClient, RanError, Truth
from testbed.sctp_link import kernel_has_sctp
from testbed.sweep import RunDirectory
from testbed.topology import INTERNET_SERVER, Link, Node, Port, RunningTopology, Topology, paper_topology

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and raw sockets need root"),
]

PATIENCE_S = 30.0
ENBS = (1, 2, 3)
IMSIS = ("999700000000001", "999700000000002")


def direct_topology() -> Topology:
    """The paper's network without delays and without cloudlets: each eNodeB on a wire to the MTSO's bridge."""
    paper = paper_topology()
    kept = {"ue", "enb1", "enb2", "enb3", "mtso", "core", "pgw", "inet"}
    links = [
        Link(link.name, link.a, link.b, mtu=link.mtu)
        for link in paper.links
        if link.a.node in kept and link.b.node in kept
    ]
    s1_ends = [link.a for link in paper.links if link.name in {f"s1-{k}" for k in ENBS}]
    links += [Link(f"s1-{k}", end, Port("mtso", f"c{k}")) for k, end in zip(ENBS, s1_ends, strict=True)]
    nodes: list[Node] = [replace(node, bridges=node.bridges[:1]) for node in paper.nodes if node.name in kept]
    return Topology(tuple(nodes), tuple(links))


@dataclass
class Lte:
    """RAN and EPC in a network that stands."""

    network: RunningTopology
    directory: Path
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def namespace(self, node: str) -> str:
        return self.network.namespace(node)

    @property
    def control_socket(self) -> Path:
        return self.directory / "ran.sock"

    def configuration(self, role: str) -> dict[str, Any]:
        if role == "epc":
            return {
                "namespace": self.namespace("core"),
                "mme": {"s1_address": "10.0.0.1", "s11_address": "10.1.0.1"},
                "sgw": {"s1u_address": "10.0.0.2", "s11_address": "10.1.0.2", "s5_address": "10.0.1.1"},
                "pgw": {"namespace": self.namespace("pgw"), "s5_address": "10.0.1.2"},
                "subscribers": IMSIS,
            }
        return {
            "control_socket": str(self.control_socket),
            "mme_address": "10.0.0.1",
            "ue_namespace": self.namespace("ue"),
            "enbs": [
                {
                    "number": k,
                    "namespace": self.namespace(f"enb{k}"),
                    "address": f"10.0.0.1{k}",
                    "enb_id": 0x19A + k,
                    "cell_id": (0x19A + k) << 8 | 1,
                    "ue_device": f"uu{k}",
                }
                for k in ENBS
            ],
            "ues": [{"name": f"ue{number}", "imsi": imsi} for number, imsi in enumerate(IMSIS, 1)],
        }

    async def spawn(self, role: str, configuration: dict[str, Any]) -> asyncio.subprocess.Process:
        file = self.directory / f"{role}.json"
        file.write_text(json.dumps(configuration))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"testbed.{role}", str(file)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def start(self, role: str, **changes: Any) -> None:
        process = self.processes[role] = await self.spawn(role, self.configuration(role) | changes)
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        assert said == b"READY\n", await process.communicate()

    async def stop(self, role: str) -> tuple[int | None, bytes]:
        """Ask a process to end; gives its exit status and what it said on stderr."""
        process = self.processes.pop(role)
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        return process.returncode, errors

    async def kill_all(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def ping(self, source: str, to: str, count: int = 3) -> list[float]:
        """Ping, all of which must be answered; gives the times in milliseconds."""
        said = await netns.run_in(self.namespace(source), "ping", "-c", str(count), "-i", "0.02", "-W", "5", to)
        times = [float(found) for found in re.findall(r"time=([\d.]+)", said)]
        assert len(times) == count, said
        return times

    @asynccontextmanager
    async def capture(self, name: str, node: str, device: str) -> AsyncIterator[Path]:
        file = self.directory / f"{name}.pcap"
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.namespace(node)),
            # A short snapshot leaves the kernel's buffer room for many frames, so that none is dropped.
            *("tcpdump", "--immediate-mode", "-s", "2048", "-U", "-Z", "root", "-i", device, "-w", str(file)),
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            while b"listening on" not in (line := await asyncio.wait_for(process.stderr.readline(), PATIENCE_S)):
                assert line, "tcpdump has ended"
            yield file
        finally:
            process.terminate()
            await process.communicate()


@pytest.fixture
async def idle_lte() -> AsyncIterator[Lte]:
    """A network in which neither RAN nor EPC runs."""
    place = RunDirectory.create()
    network = RunningTopology(direct_topology(), run=place.run, directory=place.path)
    lte = Lte(network, place.path)
    try:
        await network.up()
        yield lte
    finally:
        await lte.kill_all()
        await network.down()
        await place.remove()


@pytest.fixture
async def lte(idle_lte: Lte) -> Lte:
    await idle_lte.start("epc")
    await idle_lte.start("ran")
    return idle_lte


async def tshark(file: Path, *arguments: str) -> list[str]:
    said = await netns.command("tshark", "-r", str(file), *arguments)
    return [line for line in said.splitlines() if line]


async def uplink_grows(ran: RanClient, enb: int, by: int) -> None:
    """Wait until an eNodeB has taken more uplink packets."""

    async def count() -> int:
        packets: int = (await ran.status())["enbs"][str(enb)]["uplink"]
        return packets

    goal = await count() + by
    async with asyncio.timeout(PATIENCE_S):
        while await count() < goal:
            pass


async def test_a_ue_through_all_procedures(lte: Lte) -> None:
    truths: list[Truth] = []
    async with (
        lte.capture("s1", "core", "s1") as s1,
        lte.capture("s11", "core", "lo") as s11,
        RanClient(lte.control_socket) as ran,
    ):
        truths.append(await ran.attach("ue1", 1))
        assert truths[-1]["ue_ip"] == "45.45.0.2"
        await lte.ping("ue", INTERNET_SERVER)

        truths.append(await ran.handover("ue1", 2))
        await lte.ping("ue", INTERNET_SERVER)
        truths.append(await ran.handover("ue1", 3, kind="x2"))
        await lte.ping("ue", INTERNET_SERVER)
        for outcome in ("cancel", "failure"):
            truths.append(await ran.handover("ue1", 1, outcome=outcome))
            await lte.ping("ue", INTERNET_SERVER)

        truths.append(await ran.idle("ue1"))
        truths.append(await ran.service("ue1", 1))
        await lte.ping("ue", INTERNET_SERVER)
        await ran.idle("ue1")
        await lte.ping("inet", "45.45.0.2")
        assert (await ran.status())["ues"]["ue1"]["state"] == "connected"

        truths.append(await ran.detach("ue1"))
        assert (await ran.status())["ues"]["ue1"]["state"] == "detached"
        assert await lte.stop("ran") == (0, b"")
        assert await lte.stop("epc") == (0, b"")

    places = [(truth["ev"], truth["enb_id"], truth.get("from_enb_id")) for truth in truths]
    assert places == [
        ("attach", 0x19B, None),
        ("s1_handover", 0x19C, 0x19B),
        ("x2_handover", 0x19D, 0x19C),
        ("s1_handover_cancel", 0x19D, 0x19D),
        ("s1_handover_failure", 0x19D, 0x19D),
        ("idle", 0x19D, None),
        ("service", 0x19B, None),
        ("detach", 0x19B, None),
    ]
    assert len({truth["sgw_s1u_teid"] for truth in truths}) == 1
    assert len({truth["mme_ue_s1ap_id"] for truth in truths}) == 4, "attach, S1 handover, two service requests"
    for file in (s1, s11):
        assert await tshark(file, "-Y", "_ws.malformed || _ws.expert.severity >= 0x600000") == []
    checked = ("-o", "sctp.checksum:CRC 32c", "-Y", "sctp && !(sctp.checksum.status == 1)")
    assert await tshark(s1, *checked) == []


async def test_order_of_messages_is_open5gs(lte: Lte) -> None:
    async with (
        lte.capture("s1", "core", "s1") as s1,
        lte.capture("s11", "core", "lo") as s11,
        RanClient(lte.control_socket) as ran,
    ):
        await ran.attach("ue1", 1)
        await ran.handover("ue1", 2)
        async with asyncio.timeout(PATIENCE_S):
            while (await ran.status())["enbs"]["1"]["connections"]:
                await lte.ping("ue", INTERNET_SERVER)
        await ran.detach("ue1")
        assert (await lte.stop("ran"))[0] == 0

    fields = ("-T", "fields", "-e", "s1ap.procedureCode", "-e", "sctp.data_sid")
    rows = [line.split("\t") for line in await tshark(s1, "-Y", "s1ap", *fields)]
    initial, downlink, uplink, setup, capability, release = 12, 11, 13, 9, 22, 23
    attach = [initial, downlink, uplink, downlink, uplink, setup, capability, setup, uplink]
    handover = [0, 1, 1, 0, 24, 25, 2]
    source_release = [release, release]
    detach = [uplink, downlink, release, release]
    assert [int(code) for code, _ in rows] == attach + handover + source_release + detach
    assert all(int(stream, 0) > 0 for _, stream in rows)

    gtpc = await tshark(s11, "-Y", "gtpv2", "-T", "fields", "-e", "gtpv2.message_type")
    assert [int(kind) for kind in gtpc] == [32, 33, 34, 35, 34, 35, 36, 37]
    markers = await tshark(s1, "-Y", "gtp.message == 254", "-T", "fields", "-e", "ip.src", "-e", "ip.dst")
    assert markers == ["10.0.0.2\t10.0.0.11"]


async def test_bearers_and_tracking_areas(lte: Lte) -> None:
    """What a UE does beside moving: each message decodes, and the monitor says what it means."""
    async with lte.capture("any", "core", "any") as wire, RanClient(lte.control_socket) as ran:
        await ran.attach("ue1", 1)
        assert (await ran.bearer("ue1", qci=1))["dedicated"] == [6]
        assert (await ran.bearer("ue1", qci=7))["dedicated"] == [6, 7]
        assert (await ran.bearer("ue1", release=True))["dedicated"] == [6]
        await ran.idle("ue1")
        assert (await ran.service("ue1"))["dedicated"] == [6], "the network has kept it"
        await lte.ping("ue", INTERNET_SERVER)
        assert (await ran.handover("ue1", 2))["dedicated"] == [], "the target has room for the default bearer alone"
        await lte.ping("ue", INTERNET_SERVER)
        await ran.bearer("ue1", qci=5)
        assert (await ran.handover("ue1", 3, kind="x2"))["dedicated"] == []
        await ran.tau("ue1")
        await ran.idle("ue1")
        assert (await ran.tau("ue1"))["state"] == "idle"
        assert (await ran.tau("ue1", active=True))["state"] == "connected"
        await lte.ping("ue", INTERNET_SERVER)
        with pytest.raises(RanError, match="the UE has no dedicated bearer"):
            await ran.bearer("ue1", release=True)
        await ran.detach("ue1")
        assert await lte.stop("ran") == (0, b"")
        assert await lte.stop("epc") == (0, b"")

    assert await tshark(wire, "-Y", "_ws.malformed || _ws.expert.severity >= 0x600000") == []
    said = await netns.command(*(sys.executable, "-m", "mobiscud", "replay", str(wire), "--output", "jsonl"))
    events = [json.loads(line) for line in said.splitlines()]
    kinds = [event["type"].removeprefix("org.mobiscud.") for event in events]
    assert kinds.count("bearer.established") == 3
    assert kinds.count("bearer.released") >= 1
    assert kinds.count("tracking_area.updated") == 3
    assert "monitor.desynchronised" not in kinds
    first = next(event["data"] for event in events if event["type"].endswith("bearer.established"))
    assert [(bearer["e_rab_id"], bearer["qci"]) for bearer in first["bearers"]] == [(6, 1)]


async def test_a_dedicated_bearer_carries_its_traffic_and_no_other(lte: Lte) -> None:
    """UDP both ways by the bearer that was set up for it, ping by the default one; after its release all by that."""
    async with (
        lte.capture("s1", "core", "s1") as s1u,
        lte.capture("s5", "core", "s5") as s5u,
        RanClient(lte.control_socket) as ran,
    ):
        address = (await ran.attach("ue1", 1))["ue_ip"]
        with (
            socket_in(lte.namespace("inet"), socket.AF_INET, socket.SOCK_DGRAM) as server,
            socket_in(lte.namespace("ue"), socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            server.bind((INTERNET_SERVER, 7000))
            client.bind((address, 7001))

            async def to_and_fro(word: bytes) -> None:
                for sender, to, receiver in (
                    (client, (INTERNET_SERVER, 7000), server),
                    (server, (address, 7001), client),
                ):
                    await loop.sock_sendto(sender, word, to)
                    assert await asyncio.wait_for(loop.sock_recv(receiver, 100), PATIENCE_S) == word

            loop = asyncio.get_running_loop()
            await to_and_fro(b"before")
            assert (await ran.bearer("ue1", qci=1, protocol="udp"))["dedicated"] == [6]
            await to_and_fro(b"beside")
            await lte.ping("ue", INTERNET_SERVER, count=1)
            await ran.idle("ue1")
            assert (await ran.service("ue1", 1))["dedicated"] == [6], "the network has kept it"
            await to_and_fro(b"awake")
            await ran.idle("ue1")
            await loop.sock_sendto(server, b"called", (address, 7001))  # its own bearer has the network page the UE
            assert await asyncio.wait_for(loop.sock_recv(client, 100), PATIENCE_S) == b"called"
            await ran.bearer("ue1", release=True)
            await to_and_fro(b"behind")
    for capture in (s1u, s5u):
        up, down = await tunnels(capture)
        # The S-GW's and the P-GW's ends persist; an eNodeB's ends with the connection.
        assert up["before"] == up["ping"] == up["behind"]
        assert up["beside"] == up["awake"] != up["before"]
        assert down["before"] == down["ping"] != down["beside"]
        assert down["called"] != down["behind"]
        assert await tshark(capture, "-Y", "_ws.malformed || _ws.expert.severity >= 0x600000") == []


async def tunnels(capture: Path) -> tuple[dict[str, str], dict[str, str]]:
    """By which TEID each word went up, and by which down; ``ping`` stands for ICMP."""
    up: dict[str, str] = {}
    down: dict[str, str] = {}
    fields = ("-T", "fields", "-e", "gtp.teid", "-e", "ip.dst", "-e", "ip.proto", "-e", "udp.payload")
    for line in await tshark(capture, "-Y", "gtp.message == 255", *fields):
        teid, to, protocols, payloads = line.split("\t")
        icmp = protocols.split(",")[-1] == "1"
        word = "ping" if icmp else bytes.fromhex(payloads.split(",")[-1]).decode()
        way = up if to.split(",")[-1] == INTERNET_SERVER else down
        assert way.setdefault(word, teid) == teid, word
    return up, down


FACTS = {
    "attach": ["ue.attached"],
    "service": ["ue.connected"],
    "idle": ["ue.idle"],
    "detach": ["ue.detached"],
    "s1_handover": ["handover.preparing", "handover.executing", "handover.completed"],
    "s1_handover_cancel": ["handover.preparing", "handover.executing", "handover.cancelled"],
    "s1_handover_failure": ["handover.preparing", "handover.rejected"],
    "x2_handover": ["handover.completed"],
}
"""What must come out of each procedure."""


async def test_monitor_sees_the_truth(idle_lte: Lte) -> None:
    """All kinds of procedures of two UEs at once, some of them faster than the release at the last source."""
    lte = idle_lte
    await lte.start("epc")
    truths: list[Truth] = []

    async def live(ran: RanClient, ue: str, first: int, second: int, third: int) -> None:
        truths.append(await ran.attach(ue, first))
        for target, kind, outcome in (
            (second, "s1", "ok"),
            (first, "s1", "ok"),
            (third, "x2", "ok"),
            (second, "s1", "failure"),
            (first, "s1", "cancel"),
            (second, "x2", "ok"),
        ):
            truths.append(await ran.handover(ue, target, kind=kind, outcome=outcome))
        truths.append(await ran.idle(ue))
        truths.append(await ran.service(ue, third))
        truths.append(await ran.detach(ue, switch_off=first == 1))
        truths.append(await ran.attach(ue, second))

    async with lte.capture("any", "core", "any") as wire:
        await lte.start("ran")
        async with RanClient(lte.control_socket) as ran:
            await asyncio.gather(live(ran, "ue1", 1, 2, 3), live(ran, "ue2", 3, 1, 2))
            async with asyncio.timeout(PATIENCE_S):
                while sum(enb["connections"] for enb in (await ran.status())["enbs"].values()) > 2:
                    await lte.ping("inet", truths[-1]["ue_ip"])

    said = await netns.command(
        *(sys.executable, "-m", "mobiscud", "replay", str(wire), "--output", "jsonl", "--privacy", "clear")
    )
    events = [json.loads(line) for line in said.splitlines()]
    for imsi in IMSIS:
        lived = [truth for truth in truths if truth["imsi"] == imsi]
        expected = [(fact, placed(fact, truth)) for truth in lived for fact in FACTS[truth["ev"]]]
        assert [
            (fact, seen_place(fact, event["data"]))
            for event in events
            if event["data"].get("imsi") == imsi
            and (fact := event["type"].removeprefix("org.mobiscud.")) in {fact for fact, _ in expected}
        ] == expected


def placed(fact: str, truth: Truth) -> tuple[Any, ...]:
    """Where the truth says the UE and its bearer are, for facts that tell of it."""
    if fact not in ("ue.attached", "ue.connected", "handover.completed"):
        return ()
    return tuple(truth[key] for key in ("enb_id", "cell", "ue_ip", "sgw_s1u_teid", "enb_s1u_teid"))


def seen_place(fact: str, data: dict[str, Any]) -> tuple[Any, ...]:
    """The same, as an event tells it."""
    if fact not in ("ue.attached", "ue.connected", "handover.completed"):
        return ()
    (bearer,), (address,) = data["bearers"], data["ue_ip"]
    cell = int(data["ecgi"]["cell_id"], 16)
    tunnels = (int(bearer[end]["teid"], 16) for end in ("uplink", "downlink"))
    return (data["enb"]["enb_id"], cell, address, *tunnels)


async def test_ues_at_different_cells(lte: Lte) -> None:
    async with RanClient(lte.control_socket) as ran:
        first, second = await asyncio.gather(ran.attach("ue1", 1), ran.attach("ue2", 3))
        assert first["ue_ip"] != second["ue_ip"]
        await asyncio.gather(ran.handover("ue1", 2), ran.handover("ue2", 2, kind="x2"))
        for truth in (first, second):
            said = await netns.run_in(
                lte.namespace("ue"), *("ping", "-c", "2", "-W", "5", "-I", truth["ue_ip"], INTERNET_SERVER)
            )
            assert " 0% packet loss" in said
        counted = (await ran.status())["enbs"]
        assert counted["2"]["uplink"] >= 4


@pytest.mark.parametrize("forwarding", ["direct", "indirect"])
async def test_handover_under_traffic_loses_nothing(idle_lte: Lte, forwarding: str) -> None:
    lte = idle_lte
    await lte.start("epc")
    await lte.start("ran", forwarding=forwarding)
    async with lte.capture("s11", "core", "lo") as s11, RanClient(lte.control_socket) as ran:
        await ran.attach("ue1", 1)
        pinging = asyncio.create_task(
            netns.run_in(lte.namespace("ue"), *("ping", "-c", "1000", "-i", "0.002", "-W", "2", "-q", INTERNET_SERVER))
        )
        for serving, target, kind in ((1, 2, "s1"), (2, 3, "x2"), (3, 1, "s1")):
            await uplink_grows(ran, serving, by=20)
            await ran.handover("ue1", target, kind=kind)
        received = re.search(r"(\d+) received", await pinging)
        forwarded = {number: enb["forwarded"] for number, enb in (await ran.status())["enbs"].items()}
    assert received is not None
    assert int(received[1]) == 1000
    assert all(forwarded.values()), forwarded
    create_tunnel = "gtpv2.message_type == 166"
    assert len(await tshark(s11, "-Y", create_tunnel)) == (2 if forwarding == "indirect" else 0)
    assert await tshark(s11, "-Y", "_ws.malformed || _ws.expert.severity >= 0x600000") == []


async def test_bulk_of_tcp_fits_the_tunnel(lte: Lte) -> None:
    payload = os.urandom(1 << 20)
    loop = asyncio.get_running_loop()
    async with RanClient(lte.control_socket) as ran:
        await ran.attach("ue1", 1)
        with (
            socket_in(lte.namespace("inet"), socket.AF_INET, socket.SOCK_STREAM) as server,
            socket_in(lte.namespace("ue"), socket.AF_INET, socket.SOCK_STREAM) as client,
        ):
            server.bind((INTERNET_SERVER, 8080))
            server.listen()
            accepting = asyncio.create_task(loop.sock_accept(server))
            await asyncio.wait_for(loop.sock_connect(client, (INTERNET_SERVER, 8080)), PATIENCE_S)
            peer, _ = await accepting
            with peer:
                for sender, receiver in ((client, peer), (peer, client)):
                    sending = asyncio.create_task(loop.sock_sendall(sender, payload))
                    got = b""
                    while len(got) < len(payload):
                        got += await asyncio.wait_for(loop.sock_recv(receiver, 1 << 16), PATIENCE_S)
                    await sending
                    assert got == payload


async def test_impossible_requests_are_refused_with_a_reason(lte: Lte) -> None:
    async with RanClient(lte.control_socket) as ran:
        for request, reason in (
            (ran.attach("nobody", 1), "no UE nobody"),
            (ran.attach("ue1", 9), "no eNodeB 9"),
            (ran.handover("ue1", 2), "the UE is detached"),
            (ran.handover("ue1", 2, kind="x3"), "bad request"),
            (ran.detach("ue1"), "not attached"),
        ):
            with pytest.raises(RanError, match=reason):
                await request
        await ran.attach("ue1", 1)
        with pytest.raises(RanError, match="at the target already"):
            await ran.handover("ue1", 1)


async def test_end_of_the_epc_leaves_nothing_and_the_ran_says_so(lte: Lte) -> None:
    async with RanClient(lte.control_socket) as ran:
        await ran.attach("ue1", 1)
        assert await lte.stop("epc") == (0, b"")
        with pytest.raises(RanError, match="the UE is idle"):
            await ran.idle("ue1")
        with pytest.raises(RanError, match="eNodeB 1 has no MME"):
            await ran.service("ue1")
    assert "tun-pgw" not in await netns.run_in(lte.namespace("pgw"), "ip", "link")
    assert await lte.stop("ran") == (0, b"")
    assert not lte.control_socket.exists()
    assert "45.45" not in await netns.run_in(lte.namespace("ue"), "sh", "-c", "ip address; ip route; ip rule")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"namespace": "nowhere"}, 1, b"network namespace nowhere: No such file or directory"),
        ({"subscribers": ["x"]}, 2, b"subscribers.0: "),
        ({"sgw": {"s1u_address": "10.9.9.9", "s11_address": "10.1.0.2", "s5_address": "10.0.1.1"}}, 1, b"10.9.9.9"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    idle_lte: Lte, change: dict[str, Any], status: int, words: bytes
) -> None:
    process = await idle_lte.spawn("epc", idle_lte.configuration("epc") | change)
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == status
    assert words in errors
    assert errors.count(b"\n") == 1


@pytest.mark.skipif(kernel_has_sctp(), reason="the kernel's own SCTP is in use")
async def test_ran_without_an_mme_gives_up(idle_lte: Lte) -> None:
    process = await idle_lte.spawn("ran", idle_lte.configuration("ran") | {"connect_limit_s": 0.5})
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 1
    assert errors == b"SCTP to 10.0.0.1: no answer\n"
