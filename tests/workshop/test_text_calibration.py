"""Thresholds on texts as they are read: long ones reach them no more often, and no source decides them alone."""

import numpy as np

from commonweight.guard.heads.bundle import Ensemble
from commonweight.guard.heads.reader import MAX_FOREIGN_UNITS, MULTILINGUAL
from commonweight.workshop.heads.fitting import Head
from commonweight.workshop.heads.text_calibration import (
    FOREIGN_SHARE,
    HARD_RATES,
    RATES,
    ReadText,
    SplitText,
    calibrate,
    find_weighted_threshold,
    fit_slope,
    read_alone,
    weigh_sources,
)


def test_long_texts_reach_the_threshold_no_more_often() -> None:
    draw = np.random.default_rng(0)
    read = [
        ReadText(group, kind, {"grams": draw.normal(size=(count, 2)).astype(np.float32)}, count)
        for kind, count, texts in (("ordinary", 1, 2000), ("long", 8, 300), ("long", 30, 300), ("long", 60, 300))
        for group in range(4)
        for _ in range(texts // 4)
    ]
    ensemble, scores = calibrate(Ensemble(weights={"grams": 1.0}, low=0, high=0), read, 0)
    kinds = np.array([one.kind for one in read])
    assert ensemble.slope > 0
    assert (scores[kinds == "ordinary"] >= ensemble.high).mean() <= RATES["standard"]
    assert (scores[kinds == "long"] >= ensemble.high).mean() <= 2 * RATES["standard"]
    assert ensemble.points["low"] > ensemble.points["standard"] > ensemble.points["high"] > ensemble.low


def test_other_languages_have_thresholds_at_half_of_the_rates() -> None:
    draw = np.random.default_rng(1)
    read = [
        ReadText(group, kind, {MULTILINGUAL: draw.normal(3 * (kind == "hard"), size=(1, 2)).astype(np.float32)}, 1)
        for group, kind in enumerate(["ordinary"] * 4 + ["hard"] * 2)
        for _ in range(1000)
    ]
    alone = Ensemble(weights={MULTILINGUAL: 1.0}, low=0, high=0)
    groups = np.array([one.group for one in read])
    for share in (1.0, FOREIGN_SHARE):
        ensemble, scores = calibrate(alone, read, 0, share)
        for name, rate in HARD_RATES.items():
            refused = max((scores[groups == one] >= ensemble.points[name]).mean() for one in (4, 5))
            assert 0.95 * share * rate <= refused <= share * rate
            assert (scores[groups < 4] >= ensemble.points[name]).mean() <= share * RATES[name]


def test_one_encoder_reads_wholes_and_parts_by_heads_that_have_not_seen_them() -> None:
    units = [f"unit {i}" for i in range(MAX_FOREIGN_UNITS * 3)]
    texts = [
        SplitText(fold, 7, "ordinary", units[:count], np.array([0]), np.zeros((count, 2), np.float32))
        for fold, count in ((0, 3), (1, len(units)))
    ]
    weights = np.array([[1.0], [10.0]], np.float32)
    head = Head(weights[0], 0.0, np.zeros(0, np.float32), weights, np.zeros(2, np.float32))
    short, long = read_alone(texts, MULTILINGUAL, head, lambda some: np.ones((len(some), 1), np.float32))
    assert short.rows[MULTILINGUAL].tolist() == [[1.0]] * 3
    assert long.rows[MULTILINGUAL].shape == (MAX_FOREIGN_UNITS + 1, 1)
    assert (long.rows[MULTILINGUAL] == 10).all()
    assert (short.unit_count, long.unit_count) == (3, len(units))


def test_without_long_texts_there_is_no_slope() -> None:
    assert fit_slope(np.zeros(100, np.float32), np.ones(100, np.int64), 1.0) == 0.0


def test_the_slope_is_no_steeper_than_long_texts_ask_for() -> None:
    counts = np.repeat([1, 16, 64], 100)
    peaks = np.log(counts).astype(np.float32)
    assert fit_slope(peaks, counts, 5.0) == 0.0
    assert abs(fit_slope(peaks, counts, 0.0) - 1.0) < 1e-6
    assert 0 < fit_slope(peaks, counts, 1.0) < 1


def test_no_source_weighs_more_than_a_quarter() -> None:
    groups = np.repeat([0, 1, 2, 3, 4], [1000, 100, 50, 50, 10])
    weights = weigh_sources(groups)
    shares = np.array([weights[groups == one].sum() for one in range(5)])
    assert shares.max() <= 0.2501
    assert abs(shares.sum() - 1) < 1e-5
    two = weigh_sources(np.repeat([0, 1], [10, 90]))
    assert abs(two[:10].sum() - 0.5) < 1e-5


def test_a_weighted_threshold_lets_that_much_weight_above_it() -> None:
    scores = np.arange(10, dtype=np.float32)
    assert find_weighted_threshold(0.2, scores, np.ones(10, np.float32)) == 7
    heavy = np.ones(10, np.float32)
    heavy[9] = 10
    assert find_weighted_threshold(0.2, scores, heavy) == 9
