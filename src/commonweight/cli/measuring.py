"""Labelled texts through a guard, just as requests go: rendered, read by the engine, screened."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import Progress

from commonweight.engines.contract import Prefilled
from commonweight.guard import Guard, heard
from commonweight.guard.sources import Row, Source
from commonweight.guard.watch import Watch
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.turn import Assistant

TOGETHER = 4
"""Texts on their way at once."""


@dataclass(frozen=True)
class Scored:
    """What became of one text."""

    row: Row
    score: float
    """The probability of a violation."""
    is_refused: bool
    principle: str | None
    is_encoded: bool = False
    """The first look did not suffice."""


async def measured(
    assistant: Assistant, sources: Sequence[Source], console: Console, most: int | None = None, seed: int = 0
) -> dict[str, list[Scored]]:
    """The texts of each source, or ``most`` of them drawn by ``seed``, in their order; by the sources' names."""
    scored = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for source in sources:
            scored[source.name] = await _source(assistant, source, progress, most, seed)
            console.print(f"{source.name}: {len(scored[source.name])} texts", style="dim")
    return scored


async def _source(
    assistant: Assistant, source: Source, progress: Progress, most: int | None, seed: int
) -> list[Scored]:
    guard = assistant.guard
    assert guard is not None
    chosen = list(range(len(source.rows)))
    if most is not None and most < len(chosen):
        chosen = sorted(np.random.default_rng(seed).choice(len(chosen), most, replace=False).tolist())
    rows = [source.rows[i] for i in chosen]
    gate = asyncio.Semaphore(TOGETHER)
    task = progress.add_task(source.name, total=len(rows))

    async def one(row: Row) -> Scored:
        async with gate:
            look = _answer if row.answer is not None else _prompt
            scored = await look(assistant, guard, row)
            progress.advance(task)
            return scored

    return list(await asyncio.gather(*map(one, rows)))


async def _prompt(assistant: Assistant, guard: Guard, row: Row) -> Scored:
    request = _request(row.text)
    try:
        turn = await assistant.prepare(request)
    except InvalidRequestError:  # longer than the window
        request = _request(row.text[: assistant.engine.window])
        turn = await assistant.prepare(request)
    screening = guard.open(heard(request))
    await screening.before()
    if guard.probe is not None:
        async with assistant.engine.run(msgspec.structs.replace(turn.job, max_tokens=0)) as events:
            async for event in events:
                if isinstance(event, Prefilled):
                    await screening.prefilled(event.scores, *turn.prompt.heard)
    findings, refusal = screening.findings, screening.refusal
    score = findings.input_score or 0.0
    return Scored(row, score, refusal is not None, refusal.principle if refusal else None, findings.encoded)


async def _answer(assistant: Assistant, guard: Guard, row: Row) -> Scored:
    """The answer stands in the prompt, where its tokens get the same scores as if they were being generated."""
    turn = await assistant.prepare(_request(row.text or "Continue."))
    answer = assistant.tokens(row.answer or " ")
    ensemble = guard.scorer.manifest.output.get("states" if guard.reads_states else "grams")
    if ensemble is None:
        return Scored(row, 0.0, is_refused=False, principle=None)
    if guard.probe is None:
        logit = ensemble.grams * guard.scorer.answer(row.answer or "") + ensemble.bias
        return Scored(row, _probability(logit), logit >= ensemble.high, None)
    watch = Watch(ensemble.low, ensemble.high)
    room = assistant.engine.window - len(turn.prompt.token_ids)
    token_ids = [*turn.prompt.token_ids, *answer[:room]]
    job = msgspec.structs.replace(turn.job, token_ids=token_ids, max_tokens=0, grammar=None)
    is_refused = False
    async with assistant.engine.run(job) as events:
        async for event in events:
            if isinstance(event, Prefilled) and event.scores is not None:
                rows = np.frombuffer(event.scores, "<f4").reshape(-1, guard.probe.heads)
                for scores in rows[len(turn.prompt.token_ids) :]:
                    logit, _ = guard.scorer.token(scores)
                    is_refused |= watch.take(ensemble.states * logit + ensemble.bias) == "alarm"
    peak = watch.peak if watch.peak > -np.inf else watch.mean
    return Scored(row, _probability(peak), is_refused, None)


def _request(text: str) -> MessageRequest:
    # Lone halves of surrogate pairs, which some sources hold, are no text.
    readable = text.encode("utf-8", "replace").decode()
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": readable or " "}]}
    return MessageRequest.model_validate(body)


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
