"""Figures against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.guard.heads.calibration import estimate_share, find_threshold
from commonweight.workshop.heads.metrics import bootstrap, compute_auprc, compute_auroc, compute_recall

scores = st.lists(st.integers(0, 9), min_size=1, max_size=30).map(lambda values: np.array(values, float))


@given(scores, scores)
def test_auroc_is_the_chance_of_being_ranked_right(harmful: np.ndarray, harmless: np.ndarray) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in harmful for b in harmless]
    assert compute_auroc(harmful, harmless) == pytest.approx(float(np.mean(pairs)))


@given(scores, scores)
def test_auprc_is_average_precision(harmful: np.ndarray, harmless: np.ndarray) -> None:
    from sklearn.metrics import average_precision_score

    labels = np.r_[np.ones(len(harmful)), np.zeros(len(harmless))]
    assert compute_auprc(harmful, harmless) == pytest.approx(
        average_precision_score(labels, np.r_[harmful, harmless])
    )


@given(scores, st.sampled_from([0.0, 0.1, 0.5]))
def test_a_threshold_is_exceeded_by_no_more_than_it_may_be(harmless: np.ndarray, rate: float) -> None:
    assert (harmless > find_threshold(rate, harmless)).mean() <= rate


def test_recall_is_counted_above_it() -> None:
    harmless = np.arange(100.0)
    assert compute_recall(0.01)(np.array([97.5, 98.5, 99.5]), harmless) == pytest.approx(2 / 3)


def test_intervals_hold_the_figure() -> None:
    draw = np.random.default_rng(1)
    found = bootstrap(compute_auroc, draw.normal(1, 1, 80), draw.normal(0, 1, 80), rounds=200)
    assert found.lower < found.value < found.upper
    assert estimate_share(0, 100).upper == pytest.approx(0.037, abs=1e-3)
    assert estimate_share(0, 0) == (0.0, 0.0, 1.0)
