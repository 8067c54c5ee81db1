"""The life of an S1 connection as a table: where it is, what was said, where it is then.

A pair that is not listed cannot follow from what was seen. Messages that do not move a leg are not in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from epc_monitor.s1ap.types import MessageType as M
from epc_monitor.ue_tracker.state import Leg, S1Connection

TRANSITIONS: Final[Mapping[tuple[Leg, int], Leg]] = {
    (Leg.OPEN, M.INITIAL_CONTEXT_SETUP_REQUEST): Leg.SETTING_UP,
    (Leg.SETTING_UP, M.INITIAL_CONTEXT_SETUP_RESPONSE): Leg.CONNECTED,
    (Leg.SETTING_UP, M.INITIAL_CONTEXT_SETUP_FAILURE): Leg.OPEN,
    (Leg.CONNECTED, M.HANDOVER_REQUIRED): Leg.PREPARING,
    (Leg.PREPARING, M.HANDOVER_PREPARATION_FAILURE): Leg.CONNECTED,
    (Leg.PREPARING, M.HANDOVER_COMMAND): Leg.LEAVING,
    (Leg.PREPARING, M.HANDOVER_CANCEL): Leg.CANCELLING,
    (Leg.LEAVING, M.HANDOVER_CANCEL): Leg.CANCELLING,
    # The MME's answer to the preparation may cross the cancellation on its way.
    (Leg.CANCELLING, M.HANDOVER_COMMAND): Leg.CANCELLING,
    (Leg.CANCELLING, M.HANDOVER_PREPARATION_FAILURE): Leg.CANCELLING,
    (Leg.CANCELLING, M.HANDOVER_CANCEL_ACKNOWLEDGE): Leg.CONNECTED,
    (Leg.ADMITTING, M.HANDOVER_REQUEST_ACKNOWLEDGE): Leg.ADMITTED,
    (Leg.ADMITTING, M.HANDOVER_FAILURE): Leg.OPEN,
    (Leg.ADMITTED, M.HANDOVER_NOTIFY): Leg.CONNECTED,
    (Leg.ARRIVING, M.PATH_SWITCH_REQUEST_ACKNOWLEDGE): Leg.CONNECTED,
    (Leg.ARRIVING, M.PATH_SWITCH_REQUEST_FAILURE): Leg.OPEN,
}

_AFTER: Final[Mapping[int, Leg]] = {message: after for (_, message), after in TRANSITIONS.items()}


def step(connection: S1Connection, message: int) -> bool:
    """Move a leg on; whether that message could follow. It is obeyed in any case: the wire is right, not we."""
    after = TRANSITIONS.get((connection.state, message))
    expected = after is not None or connection.state is Leg.OVERHEARD
    connection.state = after or _AFTER[message]
    return expected
