"""The guard: a charter and its compiled heads, applied to one exchange after another.

Nothing is remembered from one exchange to the next: what was refused says nothing about what is asked then.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from commonweight.charter.principle import Charter, Mode, Place, Principle
from commonweight.guard.bundle import Bundle, BundleError, Ensemble
from commonweight.guard.encoder import Encoder
from commonweight.guard.heard import Heard
from commonweight.guard.judge import SAYS_YES, Judge, JudgeError, Question
from commonweight.guard.scorer import Floats, Probe, Reading, Scorer
from commonweight.guard.verdict import Findings, Stage, Verdict
from commonweight.guard.views import views
from commonweight.guard.watch import TEXTS, Watch

log = logging.getLogger(__name__)

STRETCH = 160
"""Characters of an answer that its text is looked at after, where its states are not: some 32 tokens."""
CONTEXT = 480
"""Characters that are looked at then."""
JUDGE_SECONDS = 10.0
"""That a judge may take."""
ASK_AGAIN = 64
"""Tokens between two questions about one answer."""

ANSWERS: tuple[Place, ...] = ("output", "thinking")
_MODES: tuple[Mode, ...] = ("off", "shadow", "enforce")


@dataclass(frozen=True)
class Reach:
    """The principles that hold in one place for one client, and what the data's heads know of them."""

    refusing: tuple[Principle, ...]
    recording: tuple[Principle, ...]
    """Verdicts of these change nothing: the principle only records, or is in shadow mode."""


class Guard:
    """Applies a charter. One for a server."""

    def __init__(
        self,
        charter: Charter,
        bundle: Bundle,
        encoder: Encoder | None,
        *,
        mode: Mode = "enforce",
        reads_states: bool = True,
        waived: Collection[str] = (),
        judge: Judge | None = None,
        judge_seconds: float = JUDGE_SECONDS,
    ) -> None:
        if bundle.manifest.charter != charter.sha256:
            raise BundleError(
                f"the bundle was compiled from another charter ({bundle.manifest.charter[:16]}, not "
                f"{charter.sha256[:16]}): compile the charter again"
            )
        self.charter = charter
        self.digest = bundle.digest
        self.mode = mode
        self.scorer = Scorer(bundle, encoder)
        self.judge = judge
        self.judge_seconds = judge_seconds
        self.reads_states = reads_states and self.scorer.probe is not None
        self._by_id = {principle.id: principle for principle in charter.principles}
        for name in waived:
            if name not in self._by_id:
                raise BundleError(f"{name}: the charter has no such principle to set aside")
            if self._by_id[name].overridable_by == "nobody":
                raise BundleError(f"{name}: the charter lets nobody set this principle aside")
        self._waived = frozenset(waived)

    @property
    def probe(self) -> Probe | None:
        """What engines are to compute, where they can."""
        return self.scorer.probe if self.reads_states else None

    def principle(self, name: str) -> Principle:
        """The principle with this id."""
        return self._by_id[name]

    def mode_of(self, principle: Principle, waived: Collection[str] = ()) -> Mode:
        """What holds for a principle: the weakest of what the charter, the server and the key say."""
        if principle.id in self._waived:
            return "off"
        if principle.id in waived and principle.overridable_by == "operator":
            return "off"
        return min(self.mode, principle.mode, key=_MODES.index)

    def reach(self, place: Place, waived: Collection[str]) -> Reach:
        """Which principles hold in a place."""
        refusing: list[Principle] = []
        recording: list[Principle] = []
        for principle in self.charter.principles:
            mode = self.mode_of(principle, waived)
            if place not in principle.applies_to or mode == "off":
                continue
            refuses = mode == "enforce" and principle.applies_to[place] == "refuse"
            (refusing if refuses else recording).append(principle)
        return Reach(tuple(refusing), tuple(recording))

    def open(self, heard: Heard, waived: Collection[str] = (), tenant: str = "") -> "Screening":
        """Begin with an exchange."""
        return Screening(self, heard, waived, tenant)


class Screening:
    """One exchange: its input, then its answer token by token."""

    def __init__(self, guard: Guard, heard: Heard, waived: Collection[str], tenant: str) -> None:
        self._guard = guard
        self._tenant = tenant
        self._scorer = guard.scorer
        self._heard = heard
        self._reach = {place: guard.reach(place, waived) for place in get_args(Place)}
        self._columns = {
            place: [self._scorer.columns([one.id for one in group]) for group in (reach.refusing, reach.recording)]
            for place, reach in self._reach.items()
        }
        self.findings = Findings(guard.charter.sha256, guard.digest, [])
        manifest = self._scorer.manifest
        answers = manifest.output.get("states" if guard.reads_states else "grams")
        self._output: Ensemble | None = answers
        self._watch = (
            None
            if answers is None
            else Watch(answers.low, answers.high, *(() if guard.reads_states else (TEXTS,)))
        )
        self._which: Floats | None = None
        watched = [
            one
            for place in ANSWERS
            for one in (*self._reach[place].refusing, *self._reach[place].recording)
            if one.id in manifest.prose
        ]
        self._prose = {one.id: Watch(-np.inf, 0.0, TEXTS) for one in watched} if self._scorer.has_encoder else {}
        # What only its words can tell of an answer is looked at in stretches, and none leaves before.
        self._waits_for_words = any(
            one.id in self._prose for place in ANSWERS for one in self._reach[place].refusing
        )
        self._text = ""
        self._looked = 0
        self._tokens = 0
        self._asked = -ASK_AGAIN
        self._is_doubtful = False

    @property
    def refusal(self) -> Verdict | None:
        """What ended the exchange, if something did."""
        return self.findings.refusal

    @property
    def holds(self) -> bool:
        """Whether nothing more of the answer may leave for now."""
        return self._is_doubtful or (self._waits_for_words and len(self._text) > self._looked)

    @property
    def guards_calls(self) -> bool:
        """Whether calls leave only as wholes: a refusal must not leave half of one behind."""
        return bool(self._reach["tool_input"].refusing)

    # What comes in

    async def before(self) -> None:
        """Look at the text, before an engine is bothered: all there is where no states are read."""
        with self._timed():
            await self._injections()
            if not self._guard.reads_states:
                await self._text_alone()
            elif self._scorer.manifest.prose:
                reading = await asyncio.to_thread(self._scorer.text, self._heard.said)
                await self._by_prose(reading.prose, "input")

    async def prefilled(self, scores: bytes | None, start: int, end: int) -> None:
        """The prompt is read. ``scores``: of the probe for each token; the user's turn is from start to end."""
        probe = self._guard.probe
        if scores is None or probe is None or self.refusal:
            return
        with self._timed():
            rows = np.frombuffer(scores, "<f4").reshape(-1, probe.heads)
            states = self._scorer.prompt(rows, start, end)
            parts, ensemble = self._scorer.ensemble(states=True)
            alone = self._scorer.manifest.input.get("states")
            if ensemble is None or alone is None:
                return
            logit = alone.states * states.logit + alone.bias
            reading, stage = states._replace(logit=logit), "states"
            if parts == "states+encoder" and (logit >= alone.low or len(views(self._heard.said)) > 1):
                self.findings.encoded = True
                text = await asyncio.to_thread(self._scorer.text, self._heard.said)
                assert text.encoder is not None
                reading = Reading(
                    ensemble.states * states.logit
                    + ensemble.encoder * text.encoder.logit
                    + ensemble.grams * text.grams.logit
                    + ensemble.bias,
                    text.encoder.which,
                    states.span,
                )
                stage = "ensemble"
            else:
                ensemble = alone
                if parts == "states+encoder":
                    self._note_input(logit)
                    return  # too calm for a second look, which the threshold was made with
            self._note_input(reading.logit)
            await self._by_data(reading, ensemble, "input", stage)  # type: ignore[arg-type]

    # What goes out

    async def token(self, scores: bytes | None, place: Place, text: str) -> None:
        """One more token of the answer. ``scores``: of the probe at the token before it."""
        self._tokens += 1
        if self._watch is not None and scores is not None and self._guard.reads_states and self._tokens > 1:
            await self._by_states(np.frombuffer(scores, "<f4"), place)
        if self._prose or not self._guard.reads_states:
            self._text += text
            if len(self._text) - self._looked >= STRETCH:
                await self._look(place)

    async def end(self, place: Place) -> None:
        """The answer is complete."""
        if len(self._text) > self._looked and not self.refusal:
            await self._look(place)
        self._is_doubtful = False

    async def _by_states(self, row: Floats, place: Place) -> None:
        watch, ensemble = self._watch, self._output
        assert watch is not None and ensemble is not None
        logit, which = self._scorer.token(row)
        logit = ensemble.states * logit + ensemble.bias
        weight = max(1 / 16, 1 / max(1, watch.count))
        self._which = which if self._which is None else self._which + weight * (which - self._which)
        state = watch.take(logit)
        if watch.peak > -np.inf:
            self.findings.output_score = _probability(watch.peak)
        self._is_doubtful = False
        if state != "calm":
            with self._timed():
                shares = self._which - np.logaddexp.reduce(self._which)
                reading = Reading(watch.mean, shares, watch.span)
                await self._answer(reading, ensemble, place, "states", is_alarm=state == "alarm")

    async def _look(self, place: Place) -> None:
        """Read what was written since the last look, and some of what stands before it."""
        with self._timed():
            text = self._text[-CONTEXT:]
            span = (len(self._text) - len(text), len(self._text))
            self._looked = len(self._text)
            if self._watch is not None and self._output is not None and not self._guard.reads_states:
                logit = self._output.grams * self._scorer.answer(text) + self._output.bias
                state = self._watch.take(logit)
                self.findings.output_score = _probability(self._watch.peak)
                self._is_doubtful = False
                if state != "calm":
                    known = len(self._scorer.manifest.principles)
                    shares = np.full(known, -np.log(max(1, known)), np.float32)
                    reading = Reading(self._watch.mean, shares, span)
                    await self._answer(reading, self._output, place, "text", is_alarm=state == "alarm")
            found = await asyncio.to_thread(self._scorer.similarity, text, list(self._prose))
            await self._by_prose({name: (logit, span) for name, logit in found.items()}, place)

    async def _answer(
        self, reading: Reading, ensemble: Ensemble, place: Place, stage: Stage, *, is_alarm: bool
    ) -> None:
        """An answer looks doubtful or alarming: refuse it, ask, or hold it back."""
        refusing, recording = self._columns[place]
        watch = self._watch
        assert watch is not None
        if refusing and reading.of(refusing) >= ensemble.low:
            if self._guard.judge is not None and self._tokens - self._asked < ASK_AGAIN:
                self._is_doubtful = is_alarm
            elif self._guard.judge is not None:
                self._asked = self._tokens
                if not await self._judged(self._top(reading, self._reach[place].refusing), reading, place):
                    watch.settle()
            elif is_alarm and reading.of(refusing) >= ensemble.high:
                principle = self._top(reading, self._reach[place].refusing)
                self._find(principle, place, stage, reading.of(refusing), ensemble.high, reading.span)
            else:
                self._is_doubtful = True
        elif is_alarm and recording and reading.of(recording) >= ensemble.high:
            principle = self._top(reading, self._reach[place].recording)
            self._find(principle, place, stage, reading.of(recording), ensemble.high, reading.span)

    # What both come to

    async def _text_alone(self) -> None:
        parts, ensemble = self._scorer.ensemble(states=False)
        text = await asyncio.to_thread(self._scorer.text, self._heard.said)
        if ensemble is not None:
            logit = ensemble.grams * text.grams.logit + ensemble.bias
            which = text.grams.which
            if parts == "encoder" and text.encoder is not None:
                self.findings.encoded = True
                logit, which = logit + ensemble.encoder * text.encoder.logit, text.encoder.which
            self._note_input(logit)
            await self._by_data(Reading(logit, which, text.grams.span), ensemble, "input", "text")
        await self._by_prose(text.prose, "input")

    async def _by_data(self, reading: Reading, ensemble: Ensemble, place: Place, stage: Stage) -> None:
        reach, (refusing, recording) = self._reach[place], self._columns[place]
        if refusing and reading.of(refusing) >= (ensemble.low if self._guard.judge else ensemble.high):
            principle = self._top(reading, reach.refusing)
            if self._guard.judge is not None:
                await self._judged(principle, reading, place)
            else:
                self._find(principle, place, stage, reading.of(refusing), ensemble.high, reading.span)
        elif recording and reading.of(recording) >= ensemble.high:
            principle = self._top(reading, reach.recording)
            self._find(principle, place, stage, reading.of(recording), ensemble.high, reading.span)

    async def _by_prose(self, found: dict[str, tuple[float, tuple[int, int]]], place: Place) -> None:
        for principle in (*self._reach[place].refusing, *self._reach[place].recording):
            if principle.id not in found or self.refusal:
                continue
            logit, span = found[principle.id]
            prose = self._scorer.manifest.prose[principle.id]
            low = (prose.low - prose.high) / prose.scale
            may_ask = self._guard.judge is not None and principle in self._reach[place].refusing
            if may_ask and logit >= low:
                await self._judged(principle, Reading(logit, np.zeros(0, np.float32), span), place)
            elif not may_ask and logit >= 0:
                self._find(principle, place, "text", logit, 0.0, span)

    async def _injections(self) -> None:
        manifest = self._scorer.manifest
        if manifest.injection is None:
            return
        texts: list[tuple[Literal["input", "tool_result"], str]] = [("input", self._heard.said)]
        texts += [("tool_result", text) for text in self._heard.results]
        for place, text in texts:
            for principle in (*self._reach[place].refusing, *self._reach[place].recording):
                if principle.id != manifest.injection_principle or self.refusal:
                    continue
                logit, span = self._scorer.injection(text)
                if logit >= 0:
                    self._find(principle, place, "text", logit, 0.0, span)
                    break

    async def _judged(self, principle: Principle, reading: Reading, place: Place) -> bool:
        """Ask the judge. Whether it, or its silence, ends the exchange."""
        judge = self._guard.judge
        assert judge is not None
        self.findings.escalated = True
        question = Question(principle, self._heard.said, self._text, self._tenant)
        try:
            async with asyncio.timeout(self._guard.judge_seconds):
                score = await judge(question)
            if not 0 <= score <= 1:
                raise JudgeError("what it says is no probability")
        except (JudgeError, TimeoutError) as error:
            log.warning("the judge gave no verdict on %s: %s", principle.id, error or "too late")
            if self._guard.charter.on_judge_failure.get(principle.severity, "refuse") == "allow":
                return False
            self._add(principle, place, "judge", 1.0, SAYS_YES, reading.span)
            return True
        if score >= SAYS_YES:
            self._add(principle, place, "judge", score, SAYS_YES, reading.span)
        return score >= SAYS_YES

    def _top(self, reading: Reading, among: Sequence[Principle]) -> Principle:
        known = [one for one in among if self._scorer.columns([one.id])]
        return max(known, key=lambda one: reading.which[self._scorer.columns([one.id])[0]])

    def _find(
        self,
        principle: Principle,
        place: Place,
        stage: Stage,
        logit: float,
        threshold: float,
        span: tuple[int, int],
    ) -> None:
        self._add(principle, place, stage, _probability(logit), _probability(threshold), span)

    def _add(
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
        is_shadow = principle not in self._reach[place].refusing and principle.applies_to[place] == "refuse"
        self.findings.verdicts.append(
            Verdict(
                charter=self._guard.charter.sha256,
                principle=principle.id,
                place=place,
                stage=stage,
                score=score,
                threshold=threshold,
                span=span,
                action=principle.applies_to[place],
                mode="shadow" if is_shadow else "enforce",
                category=principle.category,
                message=principle.message,
            )
        )

    def _note_input(self, logit: float) -> None:
        self.findings.input_score = max(self.findings.input_score or 0.0, _probability(logit))

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.findings.seconds += time.perf_counter() - begun


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
