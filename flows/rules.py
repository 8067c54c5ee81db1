"""Rules are data: what the switch and the datapath program shall do, and which slot each rule occupies.

Ports are named, not numbered: the channel knows the numbers of the switch it speaks to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from mobiscud.core.edge import DownlinkTunnel, FlowFilter, UplinkTunnel
from mobiscud.core.ids import Cookie, FTeid, TableId, UeKey

OWNER = 0x4D53  # "MS": the upper 16 bits of every cookie of ours
OWNER_SHIFT = 48
OURS = Cookie(OWNER << OWNER_SHIFT)
OURS_MASK = Cookie(0xFFFF << OWNER_SHIFT)


ANY_DSCP = -1


def ue_cookie(ue: UeKey) -> Cookie:
    """The cookie of all flows of one UE: ours, and never that of the static flows (zero below the owner)."""
    digest = int.from_bytes(sha256(ue.encode()).digest()[:6])
    return Cookie(OURS | (digest or 1))


class EtherType(IntEnum):
    """What follows the Ethernet header."""

    IPV4 = 0x0800
    ARP = 0x0806
    IPV6 = 0x86DD


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """What a packet must look like; an empty field matches anything.

    ``arp_target`` makes it an ARP request for that address, ``arp_sender`` an ARP answer by that one. ``ip_src`` and
    ``ip_dst`` are of the version that ``eth_type`` says, with a prefix length where not all bits count. ``l4_src`` and
    ``l4_dst`` are ports of ``ip_proto``, which of them there are; ``dscp`` is ANY_DSCP where any is meant.
    """

    in_port: str = ""
    eth_type: int = 0
    eth_dst: str = ""
    ip_src: str = ""
    ip_dst: str = ""
    arp_target: str = ""
    eth_src: str = ""
    arp_sender: str = ""
    dscp: int = ANY_DSCP
    ip_proto: int = 0
    l4_src: int = 0
    l4_dst: int = 0


@dataclass(frozen=True, slots=True)
class SetEthernet:
    """Give the frame these addresses; an empty source stays as it is."""

    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class DecrementTtl:
    """Count one hop; a packet whose time is up is dropped, so that no two cloudlets can play ping-pong with it."""


@dataclass(frozen=True, slots=True)
class Output:
    """Send the frame out of this port. Does nothing if it came in there (OpenFlow 1.3, 7.2.5)."""

    port: str


@dataclass(frozen=True, slots=True)
class OutputBack:
    """Send the frame out of the port it came in by."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Hand a copy of the frame to the controller."""


@dataclass(frozen=True, slots=True)
class AnswerArp:
    """Turn the ARP request into the answer that ``address`` is at ``mac`` (RFC 826), without sending it."""

    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on in a later table."""

    table: TableId


Action = SetEthernet | DecrementTtl | Output | OutputBack | Tell | AnswerArp | Goto


@dataclass(frozen=True, slots=True)
class FlowRule:
    """One OpenFlow flow. No actions: what matches is dropped. The name is for people; the switch does not know it."""

    cookie: Cookie
    name: str = field(compare=False)
    table: TableId
    priority: int
    match: Match
    actions: tuple[Action, ...] = ()

    @property
    def slot(self) -> tuple[TableId, int, Match]:
        """A switch holds one flow a slot; an add to an occupied one replaces it."""
        return self.table, self.priority, self.match

    @property
    def id(self) -> str:
        """Names the rule in events and errors; the cookie leads to it in a dump of the switch."""
        return f"{self.cookie:016x}/{self.name}"


@dataclass(frozen=True, slots=True)
class DecapRule:
    """Packets of this tunnel from the UE to its personal VM leave the tunnel; an entry of the map ``uplink``.

    An IPv6 address of a UE stands for its /64 (the rest of it is zero). ``flows``: only these; none named: all.
    ``names``: the traffic rule that each flow is of, for accounts; none: of none.
    """

    cookie: Cookie
    tunnel: UplinkTunnel
    pvm_address: str
    ue_address: str
    flows: tuple[FlowFilter, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def bearer(self) -> FTeid:
        """The S-GW's end of the bearer."""
        return self.tunnel.sgw

    @property
    def slot(self) -> tuple[UplinkTunnel, str]:
        """The key of the map entry."""
        return self.tunnel, self.pvm_address

    @property
    def id(self) -> str:
        """Names the rule in events and errors. TEIDs are the S-GW's: unique there, so both ends are named."""
        sgw = self.tunnel.sgw
        family = _family(self.ue_address)
        return f"{self.cookie:016x}/decap{family}/{self.tunnel.enb_address}/{sgw.address}/{sgw.teid}"


@dataclass(frozen=True, slots=True)
class EncapRule:
    """Packets from the personal VM to the UE enter this tunnel; an entry of the map ``downlink``. Else as uplink."""

    cookie: Cookie
    ue_address: str
    pvm_address: str
    tunnel: DownlinkTunnel
    flows: tuple[FlowFilter, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def bearer(self) -> FTeid:
        """The S-GW's end of the bearer."""
        return FTeid(self.tunnel.sgw_address, self.tunnel.bearer)

    @property
    def slot(self) -> tuple[str, str]:
        """The key of the map entry."""
        return self.ue_address, self.pvm_address

    @property
    def id(self) -> str:
        """Names the rule in events and errors."""
        enb = self.tunnel.enb
        return f"{self.cookie:016x}/encap{_family(self.ue_address)}/{enb.address}/{enb.teid}"


def _family(address: str) -> str:
    return "6" if ":" in address else ""


MapRule = DecapRule | EncapRule
Rule = FlowRule | MapRule
Slot = tuple[object, ...]
