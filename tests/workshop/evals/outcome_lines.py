"""Samples of the task ``compliance`` as an evaluation writes them, without a model; evaluations made of them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from commonweight.workshop.evals.answer_outcome import Outcome
from commonweight.workshop.evals.compliance import TASK, Subject, list_metrics
from commonweight.workshop.evals.ledger import SampleLine, digest_text
from commonweight.workshop.evals.results import Figure

DIGEST = "0" * 64


def repeat(outcome: Outcome | None, count: int) -> list[Outcome | None]:
    """The same outcome several times; None: an error."""
    return [outcome] * count


def make_line(number: int, subject: Subject, outcome: Outcome | None, dataset: str = "rows") -> SampleLine:
    """A sample; without an outcome one with an error."""
    return SampleLine(
        task=TASK,
        sample_id=f"{dataset}:{number}/{subject.place}#0",
        digest=digest_text(f"{dataset}:{number}"),
        answer=None if outcome is None else DIGEST,
        score={metric: int(one == outcome) for one, metric in list_metrics(subject)},
        error=True if outcome is None else None,
    )


def make_lines(subject: Subject, outcomes: Iterable[Outcome | None], dataset: str = "rows") -> list[SampleLine]:
    """Samples of one subject, one an outcome."""
    return [make_line(number, subject, outcome, dataset) for number, outcome in enumerate(outcomes)]


def write_evaluation(folder: Path, lines: Sequence[SampleLine], figures: Sequence[Figure] = ()) -> Path:
    """The files of an evaluation's output."""
    folder.mkdir(parents=True)
    content = [json.dumps(line.model_dump(exclude_defaults=True), sort_keys=True) + "\n" for line in lines]
    (folder / "samples.jsonl").write_text("".join(content))
    (folder / "results.json").write_text(json.dumps({"figures": [figure.model_dump() for figure in figures]}))
    return folder
