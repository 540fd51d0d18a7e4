"""Calibration of heads on texts as they are read: in all views and windows, by heads that have not seen them."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Ensemble, Strictness
from commonweight.guard.calibration import find_threshold
from commonweight.guard.deobfuscation import list_views
from commonweight.guard.reader import GRAMS, MAX_READ, Numbers, choose_units, combine_logits, split_units
from commonweight.guard.recompile import next_above
from commonweight.workshop.heads.dataset import TRAINING_SEED, Embed, Examples
from commonweight.workshop.heads.fitting import Head, build_ngram_matrix

RATES: dict[Strictness, float] = {"low": 0.002, "standard": 0.01, "high": 0.03}
"""Of ordinary prompts: the share that may be refused."""
HARD_RATES: dict[Strictness, float] = {"low": 0.08, "standard": 0.22, "high": 0.35}
"""The same of those that look harmful, of each source of them."""
LOW_RATE = 0.12
"""Of ordinary prompts, the share that a judge is asked about."""
WRAPPED_RATE = 0.03
"""Of ordinary prompts in manipulating wrappers: the share that may be refused at ``standard``."""
CALM_SHARE = 0.02
"""Of harmful windows: the share that n-grams may take for calm."""
MAX_SHARE = 0.25
"""Of one source among ordinary prompts."""
LONG_WORDS = (100, 200, 400, 800, 1600)
LONG_TEXTS = 50
"""Of each length, composed of ordinary prompts."""
LONG_UNITS, LONG_RATE = 12, 0.01
"""Of harmless texts of so many units: the share that may be refused at ``standard``."""
MAX_WRAPPED = 300


class ReadText(NamedTuple):
    """A harmless text as it was read: by part, harm and orders of the units that were read."""

    group: int
    kind: str
    rows: Mapping[str, Floats]
    """By part: ``(units, 2)``."""
    unit_count: int
    """Units, those that were not read among them."""


def compose_long_texts(examples: Examples, folds: npt.NDArray[np.int64]) -> list[tuple[str, int]]:
    """Compose long harmless texts of ordinary prompts, each of one fold: the texts, and their folds."""
    draw = random.Random(TRAINING_SEED)
    found = []
    ordinary = np.flatnonzero(examples.is_ordinary)
    for fold in np.unique(folds[ordinary]):
        pool = [examples.texts[i] for i in ordinary[folds[ordinary] == fold].tolist()]
        for words in LONG_WORDS:
            for _ in range(max(1, LONG_TEXTS // 5)):
                parts: list[str] = []
                while sum(len(part.split()) for part in parts) < words:
                    parts.append(" ".join(draw.choice(pool).split()[: words // 2]))
                found.append(("\n\n".join(parts), int(fold)))
    return found


def read_texts(
    texts: Sequence[tuple[str, int, int, str]],
    harm: Mapping[str, Head],
    orders: Mapping[str, Head],
    embed: Mapping[str, Embed],
    ensembles: Mapping[str, Ensemble],
    calm: float,
) -> list[ReadText]:
    """Read texts as a guard does, by heads that have not seen their folds; each with its fold, group and kind.

    ``ensembles``: by the parts on text, for what encoders are asked about.
    """
    units, owners = [], []
    for number, (text, *_) in enumerate(texts):
        for view in list_views(text):
            units += (found := split_units(view))
            owners += [number] * len(found)
    owner = np.array(owners)
    folds = np.array([texts[number][1] for number in owners])
    said = [unit.text for unit in units]
    whole = np.array([unit.span == (0, len(unit.view.text)) for unit in units])
    features = build_ngram_matrix(said)
    grams = np.column_stack([heads[GRAMS].score_unseen(features, folds) for heads in (harm, orders)])
    alarming = np.flatnonzero(whole | (grams[:, 0] >= calm))
    rows: dict[str, Floats] = {GRAMS: grams}
    for name in (one for one in MAX_READ if one in embed):
        # The parts are named with n-grams last.
        ensemble = ensembles["+".join([*(part for part in rows if part != GRAMS), GRAMS])]
        logits = combine_logits(ensemble, {part: found[alarming, 0] for part, found in rows.items()})
        alarming = np.concatenate(
            [
                choose_units(alarming[rank], logits[rank], whole, MAX_READ[name])
                for rank in _split_by_owner(owner[alarming])
            ]
        )
        vectors = embed[name]([said[i] for i in alarming.tolist()])
        rows[name] = np.zeros_like(grams)
        rows[name][alarming] = np.column_stack(
            [heads[name].score_unseen(vectors, folds[alarming]) for heads in (harm, orders)]
        )
    counts = np.bincount(owner, minlength=len(texts))
    return [
        ReadText(group, kind, {name: found[at] for name, found in rows.items()}, int(counts[number]))
        for (number, (_, _, group, kind)), at in zip(
            enumerate(texts), (alarming[some] for some in _split_by_owner(owner[alarming])), strict=True
        )
    ]


def _split_by_owner(owners: Numbers) -> list[Numbers]:
    """Split the numbers of units, which are in the order of their texts, by text."""
    return np.split(np.arange(len(owners)), np.flatnonzero(np.diff(owners)) + 1)


def find_calm(grams: Floats, is_harmful: npt.NDArray[np.bool_]) -> float:
    """Find the logit of n-grams below which few harmful windows are."""
    return float(np.quantile(grams[is_harmful], CALM_SHARE))


def fit_slope(peaks: Floats, counts: Numbers, high: float) -> float:
    """Fit the slope with which few of the long harmless texts reach a threshold."""
    long = counts >= LONG_UNITS
    if long.sum() < 20:
        return 0.0
    return max(0.0, float(np.quantile((peaks[long] - high) / np.log(counts[long]), 1 - LONG_RATE)))


def calibrate(ensemble: Ensemble, read: Sequence[ReadText], column: int) -> tuple[Ensemble, Floats]:
    """Calibrate an ensemble's slope and thresholds; also returns the scores of the texts that were read."""
    peaks = np.array(
        [
            combine_logits(ensemble, {name: rows[:, column] for name, rows in one.rows.items()}).max()
            for one in read
        ]
    )
    counts = np.array([one.unit_count for one in read])
    kinds = np.array([one.kind for one in read])
    groups = np.array([one.group for one in read])
    ordinary, hard, wrapped = (kinds == kind for kind in ("ordinary", "hard", "wrapped"))
    weights = weigh_sources(groups[ordinary])
    points = find_points(peaks[ordinary], groups[ordinary], peaks[hard], groups[hard])
    long = np.isin(kinds, ("ordinary", "long"))
    slope = fit_slope(peaks[long], counts[long], points["standard"])
    scores = (peaks - slope * np.log(counts)).astype(np.float32)
    points = find_points(scores[ordinary], groups[ordinary], scores[hard], groups[hard])
    relief = 0.0
    if wrapped.sum() >= 50:
        relief = float(np.clip(points["standard"] - np.quantile(scores[wrapped], 1 - WRAPPED_RATE), 0.0, 3.0))
    low = min(find_weighted_threshold(LOW_RATE, scores[ordinary], weights), points["standard"])
    found = ensemble.model_copy(
        update={"slope": slope, "points": points, "high": points["standard"], "low": low, "relief": relief}
    )
    return found, scores


def find_points(
    ordinary: Floats, sources: npt.NDArray[np.int64], hard: Floats, hard_sources: npt.NDArray[np.int64]
) -> dict[Strictness, float]:
    """Find the thresholds of each strictness, on scores of ordinary prompts and of those that look harmful."""
    weights = weigh_sources(sources)
    points: dict[Strictness, float] = {}
    for name, rate in RATES.items():
        high = find_weighted_threshold(rate, ordinary, weights)
        for source in np.unique(hard_sources):
            high = max(high, find_threshold(HARD_RATES[name], hard[hard_sources == source]))
        points[name] = next_above(high)
    return points


def weigh_sources(groups: npt.NDArray[np.int64], most: float = MAX_SHARE) -> Floats:
    """Weigh texts so that no source has more than a quarter of the weight, where there are enough sources."""
    names, where, counts = np.unique(groups, return_inverse=True, return_counts=True)
    most = max(most, 1 / max(1, len(names)))
    shares = counts / counts.sum()
    for _ in range(len(names)):
        capped = shares >= most - 1e-9
        shares = np.where(capped, most, shares)
        rest = shares[~capped].sum()
        if capped.all() or rest == 0:
            break
        shares[~capped] *= (1 - most * capped.sum()) / rest
    weights: Floats = (shares / shares.sum() / counts)[where].astype(np.float32)
    return weights


def find_weighted_threshold(rate: float, scores: Floats, weights: Floats) -> float:
    """Find the lowest score that texts of at most ``rate`` of the weight exceed."""
    order = np.argsort(-scores, kind="stable")
    above = np.cumsum(weights[order]) / weights.sum()
    return float(scores[order][min(int((above <= rate).sum()), len(scores) - 1)])
