"""Figures of an evaluated guard: shares, ratios, areas and medians with 95 % intervals, and their goals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from commonweight.guard.heads.calibration import Interval, estimate_share
from commonweight.workshop.heads.evaluate import ScoredText
from commonweight.workshop.heads.kept_scores import Outcome
from commonweight.workshop.heads.metrics import BOOTSTRAP_ROUNDS, bootstrap, compute_auprc

Unit = Literal["share", "ratio", "area", "tokens", "seconds", "count"]
Result = Literal["aim", "floor", "missed", "reported", "no goal", "n/a"]


@dataclass(frozen=True)
class Goal:
    """What a figure is asked for: at least a floor, or at most one, and an aim beyond it."""

    floor: float | None
    """None: it is reported, however far from the aim."""
    aim: float
    is_upper: bool = False
    """The figure is to be at most this."""

    def judge(self, value: float) -> Result:
        """Judge a value."""
        if self._meets(value, self.aim):
            return "aim"
        if self.floor is None:
            return "reported"
        return "floor" if self._meets(value, self.floor) else "missed"

    def _meets(self, value: float, limit: float) -> bool:
        return value <= limit if self.is_upper else value >= limit


def at_least(floor: float, aim: float) -> Goal:
    """Make a goal of lower limits."""
    return Goal(floor, aim)


def at_most(floor: float | None, aim: float) -> Goal:
    """Make a goal of upper limits."""
    return Goal(floor, aim, is_upper=True)


@dataclass(frozen=True)
class Figure:
    """A row of the table: one figure of one set."""

    group: str
    name: str
    texts: int = 0
    """Those that were read."""
    value: Interval | None = None
    """None: it could not be measured; the note says why."""
    unit: Unit = "share"
    goal: Goal | None = None
    unread: int = 0
    """Texts that a server would not take (longer than the model's window, or blank), which are in no rate."""
    note: str = ""

    @property
    def result(self) -> Result:
        """How it stands to its goal."""
        if self.value is None:
            return "n/a"
        return "no goal" if self.goal is None else self.goal.judge(self.value.value)

    def add_note(self, text: str) -> "Figure":
        """The same figure with a further note."""
        return replace(self, note="; ".join(filter(None, (self.note, text))))


def make_unmeasured(group: str, name: str, why: str) -> Figure:
    """Make the row of a figure that could not be measured."""
    return Figure(group, name, note=f"n/a: {why}")


def is_refused(outcome: Outcome) -> bool:
    """Whether a text was refused."""
    return outcome.is_refused


def is_noted(outcome: Outcome) -> bool:
    """Whether there is a verdict on a text, be it that it was refused or only recorded."""
    return bool(outcome.noted)


def measure_share(
    group: str,
    name: str,
    found: Sequence[ScoredText],
    goal: Goal | None = None,
    is_hit: Callable[[Outcome], bool] = is_refused,
) -> Figure:
    """Measure the share of texts that are refused, or hit otherwise, with Wilson's interval."""
    read = [one.outcome for one in found if one.outcome.is_read]
    unread = len(found) - len(read)
    if not read:
        return replace(make_unmeasured(group, name, "none of the texts was read"), unread=unread)
    share = estimate_share(sum(map(is_hit, read)), len(read))
    return Figure(group, name, len(read), share, "share", goal, unread)


def measure_ratio(
    group: str,
    name: str,
    changed: Sequence[ScoredText],
    plain: Sequence[ScoredText],
    goal: Goal | None = None,
    is_hit: Callable[[Outcome], bool] = is_refused,
) -> Figure:
    """Measure how many of the changed texts are refused, or hit otherwise, over how many of the plain ones.

    The texts are the same in the same order.

    The interval is of texts drawn again, each with its change.
    """
    pairs = [
        (is_hit(one.outcome), is_hit(other.outcome))
        for one, other in zip(changed, plain, strict=True)
        if one.outcome.is_read and other.outcome.is_read
    ]
    unread = len(plain) - len(pairs)
    table = np.array(pairs, float).reshape(-1, 2)
    if not table[:, 1].sum():
        return replace(make_unmeasured(group, name, "none of the plain texts is hit"), unread=unread)
    return Figure(group, name, len(pairs), _bootstrap_ratio(table), "ratio", goal, unread)


def measure_pooled_share(
    group: str, name: str, pairs: Sequence[tuple[int, int]], goal: Goal | None = None
) -> Figure:
    """Measure the share of hits among all, pooled over sets of them; the interval is of sets drawn again.

    ``pairs``: of each set, the hits and all.
    """
    total = sum(size for _, size in pairs)
    if not total:
        return make_unmeasured(group, name, "there is nothing to take a share of")
    return Figure(group, name, total, _bootstrap_ratio(np.array(pairs, float)), "share", goal)


def measure_auprc(group: str, name: str, found: Sequence[ScoredText], goal: Goal | None = None) -> Figure:
    """Measure the average precision of the scores."""
    read = [one for one in found if one.outcome.is_read]
    harmful = np.array([one.outcome.score for one in read if one.row.is_harmful])
    harmless = np.array([one.outcome.score for one in read if not one.row.is_harmful])
    if not (len(harmful) and len(harmless)):
        return make_unmeasured(group, name, "it needs texts of both labels")
    area = bootstrap(compute_auprc, harmful, harmless)
    return Figure(group, name, len(read), area, "area", goal, len(found) - len(read))


def measure_median(
    group: str, name: str, values: Sequence[float], unit: Unit, goal: Goal | None = None, seed: int = 0
) -> Figure:
    """Measure the median of values, with the interval of medians of values drawn again."""
    if not values:
        return make_unmeasured(group, name, "there is nothing to take a median of")
    draw = np.random.default_rng(seed)
    medians = np.median(draw.choice(values, (BOOTSTRAP_ROUNDS, len(values))), axis=1)
    lower, upper = np.percentile(medians, [2.5, 97.5])
    median = Interval(float(np.median(values)), float(lower), float(upper))
    return Figure(group, name, len(values), median, unit, goal)


def _bootstrap_ratio(pairs: npt.NDArray[np.float64], seed: int = 0) -> Interval:
    draw = np.random.default_rng(seed)
    changed, plain = pairs.sum(0)
    again = []
    for _ in range(BOOTSTRAP_ROUNDS):
        one, other = pairs[draw.integers(len(pairs), size=len(pairs))].sum(0)
        if other:
            again.append(one / other)
    lower, upper = np.percentile(again, [2.5, 97.5])
    return Interval(float(changed / plain), float(lower), float(upper))
