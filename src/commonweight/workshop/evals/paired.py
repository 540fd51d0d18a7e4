"""Two runs on the same samples: pairs by id, and intervals of what changed between them."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import SampleLine
from commonweight.workshop.evals.results import Z, compute_wilson

RESAMPLES = 10_000
SEED = 0
MAX_LEFT_OUT = 0.05
"""Share of the samples that may have no pair before a figure says nothing."""

_ROWS_AT_ONCE = 200
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A sample of both runs."""

    prompt: str
    """Samples of one prompt are drawn together."""
    before: SampleLine
    after: SampleLine


@dataclass(frozen=True)
class Pairs:
    """The samples that both runs have, and how many have no partner."""

    pairs: Sequence[Pair]
    missing: int = 0
    """In one run only, or with another prompt."""
    errors: int = 0
    """Without an answer in one run or both."""

    @property
    def left_out(self) -> int:
        """Samples that are not compared."""
        return self.missing + self.errors

    @property
    def is_enough(self) -> bool:
        """Whether so few are left out that the rest speaks for all."""
        return self.left_out <= MAX_LEFT_OUT * (len(self.pairs) + self.left_out)


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def read_lines(folder: Path) -> list[SampleLine]:
    """The samples of an evaluation's output.

    Raises:
        EvaluationError: there are none, or a line is damaged.
    """
    path = folder / "samples.jsonl"
    try:
        content = path.read_bytes()
    except OSError:
        raise EvaluationError(f"the evaluation {folder.parent.name} has no {path.name}") from None
    lines = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            lines.append(SampleLine.model_validate(json.loads(line)))
        except (ValueError, ValidationError):
            raise EvaluationError(f"line {number} of {path.name} is damaged") from None
    return lines


def pair_lines(before: Iterable[SampleLine], after: Iterable[SampleLine]) -> Pairs:
    """Pair the samples of two runs by task, id and digest of the prompt.

    Samples without an answer in one of the runs are no pairs: what is compared is answers.
    """
    first = {(line.task, line.sample_id): line for line in before}
    second = {(line.task, line.sample_id): line for line in after}
    pairs, counts = [], Counter[str]()
    for key in dict.fromkeys([*first, *second]):
        one, other = first.get(key), second.get(key)
        if one is None or other is None or one.digest != other.digest:
            counts["missing"] += 1
        elif one.error is not None or other.error is not None:
            counts["errors"] += 1
        else:
            pairs.append(Pair(find_prompt(key[1]), one, other))
    return Pairs(pairs, counts["missing"], counts["errors"])


def find_prompt(sample_id: str) -> str:
    """The prompt of a sample: its id without the place and the number of the answer."""
    return sample_id.split("#", maxsplit=1)[0].split("/", maxsplit=1)[0]


@dataclass(frozen=True)
class Rates:
    """Something before and after."""

    n: int
    before: float
    after: float
    difference: Interval
    ratio: Interval | None
    """None: there is none, since the rate before is 0."""


def compare_rates(pairs: Sequence[Pair], count: Callable[[SampleLine], float]) -> Rates:
    """Rates of an outcome before and after, their difference and their ratio.

    Args:
        count: what a sample adds: 1 where it has the outcome, else 0.
    """
    return compare_sums(pairs, count, lambda _line: 1.0)


def compare_sums(
    pairs: Sequence[Pair], count: Callable[[SampleLine], float], size: Callable[[SampleLine], float]
) -> Rates:
    """Sums by sizes before and after (bits by bytes, outcomes by samples); intervals by bootstrap over prompts.

    Where no sample has the outcome afterwards, every draw has the ratio 0, which says too much: then the upper end
    is Wilson's for the rate afterwards over the rate before. So is it for the difference.
    """
    sums = _sum_prompts(pairs, count, size)
    totals = sums.sum(0)
    before, after = _divide(totals[0], totals[1]), _divide(totals[2], totals[3])
    drawn = _draw(sums)
    firsts, seconds = _divide_all(drawn[:, 0], drawn[:, 1]), _divide_all(drawn[:, 2], drawn[:, 3])
    difference = _make_interval(after - before, seconds - firsts)
    ratio = None
    if before > 0:
        ratios = np.divide(seconds, firsts, out=np.full_like(seconds, math.inf), where=firsts > 0)
        ratio = _make_interval(after / before, ratios)
        if totals[2] == 0:
            bound = compute_wilson(0.0, len(sums))[1]
            ratio = Interval(0.0, 0.0, max(ratio.high, bound / before))
            difference = Interval(difference.value, difference.low, max(difference.high, bound - before))
    return Rates(len(pairs), before, after, difference, ratio)


def compute_mean_ratio(parts: Sequence[tuple[float, float]]) -> Interval:
    """A sum by another one, with the interval of a ratio of sums over independent parts."""
    size = math.fsum(count for _, count in parts)
    if not size:
        return Interval(0.0, 0.0, 0.0)
    value = math.fsum(part for part, _ in parts) / size
    spread = 0.0
    if len(parts) > 1:
        squares = math.fsum((part - value * count) ** 2 for part, count in parts)
        spread = Z * math.sqrt(squares * len(parts) / (len(parts) - 1)) / size
    return Interval(value, value - spread, value + spread)


def _sum_prompts(
    pairs: Sequence[Pair], count: Callable[[SampleLine], float], size: Callable[[SampleLine], float]
) -> Array:
    """A row for each prompt: its sums and sizes before and after."""
    rows: dict[str, list[float]] = {}
    for pair in pairs:
        row = rows.setdefault(pair.prompt, [0.0] * 4)
        for number, value in enumerate(
            (count(pair.before), size(pair.before), count(pair.after), size(pair.after))
        ):
            row[number] += value
    return np.array(list(rows.values()), np.float64).reshape(-1, 4)


def _draw(sums: Array) -> Array:
    """Totals of resamples: as many prompts as there are, each drawn with replacement."""
    if not len(sums):
        return np.zeros((1, 4))
    # Equal prompts are drawn together: outcomes have few different sums, however many prompts there are.
    rows, counts = np.unique(sums, axis=0, return_counts=True)
    generator = np.random.default_rng(SEED)
    drawn = [
        generator.multinomial(len(sums), counts / len(sums), size=_ROWS_AT_ONCE) @ rows
        for _ in range(RESAMPLES // _ROWS_AT_ONCE)
    ]
    return np.concatenate(drawn)


def _divide(value: float, size: float) -> float:
    return float(value / size) if size else 0.0


def _divide_all(values: Array, sizes: Array) -> Array:
    return np.divide(values, sizes, out=np.zeros_like(values), where=sizes > 0)


def _make_interval(value: float, drawn: Array) -> Interval:
    # By the nearest draw: between a finite one and an infinite one lies nothing.
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return Interval(value, min(float(low), value), max(float(high), value))
