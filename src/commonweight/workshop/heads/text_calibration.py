"""Calibration of heads on texts as they are read: in all views and windows, by heads that have not seen them."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.heads.bundle import Ensemble, Strictness
from commonweight.guard.heads.calibration import find_threshold
from commonweight.guard.heads.reader import (
    GRAMS,
    MAX_READ,
    Numbers,
    choose_foreign_units,
    choose_units,
    combine_logits,
    name_members,
    split_units,
)
from commonweight.guard.heads.recompile import next_above
from commonweight.guard.text.deobfuscation import list_views
from commonweight.workshop.heads.dataset import TRAINING_SEED, Embed, Examples
from commonweight.workshop.heads.fitting import Head, build_ngram_matrix

RATES: dict[Strictness, float] = {"low": 0.002, "standard": 0.01, "high": 0.03}
"""Of ordinary prompts: the share that may be refused."""
HARD_RATES: dict[Strictness, float] = {"low": 0.08, "standard": 0.22, "high": 0.35}
"""The same of those that look harmful, of each source of them."""
FOREIGN_SHARE = 0.5
"""Of those rates, at the thresholds for other languages: these are calibrated mostly on English texts."""
LOW_RATE = 0.12
"""Of ordinary prompts, the share that a judge is asked about."""
WRAPPED_RATE = 0.03
"""Of ordinary prompts in manipulating wrappers: the share that may be refused at ``standard``."""
CALM_SHARE, CALM_LOGIT = 0.02, -20.0
"""Of harmful windows: the share that may be taken for calm, and the logit that they then have."""
MAX_SHARE = 0.25
"""Of one source among ordinary prompts."""
LONG_WORDS = (100, 200, 400, 800, 1600)
LONG_TEXTS = 50
"""Of each length, composed of ordinary prompts."""
LONG_UNITS, LONG_RATE = 12, 0.01
"""Of harmless texts of so many units: the share that may be refused at ``standard``."""
MAX_WRAPPED = 300


class ReadText(NamedTuple):
    """A harmless text as it was read by some parts: harm and orders of the units that all of them read."""

    group: int
    kind: str
    rows: Mapping[str, Floats]
    """By part: ``(units, 2)``, or harm alone; no units where the last part was not asked, as those before found
    the text calm."""
    unit_count: int
    """Units, those that were not read among them."""

    def find_peak(self, ensemble: Ensemble, column: int) -> float:
        """Find the highest logit."""
        logits = combine_logits(ensemble, {name: found[:, column] for name, found in self.rows.items()})
        return float(logits.max(initial=CALM_LOGIT))


class SplitText(NamedTuple):
    """A text in its units, with their n-grams' logits by heads that have not seen its fold."""

    fold: int
    group: int
    kind: str
    units: Sequence[str]
    wholes: Numbers
    grams: Floats
    """``(units, 2)``."""


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


def split_texts(
    texts: Sequence[tuple[str, int, int, str]], harm: Mapping[str, Head], orders: Mapping[str, Head]
) -> list[SplitText]:
    """Split texts, each with its fold, group and kind, into units."""
    found = []
    for text, fold, group, kind in texts:
        units = [unit for view in list_views(text) for unit in split_units(view)]
        wholes = [i for i, unit in enumerate(units) if unit.span == (0, len(unit.view.text))]
        features = build_ngram_matrix([unit.text for unit in units])
        folds = np.full(len(units), fold)
        grams = np.column_stack([heads[GRAMS].score_unseen(features, folds) for heads in (harm, orders)])
        found.append(SplitText(fold, group, kind, [unit.text for unit in units], np.array(wholes), grams))
    return found


def read_texts(
    texts: Sequence[SplitText],
    encoders: Sequence[str],
    harm: Mapping[str, Head],
    orders: Mapping[str, Head],
    embed: Mapping[str, Embed],
    ensembles: Mapping[str, Ensemble],
    calm: Mapping[str, float],
) -> list[ReadText]:
    """Read texts as a guard with these encoders does, by heads that have not seen their folds.

    ``ensembles`` and ``calm`` are by the parts on text, for what each encoder is asked about.
    """
    chosen = [np.arange(len(text.units)) for text in texts]
    rows = [{GRAMS: text.grams} for text in texts]
    asked: list[str] = []
    for name in (one for one in MAX_READ if one in encoders):
        before = name_members(asked)
        for number, text in enumerate(texts):
            logits = combine_logits(ensembles[before], {part: found[:, 0] for part, found in rows[number].items()})
            alarming = choose_units(chosen[number], logits, calm[before], MAX_READ[name])
            if not asked:
                alarming = np.union1d(alarming, text.wholes)
            elif len(alarming):
                alarming = np.union1d(alarming, text.wholes[:1])
            at = np.searchsorted(chosen[number], alarming)
            chosen[number] = alarming
            rows[number] = {part: found[at] for part, found in rows[number].items()}
        units = [text.units[i] for text, some in zip(texts, chosen, strict=True) for i in some.tolist()]
        vectors = embed[name](units)
        ends = np.cumsum([len(some) for some in chosen])
        for number, (text, end) in enumerate(zip(texts, ends, strict=True)):
            own = vectors[end - len(chosen[number]) : end]
            folds = np.full(len(own), text.fold)
            rows[number][name] = np.column_stack(
                [heads[name].score_unseen(own, folds) for heads in (harm, orders)]
            )
        asked.append(name)
    return [
        ReadText(text.group, text.kind, found, len(text.units)) for text, found in zip(texts, rows, strict=True)
    ]


def read_alone(texts: Sequence[SplitText], encoder: str, harm: Head, embed: Embed) -> list[ReadText]:
    """Read texts by the head on harm of one encoder alone, as a guard reads those in other languages."""
    chosen = [choose_foreign_units(np.isin(np.arange(len(text.units)), text.wholes)) for text in texts]
    vectors = embed([text.units[i] for text, some in zip(texts, chosen, strict=True) for i in some.tolist()])
    found, start = [], 0
    for text, some in zip(texts, chosen, strict=True):
        own = vectors[start : start + len(some)]
        start += len(some)
        rows = harm.score_unseen(own, np.full(len(own), text.fold))[:, None]
        found.append(ReadText(text.group, text.kind, {encoder: rows}, len(text.units)))
    return found


def find_calm(logits: Floats, is_harmful: npt.NDArray[np.bool_]) -> float:
    """Find the logit below which few harmful windows are."""
    return float(np.quantile(logits[is_harmful], CALM_SHARE))


def fit_slope(peaks: Floats, counts: Numbers, high: float) -> float:
    """Fit the slope with which few of the long harmless texts reach a threshold."""
    long = counts >= LONG_UNITS
    if long.sum() < 20:
        return 0.0
    return max(0.0, float(np.quantile((peaks[long] - high) / np.log(counts[long]), 1 - LONG_RATE)))


def calibrate(
    ensemble: Ensemble, read: Sequence[ReadText], column: int, share: float = 1.0
) -> tuple[Ensemble, Floats]:
    """Calibrate an ensemble's slope and thresholds; also returns the scores of the texts that were read.

    ``share``: of the rates of refused texts.
    """
    peaks = np.array([one.find_peak(ensemble, column) for one in read])
    counts = np.array([one.unit_count for one in read])
    kinds = np.array([one.kind for one in read])
    groups = np.array([one.group for one in read])
    ordinary, hard, wrapped = (kinds == kind for kind in ("ordinary", "hard", "wrapped"))
    weights = weigh_sources(groups[ordinary])
    points = find_points(peaks[ordinary], groups[ordinary], peaks[hard], groups[hard], share)
    long = np.isin(kinds, ("ordinary", "long"))
    slope = fit_slope(peaks[long], counts[long], points["standard"])
    scores = (peaks - slope * np.log(counts)).astype(np.float32)
    points = find_points(scores[ordinary], groups[ordinary], scores[hard], groups[hard], share)
    relief = 0.0
    if wrapped.sum() >= 50:
        relief = float(np.clip(points["standard"] - np.quantile(scores[wrapped], 1 - WRAPPED_RATE), 0.0, 3.0))
    low = min(find_weighted_threshold(LOW_RATE, scores[ordinary], weights), points["standard"])
    found = ensemble.model_copy(
        update={"slope": slope, "points": points, "high": points["standard"], "low": low, "relief": relief}
    )
    return found, scores


def find_points(
    ordinary: Floats,
    sources: npt.NDArray[np.int64],
    hard: Floats,
    hard_sources: npt.NDArray[np.int64],
    share: float = 1.0,
) -> dict[Strictness, float]:
    """Find the thresholds of each strictness, on scores of ordinary prompts and of those that look harmful."""
    weights = weigh_sources(sources)
    points: dict[Strictness, float] = {}
    for name, rate in RATES.items():
        high = find_weighted_threshold(share * rate, ordinary, weights)
        for source in np.unique(hard_sources):
            high = max(high, find_threshold(share * HARD_RATES[name], hard[hard_sources == source]))
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
