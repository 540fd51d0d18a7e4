"""Fitting of linear heads on folds of whole sources, with scikit-learn, which is needed here and nowhere else."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.ngrams import BUCKETS, build_sparse_rows
from commonweight.workshop.heads.dataset import TRAINING_SEED

FOLDS = 5
Labels = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """A linear head, ``features @ weights + bias``, and the same head without each of the folds."""

    weights: Floats
    bias: float
    unseen: Floats
    """Scores of the texts by heads that have not seen their fold."""
    fold_weights: Floats
    """``(folds, features)``."""
    fold_biases: Floats

    def score_unseen(self, features: Any, folds: Numbers) -> Floats:  # noqa: ANN401 - dense or sparse
        """Score texts by the heads that have not seen their folds."""
        found: Floats = np.zeros(features.shape[0], np.float32)
        for fold in np.unique(folds):
            rows = folds == fold
            found[rows] = features[rows] @ self.fold_weights[fold] + self.fold_biases[fold]
        return found


def choose_head(
    features: Any,  # noqa: ANN401 - dense or sparse
    labels: Labels,
    weights: Floats,
    folds: Numbers,
    strengths: Sequence[float],
) -> Head:
    """Fit the head with the regularisation that does best on the folds left out in turn."""
    best: tuple[float, float, Head] | None = None
    for strength in strengths:
        unseen = np.zeros(len(labels), np.float32)
        by_fold: list[tuple[Floats, float]] = []
        for fold in range(FOLDS):
            rows = folds == fold
            kept = ~rows & (weights > 0)
            if not rows.any() or len(np.unique(labels[kept])) < 2:
                kept = weights > 0
            by_fold.append(fit(features[kept], labels[kept], weights[kept], strength))
            unseen[rows] = features[rows] @ by_fold[-1][0] + by_fold[-1][1]
        loss = float((np.logaddexp(0, np.where(labels, -unseen, unseen)) * weights).sum() / weights.sum())
        if best is None or loss < best[0]:
            made = Head(
                by_fold[0][0],
                0.0,
                unseen,
                np.stack([one for one, _ in by_fold]),
                np.array([one for _, one in by_fold]),
            )
            best = loss, strength, made
    assert best is not None
    used = weights > 0
    coefficients, bias = fit(features[used], labels[used], weights[used], best[1])
    return Head(coefficients, bias, best[2].unseen, best[2].fold_weights, best[2].fold_biases)


def fit(features: Any, labels: Labels, weights: Floats, strength: float) -> tuple[Floats, float]:  # noqa: ANN401
    """Fit a logistic regression: weights and a bias."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=400, tol=1e-3, random_state=TRAINING_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(features, labels, sample_weight=weights)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def fit_kinds(features: Floats, which: Numbers, count: int, strength: float) -> tuple[Floats, Floats]:
    """Fit a classifier of principles, each of the same weight: weights ``(count, features)``, and biases."""
    from sklearn.linear_model import LogisticRegression

    known = which >= 0
    if count < 2:
        return np.zeros((count, features.shape[1]), np.float32), np.zeros(count, np.float32)
    model = LogisticRegression(
        C=strength, max_iter=200, tol=1e-3, class_weight="balanced", random_state=TRAINING_SEED
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(features[known], which[known])
    weights, bias = model.coef_, model.intercept_
    if count == 2:  # of two classes scikit-learn keeps one row
        weights, bias = np.vstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights.astype(np.float32), bias.astype(np.float32)


def weigh(labels: Labels, groups: Numbers, shares: Floats | None = None) -> Floats:
    """Weigh texts: each side the same, and within a side every source by the root of its size.

    ``shares``: what a text counts beside others of its source.
    """
    counts = np.ones(len(labels), np.float32) if shares is None else shares
    weights = np.zeros(len(labels), np.float32)
    for wanted in (True, False):
        side = labels == wanted
        for group in np.unique(groups[side]):
            rows = side & (groups == group)
            total = counts[rows].sum()
            weights[rows] = counts[rows] * (total**-0.5 if total else 0)
        if weights[side].sum():
            weights[side] *= len(weights) / (2 * weights[side].sum())
    return weights


def project_to_span(features: Floats) -> tuple[Floats, Floats]:
    """Project features to an orthonormal basis of their span: ``(texts, directions)``, and that basis in rows.

    Logistic regression with a quadratic penalty finds the same head in either, and sooner with fewer columns. Of
    more texts than columns the span is everything, and the features stay as they are.
    """
    if len(features) >= features.shape[1]:
        return features, np.eye(features.shape[1], dtype=np.float32)
    values, vectors = np.linalg.eigh(features @ features.T)
    kept = values > values[-1] * 1e-6
    lengths = np.sqrt(values[kept])
    directions: Floats = (vectors[:, kept] / lengths).T @ features
    return vectors[:, kept] * lengths, directions


def build_ngram_matrix(texts: Sequence[str]) -> Any:  # noqa: ANN401 - a matrix of scipy's
    """Build the matrix of texts' n-grams."""
    from scipy.sparse import csr_matrix

    data, indices, pointers = build_sparse_rows(texts)
    return csr_matrix((data, indices, pointers), shape=(len(texts), BUCKETS))
