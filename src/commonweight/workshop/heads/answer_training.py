"""Training of heads on answers, from labelled ones."""

from typing import Any, Literal

import numpy as np

from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.heads.bundle import Ensemble, Strictness
from commonweight.guard.heads.calibration import find_threshold
from commonweight.workshop.heads.dataset import TRAINING_SEED, Answers
from commonweight.workshop.heads.fitting import FOLDS, Labels, Numbers, build_ngram_matrix, choose_head

STRENGTHS = {"states": (3e-4, 1e-3, 3e-3), "grams": (1.0, 4.0, 16.0)}
RATES: dict[Strictness, float] = {"low": 0.005, "standard": 0.015, "high": 0.04}
"""Of harmless labelled answers, half of which are to harmful requests: the share that may be refused."""
LOW_RATE = 0.06


def train_answer_heads(answers: Answers) -> dict[str, tuple[Floats, float, Ensemble]]:
    """Train heads on answers, by representation. Their thresholds do not account for how often a stream is
    scored, nor for a model's own style: see :func:`~commonweight.workshop.heads.assemble.raise_thresholds`.
    """
    folds = np.random.default_rng(TRAINING_SEED).integers(FOLDS, size=int(answers.groups.max()) + 1)[
        answers.groups
    ]
    labels = answers.is_harmful
    found = {"grams": _train_head(build_ngram_matrix(answers.texts), labels, folds, "grams")}
    if answers.states is not None:
        # Each of an answer's stretches is an example of its own.
        flat = answers.states.reshape(2 * len(labels), -1).astype(np.float32)
        centre, scale = flat.mean(0), flat.std(0) + 1e-6
        standard = (flat - centre) / scale
        coefficients, bias, ensemble = _train_head(standard, labels.repeat(2), folds.repeat(2), "states")
        bias -= float(coefficients @ (centre / scale))
        found["states"] = coefficients / scale, bias, ensemble
    return found


def _train_head(
    features: Any,  # noqa: ANN401 - dense or sparse
    labels: Labels,
    folds: Numbers,
    part: Literal["states", "grams"],
) -> tuple[Floats, float, Ensemble]:
    weights = np.where(labels, 1 / labels.sum(), 1 / (~labels).sum()) * len(labels) / 2
    head = choose_head(features, labels, weights.astype(np.float32), folds, STRENGTHS[part])
    harmless = head.unseen[~labels]
    points: dict[Strictness, float] = {name: find_threshold(rate, harmless) for name, rate in RATES.items()}
    low = find_threshold(LOW_RATE, harmless)
    ensemble = Ensemble(
        low=low,
        high=points["standard"],
        points=points,
    )
    return head.weights, head.bias, ensemble
