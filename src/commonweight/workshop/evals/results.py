"""Figures with their intervals, and the files that hold them; never a text of a prompt or an answer."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

Z = 1.959963984540054
"""Standard deviations of a 95 % interval."""


class DatasetIdentity(BaseModel):
    """The data set that a figure was measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str
    """SHA-256 of its file."""
    licence: str


class Figure(BaseModel):
    """One measured figure: a proportion, or bits per byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    metric: str
    value: float
    n: int
    """What was counted, errors included."""
    errors: int
    """Of n: samples without an answer or a score, which count as wrong."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    sampling: dict[str, JsonValue]
    harness: str
    date: str
    dataset: DatasetIdentity


@dataclass(frozen=True)
class Tally:
    """What one prompt adds to a figure: how many of its outcomes are right, and how many of them are errors."""

    right: float
    n: int
    errors: int = 0


def compute_wilson(value: float, n: float) -> tuple[float, float]:
    """Ends of Wilson's 95 % interval of a proportion seen in n independent trials."""
    if n <= 0:
        return 0.0, 1.0
    centre = value + Z * Z / (2 * n)
    spread = Z * math.sqrt(value * (1 - value) / n + Z * Z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + Z * Z / n) for sign in (-1, 1))
    return max(0.0, min(low, value)), min(1.0, max(high, value))


def count_independent(tallies: Sequence[Tally]) -> float:
    """Number of independent trials that say as much as these outcomes, of which those of a prompt hang together.

    n divided by the design effect: the variance of the figure by prompts over that of n independent trials. From
    the number of prompts to n; where all outcomes are equal, nothing can be estimated, and it is the number of
    prompts.
    """
    n, prompts = sum(tally.n for tally in tallies), len(tallies)
    if n == prompts:
        return n
    value = sum(tally.right for tally in tallies) / n
    if prompts < 2 or value in {0.0, 1.0}:
        return prompts
    by_prompt = sum((tally.right - value * tally.n) ** 2 for tally in tallies) * prompts / (prompts - 1) / n**2
    effect = by_prompt / (value * (1 - value) / n)
    return min(n, max(prompts, n / effect)) if effect else n


def make_figure(
    task: str,
    metric: str,
    tallies: Sequence[Tally],
    *,
    sampling: Mapping[str, JsonValue],
    harness: str,
    date: str,
    dataset: DatasetIdentity,
) -> Figure:
    """Make a figure of what its prompts add."""
    n = sum(tally.n for tally in tallies)
    value = sum(tally.right for tally in tallies) / n if n else 0.0
    low, high = compute_wilson(value, count_independent(tallies))
    return Figure(
        task=task,
        metric=metric,
        value=round(value, 6),
        n=n,
        errors=sum(tally.errors for tally in tallies),
        low=round(low, 6),
        high=round(high, 6),
        sampling=dict(sampling),
        harness=harness,
        date=date,
        dataset=dataset,
    )


def write_results(path: Path, figures: Iterable[Figure]) -> None:
    """Write figures to ``results.json``."""
    write_whole(path, json.dumps({"figures": [figure.model_dump() for figure in figures]}, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file that is either as before or complete."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
