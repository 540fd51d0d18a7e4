"""Evaluation of a guard: labelled texts are requests to an assistant, at any place that the guard screens."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import count, zip_longest
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from commonweight.guard import Findings, Guard, extract_segments
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputText
from commonweight.runtime.assistant import OnProgress
from commonweight.turn import Assistant
from commonweight.turn.record import Origin, TurnRecorder
from commonweight.workshop.heads.answer_reading import prepare_turn, read_answer
from commonweight.workshop.heads.kept_scores import KeptScores, Outcome
from commonweight.workshop.heads.request_places import GREETING, OUTPUT, make_request, require_place
from commonweight.workshop.heads.sources import LabelledSource, LabelledText

CONTEXT_TOKENS = 4096
"""Window of the model that is evaluated with."""
CONCURRENT_TEXTS = 4
OWN_ANSWER_TOKENS = 96
"""Of an answer that the model gives by itself."""
MAX_PROMPT_CHARACTERS = 2000
"""Of a prompt for one."""
CHARACTERS_PER_TOKEN = 4
"""Characters that come at once where text is scored again, about as many as a token has."""

T = TypeVar("T")


@dataclass(frozen=True)
class ScoredText:
    """A labelled text with what the guard found in it."""

    row: LabelledText
    outcome: Outcome


@dataclass(frozen=True)
class OwnAnswer:
    """One of the model's own answers, with its highest score."""

    text: str
    peak: float
    """Its highest smoothed logit; minus infinity if it was too short for any."""
    is_refused: bool


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
            request = make_request(prompt[:MAX_PROMPT_CHARACTERS], max_tokens=OWN_ANSWER_TOKENS)
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
        screening = guard.start_screening(())
        for at in range(0, len(answer.text), CHARACTERS_PER_TOKEN):
            await screening.screen_token(None, "output", answer.text[at : at + CHARACTERS_PER_TOKEN])
        await screening.screen_rest()
        found.append(_find_peak(screening.findings))
    return found


def _find_peak(findings: Findings | None) -> float:
    if findings is None or findings.output_score is None:
        return -np.inf
    score = min(max(findings.output_score, 1e-12), 1 - 1e-12)
    return float(np.log(score / (1 - score)))


class Evaluator:
    """Scores labelled texts by the path of a server: each is a request to an assistant, at a place of it.

    Args:
        assistant: has a guard.
        recorder: one of the assistant's listeners.
        kept: outcomes of an earlier run, which are not computed again, and of this one.
    """

    def __init__(self, assistant: Assistant, recorder: TurnRecorder, kept: KeptScores | None = None) -> None:
        assert assistant.guard is not None
        self.assistant = assistant
        self.guard = assistant.guard
        self._recorder = recorder
        self._kept = kept
        self._name = json.dumps(
            [
                self.guard.charter.sha256,
                self.guard.digest,
                assistant.card.id,
                self.guard.mode,
                self.guard.strictness,
                self.guard.reads_states,
                self.guard.scorer.has_encoder,
                self.guard.judge is not None,
                assistant.engine.window,
                digest_guard_code(),
            ]
        )
        self._numbers = count()

    async def score(
        self,
        rows: Sequence[LabelledText],
        place: str = "input",
        *,
        name: str = "",
        on_progress: OnProgress = lambda _name, _fraction: None,
    ) -> list[ScoredText]:
        """Score texts at a place of a request, or as answers (``output``); of rows with an answer, the answer.

        Raises:
            UserError: the guard does not screen the place.
        """
        require_place(self.guard, place)
        gate = asyncio.Semaphore(CONCURRENT_TEXTS)
        done = 0

        async def score(row: LabelledText) -> ScoredText:
            nonlocal done
            async with gate:
                outcome = await self._score_row(row, place)
            done += 1
            on_progress(name, done / len(rows))
            return ScoredText(row, outcome)

        return list(await asyncio.gather(*map(score, rows)))

    async def _score_row(self, row: LabelledText, place: str) -> Outcome:
        what = (self._name, place, row.text, row.answer)
        outcome = self._kept.find(*what) if self._kept else None
        if outcome is None:
            if not row.text.strip() and not row.answer:
                outcome = Outcome(is_read=False)
            elif row.answer is not None:
                outcome = await self._score_answer(row.text or GREETING, row.answer)
            elif place == OUTPUT:
                outcome = await self._score_answer(GREETING, row.text)
            else:
                outcome = await self._score_request(row.text, place)
            if self._kept:
                self._kept.add(outcome, *what)
        return outcome

    async def _score_request(self, text: str, place: str) -> Outcome:
        findings = await self.screen(make_request(text, place))
        return Outcome(is_read=False) if findings is None else _make_outcome(findings, findings.input_score)

    async def screen(self, request: MessageRequest, tenant: str | None = None) -> Findings | None:
        """Screen a request and the answer to it, as a server does; None: it is longer than the model's window.

        ``tenant``: None: one for this request alone, so that no other one's refusal or scores are known.
        """
        number = str(next(self._numbers))
        origin = Origin(number, tenant=number if tenant is None else tenant)
        turn = await prepare_turn(self.assistant, request, origin)
        if turn is None:
            return None
        async with contextlib.aclosing(self.assistant.stream(turn)) as events:
            async for _ in events:
                pass
        findings = self._recorder.take(number).findings
        assert findings is not None
        return findings

    async def _score_answer(self, text: str, answered: str) -> Outcome:
        read = await read_answer(self.assistant, text, answered)
        if read is None:
            return Outcome(is_read=False)
        screening = self.guard.start_screening(extract_segments(read.turn.request))
        for (_, piece), scores in zip(read.tokens, read.scores, strict=True):
            await screening.screen_token(scores, "output", piece)
        await screening.screen_rest()
        return _make_outcome(screening.findings, screening.findings.output_score)


def draw_rows(rows: Sequence[T], most: int | None, seed: int = 0) -> list[T]:
    """Draw at most ``most`` rows by a seed, in their order."""
    if most is None or most >= len(rows):
        return list(rows)
    return [rows[i] for i in sorted(np.random.default_rng(seed).choice(len(rows), most, replace=False).tolist())]


@cache
def digest_guard_code() -> str:
    """Digest the guard's code: outcomes that another version of it found are not this one's."""
    sum_ = hashlib.sha256()
    folder = Path(str(files("commonweight.guard")))
    for path in sorted(folder.rglob("*.py")):
        sum_.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return sum_.hexdigest()


def _make_outcome(findings: Findings, score: float | None) -> Outcome:
    refusal = findings.refusal
    scores = [score or 0.0, *([refusal.score] if refusal else [])]
    noted = tuple(dict.fromkeys(verdict.principle for verdict in findings.verdicts))
    return Outcome(
        max(scores), refusal is not None, refusal.principle if refusal else None, noted, findings.encoded
    )
