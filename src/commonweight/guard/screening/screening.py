"""Screening of one exchange: its request, then its answer token by token."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from commonweight.charter.places import ANSWER_PLACES
from commonweight.charter.principle import Place
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.heads.bundle import Ensemble
from commonweight.guard.heads.scorer import HarmScore, sigmoid
from commonweight.guard.phrases.screening import PhraseScreening, PlacedPhrase
from commonweight.guard.screening.answer_positions import AnswerPiece, AnswerPositions
from commonweight.guard.screening.deciding import Decider, Locate
from commonweight.guard.screening.request_screening import RequestScreening
from commonweight.guard.screening.streaming import TEXT_WINDOW, EvidenceTracker
from commonweight.guard.screening.verdict import Findings, Stage, Verdict
from commonweight.guard.text.segments import Location, Segment

if TYPE_CHECKING:
    from commonweight.guard.screening.guard import Guard

TEXT_STEP_CHARACTERS = 160
"""Characters of an answer that its text is looked at after, where its states are not: some 32 tokens."""
TEXT_CONTEXT_CHARACTERS = 480
"""Characters that are looked at then."""
JUDGE_INTERVAL_TOKENS = 64
"""Tokens between two questions about one answer."""


class Screening:
    """Scores one exchange step by step, and tells whether to hold or refuse it."""

    def __init__(self, guard: "Guard", segments: Sequence[Segment], waived: Collection[str], tenant: str) -> None:
        self._guard = guard
        self._scorer = guard.scorer
        self._decider = decider = Decider(guard, segments, waived, tenant)
        manifest = self._scorer.manifest
        answers = manifest.output.get("states" if guard.reads_states else "grams")
        self._output: Ensemble | None = answers.at(guard.strictness) if answers else None
        self._tracker = (
            None
            if answers is None
            else EvidenceTracker(answers.low, answers.high, *(() if guard.reads_states else (TEXT_WINDOW,)))
        )
        self._shares: Floats | None = None
        self._prose = {
            one.id
            for place in ANSWER_PLACES
            for one in (*decider.active[place].refusing, *decider.active[place].recording)
            if one.id in manifest.prose and self._scorer.has_encoder
        }
        """Principles that only their words can tell of an answer."""
        # What only its words can tell of an answer is looked at in stretches, and none leaves before.
        self._waits_for_words = any(
            one.id in self._prose for place in ANSWER_PLACES for one in decider.active[place].refusing
        )
        self._positions = AnswerPositions()
        self._text_place: Place = "output"
        self._text_start = 0
        """Where the text of the place begins that the answer is at."""
        self._screened_characters = 0
        self._tokens = 0
        self._judged_at = -JUDGE_INTERVAL_TOKENS
        self._is_doubtful = False
        self.phrases = PhraseScreening(
            {
                place: (guard.index_phrases(active.refusing), guard.index_phrases(active.recording))
                for place, active in decider.active.items()
            }
        )
        self._request = RequestScreening(guard, decider, segments, tenant, self.phrases)

    @property
    def findings(self) -> Findings:
        """All that was found so far."""
        return self._decider.findings

    @property
    def refusal(self) -> Verdict | None:
        """The verdict that refused the exchange, if one did."""
        return self._decider.refusal

    @property
    def is_holding(self) -> bool:
        """Whether the answer is held back for now."""
        return self._is_doubtful or (
            self._waits_for_words and len(self._decider.answer_text) > self._screened_characters
        )

    @property
    def buffers_tool_calls(self) -> bool:
        """Whether tool calls are released only when complete: a refusal must not leave half of one behind."""
        return bool(self._decider.active["tool_input"].refusing)

    @property
    def screens_blocks(self) -> bool:
        """Whether there is something to look for in the blocks of the answer."""
        return self.phrases.applies_to(*ANSWER_PLACES)

    # What comes in

    async def screen_input(self) -> None:
        """Screen the request's texts before prefill. Without hidden states, it is screened only here."""
        with self._measure_time():
            await self._request.screen_texts()

    async def screen_prompt(self, scores: bytes | None, start: int, end: int) -> None:
        """Screen the prompt by the probe's ``scores`` of its tokens; the user's turn is from start to end."""
        probe = self._guard.probe
        if scores is None or probe is None or self.refusal:
            return
        with self._measure_time():
            rows = np.frombuffer(scores, "<f4").reshape(-1, probe.heads)
            await self._request.screen_states(rows, start, end)

    # What goes out

    async def screen_token(
        self, scores: bytes | None, place: Place, text: str, pieces: Sequence[AnswerPiece] | None = None
    ) -> None:
        """Screen the next token of the answer.

        Args:
            scores: of the probe at the token before it.
            place: where the answer is after it.
            text: what it added.
            pieces: the same by block; None: one block.
        """
        self._positions.add(self._tokens, [AnswerPiece(0, text)] if pieces is None else pieces)
        self._tokens += 1
        if self._tracker is not None and scores is not None and self._guard.reads_states and self._tokens > 1:
            await self._screen_states(np.frombuffer(scores, "<f4"), place)
        reads_text = bool(self._prose) or not self._guard.reads_states
        if reads_text and place != self._text_place:
            # What was written at one place is not judged by the principles of another.
            await self._screen_pending_text()
            self._text_place, self._text_start = place, len(self._decider.answer_text)
        if reads_text or self._guard.judge is not None:
            self._decider.answer_text += text
        if reads_text and len(self._decider.answer_text) - self._screened_characters >= TEXT_STEP_CHARACTERS:
            await self._screen_text(place)

    async def screen_rest(self) -> None:
        """Screen the rest of a complete answer."""
        await self._screen_pending_text()
        self._is_doubtful = False

    def add_phrases(self, found: Iterable[PlacedPhrase], place: Place, where: Location) -> None:
        """Add the verdicts on phrases in a block of the answer, at their spans."""
        for phrase in found:
            self._decider.add_phrase(phrase.principle, place, where._replace(span=phrase.span))

    async def screen_call(self, tool: str, written: str, block: str) -> None:
        """Screen a tool call, whose input is JSON, perhaps cut short. Must be called before any of it leaves."""
        with self._measure_time():
            if self.phrases.applies_to("tool_input"):
                found = await asyncio.to_thread(list, self.phrases.find_in_call(tool, written))
                self.add_phrases(found, "tool_input", Location(block, tool=tool))

    async def _screen_pending_text(self) -> None:
        if len(self._decider.answer_text) > self._screened_characters and not self.refusal:
            await self._screen_text(self._text_place)

    async def _screen_states(self, row: Floats, place: Place) -> None:
        tracker, ensemble = self._tracker, self._output
        assert tracker is not None and ensemble is not None
        logit, shares = self._scorer.score_token(row)
        weight = max(1 / 16, 1 / max(1, tracker.count))
        self._shares = shares if self._shares is None else self._shares + weight * (shares - self._shares)
        state = tracker.update(logit)
        if tracker.peak > -np.inf:
            self.findings.output_score = sigmoid(tracker.peak)
        self._is_doubtful = False
        if state != "calm":
            with self._measure_time():
                shares = self._shares - np.logaddexp.reduce(self._shares)
                score = HarmScore(tracker.mean, shares, tracker.span)
                await self._decide_answer(
                    score, ensemble, place, "states", self._locate_tokens, is_alarm=state == "alarm"
                )

    async def _screen_text(self, place: Place) -> None:
        """Score the text since the last check, with some context before it."""
        with self._measure_time():
            written = self._decider.answer_text
            text = written[max(self._text_start, len(written) - TEXT_CONTEXT_CHARACTERS) :]
            span = (len(written) - len(text), len(written))
            self._screened_characters = len(written)
            if self._tracker is not None and self._output is not None and not self._guard.reads_states:
                logit = self._scorer.score_answer(text)
                state = self._tracker.update(logit)
                self.findings.output_score = sigmoid(self._tracker.peak)
                self._is_doubtful = False
                if state != "calm":
                    known = len(self._scorer.manifest.principles)
                    shares = np.full(known, -np.log(max(1, known)), np.float32)
                    score = HarmScore(self._tracker.mean, shares, span)
                    await self._decide_answer(
                        score, self._output, place, "text", self._locate_text, is_alarm=state == "alarm"
                    )
            found = await asyncio.to_thread(self._scorer.score_similarity, text, self._prose)
            scored = {name: (logit, span) for name, logit in found.items()}
            await self._decider.decide_by_prose(scored, place, self._locate_text, is_answer=True)

    async def _decide_answer(
        self, score: HarmScore, ensemble: Ensemble, place: Place, stage: Stage, locate: Locate, *, is_alarm: bool
    ) -> None:
        """Decide on an answer with evidence: refuse it, ask the judge, or hold it back."""
        decider, tracker = self._decider, self._tracker
        refusing, recording = decider.columns[place]
        active = decider.active[place]
        assert tracker is not None
        if refusing and score.compute_logit(refusing) >= ensemble.low:
            if self._guard.judge is not None and self._tokens - self._judged_at < JUDGE_INTERVAL_TOKENS:
                self._is_doubtful = is_alarm
            elif self._guard.judge is not None:
                self._judged_at = self._tokens
                principle = decider.find_top_principle(score, active.refusing)
                if not await decider.ask_judge(principle, place, score.span, locate):
                    tracker.clear_doubt()
            elif is_alarm and score.compute_logit(refusing) >= ensemble.high:
                principle = decider.find_top_principle(score, active.refusing)
                decider.add_verdict_from_logit(
                    principle, place, stage, score.compute_logit(refusing), ensemble.high, locate(score.span)
                )
            else:
                self._is_doubtful = True
        elif is_alarm and recording and score.compute_logit(recording) >= ensemble.high:
            principle = decider.find_top_principle(score, active.recording)
            decider.add_verdict_from_logit(
                principle, place, stage, score.compute_logit(recording), ensemble.high, locate(score.span)
            )

    def _locate_text(self, span: tuple[int, int]) -> Location:
        return self._positions.locate_characters(*span)

    def _locate_tokens(self, span: tuple[int, int]) -> Location:
        # A token's scores are those of the states that it was drawn from: at the token before it.
        return self._positions.locate_tokens(*span)

    @contextlib.contextmanager
    def _measure_time(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.findings.seconds += time.perf_counter() - begun
