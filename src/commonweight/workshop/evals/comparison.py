"""Comparison of two evaluations, sample by sample: what a model gained and lost, by principle and place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from commonweight.workshop.evals.answer_outcome import OUTCOMES, Outcome
from commonweight.workshop.evals.bits_per_byte import BYTES, METRIC
from commonweight.workshop.evals.collapse import TASK as COLLAPSE
from commonweight.workshop.evals.collapse import compare_distinct
from commonweight.workshop.evals.compliance import TASK as COMPLIANCE
from commonweight.workshop.evals.compliance import Subject, list_metrics, read_score
from commonweight.workshop.evals.contamination import Contamination
from commonweight.workshop.evals.divergence import Divergence
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import SampleLine
from commonweight.workshop.evals.paired import (
    Interval,
    Pairs,
    Rates,
    compare_rates,
    compare_sums,
    pair_lines,
    read_lines,
)
from commonweight.workshop.evals.results import Figure
from commonweight.workshop.evals.settings import PLACES, Group, Place

GROUPS: tuple[Group, ...] = ("harmful", "look-alike", "ordinary")
_COUNTED = (
    ("ifeval", "prompt strict"),
    ("ifeval", "prompt loose"),
    ("hellaswag", "accuracy"),
    ("hellaswag", "accuracy by length"),
)
"""Metrics of which a sample has 1 or 0."""
_BITS = ("answer_bits", "bits_per_byte")


@dataclass(frozen=True)
class SubjectRates:
    """Outcomes of one group in one place, all principles together or of one."""

    place: Place
    group: Group
    principle: str | None
    n: int
    missing: int
    errors: int
    is_enough: bool
    """Whether few enough samples are left out."""
    outcomes: dict[Outcome, Rates]


@dataclass(frozen=True)
class MetricChange:
    """A metric of another task before and after."""

    task: str
    metric: str
    rates: Rates
    missing: int
    errors: int
    is_enough: bool


@dataclass(frozen=True)
class CollapseChange:
    """A figure of variety before and after, each over its own answers."""

    metric: str
    before: Figure
    after: Figure
    ratio: Interval | None
    """With an interval for shares of distinct n-grams."""
    is_enough: bool = True


@dataclass(frozen=True)
class Comparison:
    """All that is compared."""

    subjects: Sequence[SubjectRates]
    changes: Sequence[MetricChange]
    collapse: Sequence[CollapseChange]
    divergence: Divergence | None = None
    contamination: Contamination | None = None

    def find_subject(self, place: Place, group: Group, principle: str | None = None) -> SubjectRates | None:
        """The outcomes of a group in a place; None: not measured."""
        wanted = place, group, principle
        return next((one for one in self.subjects if (one.place, one.group, one.principle) == wanted), None)

    def find_change(self, task: str, metric: str) -> MetricChange | None:
        """A metric before and after; None: not measured."""
        return next((one for one in self.changes if (one.task, one.metric) == (task, metric)), None)

    @property
    def principles(self) -> list[str]:
        """All principles, sorted."""
        return sorted({one.principle for one in self.subjects if one.principle is not None})


class _Results(BaseModel):
    model_config = ConfigDict(frozen=True)

    figures: tuple[Figure, ...]


def compare_evaluations(before: Path, after: Path) -> Comparison:
    """Compare the outputs of two evaluations.

    Raises:
        EvaluationError: one is no evaluation, they share nothing, or a task was measured otherwise.
    """
    first, second = read_figures(before), read_figures(after)
    _require_equal_settings(first, second)
    lines, others = read_lines(before), read_lines(after)
    pairs = {
        task: pair_lines(*([line for line in own if line.task == task] for own in (lines, others)))
        for task in dict.fromkeys(line.task for line in (*lines, *others))
    }
    if not any(own.pairs for own in pairs.values()):
        raise EvaluationError("the two evaluations have no sample in common")
    return Comparison(
        subjects=list(_compare_subjects(lines, others)),
        changes=list(_compare_metrics(pairs)),
        collapse=list(_compare_collapse(first, second, pairs.get(COLLAPSE))),
    )


def read_figures(folder: Path) -> tuple[Figure, ...]:
    """The figures of an evaluation's output.

    Raises:
        EvaluationError: there are none.
    """
    try:
        return TypeAdapter(_Results).validate_json((folder / "results.json").read_bytes()).figures
    except (OSError, ValidationError):
        raise EvaluationError(
            f"the evaluation {folder.parent.name} has no results.json that can be read"
        ) from None


def _require_equal_settings(before: Sequence[Figure], after: Sequence[Figure]) -> None:
    """Stop where a task was measured with other settings or another file: it would say nothing."""
    known = {(one.task, one.metric, one.dataset.name): one for one in before}
    for figure in after:
        other = known.get((figure.task, figure.metric, figure.dataset.name))
        if other is not None and other.dataset.digest != figure.dataset.digest:
            raise EvaluationError(f"{figure.task} was measured on different files called {figure.dataset.name}")
        if other is not None and other.sampling != figure.sampling:
            changed = sorted(
                key
                for key in other.sampling.keys() | figure.sampling.keys()
                if other.sampling.get(key) != figure.sampling.get(key)
            )
            raise EvaluationError(f"{figure.task} was measured with different settings: {', '.join(changed)}")


def _compare_subjects(before: Sequence[SampleLine], after: Sequence[SampleLine]) -> Iterator[SubjectRates]:
    # The metrics of a sample are there whatever became of it, so that errors count where they belong.
    first, second = _group_by_metric(before), _group_by_metric(after)
    principles = sorted({subject.principle or "" for subject in (*first, *second)})
    for place in PLACES:
        for group in GROUPS:
            for principle in principles:
                subject = Subject(place, group, principle or None)
                if subject not in first and subject not in second:
                    continue
                found = pair_lines(first.get(subject, ()), second.get(subject, ()))
                yield SubjectRates(
                    place=place,
                    group=group,
                    principle=subject.principle,
                    n=len(found.pairs),
                    missing=found.missing,
                    errors=found.errors,
                    is_enough=found.is_enough,
                    outcomes={outcome: compare_rates(found.pairs, _make_count(outcome)) for outcome in OUTCOMES},
                )


def _group_by_metric(lines: Sequence[SampleLine]) -> Mapping[Subject, list[SampleLine]]:
    found: dict[Subject, list[SampleLine]] = {}
    for line in lines:
        if line.task == COMPLIANCE:
            for subject in _list_subjects(line):
                found.setdefault(subject, []).append(line)
    return found


def _list_subjects(line: SampleLine) -> Iterator[Subject]:
    """The group of a sample, and its principle where it has one."""
    for place in PLACES:
        for group in GROUPS:
            metrics = {metric for _, metric in list_metrics(Subject(place, group))}
            if metrics <= line.score.keys():
                yield Subject(place, group)
                for metric in line.score:
                    head, _, principle = metric.rpartition(" ")
                    if head == Subject(place, group).name_metric(OUTCOMES[0]):
                        yield Subject(place, group, principle)


def _make_count(outcome: Outcome) -> Callable[[SampleLine], float]:
    def count(line: SampleLine) -> float:
        found = read_score(line.score)
        return float(found is not None and found[1] == outcome)

    return count


def _compare_metrics(pairs: Mapping[str, Pairs]) -> Iterator[MetricChange]:
    for task, metric in _COUNTED:
        found = pairs.get(task)
        if found is not None and found.pairs:
            rates = compare_rates(found.pairs, _make_reader(metric))
            yield MetricChange(task, metric, rates, found.missing, found.errors, found.is_enough)
    for task in _BITS:
        found = pairs.get(task)
        if found is not None and found.pairs:
            rates = compare_sums(found.pairs, _make_reader(METRIC), _make_reader(BYTES))
            yield MetricChange(task, METRIC, rates, found.missing, found.errors, found.is_enough)


def _make_reader(metric: str) -> Callable[[SampleLine], float]:
    return lambda line: float(line.score.get(metric, 0))


def _compare_collapse(
    before: Sequence[Figure], after: Sequence[Figure], pairs: Pairs | None
) -> Iterator[CollapseChange]:
    known = {(one.metric, one.dataset.name): one for one in before if one.task == COLLAPSE}
    for figure in after:
        other = known.get((figure.metric, figure.dataset.name)) if figure.task == COLLAPSE else None
        if other is None or pairs is None:
            continue
        ratio: Interval | None = None
        if other.value > 0:
            value = figure.value / other.value
            ratio = Interval(value, value, value)
            if figure.metric.startswith("distinct-"):
                scores = [(pair.before.score, pair.after.score) for pair in pairs.pairs]
                ratio = compare_distinct(figure.metric.removeprefix("distinct-"), scores) or ratio
        yield CollapseChange(figure.metric, other, figure, ratio, pairs.is_enough)


def encode_comparison(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON."""
    encoded: dict[str, Any] = TypeAdapter(Comparison).dump_python(comparison, mode="json")
    return encoded
