"""Training of guard heads: linear heads on every representation, combined and calibrated.

Everything that is chosen (regularisation, how representations are weighed, thresholds) is chosen on texts of
sources that the heads in question have not seen: sources are left out in turn, whole; of answers, prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.ngrams import BUCKETS
from commonweight.guard.heads.bundle import Calibration, Ensemble
from commonweight.guard.heads.calibration import count_refusals
from commonweight.guard.heads.reader import (
    FIRST_PRINCIPLE,
    GRAMS,
    HARM,
    MULTILINGUAL,
    ORDERS,
    PROSE_ENCODER,
    STATES,
    TEXT,
    combine_logits,
)
from commonweight.guard.heads.recompile import next_above
from commonweight.guard.heads.scorer import ANSWERED, OUTPUT
from commonweight.workshop.heads.answer_training import train_answer_heads
from commonweight.workshop.heads.dataset import Answers, Embed, Examples, refuses
from commonweight.workshop.heads.fitting import (
    FOLDS,
    Head,
    Labels,
    Numbers,
    build_ngram_matrix,
    choose_head,
    fit,
    fit_kinds,
    project_to_span,
    weigh,
)
from commonweight.workshop.heads.text_calibration import (
    CALM_LOGIT,
    FOREIGN_SHARE,
    LOW_RATE,
    MAX_WRAPPED,
    ReadText,
    calibrate,
    compose_long_texts,
    find_calm,
    find_points,
    find_weighted_threshold,
    read_alone,
    read_texts,
    split_texts,
    weigh_sources,
)

STATES_QUANTILE = 0.97
MIN_TEXTS = 10
"""Texts against a principle from which its head is made of them. With fewer, it is made of its words."""
STRENGTHS = {"states": (3e-4, 1e-3, 3e-3), "encoder": (0.3, 1.0, 3.0), "grams": (1.0, 4.0, 16.0)}
"""Inverse regularisation that is tried, on features of unit variance (states) or unit length."""
KIND_STRENGTHS = {"states": 3e-4, "encoder": 10.0}
"""Where nothing is tried: which principle it is."""
VARIANT_SHARE, CONTEXT_SHARE = 0.5, 0.5
"""What a text that was made of a prompt counts beside one that is a prompt."""
INJECTION_RATE = 0.005
"""Of ordinary prompts that are taken for orders to the model, in the results of tools."""


@dataclass(frozen=True)
class TrainedHeads:
    """All heads of a bundle."""

    tensors: Mapping[str, npt.NDArray[Any]]
    encoders: tuple[str, ...]
    input: Mapping[str, Ensemble]
    output: Mapping[str, Ensemble]
    manipulation: Mapping[str, Ensemble]
    calm: Mapping[str, float]
    states_slope: float
    injection: Ensemble | None
    injection_principle: str | None
    calibration: Mapping[str, Calibration]
    principles: tuple[str, ...]
    unseen: Mapping[str, Floats]
    """By ensemble on text: the logits of all windows, from heads that had not seen their source."""


def train_heads(
    charter: Charter, examples: Examples, answers: Answers | None = None, embed: Mapping[str, Embed] | None = None
) -> TrainedHeads:
    """Train heads of the principles that refuse, from texts that violate them and texts that violate none.

    ``embed``: the encoders that ``examples.vectors`` are by.
    """
    folds = assign_folds(examples)
    names, which = _assign_principles(charter, examples)
    tensors: dict[str, npt.NDArray[Any]] = {}
    features: dict[str, Any] = {**examples.vectors, GRAMS: build_ngram_matrix(examples.texts)}
    harm, orders = _train_text_heads(examples, folds, features)
    for name in examples.vectors:
        kinds, kinds_bias = fit_kinds(examples.vectors[name], which, len(names), KIND_STRENGTHS["encoder"])
        tensors[f"{name}.weights"] = np.column_stack([harm[name].weights, orders[name].weights, kinds.T])
        tensors[f"{name}.bias"] = np.array([harm[name].bias, orders[name].bias, *kinds_bias], np.float32)
    ensembles, manipulation, unseen = {}, {}, {}
    calibration: dict[str, Calibration] = {}
    scores: Floats = np.zeros(0, np.float32)
    all_members = {"+".join(members): members for members in _list_members(tuple(examples.vectors))}
    for key, members in all_members.items():
        stacked = {name: harm[name].unseen for name in members}
        ensembles[key] = _stack(stacked, examples.is_harmful, _weigh(examples, examples.is_harmful))
        unseen[key] = combine_logits(ensembles[key], stacked)
    calm = {key: find_calm(found, examples.is_harmful) for key, found in unseen.items()}
    texts = split_texts(_list_calibration_texts(examples, folds), harm, orders)
    read: dict[str, list[ReadText]] = {}
    for key, members in all_members.items():
        read[key] = read_texts(texts, members, harm, orders, embed or {}, ensembles, calm)
    for key, members in all_members.items():
        ensembles[key], scores = calibrate(ensembles[key], read[key], HARM)
        calibration[key] = _count(scores, ensembles[key].high, read[key])
        addressed = {name: orders[name].unseen for name in members}
        made = _stack(addressed, examples.manipulates, _weigh(examples, examples.manipulates))
        manipulation[key] = calibrate(made, read[key], ORDERS)[0].model_copy(update={"relief": 0.0})
    if MULTILINGUAL in examples.vectors:
        alone = _stack(
            {MULTILINGUAL: harm[MULTILINGUAL].unseen}, examples.is_harmful, _weigh(examples, examples.is_harmful)
        )
        foreign = read_alone(texts, MULTILINGUAL, harm[MULTILINGUAL], (embed or {})[MULTILINGUAL])
        ensembles[MULTILINGUAL], peaks = calibrate(alone, foreign, HARM, FOREIGN_SHARE)
        calibration[MULTILINGUAL] = _count(peaks, ensembles[MULTILINGUAL].high, foreign)
    best = "+".join(_list_members(tuple(examples.vectors))[-1])
    states_slope = 0.0
    if examples.states is not None:
        state_head, found = _train_state_head(examples, folds, which, len(names))
        tensors |= found
        states_slope = fit_states_slope(found, examples)
        for key in all_members:
            name = f"{STATES}+{key}"
            ensembles[name], both = _combine_with_states(
                state_head, unseen[key], ensembles[key], read[key], examples
            )
            calibration[name] = count_refusals(int((both >= ensembles[name].high).sum()), len(both))
    calibration |= _calibrate_principles(
        names, scores >= ensembles[best].high, read[best], examples, tensors, embed or {}
    )
    holder = find_injection_principle(charter)
    columns = [(harm[GRAMS].weights, harm[GRAMS].bias), (orders[GRAMS].weights, orders[GRAMS].bias)]
    columns.append((np.zeros(BUCKETS, np.float32), 0.0))
    injection = None
    if holder is not None and examples.manipulates.any():
        high = _find_injection_threshold(manipulation[GRAMS], read[GRAMS])
        injection = manipulation[GRAMS].model_copy(update={"high": high, "low": high, "points": {}})
    output = {} if answers is None else _add_answer_heads(answers, columns, tensors)
    tensors["grams.weights"] = np.column_stack([weights for weights, _ in columns]).astype(np.float16)
    tensors["grams.bias"] = np.array([bias for _, bias in columns], np.float32)
    return TrainedHeads(
        tensors=tensors,
        encoders=tuple(examples.vectors),
        input=ensembles,
        output=output,
        manipulation=manipulation if examples.manipulates.any() else {},
        calm=calm,
        states_slope=states_slope,
        injection=injection,
        injection_principle=holder if injection else None,
        calibration=calibration,
        principles=names,
        unseen=unseen,
    )


def find_injection_principle(charter: Charter) -> str | None:
    """Find the principle that orders to the model go against: it applies to results of tools, and rather records
    than refuses input.
    """
    found = [one for one in charter.principles if "tool_result" in one.applies_to]
    return next((one.id for one in sorted(found, key=refuses)), None)


def _add_answer_heads(
    answers: Answers, columns: list[tuple[Floats, float]], tensors: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Ensemble]:
    """Train heads on answers, and put them in their columns."""
    output: dict[str, Ensemble] = {}
    for part, (weights, bias, ensemble) in train_answer_heads(answers).items():
        output[part] = ensemble
        if part == GRAMS:
            columns[ANSWERED] = weights, bias
        else:
            probe = tensors["probe.weights"]
            probe[:, :, OUTPUT] = weights.reshape(probe.shape[:2])
            tensors["states.bias"][OUTPUT] = bias
    return output


def assign_folds(examples: Examples) -> Numbers:
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


def _weigh(examples: Examples, labels: Labels) -> Floats:
    kinds = np.array(examples.kinds)
    shares = np.where(kinds == "plain", 1.0, np.where(kinds == "context", CONTEXT_SHARE, VARIANT_SHARE))
    return weigh(labels, examples.groups, shares.astype(np.float32))


def _train_text_heads(
    examples: Examples, folds: Numbers, features: Mapping[str, Any]
) -> tuple[dict[str, Head], dict[str, Head]]:
    """Train the heads on harm, and those on orders to the model, for every representation of text."""
    harm, orders = {}, {}
    manipulates = examples.manipulates
    for name, one in features.items():
        strengths = STRENGTHS["grams" if name == GRAMS else "encoder"]
        harm[name] = choose_head(one, examples.is_harmful, _weigh(examples, examples.is_harmful), folds, strengths)
        if manipulates.any():
            orders[name] = choose_head(one, manipulates, _weigh(examples, manipulates), folds, strengths[1:2])
        else:
            orders[name] = harm[name]
    return harm, orders


def _list_members(encoders: Sequence[str]) -> list[tuple[str, ...]]:
    """List the sets of parts on text that there may be: all encoders, or some of them are missing."""
    return [(*chosen, GRAMS) for count in range(len(encoders) + 1) for chosen in combinations(encoders, count)]


def _list_calibration_texts(examples: Examples, folds: Numbers) -> list[tuple[str, int, int, str]]:
    """List harmless texts to calibrate with: text, fold, source and kind."""
    found = []
    plain, wrapped = examples.is_plain, 0
    for i, text in enumerate(examples.wholes):
        if examples.is_harmful[i]:
            continue
        if plain[i]:
            kind = "hard" if examples.is_hard[i] else "ordinary"
        elif examples.kinds[i] == "wrapped" and not examples.is_hard[i] and wrapped < MAX_WRAPPED:
            kind = "wrapped"
            wrapped += 1
        else:
            continue
        found.append((text, int(folds[i]), int(examples.groups[i]), kind))
    return found + [(text, fold, -1, "long") for text, fold in compose_long_texts(examples, folds)]


def _stack(parts: Mapping[str, Floats], labels: Labels, weights: Floats) -> Ensemble:
    """Stack the logits of parts; weights are never negative."""
    used = weights > 0
    if len(np.unique(labels[used])) < 2:
        return Ensemble(weights=dict.fromkeys(parts, 1.0), low=0.0, high=0.0)
    coefficients, bias = fit(np.column_stack(list(parts.values()))[used], labels[used], weights[used], 1.0)
    coefficients = np.maximum(coefficients, 0)
    return Ensemble(weights=dict(zip(parts, map(float, coefficients), strict=True)), bias=bias, low=0.0, high=0.0)


def _count(scores: Floats, high: float, read: Sequence[ReadText]) -> Calibration:
    ordinary = np.array([one.kind == "ordinary" for one in read])
    return count_refusals(int((scores[ordinary] >= high).sum()), int(ordinary.sum()))


def _combine_with_states(
    head: Head, unseen: Floats, ensemble: Ensemble, read: Sequence[ReadText], examples: Examples
) -> tuple[Ensemble, Floats]:
    """Combine states with an ensemble on text; also returns the logits of the ordinary prompts."""
    plain = examples.is_plain
    text = unseen[plain].copy()
    harmless = np.flatnonzero(~examples.is_harmful[plain])
    # Harmless prompts are scored as they are read, in windows; the texts that were read begin with them.
    order = [one for one in read if one.kind in ("ordinary", "hard")]
    for i, one in zip(harmless, order, strict=True):
        text[i] = one.find_peak(ensemble, HARM) - ensemble.slope * np.log(one.unit_count)
    labels, groups = examples.is_harmful[plain], examples.groups[plain]
    stacked = {STATES: head.unseen, TEXT: text}
    # Texts that were found calm are judged by the parts that found them so.
    is_asked = text > CALM_LOGIT / 2
    made = _stack(stacked, labels, weigh(labels, groups) * is_asked)
    logits = np.where(is_asked, combine_logits(made, stacked), np.float32(CALM_LOGIT))
    ordinary, hard = examples.is_ordinary[plain], examples.is_hard[plain]
    weights = weigh_sources(groups[ordinary])
    points = find_points(logits[ordinary], groups[ordinary], logits[hard], groups[hard])
    low = min(points["standard"], find_weighted_threshold(LOW_RATE, logits[ordinary], weights))
    relief = ensemble.relief * made.weights[TEXT]
    found = made.model_copy(update={"points": points, "high": points["standard"], "low": low, "relief": relief})
    return found, logits[ordinary]


def _find_injection_threshold(ensemble: Ensemble, read: Sequence[ReadText]) -> float:
    ordinary = [one for one in read if one.kind == "ordinary"]
    scores = np.array(
        [one.find_peak(ensemble, ORDERS) - ensemble.slope * float(np.log(one.unit_count)) for one in ordinary],
        np.float32,
    )
    weights = weigh_sources(np.array([one.group for one in ordinary]))
    return max(ensemble.high, next_above(find_weighted_threshold(INJECTION_RATE, scores, weights)))


def _train_state_head(
    examples: Examples, folds: Numbers, which: Numbers, count: int
) -> tuple[Head, dict[str, Floats]]:
    """Train the head on states, and the probe that computes it and the principles' shares token by token."""
    assert examples.states is not None
    plain = examples.is_plain
    labels, which = examples.is_harmful[plain], which[plain]
    _, _, layers, width = examples.states.shape
    flat = examples.states.reshape(len(labels), -1).astype(np.float32)
    centre, scale = flat.mean(0), flat.std(0) + 1e-6
    standard = (flat - centre) / scale
    # What is learned lies in the span of the texts, where there are fewer directions than in the states.
    spanned, directions = project_to_span(standard)
    weights = weigh(labels, examples.groups[plain])
    head = choose_head(spanned, labels, weights, folds[plain], STRENGTHS["states"])
    learned = directions.T @ head.weights
    columns = (learned / scale).reshape(2, layers, width)
    bias = head.bias - float(learned @ (centre / scale))
    half = layers * width
    spanned, directions = project_to_span(standard[:, :half])
    kinds, kinds_bias = fit_kinds(spanned, which, count, KIND_STRENGTHS["states"])
    kinds = kinds @ directions
    kinds_bias = kinds_bias - kinds @ (centre / scale)[:half]
    # The order of the columns is the scorer's: mean, last, answers, principles. Answers come later.
    stacked = [*columns, np.zeros_like(columns[0]), *(kinds / scale[:half]).reshape(count, layers, width)]
    probe = np.stack(stacked, -1).astype(np.float32)
    return head, {
        "probe.weights": probe,
        "states.bias": np.array([bias, 0.0, 0.0, *kinds_bias], np.float32),
    }


def fit_states_slope(tensors: Mapping[str, Floats], examples: Examples) -> float:
    """Fit how the highest of many windows of states rises: windows of one text are taken to be as different as
    ordinary prompts are, which they are less.
    """
    assert examples.states is not None
    ordinary = examples.is_ordinary[examples.is_plain]
    mean = np.einsum("nlw,lw->n", examples.states[ordinary, 0], tensors["probe.weights"][..., 0])
    draw = np.random.default_rng(0)
    counts = np.array([1, 2, 4, 8, 16, 32, 64])
    tops = np.array(
        [np.quantile(draw.choice(mean, (2000, count)).max(1), STATES_QUANTILE) for count in counts], np.float32
    )
    x = np.log(counts)
    return max(0.0, float((x * (tops - tops[0])).sum() / (x * x).sum()))


def _assign_principles(charter: Charter, examples: Examples) -> tuple[tuple[str, ...], Numbers]:
    """Assign harmful texts to the principles with enough texts: their ids, and the index for each text.

    Where nobody has said which, it is the one whose words are nearest.
    """
    known = [one.id for one in charter.principles if refuses(one)]
    named = [one if one in known else None for one in examples.principles]
    vectors = examples.vectors.get(PROSE_ENCODER)
    if vectors is not None and examples.words is not None and known:
        nearest = (vectors @ examples.words.T).argmax(1)
        for i in np.flatnonzero(examples.is_harmful):
            named[i] = named[i] or known[nearest[i]]
    plain = examples.is_plain
    counts = {
        name: sum(one == name and is_plain for one, is_plain in zip(named, plain, strict=True)) for name in known
    }
    names = tuple(name for name in known if counts[name] >= MIN_TEXTS)
    return names, np.array([names.index(one) if one in names else -1 for one in named], np.int64)


def _calibrate_principles(
    names: Sequence[str],
    refused: Labels,
    read: Sequence[ReadText],
    examples: Examples,
    tensors: Mapping[str, npt.NDArray[Any]],
    embed: Mapping[str, Embed],
) -> dict[str, Calibration]:
    """Calibrate each principle: how many harmless prompts it would have refused, by text."""
    harmless = np.flatnonzero(examples.is_plain & ~examples.is_harmful).tolist()
    hits = [i for i, at in zip(harmless, range(len(harmless)), strict=True) if refused[at]]
    which = np.zeros(len(hits), np.int64)
    if embed and names:
        which = sum(
            examples.vectors[name][hits] @ tensors[f"{name}.weights"][:, FIRST_PRINCIPLE:]
            + np.asarray(tensors[f"{name}.bias"][FIRST_PRINCIPLE:], np.float32)
            for name in embed
        ).argmax(1)
    return {name: count_refusals(int((which == i).sum()), len(harmless)) for i, name in enumerate(names)}
