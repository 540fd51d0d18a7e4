"""Labelling by reading: a sample of answers with their texts, and what the labels say of the rules that read all.

The sheet holds texts and stays where the private logs are. Labels hold ids and digests only and may be
published. What the rules said is not in the sheet, so that it sways nobody's reading.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from commonweight.workshop.evals.answer_outcome import OUTCOMES, Outcome
from commonweight.workshop.evals.compliance import TASK, read_score
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.kept_answers import read_answers
from commonweight.workshop.evals.ledger import SampleLine
from commonweight.workshop.evals.paired import read_lines
from commonweight.workshop.evals.results import compute_wilson, write_whole

SHEET_ANSWERS = 150


class SheetRow(BaseModel):
    """An answer to be labelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_id: str
    answer: str
    """SHA-256 of it."""
    request: str
    beginning: str
    text: str
    label: str
    """``refuse``, ``comply`` or ``neither``; empty until it is read."""


class Label(BaseModel):
    """What a reader said of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_id: str
    answer: str
    label: Outcome


class Labels(BaseModel):
    """Labels of a sheet, without any text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labeller: str = Field(min_length=1, max_length=200)
    labels: tuple[Label, ...] = Field(min_length=1)


class Share(BaseModel):
    """A share with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    n: int
    low: float
    high: float


class Agreement(BaseModel):
    """How far the rules agree with a reader."""

    model_config = ConfigDict(frozen=True)

    labeller: str
    n: int
    confusion: dict[Outcome, dict[Outcome, int]]
    """Answers by label, then by what the rules say."""
    agreement: Share
    recall: dict[Outcome, Share]
    """Of the answers with a label, those that the rules read so."""
    precision: dict[Outcome, Share]
    """Of the answers that the rules read so, those with the label."""
    kappa: float
    """Cohen's: agreement beyond that of chance; 1 is perfect."""


def draw_sheet(evaluation: Path, sheet: Path, count: int = SHEET_ANSWERS, seed: int = 0) -> int:
    """Write a sheet of answers drawn at random from an evaluation's task ``compliance``; returns how many.

    Raises:
        EvaluationError: the evaluation kept no answers, or the sheet is there already.
    """
    kept = read_answers(evaluation / "logs", TASK)
    lines = [line for line in _read_outcomes(evaluation) if line.sample_id in kept]
    random.Random(seed).shuffle(lines)
    rows = [
        SheetRow(
            sample_id=line.sample_id,
            answer=line.answer or "",
            request=kept[line.sample_id].request,
            beginning=kept[line.sample_id].beginning,
            text=kept[line.sample_id].text,
            label="",
        )
        for line in lines[:count]
    ]
    try:
        handle = os.open(sheet, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise EvaluationError(f"{sheet.name} is there already, perhaps with labels") from None
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in rows)
    return len(rows)


def collect_labels(sheet: Path, labeller: str, output: Path) -> int:
    """Write the labels of a sheet, without its texts; returns how many.

    Raises:
        EvaluationError: an answer has no label, or another one.
    """
    labels = []
    try:
        lines = sheet.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise EvaluationError(f"{sheet.name} cannot be read") from None
    for number, line in enumerate(filter(str.strip, lines), 1):
        try:
            row = SheetRow.model_validate_json(line)
            labels.append(Label.model_validate({**row.model_dump(include={"sample_id", "answer", "label"})}))
        except ValidationError:
            raise EvaluationError(
                f"line {number} of {sheet.name} has no label; it is {', '.join(OUTCOMES[:-1])} or {OUTCOMES[-1]}"
            ) from None
    if not labels or not labeller.strip():
        raise EvaluationError("labels need answers, and the name of their labeller")
    found = Labels(labeller=labeller, labels=tuple(labels))
    write_whole(output, json.dumps(found.model_dump(), indent=1) + "\n")
    return len(labels)


def check_labels(labels: Path, evaluation: Path) -> Agreement:
    """Compare labels with what the rules said of the same answers.

    Raises:
        EvaluationError: a label is of an answer that the evaluation does not have.
    """
    try:
        read = Labels.model_validate_json(labels.read_bytes())
    except (OSError, ValidationError):
        raise EvaluationError(f"{labels.name} holds no labels") from None
    outcomes = {}
    for line in _read_outcomes(evaluation):
        found = read_score(line.score)
        if found is not None:
            outcomes[line.sample_id, line.answer] = found[1]
    pairs = []
    for label in read.labels:
        outcome = outcomes.get((label.sample_id, label.answer))
        if outcome is None:
            raise EvaluationError(f"{labels.name} has a label of {label.sample_id}, whose answer is another one")
        pairs.append((label.label, outcome))
    return compute_agreement(read.labeller, pairs)


def compute_agreement(labeller: str, pairs: Sequence[tuple[Outcome, Outcome]]) -> Agreement:
    """Figures of pairs of a label and what the rules say."""
    counts = Counter(pairs)
    confusion = {label: {rule: counts[label, rule] for rule in OUTCOMES} for label in OUTCOMES}
    labelled = {label: sum(confusion[label].values()) for label in OUTCOMES}
    ruled = {rule: sum(confusion[label][rule] for label in OUTCOMES) for rule in OUTCOMES}
    right = sum(confusion[outcome][outcome] for outcome in OUTCOMES)
    n = len(pairs)
    by_chance = sum(labelled[outcome] * ruled[outcome] for outcome in OUTCOMES) / n**2
    return Agreement(
        labeller=labeller,
        n=n,
        confusion=confusion,
        agreement=_make_share(right, n),
        recall={one: _make_share(confusion[one][one], labelled[one]) for one in OUTCOMES},
        precision={one: _make_share(confusion[one][one], ruled[one]) for one in OUTCOMES},
        kappa=round((right / n - by_chance) / (1 - by_chance), 6) if by_chance < 1 else 1.0,
    )


def format_agreement(found: Agreement) -> str:
    """The confusion matrix and its figures as lines of text."""
    lines = [f"{found.n} answers labelled by {found.labeller}; rows: label, columns: rules"]
    lines.append("          " + "".join(f"{rule:>9}" for rule in OUTCOMES) + "   recall")
    for label in OUTCOMES:
        counts = "".join(f"{found.confusion[label][rule]:>9}" for rule in OUTCOMES)
        lines.append(f"{label:<10}{counts}   {_format_share(found.recall[label])}")
    lines += [f"precision of {rule}: {_format_share(found.precision[rule])}" for rule in OUTCOMES]
    lines.append(f"agreement: {_format_share(found.agreement)}, kappa {found.kappa:.3f}")
    return "\n".join(lines) + "\n"


def _read_outcomes(evaluation: Path) -> list[SampleLine]:
    return [line for line in read_lines(evaluation) if line.task == TASK and line.error is None]


def _make_share(part: int, n: int) -> Share:
    value = part / n if n else 0.0
    low, high = compute_wilson(value, n)
    return Share(value=round(value, 6), n=n, low=round(low, 6), high=round(high, 6))


def _format_share(share: Share) -> str:
    if not share.n:
        return "n/a (n=0)"
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}], n={share.n}"
