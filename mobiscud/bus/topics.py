"""The topics of the contract, in one place."""

from __future__ import annotations

from typing import Final

from mobiscud.core.events import Event, UeEvent
from mobiscud.core.ids import UeKey

ROOT: Final = "mobiscud/v1"
ALL_UE_EVENTS: Final = f"{ROOT}/ue/+/+"
ALL_EVENTS: Final = (ALL_UE_EVENTS, f"{ROOT}/site/+/event/+")
STATE: Final = "state"
ALL_STATES: Final = f"{ROOT}/ue/+/{STATE}"
ALL_UE_STATES: Final = f"{ROOT}/ue/+/{STATE}"


def ue_state(ue: UeKey) -> str:
    """Where the UE's state is retained."""
    return f"{ROOT}/ue/{ue}/{STATE}"


def enb_state(site: str, association: str) -> str:
    """Where an S1 association's state is retained."""
    return f"{ROOT}/site/{site}/enb/{association}/{STATE}"


def of_event(event: Event, site: str) -> str:
    """Where an event goes: below its UE, or below the site when it concerns none."""
    ue = getattr(event, "ue", None)
    return f"{ROOT}/ue/{ue}/{event.TYPE}" if ue else f"{ROOT}/site/{site}/event/{event.TYPE}"


def of_type(kind: type[Event]) -> str:
    """The filter for all events of a type, of every UE or site."""
    return f"{ROOT}/ue/+/{kind.TYPE}" if issubclass(kind, UeEvent) else f"{ROOT}/site/+/event/{kind.TYPE}"


def health(site: str, node: str) -> str:
    """Where a node's health is retained."""
    return f"{ROOT}/site/{site}/{node}/health"


def request(site: str, node: str, name: str) -> str:
    """Where a node takes requests; ``name`` may be ``+``."""
    return f"{ROOT}/site/{site}/{node}/request/{name}"


def reply(site: str, node: str) -> str:
    """Where a node waits for answers."""
    return f"{ROOT}/site/{site}/{node}/reply"
