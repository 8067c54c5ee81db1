"""From octets on the wire to the types of the core. Results are kept, since cells and nodes are few and come again."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from epc_monitor.s1ap.types import GlobalEnbId, ServedGummeis, Tunnel
from mobiscud.core.ids import CellId, Ecgi, EnbId, ERabId, FTeid, Gummei, Plmn, Tac, Tai, Teid
from mobiscud.core.ue import Enb


@lru_cache(4096)
def address(packed: bytes) -> str:
    """An IP address in its usual writing; of IPv4 followed by IPv6 (TS 36.414 5.3) the IPv4 one."""
    if len(packed) == 16:
        return str(IPv6Address(packed))
    return ".".join(map(str, packed[:4]))


@lru_cache(1024)
def plmn(octets: bytes) -> Plmn:
    return Plmn.from_bytes(octets)


@lru_cache(8192)
def tai(octets: bytes) -> Tai:
    """PLMN and TAC, 5 octets."""
    return Tai(plmn(octets[:3]), Tac(octets[3] << 8 | octets[4]))


@lru_cache(8192)
def ecgi(octets: bytes) -> Ecgi:
    """PLMN and cell identity in the upper 28 of 32 bits, 7 octets."""
    return Ecgi(plmn(octets[:3]), CellId(int.from_bytes(octets[3:7], "big") >> 4))


@lru_cache(256)
def e_rab_id(number: int) -> ERabId:
    return ERabId(number)


@lru_cache(8192)
def f_teid(packed: bytes, teid: int) -> FTeid:
    return FTeid(address(packed), Teid(teid))


def packed(address: bytes, teid: int) -> bytes:
    """An F-TEID in as few octets as there are: the address, and 4 of TEID."""
    return address + teid.to_bytes(4, "big")


def unpacked(f_teid_octets: bytes) -> FTeid:
    """The reverse of :func:`packed`."""
    return f_teid(f_teid_octets[:-4], int.from_bytes(f_teid_octets[-4:], "big"))


def plmn_octets(value: Plmn) -> bytes:
    """The reverse of :func:`plmn`.

    :raises ValueError: no PLMN is like this
    """
    mcc, mnc = value.mcc, value.mnc
    if len(mcc) != 3 or len(mnc) not in (2, 3):
        raise ValueError("a PLMN that does not exist")
    return bytes.fromhex(f"{mcc[1]}{mcc[0]}{mnc[2:] or 'f'}{mcc[2]}{mnc[1]}{mnc[0]}")


def gummei_octets(value: Gummei) -> bytes:
    """The reverse of :func:`gummei`.

    :raises ValueError: no MME is called like this
    """
    if not (0 <= value.mme_group_id <= 0xFFFF and 0 <= value.mme_code <= 0xFF):
        raise ValueError("a GUMMEI that does not exist")
    return plmn_octets(value.plmn) + value.mme_group_id.to_bytes(2, "big") + value.mme_code.to_bytes(1, "big")


def tai_octets(value: Tai) -> bytes:
    """The reverse of :func:`tai`."""
    return plmn_octets(value.plmn) + value.tac.to_bytes(2, "big")


def ecgi_octets(value: Ecgi) -> bytes:
    """The reverse of :func:`ecgi`."""
    return plmn_octets(value.plmn) + (value.cell_id << 4).to_bytes(4, "big")


def address_octets(written: str) -> bytes:
    """The reverse of :func:`address`.

    :raises ValueError: it is no address
    """
    return ip_address(written).packed


def tunnel(raw: Tunnel) -> FTeid:
    """The F-TEID of S1AP."""
    return f_teid(raw.address, raw.teid)


def enb(identity: GlobalEnbId | None, packed_address: bytes | None) -> Enb:
    where = None if packed_address is None else address(packed_address)
    if identity is None:
        return Enb(None, None, where)
    return Enb(plmn(identity.plmn), EnbId(identity.value), where)


@lru_cache(1024)
def gummei(octets: bytes) -> Gummei:
    """PLMN, MME group and MME code, 6 octets."""
    return Gummei(plmn(octets[:3]), octets[3] << 8 | octets[4], octets[5])


def gummeis(served: tuple[ServedGummeis, ...], limit: int = 256) -> tuple[bytes, ...]:
    """Every combination that is served, 6 octets each, the first ``limit`` of them."""
    found: list[bytes] = []
    for entry in served:
        for octets in entry.plmns:
            for group_id in entry.group_ids:
                for code in entry.codes:
                    if len(found) == limit:
                        return tuple(found)
                    found.append(octets + group_id.to_bytes(2, "big") + bytes((code,)))
    return tuple(found)
