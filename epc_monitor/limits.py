"""How much the monitor may remember, and for how long: whatever the wire does, it stays within these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond a number the oldest gives way and is counted; what is older than its age goes without a word.

    ``half_open``: S1 connections that serve nobody, be it not yet (anybody with a SIM card can open them) or no longer.
    ``transactions``: GTPv2 requests without an answer. ``waiting_octets``: messages of SCTP that wait for a fragment,
    or for an earlier message of their stream. ``fragments``: IP packets of which a part is missing.
    """

    ues: int = 200_000
    half_open: int = 50_000
    transactions: int = 50_000
    associations: int = 16_384
    waiting_octets: int = 64 << 20
    fragments: int = 256
    ue_age_s: int = 7 * 86_400
    half_open_age_s: int = 600
    transaction_age_s: int = 60
    fragment_age_s: int = 60
