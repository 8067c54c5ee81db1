"""What was carried of each bearer under each rule: the accounts in the memory that the program shares with us.

An account is opened when the first map entry refers to it, and ends some time after the last has gone (a packet may
still be on its way through the program). It is then read once more, and stays until whoever reads it has ``settled``
it. All that is known of an account lies in that memory, so that a process that starts anew goes on with it. No I/O.
"""

from __future__ import annotations

import struct
from collections import Counter as Multiset
from collections import deque
from collections.abc import Iterable, Sequence
from mmap import mmap
from typing import Final

from flows.gtp_datapath.addresses import packed, shown
from flows.rules import Slot
from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import FTeid, Teid, UeKey
from mobiscud.core.usage import Carried, Usage, UsageOf

ACCOUNT: Final = struct.Struct("=2Q2QQ24s32s16s4s4x")  # struct account
SINCE: Final = struct.Struct("=Q")
SINCE_OFFSET: Final = 32
MAX_ACCOUNTS: Final = 131_072
LAST_PACKET_S: Final = 1.0
"""How long after its last entry an account may still grow."""
NONE: Final = 0


class Accounts:
    """``memory`` is that of the map ``accounts``, or like it."""

    def __init__(self, memory: mmap | bytearray) -> None:
        self._memory = memory
        self._open: dict[UsageOf, int] = {}
        self._about: dict[int, UsageOf] = {}
        self._of_slot: dict[Slot, tuple[int, ...]] = {}
        self._users: Multiset[int] = Multiset()
        self._unused: dict[int, float] = {}
        self._free: deque[int] = deque()
        self._next = NONE + 1
        self._find()

    def _find(self) -> None:
        """What another process has left."""
        size = len(self._memory) // ACCOUNT.size
        newest: dict[UsageOf, int] = {}
        for number in range(1, size):
            (since,) = SINCE.unpack_from(self._memory, number * ACCOUNT.size + SINCE_OFFSET)
            if since:
                *_, ue, rule, sgw, teid = ACCOUNT.unpack_from(self._memory, number * ACCOUNT.size)
                bearer = FTeid(shown(sgw), Teid(int.from_bytes(teid)))
                about = UsageOf(UeKey(_text(ue)), bearer, _text(rule))
                self._about[number] = about
                if since >= newest.get(about, 0):  # of two, the older had ended
                    newest[about], self._open[about] = since, number
                self._unused[number] = 0.0
                self._next = number + 1
        self._free.extend(number for number in range(1, self._next) if number not in self._about)

    def rule_of(self, number: int) -> str:
        """The rule that an account is of; empty where it is of none."""
        return self._about[number].rule if number in self._about else ""

    def take(self, slot: Slot, about: Sequence[UsageOf | None], *, now: float, at: int) -> tuple[int, ...]:
        """The accounts for the entry that is about to be written into a slot, one for each; none for None.

        ``now``: of a clock that never jumps, in seconds; ``at``: ns since the epoch.

        :raises AdapterError: there are more than the datapath holds
        """
        numbers = tuple(NONE if one is None else self._number(one, at) for one in about)
        self.hold(slot, numbers, now=now)
        return numbers

    def hold(self, slot: Slot, numbers: tuple[int, ...], *, now: float) -> None:
        """The entry in a slot refers to these, and no longer to others."""
        for number in numbers:
            self._users[number] += 1
            self._unused.pop(number, None)
        self.leave(slot, now=now)
        self._of_slot[slot] = numbers

    def leave(self, slot: Slot, *, now: float) -> None:
        """The entry in a slot is gone."""
        for number in self._of_slot.pop(slot, ()):
            self._users[number] -= 1
            if number != NONE and not self._users[number]:
                del self._users[number]
                self._unused[number] = now

    def _number(self, about: UsageOf, at: int) -> int:
        number = self._open.get(about)
        if number is None:
            number = self._open[about] = self._unoccupied()
            self._about[number] = about
            ue, rule = about.ue.encode(), about.rule.encode()
            sgw, teid = packed(about.bearer.address), about.bearer.teid.to_bytes(4)
            ACCOUNT.pack_into(self._memory, number * ACCOUNT.size, 0, 0, 0, 0, at, ue, rule, sgw, teid)
        return number

    def _unoccupied(self) -> int:
        if self._free:
            return self._free.popleft()
        if (self._next + 1) * ACCOUNT.size > len(self._memory):
            raise AdapterError(f"no account is free of {self._next - 1}: nothing more can be offloaded")
        self._next += 1
        return self._next - 1

    def numbers(self) -> list[int]:
        """All that there are."""
        return list(self._about)

    def usage(self, *, now: float, over: bool = False, of: Iterable[int] | None = None) -> list[Usage]:
        """What these have carried (None: all). One that has ended is not taken for new entries. ``over``: all have."""
        found = []
        for number in self._about if of is None else of:
            about = self._about.get(number)
            if about is None:
                continue
            unused = self._unused.get(number)
            ended = over or (unused is not None and now - unused >= LAST_PACKET_S)
            if ended and self._open.get(about) == number:
                del self._open[about]
            up, down, up_bytes, down_bytes, since, *_ = ACCOUNT.unpack_from(self._memory, number * ACCOUNT.size)
            found.append(Usage(number, about, since, Carried(up, up_bytes), Carried(down, down_bytes), ended))
        return found

    def settle(self, numbers: Iterable[int]) -> None:
        """These have ended, and what they have carried is safe elsewhere: forget it."""
        for number in numbers:
            if self._about.pop(number, None) is not None:
                self._unused.pop(number, None)
                self._memory[number * ACCOUNT.size : (number + 1) * ACCOUNT.size] = bytes(ACCOUNT.size)
                self._free.append(number)


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="replace")
