"""Scorer: the arithmetic of compiled heads, from hidden states and texts to logits. No policy.

A :class:`~commonweight.guard.heads.scores.HarmScore` is the logit that a text violates the principles with
training data, and its distribution over them, ``log P(principle | violated)``. So setting a principle aside takes
away its share, and no more.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np

from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.encoder import Embedder
from commonweight.guard.encoders.ngrams import hash_ngrams
from commonweight.guard.heads.bundle import Bundle, Ensemble, Manifest, Strictness
from commonweight.guard.heads.reader import MULTILINGUAL, PROSE_ENCODER, STATES, TEXT, TextReader
from commonweight.guard.heads.scores import HarmScore, TextScores

__all__ = ["HarmScore", "InputJudgement", "Lowering", "ProbeWeights", "Scorer", "TextScores", "sigmoid"]

MEAN, LAST, OUTPUT, FIRST_PRINCIPLE = 0, 1, 2, 3
"""Columns of the probe: harm at the mean token, harm at the last one, harm in answers, and then the principles."""
ANSWERED = 2
"""Column of the heads on n-grams that is about answers."""
STATES_WINDOW, STATES_STRIDE = 64, 32
"""Tokens."""
JudgedBy = Literal["text", "ensemble"]
Lowering = Literal["manipulation", "noise"]
"""Why a threshold is lower than the strictness has it: the text manipulates the model, or ends in noise."""


class ProbeWeights(NamedTuple):
    """Weights of the probe that an engine computes beside the tokens; see ``engines.contract.Probe``."""

    version: str
    layers: list[int]
    heads: int
    weights: bytes


class InputJudgement(NamedTuple):
    """What all scores of one input come to."""

    score: HarmScore
    ensemble: Ensemble
    """With the thresholds that hold."""
    stage: JudgedBy
    lowered_by: tuple[Lowering, ...] = ()


class Scorer:
    """Applies the heads of one bundle. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, encoder: Embedder | None, multilingual: Embedder | None = None) -> None:
        self.manifest: Manifest = bundle.manifest
        self._tensors = bundle.tensors
        self._encoder = encoder if bundle.manifest.encoder else None
        self._states_bias: Floats = bundle.tensors.get("states.bias", np.zeros(0, np.float32))
        self._columns = {name: i for i, name in enumerate(bundle.manifest.principles)}
        encoders = {PROSE_ENCODER: self._encoder, MULTILINGUAL: multilingual}
        self._reader = TextReader(bundle, {name: one for name, one in encoders.items() if one is not None})
        self.probe: ProbeWeights | None = None
        if bundle.manifest.model is not None:
            weights = np.ascontiguousarray(bundle.tensors["probe.weights"], "<f4")
            self.probe = ProbeWeights(
                bundle.digest, list(bundle.manifest.probe_layers), weights.shape[2], weights.tobytes()
            )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the heads read."""
        return self._reader.languages

    @property
    def encoders(self) -> tuple[str, ...]:
        """The encoders that are there, by their names in the bundle."""
        return self._reader.encoders

    @property
    def has_encoder(self) -> bool:
        """Whether texts are also scored by their embeddings."""
        return self._encoder is not None

    def find_columns(self, principles: Collection[str]) -> list[int]:
        """Find the columns of principles; those without data have none."""
        return [self._columns[name] for name in principles if name in self._columns]

    # Both

    def judge_input(
        self,
        states: HarmScore | None,
        text: TextScores,
        strictness: Strictness = "standard",
        *,
        noisy: bool = False,
    ) -> InputJudgement:
        """Judge an input by what its heads say: the ensemble that is furthest above its threshold.

        Args:
            states: of the raw text, where they are read. They say nothing of other views, which are judged by text
                alone.
            noisy: the text ends in noise.
        """
        found: list[InputJudgement] = []
        manipulation = self.manifest.manipulation.get(text.members)
        manipulated = (
            manipulation is not None
            and text.orders is not None
            and text.orders.logit >= manipulation.at(strictness).high
        )
        reasons: list[tuple[Lowering, bool]] = [("manipulation", manipulated), ("noise", noisy)]

        def judge(score: HarmScore, ensemble: Ensemble, stage: JudgedBy) -> InputJudgement:
            lowered = ensemble.at(strictness, manipulated=manipulated, noisy=noisy)
            is_lower = lowered.high < ensemble.at(strictness).high
            lowered_by = tuple(name for name, holds in reasons if holds and is_lower)
            return InputJudgement(score, lowered, stage, lowered_by)

        on_text = self.manifest.input[text.members]
        both = self.manifest.input.get(f"{STATES}+{text.members}")
        if states is not None and both is not None:
            logit = both.weights[STATES] * states.logit + both.weights[TEXT] * text.own.logit + both.bias
            score = text.own._replace(logit=logit)
            found.append(judge(score, both, "ensemble"))
        else:
            found.append(judge(text.own, on_text, "text"))
        if text.hidden is not None:
            found.append(judge(text.hidden, on_text, "text"))
        if text.foreign is not None:
            found.append(judge(text.foreign, self.manifest.input[MULTILINGUAL], "text"))
        return max(found, key=lambda one: one.score.logit - one.ensemble.high)

    # States

    def score_prompt(self, scores: Floats, start: int, end: int) -> HarmScore:
        """Score the tokens of a prompt from ``start`` to ``end`` by their states.

        ``scores``: of the probe, shape ``(tokens, heads)``.
        """
        rows = scores[start : max(end, start + 1)]
        starts = list(range(0, max(1, len(rows) - STATES_STRIDE), STATES_STRIDE))
        means = np.stack([rows[at : at + STATES_WINDOW].mean(0) for at in starts]) + self._states_bias
        # Each token's score is linear in its state, so the mean of scores is the score of the mean.
        worst = int(means[:, MEAN].argmax())
        logit = float(means[worst, MEAN]) - self.manifest.states_slope * float(np.log(len(means)))
        at = start + starts[worst]
        span = (at, min(at + STATES_WINDOW, end))
        which = _log_softmax(means[worst, FIRST_PRINCIPLE:])
        return HarmScore(logit + float(scores[-1, LAST] + self._states_bias[LAST]), which, span)

    def score_token(self, scores: Floats) -> tuple[float, Floats]:
        """Score one token of an answer by its state: a logit, and unnormalised shares of the principles."""
        row = scores + self._states_bias
        return float(row[OUTPUT]), row[FIRST_PRINCIPLE:]

    # Text

    def score_text(self, text: str) -> TextScores:
        """Score a text by its heads, in all its views."""
        return self._reader.score(text)

    def score_injection(self, text: str) -> tuple[float, tuple[int, int]]:
        """Score a text for prompt injection: the logit less the threshold, and the span in characters."""
        return self._reader.score_injection(text)

    def score_answer(self, text: str) -> float:
        """Score an answer's text by its n-grams, for engines that give no states."""
        buckets, weights = hash_ngrams(text)
        grams = self._tensors["grams.weights"][buckets, ANSWERED].astype(np.float32)
        return float(weights @ grams + self._tensors["grams.bias"][ANSWERED])

    def score_similarity(self, text: str, names: Collection[str]) -> dict[str, float]:
        """Score one span of text by the prose heads: logits of principles without data."""
        if self._encoder is None or not names:
            return {}
        vector = self._encoder.embed([text])
        return {name: float(self._reader.score_prose(name, vector)[0]) for name in names}


def _log_softmax(logits: Floats) -> Floats:
    if not len(logits):
        return logits
    shares: Floats = logits - np.logaddexp.reduce(logits)
    return shares


def sigmoid(logit: float) -> float:
    """The logistic function."""
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
