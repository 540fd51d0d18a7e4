"""Figures of evaluations and the scores behind them: what a release carries of them, without any text."""

import math
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from commonweight.workshop.release.documents import (
    ReleaseError,
    decode_json,
    refuse_texts,
    validate_model,
)

Subject = Literal["release", "base"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@+=,#()\[\]-]{1,120}$")]
Words = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@+=,#()-]{1,60}( [A-Za-z0-9_.:/@+=,#()-]{1,60}){0,7}$")]
_DIGEST = r"^[0-9a-f]{64}$"
_TOLERANCE = 1e-6
"""Values are written with six decimals."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredSet(_Part):
    """The set that a figure was measured on."""

    name: Words
    digest: Annotated[str, Field(pattern=_DIGEST)]
    licence: Words | None


class Figure(_Part):
    """One figure, with what it takes to read it."""

    subject: Subject
    """Whether the release or the model that it was made from was measured."""
    task: Id
    metric: Words
    value: FiniteFloat
    n: int = Field(ge=0)
    """What was counted, errors included."""
    errors: int = Field(ge=0)
    low: FiniteFloat | None
    high: FiniteFloat | None
    sampling: dict[Id, bool | int | FiniteFloat | Words | None]
    harness: Words
    date: date
    dataset: MeasuredSet


class Sample(_Part):
    """The score of one sample."""

    subject: Subject
    task: Id
    sample_id: Id
    digest: Annotated[str, Field(pattern=_DIGEST)]
    """Of its prompt."""
    answer: Annotated[str, Field(pattern=_DIGEST)] | None = None
    """Digest of its answer; None: there is none."""
    score: dict[Words, bool | int | FiniteFloat]
    """Outcomes that are right, by metric; empty for an error."""
    error: Literal[True] | None = None


def read_figures(data: bytes, name: str, subject: Subject) -> tuple[Figure, ...]:
    """Figures out of ``results.json``.

    Raises:
        ReleaseError: one is malformed, or holds a text.
    """
    content = decode_json(data, name)
    refuse_texts(content, name)
    items = content.get("figures") if isinstance(content, dict) else None
    if not isinstance(items, list) or len(content) != 1:
        raise ReleaseError(f"{name} is not a list of figures.")
    return tuple(
        validate_model(Figure, _add_subject(item, subject), f"{name}, figure {number}")
        for number, item in enumerate(items, start=1)
    )


def read_samples(data: bytes, name: str, subject: Subject) -> tuple[Sample, ...]:
    """Scores out of ``samples.jsonl``.

    Raises:
        ReleaseError: a line is malformed, or holds a text.
    """
    if data and not data.endswith(b"\n"):
        raise ReleaseError(f"{name} is cut off: its last line does not end.")
    samples = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        item = decode_json(line, f"{name}, line {number}")
        refuse_texts(item, f"{name}, line {number}")
        samples.append(validate_model(Sample, _add_subject(item, subject), f"{name}, line {number}"))
    ids = {(sample.task, sample.sample_id) for sample in samples}
    if len(ids) != len(samples):
        raise ReleaseError(f"{name} has a sample twice.")
    return tuple(samples)


def find_figure(figures: Iterable[Figure], task: str, metric: str, subject: Subject) -> Figure | None:
    """The figure of a task and metric; None if it was not measured, or on several sets."""
    found = [f for f in figures if (f.task, f.metric, f.subject) == (task, metric, subject)]
    return found[0] if len(found) == 1 else None


def check_scores(figure: Figure, samples: Sequence[Sample]) -> str | None:
    """Compare a figure with the scores behind it: its value is the sum of their outcomes by its ``n``.

    Returns:
        What differs, or None.
    """
    own = [sample for sample in samples if (sample.task, sample.subject) == (figure.task, figure.subject)]
    prefix = f"{figure.dataset.name}:"
    if any(sample.sample_id.startswith(prefix) for sample in own):
        own = [sample for sample in own if sample.sample_id.startswith(prefix)]
    # An error counts in all metrics, unless its sample says in which: a task may measure several things.
    own = [
        sample
        for sample in own
        if sample.error is None or not sample.score or _find_score(sample, figure.metric) is not None
    ]
    scores = [value for sample in own if (value := _find_score(sample, figure.metric)) is not None]
    failed = sum(sample.error is not None for sample in own)
    if not scores and not failed:
        return "there are no scores"
    total = math.fsum(scores)
    without = sum(sample.error is not None and _find_score(sample, figure.metric) is None for sample in own)
    if figure.n < len(scores) + without or figure.errors < failed:
        return f"there are {len(scores) + without} samples with {failed} errors"
    if figure.n == len(own) and figure.errors != failed:
        return f"there are {failed} errors"
    if abs(total / figure.n - figure.value) > _TOLERANCE:
        return f"the scores sum to {total:g}"
    return None


def _find_score(sample: Sample, metric: str) -> float | None:
    # The figure of one group of prompts has the group's name before that of the outcome.
    for name, value in sample.score.items():
        if metric == name or metric.endswith(f" {name}"):
            return float(value)
    return None


def _add_subject(item: object, subject: Subject) -> object:
    if not isinstance(item, dict) or "subject" in item:
        return None
    return {**item, "subject": subject}
