"""Heads of principles that have only words: a linear head on sentence vectors, made with NumPy in milliseconds.

What a principle restricts is told apart from ordinary requests and from what it permits, by least squares: the
ordinary requests come as vectors with the package's own bundle. The threshold is set on ordinary requests as well,
each scored by a head that was made without it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.heads.bundle import ProseHead

RESTRICTED_WEIGHT, PERMITTED_WEIGHT, ORDINARY_WEIGHT = 0.5, 0.75, 0.25
RIDGE = 1e-2


@dataclass(frozen=True)
class ProseVectors:
    """Sentence vectors of the words of a principle, a row for each phrase or example."""

    restricts: Floats
    permits: Floats


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of vectors, which is all that a head is fitted to."""

    mean: Floats
    covariance: Floats

    @classmethod
    def measure(cls, rows: Floats) -> "Moments":
        """Measure those of vectors, a row for each."""
        mean = rows.mean(0)
        return cls(mean, (rows - mean).T @ (rows - mean) / len(rows))


@dataclass(frozen=True)
class OrdinaryVectors:
    """Vectors of ordinary requests, whole and in two halves."""

    whole: Moments
    halves: tuple[tuple[Floats, Moments], tuple[Floats, Moments]]

    @classmethod
    def split(cls, vectors: npt.NDArray[np.floating]) -> "OrdinaryVectors":
        """Split vectors in two halves, neighbours together."""
        rows = vectors.astype(np.float32)
        is_first = (np.arange(len(rows)) // 2) % 2 == 0
        first, second = rows[is_first], rows[~is_first]
        return cls(Moments.measure(rows), ((first, Moments.measure(first)), (second, Moments.measure(second))))


@dataclass(frozen=True)
class FittedHead:
    """Weights of a head, and the scores of ordinary requests by heads that were made without them."""

    weights: Floats
    ordinary: Floats


def fit_head(words: ProseVectors, ordinary: OrdinaryVectors) -> FittedHead:
    """Fit a head on all ordinary requests, and score each by a head that was fitted on the other half."""
    (first, of_first), (second, of_second) = ordinary.halves
    unseen = [first @ _fit(words, of_second), second @ _fit(words, of_first)]
    return FittedHead(_fit(words, ordinary.whole), np.concatenate(unseen))


def _fit(words: ProseVectors, ordinary: Moments) -> Floats:
    """Weighted least squares for 1 of what is restricted and 0 of the rest, with a ridge."""
    groups = (
        (Moments.measure(words.restricts), RESTRICTED_WEIGHT, 1.0),
        (Moments.measure(words.permits), PERMITTED_WEIGHT, 0.0),
        (ordinary, ORDINARY_WEIGHT, 0.0),
    )
    total = RESTRICTED_WEIGHT + PERMITTED_WEIGHT + ORDINARY_WEIGHT
    mean = sum((weight / total * of.mean for of, weight, _ in groups), np.zeros_like(ordinary.mean))
    goal = sum(weight / total * target for _, weight, target in groups)
    covariance, towards = RIDGE * np.eye(len(mean)), np.zeros(len(mean))
    for of, weight, target in groups:
        away = of.mean - mean
        covariance += weight / total * (of.covariance + np.outer(away, away))
        towards += weight / total * (target - goal) * away
    weights: Floats = np.linalg.solve(covariance, towards).astype(np.float32)
    return weights


def score_vectors(head: ProseHead, weights: Floats, vectors: Floats) -> Floats:
    """Score vectors by a head, or by nearness to the words of a principle: refused from 0 on."""
    similar = vectors @ np.asarray(weights, np.float32).T
    if head.restricts:
        score = similar[:, : head.restricts].max(1) - similar[:, head.restricts :].max(1)
    else:
        score = similar[:, 0]
    logits: Floats = (score - head.high) / head.scale
    return logits
