"""Identifiers are types: range-checked at birth, scope in the docstring, printed as the contract prints them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, NewType, Self

from pydantic_core import CoreSchema, core_schema

UeKey = NewType("UeKey", str)
"""A UE, ours: ``ue-`` and 16 hex digits. Survives handover and idle, tells nobody the IMSI."""

CloudletId = NewType("CloudletId", str)
"""An edge site, as the operator names it in the configuration. Unique in one site."""

PvmId = NewType("PvmId", str)
"""A personal VM, as the operator names it. Unique in one site; the name of the libvirt domain."""

Cookie = NewType("Cookie", int)
"""64 bits that mark a flow as ours (OpenFlow 1.3, 7.3.4.1)."""


class BoundedInt(int):
    """An integer with a range that a subclass states: ``class Teid(BoundedInt, low=0, high=0xFFFF_FFFF)``.

    A subclass says ``__slots__ = ()``: there are hundreds of thousands of some, and a dictionary in each is never used.

    :raises ValueError: outside the range
    """

    __slots__ = ()
    low: ClassVar[int]
    high: ClassVar[int]

    def __init_subclass__(cls, *, low: int, high: int, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.low, cls.high = low, high

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Read and written as an integer, with the range checked."""
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema())

    def __new__(cls, value: int) -> Self:
        if not cls.low <= value <= cls.high:
            raise ValueError(f"{cls.__name__} {value} is outside {cls.low}..{cls.high}")
        return int.__new__(cls, value)


class MmeUeS1apId(BoundedInt, low=0, high=0xFFFF_FFFF):
    """TS 36.413 9.2.3.3. Unique inside one MME."""

    __slots__ = ()


class EnbUeS1apId(BoundedInt, low=0, high=0xFF_FFFF):
    """TS 36.413 9.2.3.4. Unique only inside one S1 association."""

    __slots__ = ()


class ERabId(BoundedInt, low=0, high=0xFFFF):
    """TS 36.413 9.2.1.2: 0..15, extensible; who extends it beyond 16 bits is not believed. Unique inside one UE."""

    __slots__ = ()


class EnbId(BoundedInt, low=0, high=0xFFF_FFFF):
    """TS 36.413 9.2.1.37: 18, 20, 21 or 28 bits. Unique inside one PLMN."""

    __slots__ = ()


class Teid(BoundedInt, low=0, high=0xFFFF_FFFF):
    """TS 29.281 5.1. Unique inside the address that owns it."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"0x{int(self):08x}"


class CellId(BoundedInt, low=0, high=0xFFF_FFFF):
    """E-UTRAN Cell Identity, 28 bits (TS 36.413 9.2.1.38). Unique inside one PLMN."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"0x{int(self):07x}"


class Tac(BoundedInt, low=0, high=0xFFFF):
    """Tracking Area Code, 16 bits (TS 36.413 9.2.3.7)."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"0x{int(self):04x}"


class DatapathId(BoundedInt, low=0, high=0xFFFF_FFFF_FFFF_FFFF):
    """An OpenFlow switch (OpenFlow 1.3, A.3.1)."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"0x{int(self):016x}"


class PortNo(BoundedInt, low=1, high=0xFFFF_FFFF):
    """A port of one OpenFlow switch (OpenFlow 1.3, A.2.1)."""

    __slots__ = ()


class TableId(BoundedInt, low=0, high=254):
    """A flow table of one OpenFlow switch."""

    __slots__ = ()


class Imsi(str):
    """The subscriber (TS 23.003 2.2), 6 to 15 digits. Never shown by ``repr``, so that no log can leak it."""

    __slots__ = ()
    _form: ClassVar[re.Pattern[str]] = re.compile(r"[0-9]{6,15}\Z")

    def __new__(cls, digits: str) -> Self:
        if not cls._form.match(digits):
            raise ValueError("an IMSI has 6 to 15 digits")
        return super().__new__(cls, digits)

    def __repr__(self) -> str:
        return "Imsi(redacted)"


@dataclass(frozen=True, slots=True, order=True)
class Plmn:
    """A network: mobile country and network code, decimal digits (TS 23.003 2.2)."""

    mcc: str
    mnc: str

    @classmethod
    def from_bytes(cls, octets: bytes) -> Self:
        """Read the three octets of TS 24.008 10.5.1.3; digits are not checked, what is not a digit shows as hex."""
        a, b, c = octets[0], octets[1], octets[2]
        mcc = f"{a & 15:x}{a >> 4:x}{b & 15:x}"
        mnc = f"{c & 15:x}{c >> 4:x}" + ("" if b >> 4 == 15 else f"{b >> 4:x}")
        return cls(mcc, mnc)

    def __str__(self) -> str:
        return f"{self.mcc}-{self.mnc}"


@dataclass(frozen=True, slots=True, order=True)
class Ecgi:
    """E-UTRAN Cell Global Identifier (TS 36.413 9.2.1.38)."""

    plmn: Plmn
    cell_id: CellId


@dataclass(frozen=True, slots=True, order=True)
class Tai:
    """Tracking Area Identity (TS 36.413 9.2.3.16)."""

    plmn: Plmn
    tac: Tac


@dataclass(frozen=True, slots=True, order=True)
class Gummei:
    """An MME, globally (TS 36.413 9.2.3.9)."""

    plmn: Plmn
    mme_group_id: int
    mme_code: int


@dataclass(frozen=True, slots=True, order=True)
class FTeid:
    """One end of a GTP-U tunnel: the address that receives, and the TEID it chose (TS 29.274 8.22)."""

    address: str
    teid: Teid
