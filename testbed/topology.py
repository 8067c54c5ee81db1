"""The testbed of the MobiScud paper (its figure 5): as data, and built of network namespaces.

    ue ==4 ms== enb1..3 --- c1..3 ==5 ms== mtso --- core ==18 ms== pgw ==8 ms== inet
                             c1 ==2 ms== c2 ==2 ms== c3

A cloudlet stands beside its eNodeB, a transparent bump in the S1 wire: eNodeBs, MME and S-GW are one Ethernet segment
that meets in the MTSO's bridge. Delays are one way. A link with a delay runs through the namespace ``delay``
(``testbed.delay``); the others are plain veth pairs. ``mgmt`` joins cloudlets and core for the bus, the controllers
and the migrations, beside the network under test. On demand one more cloudlet, ``cm``, stands at the MTSO, in the one
wire that leads from there to the core: the cloud of SMORE, with which the paper compares.

The core reaches personal VMs by a network of their own, an Ethernet segment that joins the P-GW and every cloudlet (in
the MTSO's bridge ``br-sgi``), as an operator makes it of VXLAN or EVPN. A cell may have no cloudlet: its eNodeB is then
wired to the MTSO. Or it shares the first cloudlet: its eNodeB and the first then meet in an aggregation switch,
``agg``, on the eNodeBs' side of the cloudlet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mobiscud.core.errors import AdapterError
from testbed import netns
from testbed.delay import DelayLink, DelayLinks, Engine
from testbed.delay_node import DirectionStats
from testbed.delay_queue import Shape

MME_S1: Final = "10.0.0.1"
SGW_S1: Final = "10.0.0.2"
MME_S11: Final = "10.1.0.1"
SGW_S11: Final = "10.1.0.2"
SGW_S5: Final = "10.0.1.1"
OTHER_SGW_S1: Final = "10.0.0.3"
OTHER_SGW_S11: Final = "10.1.0.3"
OTHER_SGW_S5: Final = "10.0.1.3"
"""Of a second S-GW, where a setting has one."""
PGW_S5: Final = "10.0.1.2"
PGW_SGI: Final = "192.0.2.1"
INTERNET_SGI: Final = "192.0.2.2"
INTERNET_SERVER: Final = "198.51.100.8"
"""A public server, in the addresses RFC 5737 sets aside; it answers ping."""
UE_POOL: Final = "45.45.0.0/16"
PVM_NEXT_HOP: Final = "172.16.255.254"
"""The P-GW, in the network of the personal VMs (172.16.0.0/16)."""
BROKER_MGMT: Final = "10.90.0.254"
CORE_MGMT: Final = "10.90.0.10"

ACCESS_MTU: Final = 1500
TRANSPORT_MTU: Final = 2000
"""Room for a whole UE packet in GTP-U, as operators' transport networks have it: nothing needs fragments."""

DELAY_NODE: Final = "delay"
AGGREGATION: Final = "agg"

AT_MTSO: Final = 0
"""The number of the cloudlet at the MTSO; those beside eNodeBs count from 1."""


def enb_s1(number: int) -> str:
    """The S1 address (signalling and user plane) of eNodeB ``number``, from 1."""
    return f"10.0.0.{10 + number}"


def cloudlet_name(number: int) -> str:
    """The node of a cloudlet, which is its id in MobiScud as well."""
    return "cm" if number == AT_MTSO else f"c{number}"


def cloudlet_mgmt(number: int) -> str:
    """The management address of a cloudlet."""
    return f"10.90.0.{number if number != AT_MTSO else 100}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """One way, in milliseconds; the defaults are the paper's."""

    ue_enb: float = 4.0
    enb_mtso: float = 5.0
    sgw_pgw: float = 18.0
    pgw_internet: float = 8.0
    enb_enb: float = 2.0

    def pvm_rtt_ms(self, cell: int, cloudlet: str) -> float:
        """What the delays alone give, there and back, from a UE at a cell to a personal VM in a cloudlet."""
        if cloudlet == cloudlet_name(AT_MTSO):
            return 2 * (self.ue_enb + self.enb_mtso)
        return 2 * (self.ue_enb + abs(cell - int(cloudlet.removeprefix("c"))) * self.enb_enb)

    @property
    def internet_rtt_ms(self) -> float:
        """The same to the Internet server, from any cell."""
        return 2 * (self.ue_enb + self.enb_mtso + self.sgw_pgw + self.pgw_internet)


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a link: a device in a node. ``addresses`` with prefix length."""

    node: str
    device: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A wire between two ports."""

    name: str
    a: Port
    b: Port
    delay_ms: float = 0.0
    mtu: int = TRANSPORT_MTU
    shape: Shape | None = None
    """More than a delay: its own delay counts then."""

    @property
    def shaped(self) -> Shape | None:
        """What happens to frames on the way; ``None``: nothing."""
        return self.shape or (Shape(delay_ms=self.delay_ms) if self.delay_ms else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A network namespace. ``bridges``: device -> ports; ``routes`` as ``ip route add`` takes them."""

    name: str
    addresses: tuple[tuple[str, str], ...] = ()
    bridges: tuple[tuple[str, tuple[str, ...]], ...] = ()
    routes: tuple[str, ...] = ()
    forwards: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes and the links between them."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    def devices(self, node: str) -> list[str]:
        """The devices of links that end in a node."""
        return [port.device for link in self.links for port in (link.a, link.b) if port.node == node]


def paper_topology(
    delays: Delays | None = None,
    cloudlets: int = 3,
    *,
    bare_cells: int = 0,
    sharing_cells: int = 0,
    mtso_cloud: bool = False,
    shapes: Mapping[str, Shape] | None = None,
) -> Topology:
    """The paper's network, with a chain of ``cloudlets`` sites (three in the paper), then cells without any, and then
    cells that share the first site.

    ``shapes``: for the kinds of links that have more than a delay, by the name that :class:`Delays` has for them.
    """
    delays = delays or Delays()
    sites = range(1, cloudlets + 1)
    bare = range(cloudlets + 1, cloudlets + bare_cells + 1)
    sharing = range(cloudlets + bare_cells + 1, cloudlets + bare_cells + sharing_cells + 1)
    aggregated = (1, *sharing) if sharing else ()
    shape = (shapes or {}).get
    links: list[Link] = []
    for k in (*sites, *bare, *sharing):
        uu = Port("ue", f"uu{k}"), Port(f"enb{k}", "uu0")
        links.append(Link(f"uu{k}", *uu, delays.ue_enb, ACCESS_MTU, shape("ue_enb")))
    for k in bare:
        s1 = Port(f"enb{k}", "s1", (f"{enb_s1(k)}/24",)), Port("mtso", f"enb{k}")
        links.append(Link(f"s1-{k}", *s1, delays.enb_mtso, shape=shape("enb_mtso")))
    for k in aggregated:
        links.append(Link(f"s1-{k}", Port(f"enb{k}", "s1", (f"{enb_s1(k)}/24",)), Port(AGGREGATION, f"enb{k}")))
    if aggregated:
        links.append(Link("s1-agg", Port(AGGREGATION, "c1"), Port("c1", "enb")))
    for k in sites:
        if k not in aggregated:
            links.append(Link(f"s1-{k}", Port(f"enb{k}", "s1", (f"{enb_s1(k)}/24",)), Port(f"c{k}", "enb")))
        links += [
            Link(
                f"core-{k}",
                Port(f"c{k}", "core"),
                Port("mtso", f"c{k}"),
                delays.enb_mtso,
                shape=shape("enb_mtso"),
            ),
        ]
    links += [
        Link(
            f"isl-{k}",
            Port(f"c{k}", f"isl-c{k + 1}"),
            Port(f"c{k + 1}", f"isl-c{k}"),
            delays.enb_enb,
            shape=shape("enb_enb"),
        )
        for k in sites[:-1]
    ]
    core_s1 = Port("core", "s1", (f"{MME_S1}/24", f"{SGW_S1}/24", f"{OTHER_SGW_S1}/24"))
    if mtso_cloud:
        links += [
            Link("s1-cm", Port("mtso", "core"), Port("cm", "enb")),
            Link("core-cm", Port("cm", "core"), core_s1),
        ]
    else:
        links.append(Link("s1-core", Port("mtso", "core"), core_s1))
    cloudlet_numbers = (*sites, *([AT_MTSO] if mtso_cloud else []))
    names = tuple(cloudlet_name(k) for k in cloudlet_numbers)
    for k, name in zip(cloudlet_numbers, names, strict=True):
        links += [
            Link(f"gi-{name[1:]}", Port(name, "gi0"), Port(name, "gi1")),
            Link(f"pvm-{name[1:]}", Port(name, "pvm0"), Port(name, "pvm1"), mtu=ACCESS_MTU),
            Link(
                f"sgi-{name[1:]}",
                Port(name, "sgi"),
                Port("mtso", f"sgi{name[1:]}"),
                0 if k == AT_MTSO else delays.enb_mtso,
            ),
            Link(f"mgmt-{name[1:]}", Port(name, "mgmt0", (f"{cloudlet_mgmt(k)}/24",)), Port("mgmt", name)),
        ]
    links += [
        Link(
            "s5",
            Port("core", "s5", (f"{SGW_S5}/24", f"{OTHER_SGW_S5}/24")),
            Port("pgw", "s5", (f"{PGW_S5}/24",)),
            delays.sgw_pgw,
            shape=shape("sgw_pgw"),
        ),
        Link(
            "sgi",
            Port("pgw", "sgi", (f"{PGW_SGI}/24",)),
            Port("inet", "sgi", (f"{INTERNET_SGI}/24",)),
            delays.pgw_internet,
            shape=shape("pgw_internet"),
        ),
        Link("pvms", Port("mtso", "pgw"), Port("pgw", "pvms", (f"{PVM_NEXT_HOP}/16",)), delays.sgw_pgw),
        Link("mgmt-core", Port("core", "mgmt0", (f"{CORE_MGMT}/24",)), Port("mgmt", "core")),
    ]
    s1_ports = (*(f"c{k}" for k in sites), *(f"enb{k}" for k in bare), "core")
    sgi_ports = (*(f"sgi{name[1:]}" for name in names), "pgw")
    aggregation_ports = ("c1", *(f"enb{k}" for k in aggregated))
    aggregation = [Node(name=AGGREGATION, bridges=(("br-s1", aggregation_ports),))] if aggregated else []
    nodes = (
        Node(name="ue"),
        *(Node(name=f"enb{k}") for k in (*sites, *bare, *sharing)),
        *aggregation,
        *(Node(name=name) for name in names),
        Node(name="mtso", bridges=(("br-s1", s1_ports), ("br-sgi", sgi_ports))),
        Node(name="core", addresses=tuple(("lo", f"{end}/32") for end in (MME_S11, SGW_S11, OTHER_SGW_S11))),
        Node(name="pgw", routes=(f"default via {INTERNET_SGI}",), forwards=True),
        Node(name="inet", addresses=(("lo", f"{INTERNET_SERVER}/32"),), routes=(f"{UE_POOL} via {PGW_SGI}",)),
        Node(
            name="mgmt",
            addresses=(("br-mgmt", f"{BROKER_MGMT}/24"),),
            bridges=(("br-mgmt", (*names, "core")),),
        ),
    )
    return Topology(nodes, tuple(links))


@dataclass(slots=True)
class RunningTopology:
    """A topology made real, in namespaces called ``ms-RUN-NODE``; ``directory`` takes the delay node's files."""

    topology: Topology
    run: str
    directory: Path
    engine: Engine | None = None
    """Force an engine for the delays; by default netem where the kernel has it."""
    _delays: DelayLinks | None = field(default=None, init=False)
    _up: bool = field(default=False, init=False)

    @property
    def prefix(self) -> str:
        """What the names of this run's namespaces begin with."""
        return namespace_prefix(self.run)

    @property
    def delay_engine(self) -> Engine | None:
        """What makes the delays; ``None`` while the network is down."""
        return self._delays.engine if self._delays else None

    def namespace(self, node: str) -> str:
        """The namespace of a node."""
        return self.prefix + node

    def netns_path(self, node: str) -> Path:
        """The handle of a node's namespace."""
        return netns.path(self.namespace(node))

    async def up(self) -> None:
        """Build everything; harmless when it stands. Whatever goes wrong, nothing half-built is left."""
        if self._up:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            await self._remove_namespaces()
            await self._build()
        except BaseException:
            await asyncio.shield(self.down())
            raise
        self._up = True

    async def down(self) -> list[DirectionStats]:
        """Take everything down; harmless when it is down. Returns what the delay node counted."""
        self._up = False
        delays, self._delays = self._delays, None
        try:
            return await delays.stop() if delays else []
        finally:
            await self._remove_namespaces()

    async def cut(self, name: str, *, mend: bool = False) -> None:
        """Cut a link that runs through the delay node, or mend it: its ends keep addresses and routes.

        :raises AdapterError: no such link, or it has no delay
        """
        found = [link for link in self.topology.links if link.name == name and link.shaped is not None]
        if not found:
            raise AdapterError(f"there is no link {name!r} that runs through the delay node")
        state = "up" if mend else "down"
        lines = (f"link set {device} {state}" for device in _delay_devices(found[0]))
        await netns.ip_batch(lines, self.namespace(DELAY_NODE))

    async def _remove_namespaces(self) -> None:
        await netns.delete(await netns.existing(self.prefix))

    async def _build(self) -> None:
        await netns.create(self.namespace(name) for name in (*(node.name for node in self.topology.nodes), DELAY_NODE))
        await netns.ip_batch(line for link in self.topology.links for line in self._wires(link))
        await asyncio.gather(*(self._configure(node) for node in self.topology.nodes), self._configure_delays())
        # Routes need the far ends up.
        for node in self.topology.nodes:
            if node.routes:
                await netns.ip_batch((f"route add {route}" for route in node.routes), self.namespace(node.name))

    def _wires(self, link: Link) -> Iterator[str]:
        """The veth pairs of a link: one, or two that meet in the delay namespace."""
        ends = [(self.namespace(port.node), port.device) for port in (link.a, link.b)]
        macs = [netns.stable_mac(port.node, port.device) for port in (link.a, link.b)]
        if link.shaped is None:
            yield netns.veth(ends[0], ends[1], mtu=link.mtu, a_mac=macs[0], b_mac=macs[1])
            return
        inside = self.namespace(DELAY_NODE)
        for end, mac, device in zip(ends, macs, _delay_devices(link), strict=True):
            yield netns.veth(end, (inside, device), mtu=link.mtu, a_mac=mac)

    async def _configure(self, node: Node) -> None:
        devices = self.topology.devices(node.name)
        ports = [port for link in self.topology.links for port in (link.a, link.b) if port.node == node.name]
        lines: list[str] = []
        for bridge, members in node.bridges:
            lines.append(
                f"link add name {bridge} address {netns.stable_mac(node.name, bridge)} type bridge mcast_snooping 0"
            )
            lines += [f"link set {member} master {bridge}" for member in members]
            lines.append(f"link set {bridge} up")
        lines += [f"address add {address} dev {port.device}" for port in ports for address in port.addresses]
        lines += [f"address add {address} dev {device}" for device, address in node.addresses]
        lines += [f"link set {device} up" for device in devices]
        script = "set -e\n" + netns.offloads_off(devices)
        if node.forwards:
            script += "echo 1 > /proc/sys/net/ipv4/ip_forward\n"
        script += "ip -batch - <<'.'\n" + "\n".join(lines) + "\n.\n"
        await netns.run_in(self.namespace(node.name), "sh", stdin=script)

    async def _configure_delays(self) -> None:
        delayed = [(link, shape) for link in self.topology.links if (shape := link.shaped) is not None]
        namespace = self.namespace(DELAY_NODE)
        devices = [device for link, _ in delayed for device in _delay_devices(link)]
        script = "set -e\n" + netns.offloads_off(devices) + "".join(f"ip link set {device} up\n" for device in devices)
        await netns.run_in(namespace, "sh", stdin=script)
        links = [
            DelayLink(name=link.name, a=a, b=b, shape=shape)
            for link, shape, (a, b) in ((link, shape, _delay_devices(link)) for link, shape in delayed)
        ]
        self._delays = DelayLinks(namespace, links, self.directory)
        await self._delays.start(self.engine)


def namespace_prefix(run: str) -> str:
    """What the names of a run's namespaces begin with."""
    return f"ms-{run}-"


def _delay_devices(link: Link) -> tuple[str, str]:
    return f"{link.name}-a", f"{link.name}-b"
