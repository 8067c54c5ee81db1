"""Usage: what bypassed the P-GW, of one bearer under one rule, at one cloudlet."""

from __future__ import annotations

from dataclasses import dataclass

from mobiscud.core.ids import FTeid, UeKey


@dataclass(frozen=True, slots=True)
class UsageOf:
    """What is counted in one: the bearer is named by the S-GW's end of it, which persists over handovers.

    ``rule``: the id of the traffic rule; empty where the configuration has none.
    """

    ue: UeKey
    bearer: FTeid
    rule: str


@dataclass(frozen=True, slots=True)
class Carried:
    """Inner packets, and the bytes of them."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What was carried from ``since`` (ns since the epoch) until now. It only grows, until it has ``ended``.

    ``number`` is its own while it lasts; with ``since`` it is for ever.
    """

    number: int
    about: UsageOf
    since: int
    uplink: Carried
    downlink: Carried
    ended: bool
