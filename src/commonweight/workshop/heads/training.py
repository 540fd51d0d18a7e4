"""Training of guard heads: linear heads on three representations, combined and calibrated.

Everything that is chosen (regularisation, how representations are weighed, thresholds) is chosen on texts of
sources that the heads in question have not seen: sources are left out in turn, whole; of answers, prompts.
scikit-learn is needed here and nowhere else; what comes out is numbers.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter
from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Calibration, Ensemble
from commonweight.guard.calibration import count_refusals, find_threshold
from commonweight.guard.ngrams import BUCKETS, build_sparse_rows
from commonweight.guard.scorer import ANSWERED, ENCODED_FIRST_PRINCIPLE, FIRST_PRINCIPLE, INJECTED, OUTPUT
from commonweight.workshop.heads.dataset import TRAINING_SEED, Answers, Examples, refuses

FOLDS = 5
MIN_TEXTS = 10
"""Texts against a principle from which its head is made of them. With fewer, it is made of its words."""
STRENGTHS = {"states": (3e-4, 1e-3, 3e-3), "encoder": (0.3, 1.0, 3.0), "grams": (1.0, 4.0, 16.0)}
"""Inverse regularisation that is tried, on features of unit variance (states) or unit length."""
INJECTION_STRENGTH = 4.0
KIND_STRENGTHS = {"states": 3e-4, "encoder": 10.0}
"""Where nothing is tried: heads on orders; which principle it is."""
GENERAL_RATE, HARD_RATE, LOW_RATE = 0.002, 0.08, 0.12
"""Of harmless texts: of ordinary ones and of those that look harmful, the share that the screen may refuse; of
ordinary ones, the share that gets a second look."""

INJECTION_RATE = 0.005
ANSWER_RATE, ANSWER_LOW_RATE = 0.005, 0.03
"""The same of answers: of labelled ones here, and of the model's own to ordinary prompts in ``assemble``."""


@dataclass(frozen=True)
class Head:
    """A linear head, ``features @ weights + bias``, with its out-of-fold scores of the texts."""

    weights: Floats
    bias: float
    unseen: Floats


@dataclass(frozen=True)
class TrainedHeads:
    """All heads of a bundle."""

    tensors: Mapping[str, npt.NDArray[Any]]
    input: Mapping[str, Ensemble]
    output: Mapping[str, Ensemble]
    injection: Ensemble | None
    injection_principle: str | None
    calibration: Mapping[str, Calibration]
    principles: tuple[str, ...]
    unseen: Mapping[str, Floats]
    """By ensemble: the logits of all texts, from heads that had not seen their source."""


def train_heads(
    charter: Charter,
    examples: Examples,
    answers: Answers | None = None,
    orders: Sequence[str] = (),
) -> TrainedHeads:
    """Train heads of the principles that refuse, from texts that violate them and texts that violate none.

    ``orders``: texts that address the model, for the principle that is about tools' results.
    """
    folds = _assign_folds(examples)
    names, which = _assign_principles(charter, examples)
    tensors: dict[str, npt.NDArray[Any]] = {}
    heads: dict[str, Head] = {}
    if examples.states is not None:
        heads["states"], read = _train_state_head(examples, folds, which, len(names))
        tensors |= read
    if examples.vectors is not None:
        heads["encoder"] = head = _train_head(examples.vectors, examples, folds, STRENGTHS["encoder"])
        kinds, kinds_bias = _fit_principles(examples.vectors, which, len(names), KIND_STRENGTHS["encoder"])
        tensors["encoder.weights"] = np.column_stack([head.weights, np.zeros_like(head.weights), kinds.T])
        tensors["encoder.bias"] = np.array([head.bias, 0.0, *kinds_bias], np.float32)
    heads["grams"] = head = _train_head(build_ngram_matrix(examples.texts), examples, folds, STRENGTHS["grams"])
    columns_of_grams = [(head.weights, head.bias), *[(np.zeros(BUCKETS, np.float32), 0.0)] * 2]
    ensembles, calibration, unseen = {}, {}, {}
    for name, parts in _list_combinations(heads):
        ensembles[name], unseen[name] = _fit_ensemble({part: heads[part].unseen for part in parts}, examples)
        calibration[name] = _calibrate(unseen[name], ensembles[name].high, examples)
    calibration |= _calibrate_principles(
        names, unseen, ensembles, _compute_kind_logits(tensors, examples), examples
    )
    injection, holder = None, next((one.id for one in charter.principles if "tool_result" in one.applies_to), None)
    if orders and holder is not None:
        weights, bias, injection = _train_injection_head(orders, examples)
        columns_of_grams[INJECTED] = weights, bias
    output: dict[str, Ensemble] = {}
    if answers is not None:
        for part, (weights, bias, ensemble) in _train_answer_heads(answers).items():
            output[part] = ensemble
            if part == "grams":
                columns_of_grams[ANSWERED] = weights, bias
            else:
                _, _, layers, width = examples.states.shape if examples.states is not None else (0, 0, 0, 0)
                tensors["probe.weights"][:, :, OUTPUT] = weights.reshape(layers, width)
                tensors["states.bias"][OUTPUT] = bias
    tensors["grams.weights"] = np.column_stack([weights for weights, _ in columns_of_grams]).astype(np.float16)
    tensors["grams.bias"] = np.array([bias for _, bias in columns_of_grams], np.float32)
    return TrainedHeads(
        tensors, ensembles, output, injection, holder if injection else None, calibration, names, unseen
    )


def _train_state_head(
    examples: Examples, folds: npt.NDArray[np.int64], which: npt.NDArray[np.int64], count: int
) -> tuple[Head, dict[str, Floats]]:
    """Train the head on states, and the probe that computes it and the principles' shares token by token."""
    assert examples.states is not None
    _, _, layers, width = examples.states.shape
    flat = examples.states.reshape(len(examples.texts), -1).astype(np.float32)
    centre, scale = flat.mean(0), flat.std(0) + 1e-6
    standard = (flat - centre) / scale
    # What is learned lies in the span of the texts, where there are fewer directions than in the states.
    spanned, directions = _project_to_span(standard)
    head = _train_head(spanned, examples, folds, STRENGTHS["states"])
    learned = directions.T @ head.weights
    weights = (learned / scale).reshape(2, layers, width)
    bias = head.bias - float(learned @ (centre / scale))
    half = layers * width
    spanned, directions = _project_to_span(standard[:, :half])
    kinds, kinds_bias = _fit_principles(spanned, which, count, KIND_STRENGTHS["states"])
    kinds = kinds @ directions
    kinds_bias = kinds_bias - kinds @ (centre / scale)[:half]
    # The order of the columns is the scorer's: mean, last, answers, principles. Answers come later.
    columns = [*weights, np.zeros_like(weights[0]), *(kinds / scale[:half]).reshape(count, layers, width)]
    probe = np.stack(columns, -1).astype(np.float32)
    return head, {
        "probe.weights": probe,
        "states.bias": np.array([bias, 0.0, 0.0, *kinds_bias], np.float32),
    }


def _train_injection_head(orders: Sequence[str], examples: Examples) -> tuple[Floats, float, Ensemble]:
    """Train the head on prompt injections: texts that address the model, against all others."""
    texts = [*orders, *examples.texts]
    labels = np.arange(len(texts)) < len(orders)
    features = build_ngram_matrix(texts)
    draw = np.random.default_rng(TRAINING_SEED).integers(FOLDS, size=len(texts))
    weights = np.where(labels, len(texts) / (2 * len(orders)), len(texts) / (2 * len(examples.texts)))
    unseen = np.zeros(len(texts), np.float32)
    for fold in range(FOLDS):
        rows = draw == fold
        fitted = _fit(features[~rows], labels[~rows], weights[~rows], INJECTION_STRENGTH)
        unseen[rows] = features[rows] @ fitted[0] + fitted[1]
    high = find_threshold(INJECTION_RATE, unseen[~labels])
    coefficients, bias = _fit(features, labels, weights, INJECTION_STRENGTH)
    return coefficients, bias, Ensemble(grams=1.0, low=high, high=high)


def _train_answer_heads(answers: Answers) -> dict[str, tuple[Floats, float, Ensemble]]:
    """Train heads on answers, by representation. Their thresholds do not account for how often a stream is
    scored, nor for a model's own style: see :func:`~commonweight.workshop.heads.assemble.raise_thresholds`.
    """
    folds = np.random.default_rng(TRAINING_SEED).integers(FOLDS, size=int(answers.groups.max()) + 1)[
        answers.groups
    ]
    labels = answers.is_harmful
    found = {"grams": _train_answer_head(build_ngram_matrix(answers.texts), labels, folds, "grams")}
    if answers.states is not None:
        # Each of an answer's stretches is an example of its own.
        flat = answers.states.reshape(2 * len(labels), -1).astype(np.float32)
        centre, scale = flat.mean(0), flat.std(0) + 1e-6
        standard = (flat - centre) / scale
        coefficients, bias, ensemble = _train_answer_head(standard, labels.repeat(2), folds.repeat(2), "states")
        bias -= float(coefficients @ (centre / scale))
        found["states"] = coefficients / scale, bias, ensemble
    return found


def _train_answer_head(
    features: Any,  # noqa: ANN401 - dense or sparse
    labels: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
    part: Literal["states", "grams"],
) -> tuple[Floats, float, Ensemble]:
    weights = np.where(labels, 1 / labels.sum(), 1 / (~labels).sum()) * len(labels) / 2
    head = _choose_head(features, labels, weights.astype(np.float32), folds, STRENGTHS[part])
    harmless = head.unseen[~labels]
    low, high = find_threshold(ANSWER_LOW_RATE, harmless), find_threshold(ANSWER_RATE, harmless)
    return head.weights, head.bias, Ensemble(**{part: 1.0}, low=low, high=high)


def _list_combinations(heads: Mapping[str, Head]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = [("grams", ("grams",))]
    if "encoder" in heads:
        found.append(("encoder", ("encoder", "grams")))
    if "states" in heads:
        found.append(("states", ("states",)))
    if "states" in heads and "encoder" in heads:
        found.append(("states+encoder", ("states", "encoder", "grams")))
    return found


def _assign_folds(examples: Examples) -> npt.NDArray[np.int64]:
    """Assign whole sources to folds, so that every fold has harmful and harmless texts."""
    folds = np.zeros(len(examples.texts), np.int64)
    for wanted in (True, False):
        groups, counts = np.unique(examples.groups[examples.is_harmful == wanted], return_counts=True)
        filled = np.zeros(FOLDS)
        for group in groups[np.argsort(-counts, kind="stable")]:
            fold = int(filled.argmin())
            rows = examples.groups == group
            folds[rows] = fold
            filled[fold] += rows.sum()
    return folds


def _assign_principles(charter: Charter, examples: Examples) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Assign harmful texts to the principles with enough texts: their ids, and the index for each text.

    Where nobody has said which, it is the one whose words are nearest.
    """
    known = [one.id for one in charter.principles if refuses(one)]
    named = [one if one in known else None for one in examples.principles]
    if examples.vectors is not None and examples.words is not None and known:
        nearest = (examples.vectors @ examples.words.T).argmax(1)
        for i in np.flatnonzero(examples.is_harmful):
            named[i] = named[i] or known[nearest[i]]
    counts = {name: sum(one == name for one in named) for name in known}
    names = tuple(name for name in known if counts[name] >= MIN_TEXTS)
    return names, np.array([names.index(one) if one in names else -1 for one in named], np.int64)


def _train_head(
    features: Any,  # noqa: ANN401 - dense or sparse
    examples: Examples,
    folds: npt.NDArray[np.int64],
    strengths: Sequence[float],
) -> Head:
    """Train a head; what is left out in turn are whole sources."""
    return _choose_head(features, examples.is_harmful, _weigh_examples(examples), folds, strengths)


def _choose_head(
    features: Any,  # noqa: ANN401 - dense or sparse
    labels: npt.NDArray[np.bool_],
    weights: Floats,
    folds: npt.NDArray[np.int64],
    strengths: Sequence[float],
) -> Head:
    """Train the head with the regularisation that does best on the folds left out in turn."""
    best: tuple[float, float, Floats] | None = None
    for strength in strengths:
        unseen = np.zeros(len(labels), np.float32)
        for fold in range(FOLDS):
            rows = folds == fold
            if not rows.any():
                continue
            fitted = _fit(features[~rows], labels[~rows], weights[~rows], strength)
            unseen[rows] = features[rows] @ fitted[0] + fitted[1]
        loss = float((np.logaddexp(0, np.where(labels, -unseen, unseen)) * weights).sum() / weights.sum())
        if best is None or loss < best[0]:
            best = loss, strength, unseen
    assert best is not None
    coefficients, bias = _fit(features, labels, weights, best[1])
    return Head(coefficients, bias, best[2])


def _weigh_examples(examples: Examples) -> Floats:
    """Weigh examples: each side the same, and within a side every source by the root of its size."""
    weights = np.zeros(len(examples.texts), np.float32)
    for wanted in (True, False):
        side = examples.is_harmful == wanted
        for group in np.unique(examples.groups[side]):
            rows = side & (examples.groups == group)
            weights[rows] = rows.sum() ** -0.5
        weights[side] *= len(weights) / (2 * weights[side].sum())
    return weights


def _fit(features: Any, labels: npt.NDArray[np.bool_], weights: Floats, strength: float) -> tuple[Floats, float]:  # noqa: ANN401
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=400, tol=1e-3, random_state=TRAINING_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(features, labels, sample_weight=weights)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def _fit_principles(
    features: Floats, which: npt.NDArray[np.int64], count: int, strength: float
) -> tuple[Floats, Floats]:
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


def _project_to_span(features: Floats) -> tuple[Floats, Floats]:
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
    from scipy.sparse import csr_matrix

    data, indices, pointers = build_sparse_rows(texts)
    return csr_matrix((data, indices, pointers), shape=(len(texts), BUCKETS))


def _fit_ensemble(parts: Mapping[str, Floats], examples: Examples) -> tuple[Ensemble, Floats]:
    stacked = np.column_stack(list(parts.values()))
    coefficients, bias = _fit(stacked, examples.is_harmful, _weigh_examples(examples), 1.0)
    coefficients = np.maximum(coefficients, 0)
    logits = (stacked @ coefficients + bias).astype(np.float32)
    ordinary = logits[~examples.is_harmful & ~examples.is_hard]
    hard = logits[examples.is_hard]
    high = find_threshold(GENERAL_RATE, ordinary)
    if len(hard):
        high = max(high, find_threshold(HARD_RATE, hard))
    return (
        Ensemble(
            **dict(zip(parts, map(float, coefficients), strict=True)),
            bias=bias,
            low=min(find_threshold(LOW_RATE, ordinary), high),
            high=high,
        ),
        logits,
    )


def _calibrate(logits: Floats, high: float, examples: Examples) -> Calibration:
    harmless = logits[~examples.is_harmful]
    return count_refusals(int((harmless >= high).sum()), len(harmless))


def _compute_kind_logits(tensors: Mapping[str, npt.NDArray[Any]], examples: Examples) -> Floats | None:
    if examples.vectors is not None:
        rows: Floats = examples.vectors @ tensors["encoder.weights"][:, ENCODED_FIRST_PRINCIPLE:]
        return rows + np.asarray(tensors["encoder.bias"][ENCODED_FIRST_PRINCIPLE:], np.float32)
    if examples.states is not None:
        kinds: Floats = np.einsum(
            "nlw,lwk->nk", examples.states[:, 0], tensors["probe.weights"][..., FIRST_PRINCIPLE:]
        )
        return kinds + np.asarray(tensors["states.bias"][FIRST_PRINCIPLE:], np.float32)
    return None


def _calibrate_principles(
    names: Sequence[str],
    unseen: Mapping[str, Floats],
    ensembles: Mapping[str, Ensemble],
    kinds: Floats | None,
    examples: Examples,
) -> dict[str, Calibration]:
    """Calibrate each principle: how many harmless texts it would have refused, with the best ensemble."""
    best = list(unseen)[-1]
    harmless = ~examples.is_harmful
    refused = harmless & (unseen[best] >= ensembles[best].high)
    which = np.zeros(len(refused), np.int64) if kinds is None else kinds.argmax(1)
    return {
        name: count_refusals(int((refused & (which == i)).sum()), int(harmless.sum()))
        for i, name in enumerate(names)
    }
