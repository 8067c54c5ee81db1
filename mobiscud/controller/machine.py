"""What the controller of one cloudlet does for one UE: a table of phases and inputs.

The names of the phases say what *this* cloudlet is to the UE. ``step`` is pure: a record and an input in, a record
and commands out. A pair that is not in the table changes nothing; the service counts it.

A handover from here (c1) to c2, seen from both sides::

    c1  SERVING  --DetourAsked-->  SERVING  --HandoverDone-->  LENDING  --MoveAsked-->  PUSHING  --MoveSucceeded--> AWAY
    c2  AWAY --HandoverExpected--> PREPARED --HandoverDone--> DETOURED --MoveDue--> PULLING  --MovedHere-->  SERVING

The target leads: it makes its own rules stand, tells the source (``AskDetour``), and asks for the PVM when the
policy wants it (``Consult``, ``AskMove``). The source flips the downlink when the UE has arrived, and not before it
knows that the target is ready (paper, figures 3 and 4). While the PVM starts or moves, where the UE goes is only
noted; once it is certain where the PVM is, ``settle`` and ``unsettle`` (``roles.places``) find the phase that fits.

The policy may want the PVM as soon as the handover is prepared: c2 then pulls while the UE is still at c1, which
serves it on over the link once the guest has left. When the handover is called off, c1 aborts; too late for that,
and c1 is where the UE is and the PVM is not, and consults the policy as any other.

Every controller hears of every UE, so all agree that the PVM of a UE that nobody has is started where it arrives.

The rows of each phase stand with the role that it belongs to, in ``roles``; all of them together, and drawn, in
``docs/controller.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mobiscud.controller.inputs import HaltedThere, Input, MovedHere, PvmGone, PvmKept, PvmSeen, StaysThere
from mobiscud.controller.record import Phase, UeRecord, replace
from mobiscud.controller.roles import away, source, target, waiting
from mobiscud.controller.roles.places import Result, Rows, Step
from mobiscud.core.commands import SetPath

_ROWS: Final[Mapping[Phase, Rows]] = {
    Phase.AWAY: away.AWAY,
    Phase.STARTING: waiting.STARTING,
    Phase.SERVING: source.SERVING,
    Phase.PREPARED: target.PREPARED,
    Phase.DETOURED: target.DETOURED,
    Phase.PULLING: target.PULLING,
    Phase.LENDING: source.LENDING,
    Phase.PUSHING: source.PUSHING,
    Phase.PARKED: waiting.PARKED,
    Phase.DORMANT: waiting.DORMANT,
}

TRANSITIONS: Final[Mapping[tuple[Phase, type[Input]], Step]] = {
    (phase, happened): row for phase, rows in _ROWS.items() for happened, row in rows.items()
}

_OF_THE_LEDGER: Final = (PvmSeen, PvmGone, PvmKept, MovedHere, HaltedThere, StaysThere)
"""The inputs that tell since when something is so; what is told of an earlier epoch than ours is over."""


def step(record: UeRecord, happened: Input) -> Result | None:
    """Carry the record over one input. None: nothing changes.

    What the table has no row for may still be news of the ledger.
    """
    row = TRANSITIONS.get((record.phase, type(happened)))
    told = happened.epoch if isinstance(happened, _OF_THE_LEDGER) else 0
    if row is None:
        return (replace(record, epoch=told), ()) if told > record.epoch else None
    if 0 < told < record.epoch:
        return None  # of a migration that has ended, by one who slept through a change, or late
    known = max(record.epoch, told)
    record, commands = row(record if record.epoch == known else replace(record, epoch=known), happened)
    if record.epoch < known:  # a record that begins anew: owners are counted for ever
        record = replace(record, epoch=known)
    if record.doubtful:  # no packet to a copy that may be the wrong one
        commands = tuple(c for c in commands if not (isinstance(c, SetPath) and c.path is not None))
    return record, commands
