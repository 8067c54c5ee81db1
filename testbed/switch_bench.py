"""One cloudlet's switch on the bench: real Open vSwitch, real BPF, and the far ends of its wires in one's hands.

Two network namespaces: the cloudlet's, and one that holds the far end of every port. What is sent into a port comes
out where the switch sends it, and ``emerges`` says where that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from flows.pipeline import link_mac
from flows.service import CloudletSwitch
from mobiscud.core.config import OffloadConfig, SwitchConfig
from mobiscud.core.edge import DownlinkTunnel, PathSpec, Pvm, UplinkTunnel
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey
from testbed import netns
from testbed.netns_socket import inside, socket_in
from testbed.ovs import OpenVSwitch
from testbed.s1u_packets import from_core, from_enb, gtpu, s1u_packet

HERE: Final = CloudletId("c1")
PEERS: Final[Mapping[CloudletId, str]] = {
    CloudletId("c2"): "isl-c2",
    CloudletId("c3"): "isl-c3",
    CloudletId("c4"): "isl-c2",
}
"""The neighbours of the cloudlet and the port that leads to each; c4 lies behind c2."""

NEXT_HOP, NEXT_HOP_MAC = "172.16.255.254", "02:00:00:00:00:fe"
"""The core's, at the far end of the port ``sgi``."""

OUTER_PORTS: Final = ("enb", "core", "pvm", "sgi", "isl-c2", "isl-c3")
MTU: Final = 1500
PATIENCE_S: Final = 10.0
RECEIVE_BUFFER: Final = 16 << 20
SO_RCVBUFFORCE: Final = 33
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 263, 8, 4
VLAN_VALID: Final = 0x10  # TP_STATUS_VLAN_VALID
AUXDATA: Final = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata

# A UE whose path nobody else touches: when its packet arrives, what was sent before it has arrived too, or never will.
# (Tests and `population` number their UEs from zero, so it is far from them.)
CANARY: Final = UeKey("ue-ffffffffffffffca")
CANARY_PATH: Final = PathSpec(
    ue_ip="45.45.255.254",
    pvm=Pvm(PvmId("canary"), "172.16.255.254", "52:54:00:ff:ff:fe"),
    pvm_at=HERE,
    ue_at=HERE,
    uplinks=(UplinkTunnel("10.0.0.199", FTeid("10.0.0.1", Teid(0xCACA))),),
    downlink=DownlinkTunnel("10.0.0.1", FTeid("10.0.0.199", Teid(0xCACA))),
)

Emerged = list[tuple[str, bytes]]


class SwitchBench:
    """Use as a context manager. While it stands, the thread is inside the cloudlet's namespace, as a node would be."""

    def __init__(self, prefix: str, run_dir: Path) -> None:
        self.namespace = self._cloudlet = f"{prefix}-sw"
        self.outside = self._outside = f"{prefix}-far"
        self.ovs = OpenVSwitch(run_dir, self._cloudlet)
        self.offload = OffloadConfig()
        self.config = SwitchConfig(
            cloudlet=HERE,
            bridge="br0",
            openflow=self.ovs.management_target("br0"),
            enb_port="enb",
            core_port="core",
            pvm_port="pvm",
            peers={str(peer): port for peer, port in PEERS.items()},
            sgi_port="sgi",
            sgi_gateway=IPv4Address(NEXT_HOP),
        )
        self.switch = CloudletSwitch(self.config, self.offload)
        self.answers_arp = True
        """Whether the core's next hop does."""
        self.announced: list[tuple[str, str]] = []
        """Addresses and MACs of personal VMs, as the switch told them to the core unasked."""
        self._far: dict[str, socket.socket] = {}
        self._seen: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._numbers = itertools.count()
        self._resources = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Build everything, and start the switch."""
        try:
            await self._build()
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def emerges(self, port: str, frame: bytes, at: str | None = None) -> Emerged:
        """Send ``frame`` into ``port``; where it came out, and as what. ``at``: wait until something comes out there.

        :raises TimeoutError: nothing came out at ``at``, or the switch passes nothing any more
        """
        while not self._seen.empty():
            self._seen.get_nowait()
        self.send(port, frame)
        emerged = await self.so_far(port)
        async with asyncio.timeout(PATIENCE_S):
            while at is not None and at not in dict(emerged):
                emerged.append(await self._seen.get())
        return emerged

    async def next_at(self, port: str) -> bytes:
        """What comes out of a port next, when the bridge may pass nothing.

        :raises TimeoutError: nothing
        """
        async with asyncio.timeout(PATIENCE_S):
            while (seen := await self._seen.get())[0] != port:
                pass
        return seen[1]

    def deafen(self) -> None:
        """Catch nothing any more, for who wants to catch it with sockets of his own."""
        self._close()

    def send(self, port: str, frame: bytes) -> None:
        """Send a frame into a port and look at nothing."""
        self._far[port].send(frame)

    async def so_far(self, port: str) -> Emerged:
        """All that has come out by now, when what was sent into ``port`` has had its time."""
        mark = b"canary %08d" % next(self._numbers)
        self.send(port, self._canary(port, mark))
        emerged: Emerged = []
        async with asyncio.timeout(PATIENCE_S):
            while mark not in (seen := await self._seen.get())[1]:
                emerged.append(seen)
        while not self._seen.empty():  # the ports are read one by one, the mark's perhaps before another's
            emerged.append(self._seen.get_nowait())
        return emerged

    async def _build(self) -> None:
        stack = self._resources
        await netns.create([self._cloudlet, self._outside])
        stack.push_async_callback(netns.delete, [self._cloudlet, self._outside])
        links = [netns.veth((self._cloudlet, port), (self._outside, port), mtu=MTU) for port in OUTER_PORTS]
        await netns.ip_batch([*links, netns.veth((self._cloudlet, "gi0"), (self._cloudlet, "gi1"), mtu=MTU)])
        for namespace, ports in ((self._cloudlet, (*OUTER_PORTS, "gi0", "gi1")), (self._outside, OUTER_PORTS)):
            await netns.ip_batch((f"link set {port} up" for port in ports), namespace)
            await netns.run_in(namespace, "sh", stdin=netns.offloads_off(ports))
        stack.callback(self._close)
        for port in OUTER_PORTS:
            self._open(port)
        stack.enter_context(inside(self._cloudlet))
        await stack.enter_async_context(self.ovs)
        # `settle` waits for whole rounds of the cache's revalidation: let them be short (100 ms is the least).
        await self.ovs.vsctl("set", "open_vswitch", ".", "other_config:max-revalidator=100")
        await self.ovs.add_bridge("br0", ["gi1", *(port for port in OUTER_PORTS if port not in ("enb", "core"))])
        await stack.enter_async_context(self.switch)
        async with asyncio.timeout(PATIENCE_S):
            while NEXT_HOP_MAC not in await self.ovs.dump_flows("br0"):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        await self.switch.apply(CANARY, CANARY_PATH)
        await self.emerges("enb", self._canary("enb", b"first"))

    def _open(self, port: str) -> None:
        far = self._far[port] = socket_in(self._outside, socket.AF_PACKET, socket.SOCK_RAW)
        far.bind((port, 3))
        far.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        far.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        asyncio.get_running_loop().add_reader(far, self._take, port, far)

    def _close(self) -> None:
        for far in self._far.values():
            asyncio.get_running_loop().remove_reader(far)
            far.close()
        self._far.clear()

    def _take(self, port: str, far: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, ancillary, _, address = far.recvmsg(65535, 64)
                if address[2] != PACKET_OUTGOING and not (port == "sgi" and self._is_resolution(far, frame)):
                    self._seen.put_nowait((port, _with_tag(frame, ancillary)))

    def _is_resolution(self, far: socket.socket, frame: bytes) -> bool:
        """Play the core's next hop where the switch asks for it, and hear what it announces."""
        packet = Ether(frame)
        if ARP not in packet:
            return False
        arp = packet[ARP]
        if (arp.op, arp.psrc) == (2, arp.pdst):
            self.announced.append((arp.psrc, arp.hwsrc))
            return True
        if arp.op != 1:
            return False
        if arp.pdst == NEXT_HOP and self.answers_arp:
            answer = ARP(op=2, hwsrc=NEXT_HOP_MAC, psrc=NEXT_HOP, hwdst=arp.hwsrc, pdst=arp.psrc)
            far.send(bytes(Ether(src=NEXT_HOP_MAC, dst=arp.hwsrc) / answer))
        return True

    def _canary(self, port: str, mark: bytes) -> bytes:
        """A frame that comes out for certain, by the way that what is sent into ``port`` takes."""
        path = CANARY_PATH
        up = IP(src=path.ue_ip, dst=path.pvm.address) / UDP() / Raw(mark)
        down = IP(src=path.pvm.address, dst=path.ue_ip) / UDP() / Raw(mark)
        (tunnel,) = path.uplinks
        if port == "enb":
            return from_enb(s1u_packet(tunnel.enb_address, tunnel.sgw.address, gtpu(tunnel.sgw.teid, bytes(up))))
        if port == "core":
            return from_core(down)
        if port == "pvm":
            return bytes(Ether(src=path.pvm.mac, dst=self.offload.gateway_mac) / down)
        if port == "sgi":
            return bytes(Ether(src=NEXT_HOP_MAC, dst=path.pvm.mac) / up)
        return bytes(Ether(src=link_mac(CloudletId("c2")), dst=link_mac(HERE)) / up)


def _with_tag(frame: bytes, ancillary: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The frame as it was on the wire: the kernel hands an outer VLAN tag over beside it (packet(7))."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tag, protocol = AUXDATA.unpack_from(data)
            if status & VLAN_VALID:
                return frame[:12] + struct.pack("!HH", protocol or 0x8100, tag) + frame[12:]
    return frame
