"""Evaluation of a guard: labelled texts are rendered, prefilled and screened as requests are."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import msgspec
import numpy as np

from commonweight.engines.contract import Prefilled
from commonweight.guard import Findings, Guard, ScreenedInput, extract_input
from commonweight.guard.scorer import sigmoid
from commonweight.guard.streaming import EvidenceTracker
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputText
from commonweight.runtime.assistant import OnProgress
from commonweight.turn import Assistant
from commonweight.turn.record import Origin, TurnRecord
from commonweight.workshop.heads.sources import LabelledSource, LabelledText
from commonweight.workshop.heads.states import replace_surrogates

CONTEXT_TOKENS = 4096
"""Window of the model that is evaluated with."""
CONCURRENT_TEXTS = 4
OWN_ANSWER_TOKENS = 96
"""Of an answer that the model gives by itself."""
MAX_PROMPT_CHARACTERS = 2000
"""Of a prompt for one."""
CHARACTERS_PER_TOKEN = 4
"""Characters that come at once where text is scored again, about as many as a token has."""


@dataclass(frozen=True)
class ScoredText:
    """A labelled text with the guard's score and decision."""

    row: LabelledText
    score: float
    """The probability of a violation."""
    is_refused: bool
    principle: str | None
    is_encoded: bool = False
    """The first look did not suffice."""


@dataclass(frozen=True)
class OwnAnswer:
    """One of the model's own answers, with its highest score."""

    text: str
    peak: float
    """Its highest smoothed logit; minus infinity if it was too short for any."""
    is_refused: bool


class TurnRecorder:
    """A listener of turns that keeps their records by request id, until they are taken."""

    def __init__(self) -> None:
        self._records: dict[str, TurnRecord] = {}

    def __call__(self, record: TurnRecord) -> None:
        """Keep a record."""
        self._records[record.origin.request_id] = record

    def take(self, request_id: str) -> TurnRecord:
        """Take the record of a finished turn."""
        return self._records.pop(request_id)


def draw_prompts(
    sources: Sequence[LabelledSource], count: int, seed: int = 0, *, without: Collection[str] = ()
) -> list[str]:
    """Draw harmless prompts, about as many of each source, by a fixed seed.

    ``without``: prompts that are left out.
    """
    pools = [
        [row.text for row in one.rows if not row.is_harmful and row.answer is None and row.text not in without]
        for one in sources
    ]
    draw = np.random.default_rng(seed)
    orders = [[pool[i] for i in draw.permutation(len(pool))] for pool in pools]
    return [text for turn in zip_longest(*orders) for text in turn if text is not None][:count]


async def answer_prompts(
    assistant: Assistant,
    recorder: TurnRecorder,
    prompts: Sequence[str],
    *,
    together: int = CONCURRENT_TEXTS,
    on_progress: OnProgress = lambda _name, _fraction: None,
) -> list[OwnAnswer]:
    """Let the model answer prompts under the assistant's guard, each with a seed of its own.

    ``recorder`` is one of the assistant's listeners.
    """
    gate = asyncio.Semaphore(together)
    done = 0

    async def answer(number: int, prompt: str) -> OwnAnswer:
        nonlocal done
        async with gate:
            request = _make_request(prompt[:MAX_PROMPT_CHARACTERS], OWN_ANSWER_TOKENS)
            turn = await assistant.prepare(request, Origin(request_id=str(number)))
            sampling = msgspec.structs.replace(turn.job.sampling, seed=number)
            turn = replace(turn, job=msgspec.structs.replace(turn.job, sampling=sampling))
            async with contextlib.aclosing(assistant.stream(turn)) as events:
                async for _ in events:
                    pass
        done += 1
        on_progress("Answering", done / len(prompts))
        record = recorder.take(str(number))
        message, findings = record.message(), record.findings
        blocks = message.content if message else []
        text = "".join(block.text for block in blocks if isinstance(block, OutputText))
        return OwnAnswer(text, _find_peak(findings), record.stop_reason == "refusal")

    return list(await asyncio.gather(*(answer(i, prompt) for i, prompt in enumerate(prompts))))


async def rescore_text(guard: Guard, answers: Sequence[OwnAnswer]) -> list[float]:
    """Rescore an answer as a guard that only reads text: the highest smoothed logits."""
    found = []
    for answer in answers:
        screening = guard.start_screening(ScreenedInput("", ()))
        for at in range(0, len(answer.text), CHARACTERS_PER_TOKEN):
            await screening.screen_token(None, "output", answer.text[at : at + CHARACTERS_PER_TOKEN])
        await screening.screen_rest("output")
        found.append(_find_peak(screening.findings))
    return found


def _find_peak(findings: Findings | None) -> float:
    if findings is None or findings.output_score is None:
        return -np.inf
    score = min(max(findings.output_score, 1e-12), 1 - 1e-12)
    return float(np.log(score / (1 - score)))


async def score_source(
    assistant: Assistant,
    guard: Guard,
    source: LabelledSource,
    *,
    most: int | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda _name, _fraction: None,
) -> list[ScoredText]:
    """Score the texts of a source, or ``most`` of them drawn by ``seed``, in their order."""
    chosen = list(range(len(source.rows)))
    if most is not None and most < len(chosen):
        chosen = sorted(np.random.default_rng(seed).choice(len(chosen), most, replace=False).tolist())
    rows = [source.rows[i] for i in chosen]
    gate = asyncio.Semaphore(CONCURRENT_TEXTS)
    done = 0

    async def score(row: LabelledText) -> ScoredText:
        nonlocal done
        async with gate:
            scored = await (_score_prompt if row.answer is None else _score_answer)(assistant, guard, row)
        done += 1
        on_progress(source.name, done / len(rows))
        return scored

    return list(await asyncio.gather(*map(score, rows)))


async def _score_prompt(assistant: Assistant, guard: Guard, row: LabelledText) -> ScoredText:
    request = _make_request(row.text)
    try:
        turn = await assistant.prepare(request)
    except InvalidRequestError:  # longer than the window
        request = _make_request(row.text[: assistant.engine.window])
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
    return ScoredText(row, score, refusal is not None, refusal.principle if refusal else None, findings.encoded)


async def _score_answer(assistant: Assistant, guard: Guard, row: LabelledText) -> ScoredText:
    """Score an answer within the prompt, where its tokens get the same scores as when generated."""
    turn = await assistant.prepare(_make_request(row.text or "Continue."))
    answer = assistant.tokenize(row.answer or " ")
    ensemble = guard.scorer.manifest.output.get("states" if guard.reads_states else "grams")
    ensemble = ensemble.at(guard.strictness) if ensemble else None
    if ensemble is None:
        return ScoredText(row, 0.0, is_refused=False, principle=None)
    if guard.probe is None:
        logit = ensemble.grams * guard.scorer.score_answer(row.answer or "") + ensemble.bias
        return ScoredText(row, sigmoid(logit), logit >= ensemble.high, None)
    tracker = EvidenceTracker(ensemble.low, ensemble.high)
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
                    is_refused |= tracker.update(ensemble.states * logit + ensemble.bias) == "alarm"
    peak = tracker.peak if tracker.peak > -np.inf else tracker.mean
    return ScoredText(row, sigmoid(peak), is_refused, None)


def _make_request(text: str, max_tokens: int = 1) -> MessageRequest:
    content = replace_surrogates(text)
    body = {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": content}]}
    return MessageRequest.model_validate(body)
