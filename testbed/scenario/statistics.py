"""Means of repetitions with their confidence intervals (Student's t, 95 %). Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

# fmt: off
_T_95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
"""The 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of ``n`` independent repetitions; ``half_width`` of its interval is ``None`` for a single one."""

    n: int
    mean: float
    half_width: float | None

    def as_dict(self) -> dict[str, Any]:
        """As ``results.json`` has it."""
        ci95 = None if self.half_width is None else [self.mean - self.half_width, self.mean + self.half_width]
        return {
            "n": self.n,
            "mean": round(self.mean, 4),
            "ci95": None if ci95 is None else [round(bound, 4) for bound in ci95],
        }


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """The estimate from what is known; ``None`` where nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = statistics.fmean(known)
    if len(known) == 1:
        return Estimate(1, mean, None)
    return Estimate(len(known), mean, t_95(len(known) - 1) * statistics.stdev(known) / math.sqrt(len(known)))


def t_95(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, beyond 30 degrees of freedom to a thousandth or so (Cornish and Fisher)."""
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom)
