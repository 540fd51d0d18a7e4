"""Collapse: how varied the answers to ordinary prompts are, word by word.

Shares of distinct n-grams over all answers together, unigram entropy of their words, overlap of pairs of answers,
length, and how many do not end. Words are runs of letters and digits in lower case, so that models with other
tokens can be compared; tokens are those that the server counts. Of each answer its first words count
(``words`` of the settings): longer texts repeat more.

Each sample's score holds what it adds: of n-grams those that no answer before it has (``distinct-3``), those that
no other answer has (``own-3``, for the jackknife) and all of them (``all-3``); the sum of what its words add to
the entropy; its mean overlap with the others.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from commonweight.workshop.evals.datasets import Dataset, choose_rows
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.generation import Answer, Sample
from commonweight.workshop.evals.ledger import SampleLine, Score
from commonweight.workshop.evals.paired import Interval
from commonweight.workshop.evals.results import Figure, Tally, Z
from commonweight.workshop.evals.settings import CollapseSettings

TASK = "collapse"
ORDERS = 1, 2, 3
MAX_COMPARED = 500
"""Answers of which each is compared with each."""

ENTROPY, OVERLAP, LENGTH, ENDLESS = "bits a word", "overlap of bigrams", "tokens", "without an end"
_WORD = re.compile(r"[^\W_]+")


def make_samples(settings: CollapseSettings, dataset: Dataset) -> list[Sample]:
    """Make samples of a data set.

    Raises:
        EvaluationError: a row has no prompt.
    """
    name = dataset.identity.name
    samples = []
    for number, row in choose_rows(dataset.rows, settings.limit, settings.seed):
        prompt = row.get(settings.field)
        if not isinstance(prompt, str) or not prompt.strip():
            raise EvaluationError(f"row {number} of {name} needs a prompt in {settings.field}")
        samples += [
            Sample(f"{name}:{number}#{repeat}", prompt, _score, is_kept=True) for repeat in range(settings.samples)
        ]
    return samples


def complete_lines(
    settings: CollapseSettings, lines: Sequence[SampleLine], texts: Mapping[str, str]
) -> list[SampleLine]:
    """The lines with what each answer adds to figures over all of them.

    Args:
        texts: of the answers, by sample.
    """
    answered = [line for line in lines if line.error is None]
    words = [split_words(texts[line.sample_id], settings.words) for line in answered]
    scores = compute_scores(words)
    completed = {
        line.sample_id: line.model_copy(update={"score": {**_keep_counts(line), **score}})
        for line, score in zip(answered, scores, strict=True)
    }
    return [completed.get(line.sample_id, line) for line in lines]


def compute_scores(answers: Sequence[Sequence[str]]) -> list[dict[str, int | float]]:
    """What each answer adds, by metric.

    Args:
        answers: words of each.
    """
    scores: list[dict[str, int | float]] = [{} for _ in answers]
    for order in ORDERS:
        grams = [list(zip(*(words[start:] for start in range(order)), strict=False)) for words in answers]
        holders = Counter(gram for own in grams for gram in set(own))
        seen: set[tuple[str, ...]] = set()
        for score, own in zip(scores, grams, strict=True):
            distinct = set(own)
            score[f"distinct-{order}"] = len(distinct - seen)
            score[f"own-{order}"] = sum(holders[gram] == 1 for gram in distinct)
            score[f"all-{order}"] = len(own)
            seen |= distinct
    counts = Counter(word for words in answers for word in words)
    total = counts.total()
    for score, words in zip(scores, answers, strict=True):
        score[ENTROPY] = round(math.fsum(math.log2(total / counts[word]) for word in words), 9)
    for score, overlap in zip(scores, _compute_overlaps(answers[:MAX_COMPARED]), strict=False):
        score[OVERLAP] = round(overlap, 9)
    return scores


def make_figures(lines: Sequence[SampleLine], make: Callable[..., Figure]) -> list[Figure]:
    """Make figures of completed lines. A sample with an error adds nothing but itself to the errors."""
    errors = sum(line.error is not None for line in lines)
    scores = [line.score for line in lines if line.error is None]
    figures = []
    for order in ORDERS:
        pairs = [(score[f"distinct-{order}"], score[f"all-{order}"]) for score in scores]
        low, high = compute_jackknife([(score[f"own-{order}"], score[f"all-{order}"]) for score in scores], pairs)
        figures.append(_make_ratio(make, f"distinct-{order}", pairs, errors, len(lines), (low, high)))
    pairs = [(score[ENTROPY], score["all-1"]) for score in scores]
    figures.append(_make_ratio(make, ENTROPY, pairs, errors, len(lines)))
    compared = [(score[OVERLAP], 1) for score in scores if OVERLAP in score]
    figures.append(_make_ratio(make, OVERLAP, compared, errors, len(compared) + errors))
    figures.append(_make_ratio(make, LENGTH, [(score[LENGTH], 1) for score in scores], errors, len(lines)))
    endless = [Tally(int(line.score.get(ENDLESS, 0)), 1, int(line.error is not None)) for line in lines]
    return [*figures, make(ENDLESS, endless)]


def compute_jackknife(
    own: Sequence[tuple[float, float]], pairs: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Ends of the 95 % interval of a share of distinct n-grams, by leaving out one answer after the other.

    A bootstrap would draw answers twice, whose n-grams then are distinct no more.

    Args:
        own: for each answer its n-grams that no other has, and all of its n-grams.
        pairs: for each answer those that are new with it, and all.
    """
    distinct, total = sum(new for new, _ in pairs), sum(count for _, count in pairs)
    value = distinct / total if total else 0.0
    shares = [(distinct - mine) / (total - count) for mine, count in own if total > count]
    if len(shares) < 2:
        return 0.0, 1.0
    mean = math.fsum(shares) / len(shares)
    variance = math.fsum((share - mean) ** 2 for share in shares) * (len(shares) - 1) / len(shares)
    return max(0.0, value - Z * math.sqrt(variance)), min(1.0, value + Z * math.sqrt(variance))


def compare_distinct(order: str, pairs: Sequence[tuple[Score, Score]]) -> Interval | None:
    """The ratio of two shares of distinct n-grams, after over before, by leaving out one prompt after the other.

    Args:
        order: of the n-grams.
        pairs: scores before and after, of answers to the same prompts.
    """
    names = f"distinct-{order}", f"all-{order}", f"own-{order}"
    sums = [[math.fsum(pair[run][name] for pair in pairs) for name in names[:2]] for run in (0, 1)]
    if not all(value > 0 for own in sums for value in own):
        return None
    value = (sums[1][0] / sums[1][1]) / (sums[0][0] / sums[0][1])
    logarithms = []
    for pair in pairs:
        shares = [
            (distinct - score[names[2]]) / (total - score[names[1]]) if total > score[names[1]] else 0.0
            for (distinct, total), score in zip(sums, pair, strict=True)
        ]
        if min(shares) > 0:
            logarithms.append(math.log(shares[1] / shares[0]))
    if len(logarithms) < 2:
        return None
    mean = math.fsum(logarithms) / len(logarithms)
    variance = math.fsum((one - mean) ** 2 for one in logarithms) * (len(logarithms) - 1) / len(logarithms)
    spread = Z * math.sqrt(variance)
    return Interval(value, value * math.exp(-spread), value * math.exp(spread))


def split_words(text: str, most: int) -> list[str]:
    """The first words of a text, in lower case."""
    return [found.group().lower() for found, _ in zip(_WORD.finditer(text), range(most), strict=False)]


def _score(answer: Answer) -> Score:
    return {LENGTH: answer.tokens, ENDLESS: int(answer.is_cut)}


def _keep_counts(line: SampleLine) -> Score:
    return {metric: line.score[metric] for metric in (LENGTH, ENDLESS)}


def _compute_overlaps(answers: Sequence[Sequence[str]]) -> list[float]:
    """For each answer the mean share of bigrams that it has in common with another one (Jaccard's index)."""
    if len(answers) < 2:
        return [0.0] * len(answers)
    sets = [set(pairwise(words)) for words in answers]
    numbers = {gram: number for number, gram in enumerate(dict.fromkeys(gram for own in sets for gram in own))}
    matrix = np.zeros((len(sets), len(numbers)), np.float32)
    for row, own in zip(matrix, sets, strict=True):
        row[[numbers[gram] for gram in own]] = 1
    common = matrix @ matrix.T
    sizes = matrix.sum(1)
    either = sizes[:, None] + sizes[None, :] - common
    index = np.divide(common, either, out=np.zeros_like(common), where=either > 0)
    np.fill_diagonal(index, 0)
    overlaps: list[float] = (index.sum(1, dtype=np.float64) / (len(sets) - 1)).tolist()
    return overlaps


def _make_ratio(
    make: Callable[..., Figure],
    metric: str,
    pairs: Sequence[tuple[float, float]],
    errors: int,
    least: int,
    interval: tuple[float, float] | None = None,
) -> Figure:
    """The figure of a sum by another one, of what the answers add to each.

    Args:
        least: of its ``n``: answers, errors included, where they have fewer words together.
        interval: None: that of a ratio of sums over answers.
    """
    size = max(int(sum(count for _, count in pairs)), least)
    value = math.fsum(part for part, _ in pairs) / size if size else 0.0
    if interval is None:
        spread = 0.0
        if len(pairs) > 1:
            squares = math.fsum((part - value * count) ** 2 for part, count in pairs)
            spread = Z * math.sqrt(squares * len(pairs) / (len(pairs) - 1)) / size
        interval = max(0.0, value - spread), value + spread
    low, high = interval
    return make(metric, []).model_copy(
        update={
            "value": round(value, 6),
            "n": size,
            "errors": errors,
            "low": round(min(low, value), 6),
            "high": round(max(high, value), 6),
        }
    )
