"""Figures of evaluations and the scores behind them: what a release carries of them, without any text."""

import math
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from commonweight.lineage.digests import encode_json
from commonweight.workshop.release.documents import (
    MAX_LINES_BYTES,
    ReleaseError,
    decode_json,
    read_file,
    refuse_texts,
    validate_model,
)

Subject = Literal["release", "base"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@+=,#()\[\]-]{1,120}$")]
Words = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@+=,#()-]{1,60}( [A-Za-z0-9_.:/@+=,#()-]{1,60}){0,7}$")]
_TOLERANCE = 1e-6


class MeasuredSet(BaseModel):
    """The set that a figure was measured on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Words
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    licence: Words | None = None


class Figure(BaseModel):
    """One figure, with what it takes to read it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    subject: Subject = "release"
    """Whether the release or the model that it was made from was measured."""
    task: Id
    metric: Id
    value: FiniteFloat | None
    """None: not measured."""
    n: int = Field(ge=0)
    errors: int = Field(default=0, ge=0)
    """Samples that failed; they are in ``n``."""
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    sampling: dict[Id, bool | int | FiniteFloat | Words | None] | Words | None = None
    harness: Words
    date: date
    dataset: MeasuredSet


class Sample(BaseModel):
    """The score of one sample."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    subject: Subject = "release"
    task: Id
    sample_id: Id
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    score: bool | FiniteFloat | dict[Id, bool | FiniteFloat | None] | None
    """A number, numbers by metric, or None where the sample failed."""


def read_figures(data: bytes, name: str, subject: Subject | None = None) -> tuple[Figure, ...]:
    """Figures out of ``results.json``.

    Args:
        subject: what was measured; None: each figure says so.

    Raises:
        ReleaseError: one is malformed, or holds a text.
    """
    content = decode_json(data, name)
    refuse_texts(content, name)
    items = content.get("figures") if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise ReleaseError(f"{name} has no list of figures.")
    given = {} if subject is None else {"subject": subject}
    return tuple(
        validate_model(Figure, item | given if isinstance(item, dict) else item, f"{name}, figure {number}")
        for number, item in enumerate(items, start=1)
    )


def read_samples(data: bytes, name: str, subject: Subject | None = None) -> tuple[Sample, ...]:
    """Scores out of ``samples.jsonl``.

    Raises:
        ReleaseError: a line is malformed, or holds a text.
    """
    given = {} if subject is None else {"subject": subject}
    samples = []
    for number, line in enumerate(data.splitlines(), start=1):
        item = decode_json(line, f"{name}, line {number}")
        refuse_texts(item, f"{name}, line {number}", words=1)
        samples.append(
            validate_model(Sample, item | given if isinstance(item, dict) else item, f"{name}, line {number}")
        )
    return tuple(samples)


def read_evaluation(folder: Path, subject: Subject) -> tuple[tuple[Figure, ...], tuple[Sample, ...]]:
    """Figures and scores of an evaluation folder; its private logs are not looked at.

    Raises:
        ReleaseError: a file is missing, malformed, or holds a text.
    """
    figures = read_figures(read_file(folder / "results.json"), "results.json", subject)
    samples = read_samples(read_file(folder / "samples.jsonl", MAX_LINES_BYTES), "samples.jsonl", subject)
    return figures, samples


def encode_figures(figures: Iterable[Figure]) -> list[dict[str, object]]:
    """Figures as the release's ``evaluation/results.json`` lists them."""
    return [figure.model_dump(mode="json") for figure in figures]


def encode_samples(samples: Iterable[Sample]) -> bytes:
    """The bytes of the release's ``evaluation/samples.jsonl``."""
    return b"".join(encode_json(sample.model_dump(mode="json")) + b"\n" for sample in samples)


def find_figure(figures: Iterable[Figure], task: str, metric: str, subject: Subject) -> Figure | None:
    """The figure of a task and metric; None if it was not measured."""
    return next((f for f in figures if (f.task, f.metric, f.subject) == (task, metric, subject)), None)


def check_scores(figure: Figure, samples: Sequence[Sample]) -> Literal["equal", "not a mean", "counts differ"]:
    """Compare a figure with the scores behind it.

    Returns:
        ``equal`` where it is the mean of the scores (failed samples count as 0), ``not a mean`` where another rule
        made it, ``counts differ`` where its ``n`` or ``errors`` are not those of the scores.
    """
    own = [sample for sample in samples if (sample.task, sample.subject) == (figure.task, figure.subject)]
    failed = sum(sample.score is None for sample in own)
    if len(own) != figure.n or failed != figure.errors:
        return "counts differ"
    scores = [
        sample.score.get(figure.metric) if isinstance(sample.score, dict) else sample.score for sample in own
    ]
    total = math.fsum(float(score or 0) for score in scores)
    is_mean = figure.value is not None and figure.n and abs(total / figure.n - figure.value) <= _TOLERANCE
    return "equal" if is_mean else "not a mean"
