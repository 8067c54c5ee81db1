"""How round-trip times become heights: linear where nearly all of them are, logarithmic above.

A handover changes the time by a few milliseconds, a migration holds single packets up for hundreds: a linear scale
would hide the one, a logarithmic one flatten the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from testbed.report.svg import ticks

LINEAR_SHARE: Final = 0.72
"""How much of the height the linear part has, where there is a logarithmic one."""


@dataclass(frozen=True, slots=True)
class RttScale:
    """From ``low`` to ``knee`` linear, from there to ``high`` logarithmic; all in milliseconds."""

    low: float
    knee: float
    high: float
    top: float
    bottom: float

    @classmethod
    def fit(cls, rtts_ms: Sequence[float], top: float, bottom: float) -> Self:
        """A scale that shows all of ``rtts_ms`` between the ordinates ``top`` and ``bottom``."""
        if not rtts_ms:
            return cls(0, 20, 20, top, bottom)
        ordered = sorted(rtts_ms)
        usual, most = ordered[math.ceil(0.98 * len(ordered)) - 1], ordered[-1]
        low = max(0.0, 2 * math.floor(ordered[0] / 2 - 0.5))
        knee = 2 * math.ceil((usual + 0.15 * (usual - low)) / 2 + 0.25)
        return cls(low, knee, max(knee, most * 1.1), top, bottom)

    @property
    def broken(self) -> bool:
        """Whether there is a logarithmic part."""
        return self.high > self.knee

    def y(self, rtt_ms: float) -> float:
        """The ordinate of a time."""
        linear = LINEAR_SHARE if self.broken else 1.0
        height = self.bottom - self.top
        if rtt_ms <= self.knee:
            return self.bottom - linear * height * (rtt_ms - self.low) / (self.knee - self.low)
        part = math.log(rtt_ms / self.knee) / math.log(self.high / self.knee)
        return self.bottom - height * (linear + (1 - linear) * part)

    def ticks(self) -> list[float]:
        """Times worth a grid line, with room for their labels."""
        found = ticks(self.low, self.knee, 7)
        for power in range(1, 6):
            for digit in (1, 2, 5):
                value = float(digit * 10**power)
                if self.knee < value <= self.high and self.y(found[-1]) - self.y(value) >= 16:
                    found.append(value)
        return found
