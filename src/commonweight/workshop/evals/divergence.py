"""Divergence of a model from the one that it was made from: a Monte Carlo estimate over its own answers.

The later model draws an answer to each prompt at temperature 1, without any cut of its distribution; both models
then score the answer's tokens, and the mean logarithm of the ratio of their probabilities estimates the
Kullback-Leibler divergence per token. The models are loaded one after the other. Tokens of answers stay in the
private logs, from where a killed run goes on.
"""

import asyncio
import contextlib
import json
import math
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from commonweight.engines.contract import Engine, EngineError, Sampling, Step
from commonweight.messages.errors import ApiError
from commonweight.messages.request import MessageRequest
from commonweight.runtime.errors import UserError
from commonweight.turn import Assistant
from commonweight.workshop.evals.datasets import Dataset, choose_rows
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import Ledger, SampleLine, digest_text
from commonweight.workshop.evals.paired import Interval, compute_mean_ratio
from commonweight.workshop.evals.settings import DivergenceSettings

TASK = "divergence"
DRAWN = "drawn.jsonl"
"""File of the logs with the tokens of the answers."""

_NATS, _TOKENS = "nats", "tokens"


@dataclass(frozen=True)
class Divergence:
    """How far a model is from the one before."""

    nats_per_token: Interval
    n: int
    """Answers, errors included."""
    errors: int
    tokens: int


@dataclass(frozen=True)
class _Prompt:
    number: int
    id: str
    text: str

    @property
    def digest(self) -> str:
        return digest_text(self.text)


class _OwnAnswer(msgspec.Struct, frozen=True):
    """An answer of the later model, in tokens."""

    sample_id: str
    digest: str
    prompt_ids: list[int]
    answer_ids: list[int]
    logprob: float
    """Of the answer, by the model that drew it."""


def measure_divergence(
    settings: DivergenceSettings,
    dataset: Dataset,
    before: Path,
    after: Path,
    output: Path,
    *,
    parallel: int,
    report: Callable[[str], None],
) -> Divergence:
    """Measure how far a model is from the one before, in nats a token.

    Args:
        before, after: GGUF files.
        output: gets the ledger ``divergence.jsonl``, and the private logs.

    Raises:
        EvaluationError: a row has no prompt, or the models do not load or do not read prompts alike.
    """
    prompts = _read_prompts(settings, dataset)
    logs = output / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.closing(Ledger(output / "divergence.jsonl")) as ledger:
        missing = [prompt for prompt in prompts if ledger.find(TASK, prompt.id, prompt.digest) is None]
        for model in (before, after) if missing else ():
            if not model.is_file():
                raise EvaluationError(f"the model {model.name} is no file")
        try:
            asyncio.run(_measure(settings, missing, before, after, logs, ledger, parallel, report))
        except (EngineError, UserError, OSError) as error:
            raise EvaluationError(f"the divergence cannot be measured: {error}") from error
        ledger.finish([(TASK, prompt.id) for prompt in prompts])
        lines = [ledger.get(TASK, prompt.id) for prompt in prompts]
    parts = [(line.score[_NATS], line.score[_TOKENS]) for line in lines if line.error is None]
    return Divergence(
        nats_per_token=compute_mean_ratio(parts),
        n=len(lines),
        errors=len(lines) - len(parts),
        tokens=sum(int(count) for _, count in parts),
    )


async def _measure(
    settings: DivergenceSettings,
    missing: Sequence[_Prompt],
    before: Path,
    after: Path,
    logs: Path,
    ledger: Ledger,
    parallel: int,
    report: Callable[[str], None],
) -> None:
    from commonweight.workshop.evals.model_server import open_model

    if not missing:
        return
    drawn = dict(_read_answers(logs / DRAWN))
    left = [prompt for prompt in missing if not _has_answer(prompt, drawn)]
    report(f"divergence: {len(left)} answers to draw, {len(missing)} to score")
    if left:
        async with open_model(after, parallel=parallel) as assistant:
            handle = os.open(logs / DRAWN, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "ab") as file:

                async def draw(prompt: _Prompt) -> None:
                    answer = await _draw(prompt, settings, assistant)
                    if answer is not None:
                        drawn[prompt.id] = answer
                        file.write(msgspec.json.encode(answer) + b"\n")
                        file.flush()

                await _share_out(left, draw, parallel)
    async with open_model(before, parallel=parallel) as assistant:

        async def compare(prompt: _Prompt) -> None:
            answer = drawn.get(prompt.id) if _has_answer(prompt, drawn) else None
            ledger.add(await _compare(prompt, answer, assistant))

        await _share_out(missing, compare, parallel)


async def _share_out(prompts: Sequence[_Prompt], do: Callable[[_Prompt], Awaitable[None]], parallel: int) -> None:
    waiting: Iterator[_Prompt] = iter(prompts)

    async def work() -> None:
        for prompt in waiting:
            await do(prompt)

    await asyncio.gather(*(work() for _ in range(parallel)))


async def _draw(prompt: _Prompt, settings: DivergenceSettings, assistant: Assistant) -> _OwnAnswer | None:
    """Draw an answer; None: the prompt does not fit, or the engine failed."""
    try:
        job = (await assistant.prepare(_make_request(prompt, settings.max_tokens))).job
        sampling = Sampling(temperature=1.0, seed=settings.seed + prompt.number)
        job = msgspec.structs.replace(job, sampling=sampling, priority="batch")
        async with assistant.engine.run(job) as events:
            answer_ids = [event.token_id async for event in events if isinstance(event, Step)]
        logprob = await _score(assistant.engine, job.token_ids, answer_ids)
    except (ApiError, EngineError, ValueError):
        return None
    return _OwnAnswer(prompt.id, prompt.digest, job.token_ids, answer_ids, logprob)


async def _compare(prompt: _Prompt, drawn: _OwnAnswer | None, assistant: Assistant) -> SampleLine:
    """The line of an answer, of which this model, too, gives the probability."""
    nats = math.nan
    if drawn is not None:
        try:
            job = (await assistant.prepare(_make_request(prompt, 1))).job
            if job.token_ids != drawn.prompt_ids:
                raise EvaluationError("the two models read prompts as different tokens: no divergence is defined")
            nats = drawn.logprob - await _score(assistant.engine, drawn.prompt_ids, drawn.answer_ids)
        except (ApiError, EngineError, ValueError):
            nats = math.nan
    if drawn is None or not math.isfinite(nats):
        return SampleLine(task=TASK, sample_id=prompt.id, digest=prompt.digest, answer=None, score={}, error=True)
    return SampleLine(
        task=TASK,
        sample_id=prompt.id,
        digest=prompt.digest,
        answer=digest_text(json.dumps(drawn.answer_ids)),
        score={_NATS: round(nats, 6), _TOKENS: len(drawn.answer_ids)},
    )


async def _score(engine: Engine, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> float:
    total = 0.0
    async for scored in engine.score([*prompt_ids, *answer_ids], start=len(prompt_ids)):
        total += math.fsum(scored.logprobs)
    return total


def _make_request(prompt: _Prompt, max_tokens: int) -> MessageRequest:
    return MessageRequest.model_validate(
        {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt.text}]}
    )


def _read_prompts(settings: DivergenceSettings, dataset: Dataset) -> list[_Prompt]:
    name = dataset.identity.name
    prompts = []
    for number, row in choose_rows(dataset.rows, settings.limit, settings.seed):
        text = row.get(settings.field)
        if not isinstance(text, str) or not text.strip():
            raise EvaluationError(f"row {number} of {name} needs a prompt in {settings.field}")
        prompts.append(_Prompt(number, f"{name}:{number}", text))
    return prompts


def _has_answer(prompt: _Prompt, drawn: Mapping[str, _OwnAnswer]) -> bool:
    return prompt.id in drawn and drawn[prompt.id].digest == prompt.digest


def _read_answers(path: Path) -> Iterator[tuple[str, _OwnAnswer]]:
    """Answers that an earlier run drew; a line that a kill tore is passed over."""
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        with contextlib.suppress(msgspec.DecodeError):
            drawn = msgspec.json.decode(line, type=_OwnAnswer)
            yield drawn.sample_id, drawn
