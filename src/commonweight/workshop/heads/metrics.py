"""Metrics of a guard: AUROC, average precision, recall at a false positive rate, with bootstrap intervals."""

from collections.abc import Callable

import numpy as np

from commonweight.guard.heads.calibration import Interval, Scores, find_threshold

BOOTSTRAP_ROUNDS = 1000


def compute_auroc(harmful: Scores, harmless: Scores) -> float:
    """Area under the ROC curve: the probability that harmful texts score above harmless ones; ties count half."""
    ranked = np.sort(harmless)
    below = np.searchsorted(ranked, harmful, "left") + np.searchsorted(ranked, harmful, "right")
    return float(below.mean() / (2 * len(ranked)))


def compute_auprc(harmful: Scores, harmless: Scores) -> float:
    """Average precision: the mean of the precision at each harmful text, from the highest score down."""
    scores = np.concatenate([harmful, harmless])
    labels = np.concatenate([np.ones(len(harmful)), np.zeros(len(harmless))])
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(labels[order])
    # Texts of one score are found together.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / len(harmful)
    return float(np.sum(np.diff(np.append(0.0, recall)) * precision))


def compute_recall(rate: float) -> Callable[[Scores, Scores], float]:
    """Recall on harmful texts at the threshold that at most ``rate`` of the harmless reach."""

    def recall(harmful: Scores, harmless: Scores) -> float:
        return float((harmful > find_threshold(rate, harmless)).mean())

    return recall


def bootstrap(
    figure: Callable[[Scores, Scores], float],
    harmful: Scores,
    harmless: Scores,
    seed: int = 0,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> Interval:
    """Bootstrap a metric: its value with the 2.5 and 97.5 percentiles over resampled texts."""
    draw = np.random.default_rng(seed)
    again = [
        figure(draw.choice(harmful, len(harmful)), draw.choice(harmless, len(harmless))) for _ in range(rounds)
    ]
    return Interval(figure(harmful, harmless), *map(float, np.percentile(again, [2.5, 97.5])))
