"""From what is installed to what is desired, in the order that opens no gap. Pure.

Whatever a packet meets on its way must be there before the packet is sent there, and must stay until the last packet
has gone by. So: the far end first (encapsulation), then the flows, then the entrance (decapsulation); and the other
way round for what goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flows.rules import DecapRule, EncapRule, FlowRule, Rule

BUILD_ORDER: tuple[type[Rule], ...] = (EncapRule, FlowRule, DecapRule)


@dataclass(frozen=True, slots=True)
class PathPlan:
    """All adds in their order, then all deletes in theirs."""

    adds: tuple[Rule, ...]
    deletes: tuple[Rule, ...]


def diff(desired: Iterable[Rule], installed: Iterable[Rule]) -> PathPlan:
    """The difference. An add to an occupied slot replaces what is there, so that needs no delete."""
    desired, installed = frozenset(desired), frozenset(installed)
    occupied = {rule.slot for rule in desired}
    return PathPlan(
        adds=tuple(sorted(desired - installed, key=_build_order)),
        deletes=tuple(
            sorted((rule for rule in installed if rule.slot not in occupied), key=_build_order, reverse=True)
        ),
    )


def _build_order(rule: Rule) -> tuple[int, str]:
    return BUILD_ORDER.index(type(rule)), rule.id
