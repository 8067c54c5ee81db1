"""What can go wrong with a personal VM."""

from __future__ import annotations

from migration.verdict import Whereabouts
from mobiscud.core.errors import AdapterError, MoveError


class HypervisorLostError(AdapterError):
    """The connection to the hypervisor is gone: its guests may well run on."""


class SavedImageError(AdapterError):
    """What was saved of a PVM's memory is of no use, and gone: it can only begin anew."""


class MigrationError(MoveError):
    """A migration did not happen.

    ``whereabouts`` says what is known about the guest: unless it is ``source``, let no packet through to either side
    before both were asked. ``aborted`` tells a migration that was called off from one that broke.
    """

    def __init__(self, reason: str, whereabouts: Whereabouts, *, aborted: bool = False) -> None:
        super().__init__(f"{reason} (guest: {whereabouts})")
        self.reason = reason
        self.whereabouts = whereabouts
        self.aborted = aborted
        self.stayed = whereabouts is Whereabouts.SOURCE
