"""The configuration of the emulated RAN and EPC, one JSON file each, parsed strictly.

Namespaces, devices and addresses must exist already; what the processes add are the UE's addresses and routes and the
P-GW's TUN device. Numbers may be written as hexadecimal strings (``"0x19b"``).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mobiscud.core.errors import ConfigError
from mobiscud.core.ids import CellId, Ecgi, Plmn, Tac, Tai


def _number(value: object) -> object:
    return int(value, 0) if isinstance(value, str) else value


Digits = Annotated[str, Field(pattern=r"^[0-9]+$")]
MacroEnbId = Annotated[int, BeforeValidator(_number), Field(ge=0, le=0xF_FFFF)]
CellNumber = Annotated[int, BeforeValidator(_number), Field(ge=0, le=0xFFF_FFFF)]
TacNumber = Annotated[int, BeforeValidator(_number), Field(ge=0, le=0xFFFF)]


class _Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlmnConfig(_Strict):
    """The network; 999-70 is Open5GS's test network."""

    mcc: Annotated[Digits, Field(min_length=3, max_length=3)] = "999"
    mnc: Annotated[Digits, Field(min_length=2, max_length=3)] = "70"

    @property
    def plmn(self) -> Plmn:
        """As the rest of the code knows it."""
        return Plmn(self.mcc, self.mnc)


class EnbConfig(_Strict):
    """One eNodeB with one cell."""

    number: Annotated[int, Field(ge=1, le=99)]
    """By which the control socket calls it."""
    namespace: str
    address: IPv4Address
    """S1-MME and S1-U, as in real eNodeBs."""
    enb_id: MacroEnbId
    cell_id: CellNumber
    tac: TacNumber = 1
    radio_device: str = "uu0"
    """Here, towards the UE."""
    ue_device: str
    """In the UE's namespace, towards this eNodeB."""

    def ecgi(self, plmn: Plmn) -> Ecgi:
        """The cell, globally."""
        return Ecgi(plmn, CellId(self.cell_id))

    def tai(self, plmn: Plmn) -> Tai:
        """The tracking area, globally."""
        return Tai(plmn, Tac(self.tac))


class UeConfig(_Strict):
    """One subscriber."""

    name: str
    imsi: Annotated[Digits, Field(min_length=6, max_length=15)]


class RanConfig(_Strict):
    """``python -m testbed.ran CONFIG.json``."""

    plmn: PlmnConfig = PlmnConfig()
    control_socket: Path
    mme_address: IPv4Address
    ue_namespace: str
    connect_limit_s: Annotated[float, Field(gt=0)] = 10.0
    """How long the MME may take to answer."""
    ue_mtu: Annotated[int, Field(ge=576, le=9000)] = 1400
    uu_delay_s: Annotated[float, Field(ge=0)] = 0.004
    """One way between UE and eNodeB, as the radio link's delay node has it; here for the RRC messages."""
    x2_delay_s: Annotated[float, Field(ge=0)] = 0.002
    """One way between eNodeBs, for X2 messages, which are not on the wire."""
    interruption_s: Annotated[float, Field(ge=0)] = 0.01
    """Between leaving a cell and being heard in the next: synchronisation and random access (TR 36.881 5.2.2)."""
    forwarding: Literal["direct", "indirect", "none"] = "direct"
    """How S1 handovers forward downlink: from eNodeB to eNodeB, over the S-GW, or not. X2 ones forward directly."""
    enbs: Annotated[list[EnbConfig], Field(min_length=1)]
    ues: Annotated[list[UeConfig], Field(min_length=1)]


class MmeConfig(_Strict):
    """The MME's addresses and identity."""

    s1_address: IPv4Address
    s11_address: IPv4Address
    name: str = "testbed-mme"
    group_id: Annotated[int, Field(ge=0, le=0xFFFF)] = 2
    code: Annotated[int, Field(ge=0, le=0xFF)] = 1
    source_release_delay_s: Annotated[float, Field(ge=0)] = 0.3
    """From Handover Notify to the release at the source, in which it may still forward data."""


class SgwConfig(_Strict):
    """The S-GW's addresses."""

    s1u_address: IPv4Address
    s11_address: IPv4Address
    s5_address: IPv4Address


class PgwConfig(_Strict):
    """The P-GW, in its own namespace; UE addresses come from the pool, whose first host is the TUN device's."""

    namespace: str
    s5_address: IPv4Address
    pool: IPv4Network = IPv4Network("45.45.0.0/16")
    tun_device: str = "tun-pgw"


class EpcConfig(_Strict):
    """``python -m testbed.epc CONFIG.json``."""

    plmn: PlmnConfig = PlmnConfig()
    namespace: str
    """Of MME and S-GW."""
    mme: MmeConfig
    sgw: SgwConfig
    other_sgw: SgwConfig | None = None
    """A second S-GW, in the same namespace."""
    other_sgw_enbs: list[MacroEnbId] = []
    """Whose area these eNodeBs are (TS 23.401 5.5.1.1.3): a UE that comes there by X2 has it from then on."""
    pgw: PgwConfig
    apn: str = "internet"
    subscribers: list[Annotated[Digits, Field(min_length=6, max_length=15)]]


_Config = TypeVar("_Config", RanConfig, EpcConfig)


def load(model: type[_Config], file: Path) -> _Config:
    """Read a configuration file.

    :raises ConfigError: naming each wrong key, or why the file cannot be read
    """
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, entry['loc'])) or file}: {entry['msg']}" for entry in error.errors()]
        raise ConfigError(problems) from error
