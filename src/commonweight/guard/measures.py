"""How well scores tell harmful from harmless: threshold-free, and recall at a stated rate of false positives."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
ROUNDS = 1000
"""Of the bootstrap."""
_Z = 1.959964  # of a 95 % interval


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def auroc(harmful: Scores, harmless: Scores) -> float:
    """The probability that a harmful text scores above a harmless one; ties count half."""
    ranked = np.sort(harmless)
    below = np.searchsorted(ranked, harmful, "left") + np.searchsorted(ranked, harmful, "right")
    return float(below.mean() / (2 * len(ranked)))


def auprc(harmful: Scores, harmless: Scores) -> float:
    """Average precision: the mean of the precision at each harmful text, from the highest score down."""
    scores = np.concatenate([harmful, harmless])
    labels = np.concatenate([np.ones(len(harmful)), np.zeros(len(harmless))])
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(labels[order])
    # Texts of one score are found together.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / len(harmful)
    return float(np.sum(np.diff(np.append(0.0, recall)) * precision))


def recall_at(rate: float) -> Callable[[Scores, Scores], float]:
    """The share of harmful texts above the threshold that at most ``rate`` of the harmless reach."""

    def recall(harmful: Scores, harmless: Scores) -> float:
        return float((harmful > threshold_at(rate, harmless)).mean())

    return recall


def threshold_at(rate: float, harmless: Scores) -> float:
    """The lowest score that at most ``rate`` of the harmless texts exceed."""
    ranked = np.sort(harmless)
    allowed = math.floor(rate * len(ranked))
    return float(ranked[len(ranked) - 1 - allowed])


def bootstrap(
    figure: Callable[[Scores, Scores], float],
    harmful: Scores,
    harmless: Scores,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Interval:
    """A figure and the 2.5 and 97.5 percentiles of what it is on texts drawn again, with replacement."""
    draw = np.random.default_rng(seed)
    again = [
        figure(draw.choice(harmful, len(harmful)), draw.choice(harmless, len(harmless))) for _ in range(rounds)
    ]
    return Interval(figure(harmful, harmless), *map(float, np.percentile(again, [2.5, 97.5])))


def estimate_share(hits: int, of: int) -> Interval:
    """A share with its interval by Wilson's score, which holds for small counts, too."""
    if not of:
        return Interval(0.0, 0.0, 1.0)
    p = hits / of
    middle = (p + _Z**2 / (2 * of)) / (1 + _Z**2 / of)
    reach = _Z * math.sqrt(p * (1 - p) / of + _Z**2 / (4 * of**2)) / (1 + _Z**2 / of)
    return Interval(p, max(0.0, middle - reach), min(1.0, middle + reach))
