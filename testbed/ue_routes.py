"""The UE's radio as the kernel sees it: addresses, and routes that follow the serving cell (rtnetlink, rtnetlink(7)).

Each UE has its own routing table, chosen by its source address, so that several UEs share one namespace and still sit
at different cells. The main table's default route follows the first UE, for programs that bind no address.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from typing import Final

from mobiscud.core.errors import SetupError
from testbed.netns_socket import device_index, mac_address, socket_in, write_sysctl

RADIO_GATEWAY: Final = "169.254.0.1"
"""The next hop at every cell: an address nobody has, with a permanent neighbour entry, so that nothing asks by ARP."""

_NEW_LINK, _NEW_ADDRESS, _DEL_ADDRESS = 16, 20, 21
_NEW_ROUTE, _DEL_ROUTE, _NEW_NEIGHBOUR = 24, 25, 28
_NEW_RULE, _DEL_RULE = 32, 33

_REQUEST_ACK: Final = 0x5
_CREATE: Final = 0x400
_REPLACE: Final = 0x100

_MAIN_TABLE: Final = 254
_FIRST_TABLE: Final = 1000
_FIRST_PRIORITY: Final = 1000


class UeRoutes:
    """Addresses and routes in the UE's namespace. Each call has taken effect when it returns."""

    def __init__(self, namespace: str, radios: dict[str, tuple[str, str]], mtu: int) -> None:
        """``radios``: for each device here, namespace and device at the far end, the eNodeB's."""
        self._socket = socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._sequence = 0
        self._mtu = mtu
        self._loopback = device_index(namespace, "lo")
        self._devices = {device: device_index(namespace, device) for device in radios}
        self._set_up(self._loopback)
        write_sysctl(namespace, "ipv4/conf/all/rp_filter", "0")
        for device, far_end in radios.items():
            # Downlink may come by the old cell while uplink already leaves by the new one.
            write_sysctl(namespace, f"ipv4/conf/{device}/rp_filter", "0")
            self._set_up(self._devices[device])
            self._add_neighbour(self._devices[device], mac_address(*far_end))

    def add_address(self, address: str, ue: int) -> None:
        """Give UE number ``ue`` (from 0) its address."""
        self._address(_NEW_ADDRESS, _CREATE | _REPLACE, address)
        self._rule(_NEW_RULE, _CREATE, address, ue)

    def remove_address(self, address: str, ue: int) -> None:
        """Take the address away, with its routes."""
        self._rule(_DEL_RULE, 0, address, ue)
        self._forget_routes(ue)
        self._address(_DEL_ADDRESS, 0, address)

    def camp_on(self, device: str, address: str, ue: int) -> None:
        """Send what the UE sends through this radio device from now on."""
        for table in self._tables(ue):
            self._route(table, self._devices[device], address)

    def close(self) -> None:
        """Close the socket; what was set stays until the namespace goes."""
        self._socket.close()

    @staticmethod
    def _tables(ue: int) -> list[int]:
        return [_FIRST_TABLE + ue, *([_MAIN_TABLE] if ue == 0 else [])]

    def _set_up(self, index: int) -> None:
        self._ask(_NEW_LINK, 0, struct.pack("BxHiII", socket.AF_UNSPEC, 0, index, 1, 1))

    def _add_neighbour(self, index: int, mac: bytes) -> None:
        permanent = 0x80
        head = struct.pack("BxxxiHBB", socket.AF_INET, index, permanent, 0, 0)
        self._ask(_NEW_NEIGHBOUR, _CREATE | _REPLACE, head + _attribute(1, _packed(RADIO_GATEWAY)) + _attribute(2, mac))

    def _address(self, kind: int, flags: int, address: str) -> None:
        head = struct.pack("BBBBi", socket.AF_INET, 32, 0, 0, self._loopback)
        self._ask(kind, flags, head + _attribute(1, _packed(address)) + _attribute(2, _packed(address)))

    def _rule(self, kind: int, flags: int, address: str, ue: int) -> None:
        to_table = 1
        head = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 32, 0, 0, 0, 0, to_table, 0)
        body = (
            _attribute(2, _packed(address))
            + _attribute(6, struct.pack("I", _FIRST_PRIORITY + ue))
            + _attribute(15, struct.pack("I", _FIRST_TABLE + ue))
        )
        self._ask(kind, flags, head + body)

    def _route(self, table: int, index: int, source: str) -> None:
        static, universe, unicast, on_link = 4, 0, 1, 4
        head = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, static, universe, unicast, on_link)
        body = (
            _attribute(15, struct.pack("I", table))
            + _attribute(4, struct.pack("i", index))
            + _attribute(5, _packed(RADIO_GATEWAY))
            + _attribute(7, _packed(source))
            + _attribute(8, _attribute(2, struct.pack("I", self._mtu)))
        )
        self._ask(_NEW_ROUTE, _CREATE | _REPLACE, head + body)

    def _forget_routes(self, ue: int) -> None:
        """Empty the UE's own table; from the main one the kernel takes what prefers an address that goes."""
        head = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        self._ask(_DEL_ROUTE, 0, head + _attribute(15, struct.pack("I", _FIRST_TABLE + ue)))

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        """Send one request; rtnetlink has answered by the time the send returns."""
        self._sequence += 1
        head = struct.pack("IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, self._sequence, 0)
        self._socket.send(head + body)
        answer = self._socket.recv(65_535)
        (code,) = struct.unpack_from("i", answer, 16)
        if code:
            raise SetupError(f"route set-up of the UE (rtnetlink {kind}): {os.strerror(-code)}")


def _packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
