"""Screening of a request: its segments by the heads on text, and the user's turn by the model's states."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from commonweight.charter.places import REQUEST_PLACES
from commonweight.charter.principle import Place
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.heads.noise import THRESHOLD, ScoreEnd, measure_surprise
from commonweight.guard.heads.reader import PROSE_ENCODER
from commonweight.guard.heads.scorer import HarmScore, InputJudgement, TextScores
from commonweight.guard.phrases.screening import PhraseScreening
from commonweight.guard.screening.deciding import Decider, Locate, locate_segment
from commonweight.guard.text.segments import Location, Segment, list_last_turns

if TYPE_CHECKING:
    from commonweight.guard.screening.guard import Guard

_NOTHING = Segment("input", ())


class RequestScreening:
    """Screens the segments of one request. The user's last turn comes first."""

    def __init__(
        self, guard: "Guard", decider: Decider, segments: Sequence[Segment], tenant: str, phrases: PhraseScreening
    ) -> None:
        self._guard = guard
        self._scorer = guard.scorer
        self._decider = decider
        self._tenant = tenant
        self._phrases = phrases
        self._segments = sorted(segments, key=lambda one: one.place != "input")
        self._turns = [one for one in segments if one.is_user]
        self._scores: dict[Segment, TextScores] = {}
        self._input = next((one for one in segments if one.place == "input"), _NOTHING)

    async def screen_texts(self) -> None:
        """Screen the texts, until one is refused."""
        for place in REQUEST_PLACES:
            if self._phrases.applies_to(place):
                await self._screen_phrases(place)
            if self._decider.refusal:
                return
        for segment in self._segments:
            active = self._decider.active[segment.place]
            if not (active.refusing or active.recording):
                continue
            locate = locate_segment(self._guard, segment, self._tenant)
            await self._screen_injection(segment, locate)
            if not self._decider.refusal:
                await self._screen_text(segment, locate)
            if self._decider.refusal:
                return
        await self._screen_joined_turns()

    async def screen_states(self, rows: Floats, start: int, end: int) -> None:
        """Screen the user's turn by the probe's scores of the prompt's tokens, where it is from start to end."""
        if not self._input.parts:
            return  # the last message holds results of tools
        text = await self._score_text(self._input)
        states = self._scorer.score_prompt(rows, start, end)
        judged = self._scorer.judge_input(states, text, self._guard.strictness)
        if self._guard.score_end is not None:
            lowered = self._scorer.judge_input(states, text, self._guard.strictness, noisy=True)
            # Asked only where the answer decides something: most requests are below the lower threshold as well.
            decides = self._decider.choose_group(lowered, "input") != self._decider.choose_group(judged, "input")
            if decides and await self._ends_in_noise(self._input, self._guard.score_end):
                judged = lowered
        await self._decide(self._input, text, judged, locate_segment(self._guard, self._input, self._tenant))

    async def _ends_in_noise(self, segment: Segment, score_end: ScoreEnd) -> bool:
        """Whether a text ends in noise, by its likelihood under the served model."""

        async def measure() -> float | None:
            logprobs = await score_end(segment.text, self._tenant)
            return None if logprobs is None else measure_surprise(logprobs)

        surprise = await self._guard.scores.measure_noise(segment, self._tenant, measure)
        self._decider.findings.noise = surprise
        return surprise is not None and surprise >= THRESHOLD

    async def _screen_phrases(self, place: Place) -> None:
        """Look for phrases in the texts of a place, and over several of them."""
        groups = [one for one in self._segments if one.place == place]
        parts = [(part, one) for one in groups for part in one.parts]
        texts = [[part.text for part in one.parts] for one in groups]
        found = await self._guard.scores.find_phrases(
            [text for group in texts for text in group],
            place,
            self._phrases.list_principles(place),
            self._tenant,
            lambda: list(self._phrases.find_in_groups(texts, place)),
        )
        for phrase in found:
            part, segment = parts[phrase.text]
            digest = self._guard.scores.compute_digest(self._tenant, part.text)
            where = Location(part.path, phrase.span, segment.tool, digest)
            self._decider.add_phrase(phrase.principle, place, where)

    async def _screen_text(self, segment: Segment, locate: Locate) -> None:
        place, decider, manifest = segment.place, self._decider, self._scorer.manifest
        has_columns = any(decider.columns[place])
        active = (*decider.active[place].refusing, *decider.active[place].recording)
        has_prose = any(one.id in manifest.prose for one in active)
        if segment.is_last_message and self._guard.reads_states:
            has_columns = False  # scored by the states, with the text's help
        if not has_columns and not has_prose:
            return
        text = await self._score_text(segment)
        if has_columns:
            judged = self._scorer.judge_input(None, text, self._guard.strictness)
            await self._decide(segment, text, judged, locate)
        if not decider.refusal:
            await decider.decide_by_prose(text.prose, place, locate, segment)

    async def _screen_joined_turns(self) -> None:
        """Screen the user's last turns as one text, which a request may be split over.

        A turn that alarms by itself is not one of them: what is asked there is decided at its own place.
        """
        if len(self._turns) < 2 or not self._decider.active["input"].refusing:
            return
        calm = [one for one in list_last_turns(self._turns) if not self._alarms(await self._score_text(one))]
        if len(calm) > 1:
            joined = Segment("input", tuple(part for one in calm for part in one.parts), is_user=True)
            await self._screen_text(joined, locate_segment(self._guard, joined, self._tenant))

    def _alarms(self, text: TextScores) -> bool:
        """Whether a text would be refused as input."""
        decider = self._decider
        judged = self._scorer.judge_input(None, text, self._guard.strictness)
        if judged.score.compute_logit(decider.columns["input"][0]) >= judged.ensemble.high:
            return True
        return any(text.prose.get(one.id, (-1.0,))[0] >= 0 for one in decider.active["input"].refusing)

    async def _decide(self, segment: Segment, text: TextScores, judged: InputJudgement, locate: Locate) -> None:
        decider, findings, place = self._decider, self._decider.findings, segment.place
        decider.record_input_score(judged.score.logit)
        findings.encoded |= PROSE_ENCODER in text.members
        findings.is_read &= text.is_read
        if place == "input":
            findings.language = text.language
        if not text.is_read:
            await self._decide_on_unread(segment, judged.score, locate)
        if not decider.refusal:
            await decider.decide_by_score(judged, place, locate, segment)

    async def _decide_on_unread(self, segment: Segment, score: HarmScore, locate: Locate) -> None:
        """Decide on a text that the heads cannot read, as the charter says: in the name of its first principle."""
        decider, place = self._decider, segment.place
        known = [one for one in decider.active[place].refusing if self._scorer.find_columns([one.id])]
        if not known:
            return
        match self._guard.charter.unreadable:
            case "refuse":
                decider.add_verdict(known[0], place, "language", 1.0, 1.0, locate((0, len(segment.text))))
            case "judge" if self._guard.judge is not None:
                principle = decider.find_top_principle(score, known)
                await decider.ask_judge(principle, place, score.span, locate, segment)
            case _:
                pass

    async def _screen_injection(self, segment: Segment, locate: Locate) -> None:
        active = self._decider.active[segment.place]
        speaker = self._scorer.manifest.injection_principle
        principle = next((one for one in (*active.refusing, *active.recording) if one.id == speaker), None)
        if principle is None:
            return
        (logit, span), is_known = await self._guard.scores.score_injection(segment, self._tenant)
        self._count(is_known)
        if logit >= 0:
            self._decider.add_verdict_from_logit(principle, segment.place, "text", logit, 0.0, locate(span))

    async def _score_text(self, segment: Segment) -> TextScores:
        if (known := self._scores.get(segment)) is not None:
            return known
        scores, is_known = await self._guard.scores.score_text(segment, self._tenant)
        self._count(is_known)
        self._scores[segment] = scores
        return scores

    def _count(self, is_known: bool) -> None:
        if is_known:
            self._decider.findings.hits += 1
        else:
            self._decider.findings.misses += 1
