"""Guard: a charter and its compiled heads, applied to one exchange after another.

No decision is remembered from one exchange to the next: what was refused says nothing about what is asked then.
Scores of texts are, since clients send the same ones again; and which turns were refused, so that they stay out of
the prompt.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from commonweight.charter.places import find_rules
from commonweight.charter.principle import Action, Charter, Mode, Place, Principle
from commonweight.guard.encoders.encoder import Embedder
from commonweight.guard.heads.bundle import Bundle, BundleError, Strictness
from commonweight.guard.heads.noise import ScoreEnd
from commonweight.guard.heads.scorer import ProbeWeights, Scorer
from commonweight.guard.judge.judge import Judge
from commonweight.guard.phrases.index import PhraseIndex
from commonweight.guard.screening.closed_exchanges import ClosedExchanges, RefusedTurns
from commonweight.guard.screening.score_cache import ScoreCache
from commonweight.guard.screening.screening import Screening
from commonweight.guard.screening.verdict import Verdict
from commonweight.guard.text.segments import Segment
from commonweight.messages.conversation import MessageParam

JUDGE_TIMEOUT_SECONDS = 10.0
MAX_INDEXES = 32
"""Of phrases that are kept, one for each set of principles that a place and a key's waivers leave."""
_MODES: tuple[Mode, ...] = ("off", "shadow", "enforce")


@dataclass(frozen=True)
class ActivePrinciples:
    """Principles that are active in one context for one client: those that may refuse, and those that record."""

    refusing: tuple[Principle, ...]
    recording: tuple[Principle, ...]
    """Verdicts of these change nothing: the principle only records, or is in shadow mode."""


class Guard:
    """Applies a charter to exchanges. One for each server.

    Args:
        key: of the digests of texts, on record and in memory; None: one that is made for this process.
        score_end: scores ends of texts by the served model, to tell noise where states are read; None: noise is
            not told.
    """

    def __init__(
        self,
        charter: Charter,
        bundle: Bundle,
        encoder: Embedder | None,
        multilingual: Embedder | None = None,
        *,
        mode: Mode = "enforce",
        strictness: Strictness = "standard",
        reads_states: bool = True,
        waived: Collection[str] = (),
        judge: Judge | None = None,
        judge_seconds: float = JUDGE_TIMEOUT_SECONDS,
        key: bytes | None = None,
        score_end: ScoreEnd | None = None,
    ) -> None:
        if bundle.manifest.charter != charter.sha256:
            raise BundleError(
                f"the bundle was compiled from another charter ({bundle.manifest.charter[:16]}, not "
                f"{charter.sha256[:16]}): compile the charter again"
            )
        self.charter = charter
        self.digest = bundle.digest
        self.mode = mode
        self.strictness: Strictness = strictness
        self.scorer = Scorer(bundle, encoder, multilingual)
        self.judge = judge
        self.judge_seconds = judge_seconds
        self.score_end = score_end
        self.reads_states = reads_states and self.scorer.probe is not None
        model = bundle.manifest.model.name if bundle.manifest.model is not None else ""
        key = key or os.urandom(32)
        self.scores = ScoreCache(self.scorer, (charter.sha256, bundle.digest, model), key)
        self._refused_turns = RefusedTurns(charter, key)
        self._by_id = {principle.id: principle for principle in charter.principles}
        self._rules = {principle.id: find_rules(charter, principle) for principle in charter.principles}
        for name in waived:
            if name not in self._by_id:
                raise BundleError(f"{name}: the charter has no such principle to set aside")
            if self._by_id[name].overridable_by == "nobody":
                raise BundleError(f"{name}: the charter lets nobody set this principle aside")
        self._waived = frozenset(waived)
        self._find_index = lru_cache(MAX_INDEXES)(self._make_index)

    @property
    def probe(self) -> ProbeWeights | None:
        """Probe weights that the engine applies to hidden states; None if states are not read."""
        return self.scorer.probe if self.reads_states else None

    def get_principle(self, name: str) -> Principle:
        """Get the principle with this id."""
        return self._by_id[name]

    def get_action(self, principle: Principle, place: Place) -> Action:
        """Get what a principle does at a place that it applies to."""
        return self._rules[principle.id][place].action

    def get_mode(self, principle: Principle, waived: Collection[str] = ()) -> Mode:
        """Get a principle's mode: the weakest of those that the charter, the server and the key set."""
        if principle.id in self._waived:
            return "off"
        if principle.id in waived and principle.overridable_by == "operator":
            return "off"
        return min(self.mode, principle.mode, key=_MODES.index)

    def find_active_principles(self, place: Place, waived: Collection[str]) -> ActivePrinciples:
        """Find the principles that are active in a context."""
        refusing: list[Principle] = []
        recording: list[Principle] = []
        for principle in self.charter.principles:
            rule = self._rules[principle.id].get(place)
            if rule is None:
                continue
            mode = min(self.get_mode(principle, waived), rule.mode, key=_MODES.index)
            if mode == "off":
                continue
            refuses = mode == "enforce" and rule.action == "refuse"
            (refusing if refuses else recording).append(principle)
        return ActivePrinciples(tuple(refusing), tuple(recording))

    def find_closed(
        self, messages: Sequence[MessageParam], tenant: str, waived: Collection[str] = ()
    ) -> ClosedExchanges:
        """Find the closed exchanges of a conversation; a guard that enforces nothing closes none."""
        if self.mode != "enforce":
            return ClosedExchanges()
        return self._refused_turns.match_conversation(messages, tenant, self._list_enforced(waived))

    def note_outcome(
        self, turn: bytes, left: str, verdict: Verdict | None, tenant: str, waived: Collection[str] = ()
    ) -> None:
        """Note how a turn ended, for the requests that follow.

        Args:
            turn: keyed digest of the turn.
            left: the text that left of its answer.
            verdict: that refused it; None: it was answered.
        """
        if verdict is None:
            self._refused_turns.forget(tenant, turn, self._list_enforced(waived))
        elif not verdict.lacks_judgement:
            self._refused_turns.remember(tenant, turn, verdict.principle, left)

    def _list_enforced(self, waived: Collection[str]) -> list[str]:
        return [one.id for one in self.charter.principles if self.get_mode(one, waived) == "enforce"]

    def index_phrases(self, principles: Sequence[Principle]) -> PhraseIndex:
        """Index the phrases of principles."""
        return self._find_index(tuple(principle.id for principle in principles if principle.phrases))

    def _make_index(self, names: tuple[str, ...]) -> PhraseIndex:
        return PhraseIndex([self._by_id[name] for name in names])

    def start_screening(
        self, segments: Sequence[Segment], waived: Collection[str] = (), tenant: str = ""
    ) -> "Screening":
        """Start the screening of an exchange, from the segments of its request."""
        return Screening(self, segments, waived, tenant)
