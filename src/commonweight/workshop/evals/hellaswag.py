"""HellaSwag by likelihood: which of four endings the model finds the likeliest.

Not an inspect-ai task: that library is about generated answers, and the Messages API has no likelihoods. Ledger
and figures are those of all tasks. Texts, tokens and metrics are those of lm-eval's task ``hellaswag`` without
examples: ``accuracy`` takes the likeliest ending, ``accuracy by length`` the likeliest per character
(``acc_norm``).
"""

import asyncio
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from commonweight.engines.contract import Engine, EngineError
from commonweight.workshop.evals.datasets import Dataset, choose_rows
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import Ledger, SampleLine, digest_text
from commonweight.workshop.evals.results import Figure, Tally
from commonweight.workshop.evals.settings import HellaSwagSettings

TASK = "hellaswag"
_METRICS = "accuracy", "accuracy by length"
_EVERY = 50
"""Samples between two lines of the report."""

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Question:
    """A beginning, its possible endings and the index of the right one."""

    id: str
    context: str
    endings: Sequence[str]
    label: int

    @property
    def digest(self) -> str:
        """SHA-256 of its texts."""
        return digest_text("\0".join([self.context, *self.endings]))


class _Row(BaseModel):
    """The published form, or one whose context is cleaned and begins with the activity."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    endings: list[str] = Field(min_length=2, max_length=16)
    label: int
    context: str = ""
    activity_label: str = ""
    ctx_a: str = ""
    ctx_b: str = ""


def clean_text(text: str) -> str:
    """Clean a text of the marks that its source, a collection of instructions, left in it."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def read_questions(settings: HellaSwagSettings, dataset: Dataset) -> list[Question]:
    """Questions of a data set.

    Raises:
        EvaluationError: a row has other fields.
    """
    questions = []
    name = dataset.identity.name
    for number, content in choose_rows(dataset.rows, settings.limit, settings.seed):
        try:
            row = _Row.model_validate(content)
        except ValidationError:
            row = None
        context = "" if row is None else _join_context(row)
        if row is None or not context or not 0 <= row.label < len(row.endings):
            raise EvaluationError(
                f"row {number} of {name} needs endings, label, and context or activity_label, ctx_a and ctx_b"
            )
        endings = [clean_text(ending) for ending in row.endings]
        if not all(endings):
            raise EvaluationError(f"row {number} of {name} has an empty ending")
        questions.append(Question(f"{name}:{number}", context, endings, row.label))
    return questions


async def run_questions(
    questions: Sequence[Question],
    engine: Engine,
    encode: Encode,
    ledger: Ledger,
    *,
    parallel: int,
    report: Callable[[str], None],
) -> list[SampleLine]:
    """Score the questions that the ledger does not hold yet; returns the lines of all, in order."""
    missing = [q for q in questions if ledger.find(TASK, q.id, q.digest) is None]
    waiting: Iterator[Question] = iter(missing)
    done = len(questions) - len(missing)

    async def work() -> None:
        nonlocal done
        for question in waiting:
            ledger.add(await _answer(question, engine, encode))
            done += 1
            if done % _EVERY == 0:
                report(f"{TASK}: {done} of {len(questions)}")

    await asyncio.gather(*(work() for _ in range(parallel)))
    return [ledger.get(TASK, question.id) for question in questions]


def make_figures(lines: Sequence[SampleLine], make: Callable[..., Figure]) -> list[Figure]:
    """Make figures of the lines of all questions."""
    return [
        make(metric, [Tally(line.score.get(metric, 0), 1, int(line.error is not None)) for line in lines])
        for metric in _METRICS
    ]


def split_tokens(encode: Encode, context: str, ending: str) -> tuple[list[int], int]:
    """Tokens of a context and its ending, and how many are the context's.

    Both are tokenized together, as a model has seen such texts; the context's count is that of the context alone.
    """
    return encode(f"{context} {ending}"), len(encode(context))


async def _answer(question: Question, engine: Engine, encode: Encode) -> SampleLine:
    prompts = [split_tokens(encode, question.context, ending) for ending in question.endings]
    try:
        # The first one leaves the context in the prefix cache for the others.
        scores = [await _sum_logprobs(engine, *prompts[0])]
        scores += await asyncio.gather(*(_sum_logprobs(engine, *prompt) for prompt in prompts[1:]))
    except (EngineError, ValueError):  # past the window, or the engine failed: none of the others suffers
        scores = []
    if not scores or not all(map(math.isfinite, scores)):
        return SampleLine(
            task=TASK, sample_id=question.id, digest=question.digest, answer=None, score={}, error=True
        )
    by_length = [score / len(ending) for score, ending in zip(scores, question.endings, strict=True)]
    choices = scores.index(max(scores)), by_length.index(max(by_length))
    return SampleLine(
        task=TASK,
        sample_id=question.id,
        digest=question.digest,
        answer=digest_text(question.endings[choices[1]]),
        score={metric: int(choice == question.label) for metric, choice in zip(_METRICS, choices, strict=True)},
    )


async def _sum_logprobs(engine: Engine, token_ids: Sequence[int], start: int) -> float:
    total = 0.0
    async for scored in engine.score(token_ids, start=start):
        total += math.fsum(scored.logprobs)
    return total


def _join_context(row: _Row) -> str:
    if row.context:
        return clean_text(row.context)
    if not row.activity_label or not row.ctx_a:
        return ""
    return clean_text(f"{row.activity_label}: {row.ctx_a} {row.ctx_b.capitalize()}")
