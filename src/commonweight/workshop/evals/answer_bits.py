"""Bits per byte of held-out answers, given their prompts: how well a model foresees what a good answer says."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from commonweight.engines.contract import EngineError
from commonweight.messages.errors import ApiError
from commonweight.messages.request import MessageRequest
from commonweight.turn import Assistant
from commonweight.workshop.evals.bits_per_byte import BYTES, METRIC
from commonweight.workshop.evals.datasets import Dataset, choose_rows
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import Ledger, SampleLine, digest_text
from commonweight.workshop.evals.settings import AnswerBitsSettings

TASK = "answer_bits"


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt, and the answer that is scored."""

    id: str
    prompt: str
    answer: str

    @property
    def digest(self) -> str:
        """SHA-256 of its texts."""
        return digest_text("\0".join([self.prompt, self.answer]))


def read_answered_prompts(settings: AnswerBitsSettings, dataset: Dataset) -> list[AnsweredPrompt]:
    """Prompts of a data set with their answers, cut to the settings' length.

    Raises:
        EvaluationError: a row has none.
    """
    found = []
    name = dataset.identity.name
    for number, row in choose_rows(dataset.rows, settings.limit, settings.seed):
        prompt, answer = row.get(settings.prompt), row.get(settings.answer)
        if not isinstance(prompt, str) or not prompt.strip() or not isinstance(answer, str) or not answer.strip():
            raise EvaluationError(f"row {number} of {name} needs texts in {settings.prompt} and {settings.answer}")
        found.append(
            AnsweredPrompt(f"{name}:{number}", prompt, answer.strip()[: settings.max_characters].rstrip())
        )
    return found


async def run_answers(
    answers: Sequence[AnsweredPrompt], assistant: Assistant, ledger: Ledger, *, parallel: int
) -> list[SampleLine]:
    """Score the answers that the ledger does not hold yet; returns the lines of all, in order."""
    waiting: Iterator[AnsweredPrompt] = iter([a for a in answers if ledger.find(TASK, a.id, a.digest) is None])

    async def work() -> None:
        for answer in waiting:
            ledger.add(await _score(answer, assistant))

    await asyncio.gather(*(work() for _ in range(parallel)))
    return [ledger.get(TASK, answer.id) for answer in answers]


async def render_prompt(prompt: str, assistant: Assistant) -> list[int]:
    """Tokens of a conversation that waits for the answer to a prompt.

    Raises:
        ApiError: it does not fit the window.
    """
    request = MessageRequest.model_validate(
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": prompt}]}
    )
    return (await assistant.prepare(request)).job.token_ids


async def _score(answer: AnsweredPrompt, assistant: Assistant) -> SampleLine:
    """Score an answer. One with an error counts as not foreseen at all: eight bits a byte."""
    size = len(answer.answer.encode("utf-8", "surrogatepass"))
    bits = 0.0
    error: Literal[True] | None = None
    try:
        beginning = await render_prompt(answer.prompt, assistant)
        token_ids = [*beginning, *assistant.tokenize(answer.answer)]
        async for scored in assistant.engine.score(token_ids, start=len(beginning)):
            bits -= math.fsum(scored.logprobs) / math.log(2)
    except (ApiError, EngineError, ValueError):
        bits = math.nan
    if not math.isfinite(bits):
        bits, error = 8.0 * size, True
    return SampleLine(
        task=TASK,
        sample_id=answer.id,
        digest=answer.digest,
        answer=digest_text(answer.answer),
        score={METRIC: round(bits), BYTES: size},
        error=error,
    )
