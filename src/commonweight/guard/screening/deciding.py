"""Decisions on one exchange: from scores to verdicts, with the judge's help where there is one."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal

from commonweight.charter.places import ANSWER_PLACES, PLACES
from commonweight.charter.principle import Place, Principle
from commonweight.guard.heads.scorer import HarmScore, InputJudgement, Lowering, sigmoid
from commonweight.guard.judge.judge import YES_THRESHOLD, JudgeError, JudgeQuestion, JudgeSubject
from commonweight.guard.screening.verdict import Findings, Stage, Verdict
from commonweight.guard.text.deobfuscation import DECODED, list_views
from commonweight.guard.text.segments import Location, Segment, find_question

if TYPE_CHECKING:
    from commonweight.guard.screening.guard import Guard

log = logging.getLogger(__name__)

MAX_VERDICTS = 64
"""Verdicts on one exchange that are recorded, beside one that refuses."""
MAX_REQUEST_QUESTIONS = 8
"""Questions to the judge about the texts of one request. After these, the screen decides by itself."""

Span = tuple[int, int]
Locate = Callable[[Span], Location]
"""Finds block and characters of a span of what was scored."""


class Decider:
    """Makes the verdicts on one exchange, and asks the judge.

    Args:
        segments: of the request.
        waived: principles that the key sets aside.
    """

    def __init__(self, guard: "Guard", segments: Sequence[Segment], waived: Collection[str], tenant: str) -> None:
        self._guard = guard
        self._scorer = guard.scorer
        self._tenant = tenant
        self._question = find_question(segments)
        self._request_questions = 0
        self.active = {place: guard.find_active_principles(place, waived) for place in PLACES}
        """The active principles by place."""
        self.columns = {
            place: [
                self._scorer.find_columns([one.id for one in group])
                for group in (active.refusing, active.recording)
            ]
            for place, active in self.active.items()
        }
        """The heads' columns of those that refuse, and of those that record, by place."""
        self.findings = Findings(guard.charter.sha256, guard.digest, [])
        self.answer_text = ""
        """The answer so far, for the judge."""

    @property
    def refusal(self) -> Verdict | None:
        """The verdict that refused the exchange, if one did."""
        return self.findings.refusal

    async def decide_by_score(
        self,
        judged: InputJudgement,
        place: Place,
        locate: Locate,
        segment: Segment | None = None,
    ) -> None:
        """Decide on a text of the request by its score. ``segment``: what the judge is shown."""
        group = self.choose_group(judged, place)
        if group is None:
            return
        score, active = judged.score, self.active[place]
        principle = self.find_top_principle(score, active.refusing if group == "refusing" else active.recording)
        if group == "refusing" and self._may_ask():
            await self.ask_judge(principle, place, score.span, locate, segment)
            return
        refusing, recording = self.columns[place]
        self.add_verdict_from_logit(
            principle,
            place,
            judged.stage,
            score.compute_logit(refusing if group == "refusing" else recording),
            judged.ensemble.high,
            locate(score.span),
            judged.lowered_by,
        )

    def choose_group(self, judged: InputJudgement, place: Place) -> Literal["refusing", "recording"] | None:
        """Choose the principles of a place that a score is decided for, or the judge asked about; None: none."""
        score, ensemble = judged.score, judged.ensemble
        refusing, recording = self.columns[place]
        enough = ensemble.low if self._may_ask() else ensemble.high
        if refusing and score.compute_logit(refusing) >= enough:
            return "refusing"
        return "recording" if recording and score.compute_logit(recording) >= ensemble.high else None

    async def decide_by_prose(
        self,
        found: dict[str, tuple[float, Span]],
        place: Place,
        locate: Locate,
        segment: Segment | None = None,
        *,
        is_answer: bool = False,
    ) -> None:
        """Decide by the heads of principles that have only words."""
        for principle in (*self.active[place].refusing, *self.active[place].recording):
            if principle.id not in found or self.refusal:
                continue
            logit, span = found[principle.id]
            prose = self._scorer.manifest.prose[principle.id]
            low = (prose.low - prose.high) / prose.scale
            has_judge = self._guard.judge is not None if is_answer else self._may_ask()
            may_ask = has_judge and principle in self.active[place].refusing
            if may_ask and logit >= low:
                await self.ask_judge(principle, place, span, locate, segment)
            elif not may_ask and logit >= 0:
                self.add_verdict_from_logit(principle, place, "text", logit, 0.0, locate(span))

    async def ask_judge(
        self,
        principle: Principle,
        place: Place,
        span: Span,
        locate: Locate,
        segment: Segment | None = None,
    ) -> bool:
        """Ask the judge; returns whether the exchange is refused, by its verdict or for lack of one."""
        judge = self._guard.judge
        assert judge is not None
        self.findings.escalated = True
        subject = make_subject(segment, span) if segment is not None and place != "input" else None
        question = JudgeQuestion(principle, self._question, self.answer_text, subject, self._tenant)

        async def ask() -> float:
            async with asyncio.timeout(self._guard.judge_seconds):
                probability = await judge(question)
            if not 0 <= probability <= 1:
                raise JudgeError("what it says is no probability")
            return probability

        try:
            if place in ANSWER_PLACES:
                probability = await ask()
            else:
                self._request_questions += 1
                words = f"{question.instructions}\n{question.material}"
                probability = await self._guard.scores.judge(self._tenant, place, words, ask)
        except (JudgeError, TimeoutError) as error:
            log.warning("the judge gave no verdict on %s: %s", principle.id, error or "too late")
            if self._guard.charter.on_judge_failure.get(principle.severity, "refuse") == "allow":
                return False
            self.add_verdict(principle, place, "judge", 1.0, YES_THRESHOLD, locate(span), lacks_judgement=True)
            return True
        if probability >= YES_THRESHOLD:
            self.add_verdict(principle, place, "judge", probability, YES_THRESHOLD, locate(span))
        return probability >= YES_THRESHOLD

    def find_top_principle(self, score: HarmScore, among: Sequence[Principle]) -> Principle:
        """Find the principle that a score speaks for most, of those with columns."""
        known = [one for one in among if self._scorer.find_columns([one.id])]
        return max(known, key=lambda one: score.log_shares[self._scorer.find_columns([one.id])[0]])

    def add_verdict_from_logit(
        self,
        principle: Principle,
        place: Place,
        stage: Stage,
        logit: float,
        threshold: float,
        where: Location,
        lowered_by: tuple[Lowering, ...] = (),
    ) -> None:
        """Add a verdict by the logits of score and threshold."""
        score, reached = sigmoid(logit), sigmoid(threshold)
        self.add_verdict(principle, place, stage, score, reached, where, lowered_by=lowered_by)

    def add_verdict(
        self,
        principle: Principle,
        place: Place,
        stage: Stage,
        score: float,
        threshold: float,
        where: Location,
        *,
        lacks_judgement: bool = False,
        lowered_by: tuple[Lowering, ...] = (),
    ) -> None:
        """Add a verdict; of a principle that only records, one on each block is enough."""
        known = {(verdict.principle, verdict.place, verdict.block) for verdict in self.findings.verdicts}
        action = self._guard.get_action(principle, place)
        refuses = principle in self.active[place].refusing
        if (principle.id, place, where.block) in known or (len(known) >= MAX_VERDICTS and not refuses):
            return
        self.findings.verdicts.append(
            Verdict(
                charter=self._guard.charter.sha256,
                principle=principle.id,
                place=place,
                stage=stage,
                score=score,
                threshold=threshold,
                strictness=self._guard.strictness,
                lowered_by=lowered_by,
                action=action,
                mode="shadow" if not refuses and action == "refuse" else "enforce",
                block=where.block,
                span=where.span,
                tool=where.tool,
                digest=where.digest,
                lacks_judgement=lacks_judgement,
                category=principle.category,
                message=principle.message,
            )
        )

    def add_phrase(self, principle: str, place: Place, where: Location) -> None:
        """Add the verdict on a phrase of a principle."""
        self.add_verdict(self._guard.get_principle(principle), place, "phrase", 1.0, 1.0, where)

    def record_input_score(self, logit: float) -> None:
        """Record the score of a text of the request."""
        self.findings.input_score = max(self.findings.input_score or 0.0, sigmoid(logit))

    def _may_ask(self) -> bool:
        """Whether a text of the request may be put to the judge."""
        return self._guard.judge is not None and self._request_questions < MAX_REQUEST_QUESTIONS


def make_subject(segment: Segment, span: Span) -> JudgeSubject:
    """Make what the judge is shown of a segment: what is encoded in it first, and the text without disguise."""
    plain, *others = list_views(segment.text)
    decoded = [view.text.strip() for view in others if view.kind in DECODED]
    if decoded:
        return JudgeSubject(segment.place, "\n\n".join([*decoded, plain.text]), (0, 1))
    return JudgeSubject(segment.place, plain.text, plain.find(*span))


def locate_segment(guard: "Guard", segment: Segment, tenant: str) -> Locate:
    """Make a function that locates spans of a segment, with the segment's digest."""

    def locate(span: Span) -> Location:
        return segment.locate(span)._replace(digest=guard.scores.compute_digest(tenant, segment.text))

    return locate
