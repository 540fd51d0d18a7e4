"""Thresholds that a model's own answers set."""

import numpy as np

from commonweight.guard import DEFAULT, Bundle
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from commonweight.workshop.heads.assemble import raise_thresholds
from sample_charter import charter


def test_thresholds_rise_above_ordinary_answers() -> None:
    bundle = Bundle.load(DEFAULT, None)
    old = bundle.manifest.output["states"]
    peaks = old.high + np.linspace(-5, 2, 1000)
    made = raise_thresholds(bundle, {"states": peaks}).manifest
    assert made.output["states"].high > old.high
    assert (peaks >= made.output["states"].high).mean() <= 0.005
    assert (peaks >= made.output["states"].low).mean() <= 0.03
    assert made.output["grams"] == bundle.manifest.output["grams"]
    assert (made.calibration["answers by states"].texts, made.calibration["answers by states"].refused) == (
        1000,
        5,
    )


def test_calm_answers_lower_no_threshold() -> None:
    bundle = Bundle.load(DEFAULT, None)
    old = bundle.manifest.output["states"]
    made = raise_thresholds(bundle, {"states": np.full(100, old.low - 9)}).manifest
    assert made.output["states"] == old


def test_a_charter_that_is_compiled_again_keeps_what_is_known_of_answers() -> None:
    bundle = raise_thresholds(Bundle.load(DEFAULT, None), {"states": np.zeros(10)})
    made = recompile(charter(), bundle, load_encoder(), {}).manifest
    assert made.calibration["answers by states"].texts == 10
    assert set(made.calibration) == {*made.input, "answers by states", "answers by grams", "no-umbrellas"}
