"""Screening of one exchange: its input, then its answer token by token."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from commonweight.charter.principle import Place, Principle
from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Ensemble
from commonweight.guard.judge import YES_THRESHOLD, JudgeError, JudgeQuestion
from commonweight.guard.scorer import HarmScore, TextScores, sigmoid
from commonweight.guard.screened_input import ScreenedInput
from commonweight.guard.streaming import TEXT_WINDOW, EvidenceTracker
from commonweight.guard.verdict import Findings, Stage, Verdict

if TYPE_CHECKING:
    from commonweight.guard.guard import Guard

log = logging.getLogger(__name__)

TEXT_STEP_CHARACTERS = 160
"""Characters of an answer that its text is looked at after, where its states are not: some 32 tokens."""
TEXT_CONTEXT_CHARACTERS = 480
"""Characters that are looked at then."""
JUDGE_INTERVAL_TOKENS = 64
"""Tokens between two questions about one answer."""

ANSWER_PLACES: tuple[Place, ...] = ("output", "thinking")


class Screening:
    """Scores one exchange step by step, and tells whether to hold or refuse it."""

    def __init__(self, guard: "Guard", screened: ScreenedInput, waived: Collection[str], tenant: str) -> None:
        self._guard = guard
        self._tenant = tenant
        self._scorer = guard.scorer
        self._input = screened
        self._active = {place: guard.find_active_principles(place, waived) for place in get_args(Place)}
        self._columns = {
            place: [
                self._scorer.find_columns([one.id for one in group])
                for group in (active.refusing, active.recording)
            ]
            for place, active in self._active.items()
        }
        self.findings = Findings(guard.charter.sha256, guard.digest, [])
        manifest = self._scorer.manifest
        answers = manifest.output.get("states" if guard.reads_states else "grams")
        answers = answers.at(guard.strictness) if answers else None
        self._output: Ensemble | None = answers
        self._tracker = (
            None
            if answers is None
            else EvidenceTracker(answers.low, answers.high, *(() if guard.reads_states else (TEXT_WINDOW,)))
        )
        self._shares: Floats | None = None
        watched = [
            one
            for place in ANSWER_PLACES
            for one in (*self._active[place].refusing, *self._active[place].recording)
            if one.id in manifest.prose
        ]
        self._prose = (
            {one.id: EvidenceTracker(-np.inf, 0.0, TEXT_WINDOW) for one in watched}
            if self._scorer.has_encoder
            else {}
        )
        # What only its words can tell of an answer is looked at in stretches, and none leaves before.
        self._waits_for_words = any(
            one.id in self._prose for place in ANSWER_PLACES for one in self._active[place].refusing
        )
        self._answer_text = ""
        self._screened_characters = 0
        self._tokens = 0
        self._judged_at = -JUDGE_INTERVAL_TOKENS
        self._is_doubtful = False

    @property
    def refusal(self) -> Verdict | None:
        """The verdict that refused the exchange, if one did."""
        return self.findings.refusal

    @property
    def is_holding(self) -> bool:
        """Whether the answer is held back for now."""
        return self._is_doubtful or (self._waits_for_words and len(self._answer_text) > self._screened_characters)

    @property
    def buffers_tool_calls(self) -> bool:
        """Whether tool calls are released only when complete: a refusal must not leave half of one behind."""
        return bool(self._active["tool_input"].refusing)

    # What comes in

    async def screen_input(self) -> None:
        """Screen the input's text before prefill. Without hidden states, the input is screened only here."""
        with self._measure_time():
            await self._screen_injections()
            if not self._guard.reads_states:
                await self._screen_input_text()
            elif self._scorer.manifest.prose:
                score = await asyncio.to_thread(self._scorer.score_text, self._input.user_text)
                await self._decide_by_prose(score.prose, "input")

    async def screen_prompt(self, scores: bytes | None, start: int, end: int) -> None:
        """Screen the prompt by the probe's ``scores`` of its tokens; the user's turn is from start to end."""
        probe = self._guard.probe
        if scores is None or probe is None or self.refusal:
            return
        with self._measure_time():
            rows = np.frombuffer(scores, "<f4").reshape(-1, probe.heads)
            states = self._scorer.score_prompt(rows, start, end)
            text = None
            if await asyncio.to_thread(self._scorer.needs_text, states, self._input.user_text):
                self.findings.encoded = True
                text = await asyncio.to_thread(self._scorer.score_text, self._input.user_text)
            await self._decide_on_input(states, text)

    # What goes out

    async def screen_token(self, scores: bytes | None, place: Place, text: str) -> None:
        """Screen the next token of the answer. ``scores``: of the probe at the token before it."""
        self._tokens += 1
        if self._tracker is not None and scores is not None and self._guard.reads_states and self._tokens > 1:
            await self._screen_states(np.frombuffer(scores, "<f4"), place)
        if self._prose or not self._guard.reads_states:
            self._answer_text += text
            if len(self._answer_text) - self._screened_characters >= TEXT_STEP_CHARACTERS:
                await self._screen_text(place)

    async def screen_rest(self, place: Place) -> None:
        """Screen the rest of a complete answer."""
        if len(self._answer_text) > self._screened_characters and not self.refusal:
            await self._screen_text(place)
        self._is_doubtful = False

    async def _screen_states(self, row: Floats, place: Place) -> None:
        tracker, ensemble = self._tracker, self._output
        assert tracker is not None and ensemble is not None
        logit, shares = self._scorer.score_token(row)
        logit = ensemble.states * logit + ensemble.bias
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
                await self._decide_answer(score, ensemble, place, "states", is_alarm=state == "alarm")

    async def _screen_text(self, place: Place) -> None:
        """Score the text since the last check, with some context before it."""
        with self._measure_time():
            text = self._answer_text[-TEXT_CONTEXT_CHARACTERS:]
            span = (len(self._answer_text) - len(text), len(self._answer_text))
            self._screened_characters = len(self._answer_text)
            if self._tracker is not None and self._output is not None and not self._guard.reads_states:
                logit = self._output.grams * self._scorer.score_answer(text) + self._output.bias
                state = self._tracker.update(logit)
                self.findings.output_score = sigmoid(self._tracker.peak)
                self._is_doubtful = False
                if state != "calm":
                    known = len(self._scorer.manifest.principles)
                    shares = np.full(known, -np.log(max(1, known)), np.float32)
                    score = HarmScore(self._tracker.mean, shares, span)
                    await self._decide_answer(score, self._output, place, "text", is_alarm=state == "alarm")
            found = await asyncio.to_thread(self._scorer.score_similarity, text, list(self._prose))
            await self._decide_by_prose({name: (logit, span) for name, logit in found.items()}, place)

    async def _decide_answer(
        self, score: HarmScore, ensemble: Ensemble, place: Place, stage: Stage, *, is_alarm: bool
    ) -> None:
        """Decide on an answer with evidence: refuse it, ask the judge, or hold it back."""
        refusing, recording = self._columns[place]
        tracker = self._tracker
        assert tracker is not None
        if refusing and score.compute_logit(refusing) >= ensemble.low:
            if self._guard.judge is not None and self._tokens - self._judged_at < JUDGE_INTERVAL_TOKENS:
                self._is_doubtful = is_alarm
            elif self._guard.judge is not None:
                self._judged_at = self._tokens
                if not await self._ask_judge(
                    self._find_top_principle(score, self._active[place].refusing), score, place
                ):
                    tracker.clear_doubt()
            elif is_alarm and score.compute_logit(refusing) >= ensemble.high:
                principle = self._find_top_principle(score, self._active[place].refusing)
                self._add_verdict_from_logit(
                    principle, place, stage, score.compute_logit(refusing), ensemble.high, score.span
                )
            else:
                self._is_doubtful = True
        elif is_alarm and recording and score.compute_logit(recording) >= ensemble.high:
            principle = self._find_top_principle(score, self._active[place].recording)
            self._add_verdict_from_logit(
                principle, place, stage, score.compute_logit(recording), ensemble.high, score.span
            )

    # What both come to

    async def _screen_input_text(self) -> None:
        text = await asyncio.to_thread(self._scorer.score_text, self._input.user_text)
        self.findings.encoded = text.encoder is not None
        await self._decide_on_input(None, text)
        await self._decide_by_prose(text.prose, "input")

    async def _decide_on_input(self, states: HarmScore | None, text: TextScores | None) -> None:
        found = self._scorer.judge_input(states, text, self._guard.strictness)
        if found is None:
            return
        if text is not None:
            self.findings.language, self.findings.is_read = text.language, text.is_read
            if not text.is_read:
                await self._decide_on_unread(found.score)
        self._record_input_score(found.score.logit)
        if not found.is_calm:
            await self._decide_by_score(found.score, found.ensemble, "input", found.stage)

    async def _decide_on_unread(self, score: HarmScore) -> None:
        """Decide on input that the heads cannot read, as the charter says: in the name of its first principle."""
        known = [one for one in self._active["input"].refusing if self._scorer.find_columns([one.id])]
        decision = self._guard.charter.unreadable
        if not known or decision == "allow":
            return
        if decision == "refuse":
            self._add_verdict(known[0], "input", "language", 1.0, 1.0, (0, len(self._input.user_text)))
        elif self._guard.judge is not None:
            await self._ask_judge(self._find_top_principle(score, known), score, "input")

    async def _decide_by_score(self, score: HarmScore, ensemble: Ensemble, place: Place, stage: Stage) -> None:
        active, (refusing, recording) = self._active[place], self._columns[place]
        if refusing and score.compute_logit(refusing) >= (ensemble.low if self._guard.judge else ensemble.high):
            principle = self._find_top_principle(score, active.refusing)
            if self._guard.judge is not None:
                await self._ask_judge(principle, score, place)
            else:
                self._add_verdict_from_logit(
                    principle, place, stage, score.compute_logit(refusing), ensemble.high, score.span
                )
        elif recording and score.compute_logit(recording) >= ensemble.high:
            principle = self._find_top_principle(score, active.recording)
            self._add_verdict_from_logit(
                principle, place, stage, score.compute_logit(recording), ensemble.high, score.span
            )

    async def _decide_by_prose(self, found: dict[str, tuple[float, tuple[int, int]]], place: Place) -> None:
        for principle in (*self._active[place].refusing, *self._active[place].recording):
            if principle.id not in found or self.refusal:
                continue
            logit, span = found[principle.id]
            prose = self._scorer.manifest.prose[principle.id]
            low = (prose.low - prose.high) / prose.scale
            may_ask = self._guard.judge is not None and principle in self._active[place].refusing
            if may_ask and logit >= low:
                await self._ask_judge(principle, HarmScore(logit, np.zeros(0, np.float32), span), place)
            elif not may_ask and logit >= 0:
                self._add_verdict_from_logit(principle, place, "text", logit, 0.0, span)

    async def _screen_injections(self) -> None:
        manifest = self._scorer.manifest
        if manifest.injection is None:
            return
        texts: list[tuple[Literal["input", "tool_result"], str]] = [("input", self._input.user_text)]
        texts += [("tool_result", text) for text in self._input.results]
        for place, text in texts:
            for principle in (*self._active[place].refusing, *self._active[place].recording):
                if principle.id != manifest.injection_principle or self.refusal:
                    continue
                logit, span = self._scorer.score_injection(text)
                if logit >= 0:
                    self._add_verdict_from_logit(principle, place, "text", logit, 0.0, span)
                    break

    async def _ask_judge(self, principle: Principle, score: HarmScore, place: Place) -> bool:
        """Ask the judge; returns whether the exchange is refused, by its verdict or for lack of one."""
        judge = self._guard.judge
        assert judge is not None
        self.findings.escalated = True
        question = JudgeQuestion(principle, self._input.user_text, self._answer_text, self._tenant)
        try:
            async with asyncio.timeout(self._guard.judge_seconds):
                probability = await judge(question)
            if not 0 <= probability <= 1:
                raise JudgeError("what it says is no probability")
        except (JudgeError, TimeoutError) as error:
            log.warning("the judge gave no verdict on %s: %s", principle.id, error or "too late")
            if self._guard.charter.on_judge_failure.get(principle.severity, "refuse") == "allow":
                return False
            self._add_verdict(principle, place, "judge", 1.0, YES_THRESHOLD, score.span)
            return True
        if probability >= YES_THRESHOLD:
            self._add_verdict(principle, place, "judge", probability, YES_THRESHOLD, score.span)
        return probability >= YES_THRESHOLD

    def _find_top_principle(self, score: HarmScore, among: Sequence[Principle]) -> Principle:
        known = [one for one in among if self._scorer.find_columns([one.id])]
        return max(known, key=lambda one: score.log_shares[self._scorer.find_columns([one.id])[0]])

    def _add_verdict_from_logit(
        self,
        principle: Principle,
        place: Place,
        stage: Stage,
        logit: float,
        threshold: float,
        span: tuple[int, int],
    ) -> None:
        self._add_verdict(principle, place, stage, sigmoid(logit), sigmoid(threshold), span)

    def _add_verdict(
        self,
        principle: Principle,
        place: Place,
        stage: Stage,
        score: float,
        threshold: float,
        span: tuple[int, int],
    ) -> None:
        known = {(verdict.principle, verdict.place) for verdict in self.findings.verdicts}
        if (principle.id, place) in known:
            return  # of a principle that only records, once is enough
        is_shadow = principle not in self._active[place].refusing and principle.applies_to[place] == "refuse"
        self.findings.verdicts.append(
            Verdict(
                charter=self._guard.charter.sha256,
                principle=principle.id,
                place=place,
                stage=stage,
                score=score,
                threshold=threshold,
                span=span,
                strictness=self._guard.strictness,
                action=principle.applies_to[place],
                mode="shadow" if is_shadow else "enforce",
                category=principle.category,
                message=principle.message,
            )
        )

    def _record_input_score(self, logit: float) -> None:
        self.findings.input_score = max(self.findings.input_score or 0.0, sigmoid(logit))

    @contextlib.contextmanager
    def _measure_time(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.findings.seconds += time.perf_counter() - begun
