"""Labelled texts through a guard, just as requests go: rendered, read by the engine, screened."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import Progress

from commonweight.engines.contract import Prefilled
from commonweight.guard import Findings, Guard, ScreenedInput, extract_input
from commonweight.guard.sources import LabelledText, TextSource
from commonweight.guard.streaming import EvidenceTracker
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputText
from commonweight.turn import Assistant
from commonweight.turn.record import Origin, TurnRecord

TOGETHER = 4
"""Texts on their way at once."""
ANSWER_TOKENS = 96
"""Of an answer that the model gives by itself."""
LONGEST = 2000
"""Characters of a prompt for one."""
TOKEN = 4
"""Characters that come at once where text is read again, about as many as a token has."""


@dataclass(frozen=True)
class Scored:
    """What became of one text."""

    row: LabelledText
    score: float
    """The probability of a violation."""
    is_refused: bool
    principle: str | None
    is_encoded: bool = False
    """The first look did not suffice."""


@dataclass(frozen=True)
class Answered:
    """One of the model's own answers."""

    text: str
    peak: float
    """Its highest smoothed logit; minus infinity if it was too short for any."""
    is_refused: bool


def drawn(sources: Sequence[TextSource], count: int, seed: int = 0) -> list[str]:
    """Harmless prompts, about as many of each source, by a fixed seed."""
    pools = [[row.text for row in one.rows if not row.is_harmful and row.answer is None] for one in sources]
    draw = np.random.default_rng(seed)
    orders = [[pool[i] for i in draw.permutation(len(pool))] for pool in pools]
    return [text for turn in zip_longest(*orders) for text in turn if text is not None][:count]


async def answered(
    assistant: Assistant, prompts: Sequence[str], console: Console, together: int = TOGETHER
) -> list[Answered]:
    """What the model answers to prompts under the assistant's guard, each drawn with a seed of its own."""
    records: dict[str, TurnRecord] = {}
    assistant.listeners.append(lambda record: records.update({record.origin.request_id: record}))
    gate = asyncio.Semaphore(together)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Answering", total=len(prompts))

        async def one(number: int, prompt: str) -> Answered:
            async with gate:
                request = _request(prompt[:LONGEST], ANSWER_TOKENS)
                turn = await assistant.prepare(request, Origin(request_id=str(number)))
                sampling = msgspec.structs.replace(turn.job.sampling, seed=number)
                turn = replace(turn, job=msgspec.structs.replace(turn.job, sampling=sampling))
                async with contextlib.aclosing(assistant.stream(turn)) as events:
                    async for _ in events:
                        pass
                progress.advance(task)
            record = records.pop(str(number))
            message, findings = record.message(), record.findings
            blocks = message.content if message else []
            text = "".join(block.text for block in blocks if isinstance(block, OutputText))
            return Answered(text, _peak(findings), record.stop_reason == "refusal")

        return list(await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts))))


async def read_again(guard: Guard, answers: Sequence[Answered]) -> list[float]:
    """The highest smoothed logits of answers for a guard that only reads text."""
    found = []
    for answer in answers:
        screening = guard.start_screening(ScreenedInput("", ()))
        for at in range(0, len(answer.text), TOKEN):
            await screening.screen_token(None, "output", answer.text[at : at + TOKEN])
        await screening.finish("output")
        found.append(_peak(screening.findings))
    return found


def _peak(findings: Findings | None) -> float:
    if findings is None or findings.output_score is None:
        return -np.inf
    score = min(max(findings.output_score, 1e-12), 1 - 1e-12)
    return float(np.log(score / (1 - score)))


async def measured(
    assistant: Assistant, sources: Sequence[TextSource], console: Console, most: int | None = None, seed: int = 0
) -> dict[str, list[Scored]]:
    """The texts of each source, or ``most`` of them drawn by ``seed``, in their order; by the sources' names."""
    scored = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for source in sources:
            scored[source.name] = await _source(assistant, source, progress, most, seed)
            found = scored[source.name]
            refused = sum(one.is_refused for one in found)
            console.print(f"{source.name}: {refused} of {len(found)} texts refused", style="dim")
    return scored


async def _source(
    assistant: Assistant, source: TextSource, progress: Progress, most: int | None, seed: int
) -> list[Scored]:
    guard = assistant.guard
    assert guard is not None
    chosen = list(range(len(source.rows)))
    if most is not None and most < len(chosen):
        chosen = sorted(np.random.default_rng(seed).choice(len(chosen), most, replace=False).tolist())
    rows = [source.rows[i] for i in chosen]
    gate = asyncio.Semaphore(TOGETHER)
    task = progress.add_task(source.name, total=len(rows))

    async def one(row: LabelledText) -> Scored:
        async with gate:
            look = _answer if row.answer is not None else _prompt
            scored = await look(assistant, guard, row)
            progress.advance(task)
            return scored

    return list(await asyncio.gather(*map(one, rows)))


async def _prompt(assistant: Assistant, guard: Guard, row: LabelledText) -> Scored:
    request = _request(row.text)
    try:
        turn = await assistant.prepare(request)
    except InvalidRequestError:  # longer than the window
        request = _request(row.text[: assistant.engine.window])
        turn = await assistant.prepare(request)
    screening = guard.start_screening(extract_input(request))
    await screening.screen_input()
    if guard.probe is not None:
        async with assistant.engine.run(msgspec.structs.replace(turn.job, max_tokens=0)) as events:
            async for event in events:
                if isinstance(event, Prefilled):
                    await screening.screen_prompt(event.scores, *turn.prompt.user_span)
    findings, refusal = screening.findings, screening.refusal
    score = findings.input_score or 0.0
    return Scored(row, score, refusal is not None, refusal.principle if refusal else None, findings.encoded)


async def _answer(assistant: Assistant, guard: Guard, row: LabelledText) -> Scored:
    """The answer stands in the prompt, where its tokens get the same scores as if they were being generated."""
    turn = await assistant.prepare(_request(row.text or "Continue."))
    answer = assistant.tokens(row.answer or " ")
    ensemble = guard.scorer.manifest.output.get("states" if guard.reads_states else "grams")
    if ensemble is None:
        return Scored(row, 0.0, is_refused=False, principle=None)
    if guard.probe is None:
        logit = ensemble.grams * guard.scorer.score_answer(row.answer or "") + ensemble.bias
        return Scored(row, _probability(logit), logit >= ensemble.high, None)
    watch = EvidenceTracker(ensemble.low, ensemble.high)
    room = assistant.engine.window - len(turn.prompt.token_ids)
    token_ids = [*turn.prompt.token_ids, *answer[:room]]
    job = msgspec.structs.replace(turn.job, token_ids=token_ids, max_tokens=0, grammar=None)
    is_refused = False
    async with assistant.engine.run(job) as events:
        async for event in events:
            if isinstance(event, Prefilled) and event.scores is not None:
                rows = np.frombuffer(event.scores, "<f4").reshape(-1, guard.probe.heads)
                for scores in rows[len(turn.prompt.token_ids) :]:
                    logit, _ = guard.scorer.score_token(scores)
                    is_refused |= watch.update(ensemble.states * logit + ensemble.bias) == "alarm"
    peak = watch.peak if watch.peak > -np.inf else watch.mean
    return Scored(row, _probability(peak), is_refused, None)


def _request(text: str, max_tokens: int = 1) -> MessageRequest:
    # Lone halves of surrogate pairs, which some sources hold, are no text.
    readable = text.encode("utf-8", "replace").decode()
    body = {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": readable or " "}]}
    return MessageRequest.model_validate(body)


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
