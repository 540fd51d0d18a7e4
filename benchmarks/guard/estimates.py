"""Medians of rounds, with the intervals that rounds drawn again give."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BOOTSTRAP_ROUNDS = 2000


class Estimate(NamedTuple):
    """A median with its 95 % interval."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"

    def format(self, unit: str) -> str:
        """Format it with a unit."""
        return f"{self.value:.4g} {unit} [{self.lower:.4g}, {self.upper:.4g}]"


def estimate_median(values: Sequence[float], seed: int = 0) -> Estimate:
    """Estimate the median of what rounds gave."""
    draw = np.random.default_rng(seed)
    again = np.median(draw.choice(values, (BOOTSTRAP_ROUNDS, len(values))), axis=1)
    lower, upper = np.percentile(again, [2.5, 97.5])
    return Estimate(float(np.median(values)), float(lower), float(upper))
