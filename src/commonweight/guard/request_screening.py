"""Screening of a request: its segments by the heads on text, and the user's turn by the model's states."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from commonweight.charter.places import REQUEST_PLACES
from commonweight.charter.principle import Place
from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Ensemble
from commonweight.guard.deciding import Decider, Locate, Span, locate_segment
from commonweight.guard.deobfuscation import list_views
from commonweight.guard.phrase_screening import PhraseScreening
from commonweight.guard.scorer import HarmScore, TextScores
from commonweight.guard.segments import Location, Segment
from commonweight.guard.verdict import Stage

if TYPE_CHECKING:
    from commonweight.guard.guard import Guard

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
        self._asked = next((one for one in segments if one.place == "input"), _NOTHING)

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

    async def screen_states(
        self, rows: Floats, start: int, end: int, spell: Callable[[int, int], str] | None
    ) -> None:
        """Screen the user's turn by the probe's scores of the prompt's tokens, where it is from start to end."""
        if not self._asked.parts:
            return  # the last message holds results of tools
        ensembles = self._scorer.manifest.input
        states = self._scorer.score_prompt(rows, start, end)
        parts, ensemble = self._scorer.select_input_ensemble(states=True)
        alone = ensembles.get("states")
        if ensemble is None or alone is None:
            return
        logit = alone.states * states.logit + alone.bias
        score = states._replace(logit=logit)
        stage: Stage = "states"
        if parts == "states+encoder" and (logit >= alone.low or len(list_views(self._asked.text)) > 1):
            self._decider.findings.encoded = True
            text = await self._score_text(self._asked, encode=True)
            assert text.encoder is not None
            score = HarmScore(
                ensemble.states * states.logit
                + ensemble.encoder * text.encoder.logit
                + ensemble.grams * text.ngrams.logit
                + ensemble.bias,
                text.encoder.log_shares,
                states.span,
            )
            stage = "ensemble"
        else:
            ensemble = alone
            if parts == "states+encoder":
                self._decider.record_input_score(logit)
                return  # too calm for a second look, which the threshold was made with
        self._decider.record_input_score(score.logit)

        def locate(span: Span) -> Location:
            digest = self._guard.scores.compute_digest(self._tenant, self._asked.text)
            return self._locate_tokens(span, start, end, spell)._replace(digest=digest)

        await self._decider.decide_by_score(score, ensemble, "input", stage, locate)

    def _locate_tokens(
        self, span: Span, start: int, end: int, spell: Callable[[int, int], str] | None
    ) -> Location:
        if spell is None:
            return self._asked.locate((0, 0))
        before, within = len(spell(start, span[0])), len(spell(start, span[1]))
        return self._asked.map_from(spell(start, end), (before, within))

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
        parts, ensemble = self._scorer.select_input_ensemble(states=False)
        reads_first = not has_prose and place != "input" and self._scorer.has_encoder
        text = await self._score_text(segment, encode=not reads_first)
        if reads_first and self._is_doubtful(text):
            text = await self._score_text(segment, encode=True)
        if has_columns and ensemble is not None:
            if parts == "encoder" and text.encoder is None:
                ensemble = manifest.input.get("grams")
            if ensemble is not None:
                await self._decide_by_heads(segment, text, ensemble, locate)
        if not decider.refusal:
            await decider.decide_by_prose(text.prose, place, locate, segment)

    def _is_doubtful(self, text: TextScores) -> bool:
        """Whether the n-grams, which cost a hundredth of the encoder, find a text worth a second look."""
        grams = self._scorer.manifest.input.get("grams")
        return grams is None or grams.grams * text.ngrams.logit + grams.bias >= grams.low

    async def _decide_by_heads(
        self, segment: Segment, text: TextScores, ensemble: Ensemble, locate: Locate
    ) -> None:
        stage: Stage = "text"
        logit = ensemble.grams * text.ngrams.logit + ensemble.bias
        score = HarmScore(logit, text.ngrams.log_shares, text.ngrams.span)
        if ensemble.encoder and text.encoder is not None:
            self._decider.findings.encoded = True
            score = HarmScore(
                logit + ensemble.encoder * text.encoder.logit, text.encoder.log_shares, text.encoder.span
            )
        self._decider.record_input_score(score.logit)
        await self._decider.decide_by_score(score, ensemble, segment.place, stage, locate, segment)

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

    async def _score_text(self, segment: Segment, *, encode: bool) -> TextScores:
        scores, is_known = await self._guard.scores.score_text(segment, self._tenant, encode=encode)
        self._count(is_known)
        return scores

    def _count(self, is_known: bool) -> None:
        if is_known:
            self._decider.findings.hits += 1
        else:
            self._decider.findings.misses += 1
