"""Calibration of thresholds: rates of refused harmless texts, with intervals."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.guard.heads.bundle import Calibration

Scores = npt.NDArray[np.floating]
_Z = 1.959964  # of a 95 % interval


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def find_threshold(rate: float, harmless: Scores) -> float:
    """Find the lowest score that at most ``rate`` of the harmless texts exceed."""
    ranked = np.sort(harmless)
    allowed = math.floor(rate * len(ranked))
    return float(ranked[len(ranked) - 1 - allowed])


def estimate_share(hits: int, of: int) -> Interval:
    """Estimate a share with its Wilson score interval, which holds for small counts, too."""
    if not of:
        return Interval(0.0, 0.0, 1.0)
    p = hits / of
    middle = (p + _Z**2 / (2 * of)) / (1 + _Z**2 / of)
    reach = _Z * math.sqrt(p * (1 - p) / of + _Z**2 / (4 * of**2)) / (1 + _Z**2 / of)
    return Interval(p, max(0.0, middle - reach), min(1.0, middle + reach))


def count_refusals(refused: int, texts: int) -> Calibration:
    """Calibrate a threshold that ``refused`` of ``texts`` harmless texts reach."""
    found = estimate_share(refused, texts)
    return Calibration(texts=texts, refused=refused, lower=found.lower, upper=found.upper)
