"""Scorer: the arithmetic of compiled heads, from hidden states and texts to logits. No policy.

A :class:`~commonweight.guard.scores.HarmScore` is the logit that a text violates the principles with training
data, and its distribution over them, ``log P(principle | violated)``. So setting a principle aside takes away its
share, and no more.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np

from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Bundle, Ensemble, Manifest, Strictness
from commonweight.guard.encoder import Embedder
from commonweight.guard.first_reader import FirstReader, pool_windows
from commonweight.guard.first_views import list_views
from commonweight.guard.ngrams import hash_ngrams
from commonweight.guard.reader import PROSE_ENCODER, STATES, TEXT, TextReader
from commonweight.guard.scores import HarmScore, TextScores

__all__ = ["HarmScore", "InputJudgement", "ProbeWeights", "Scorer", "TextScores", "sigmoid"]

MEAN, LAST, OUTPUT, FIRST_PRINCIPLE = 0, 1, 2, 3
"""Columns of the probe: harm at the mean token, harm at the last one, harm in answers, and then the principles."""
ANSWERED = 2
"""Column of the heads on n-grams that is about answers."""
STATES_WINDOW, STATES_STRIDE = 64, 32
"""Tokens."""
JudgedBy = Literal["text", "states", "ensemble"]


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
    is_calm: bool = False
    """The first look was calm, and there was no second one: the thresholds do not apply."""
    is_of_tokens: bool = False
    """The span is in tokens of the prompt, not in characters of the text."""


class Scorer:
    """Applies the heads of one bundle. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, encoder: Embedder | None, multilingual: Embedder | None = None) -> None:
        self.manifest: Manifest = bundle.manifest
        self._tensors = bundle.tensors
        self._encoder = encoder if bundle.manifest.encoder else None
        self._states_bias: Floats = bundle.tensors.get("states.bias", np.zeros(0, np.float32))
        self._columns = {name: i for i, name in enumerate(bundle.manifest.principles)}
        encoders = {PROSE_ENCODER: self._encoder, "use": multilingual}
        self._text: TextReader | None = None
        if bundle.manifest.schema_ != "guard/1":
            self._text = TextReader(bundle, {name: one for name, one in encoders.items() if one is not None})
        self._reader = self._text or FirstReader(bundle, self._encoder)
        self.probe: ProbeWeights | None = None
        if bundle.manifest.model is not None:
            weights = np.ascontiguousarray(bundle.tensors["probe.weights"], "<f4")
            self.probe = ProbeWeights(
                bundle.digest, list(bundle.manifest.probe_layers), weights.shape[2], weights.tobytes()
            )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the heads read; empty where that is not known, in guard/1."""
        return self._text.languages if self._text is not None else ()

    @property
    def has_encoder(self) -> bool:
        """Whether texts are also scored by their embeddings."""
        return self._encoder is not None

    @property
    def looks_twice(self) -> bool:
        """Whether encoders are asked only about texts that a first look finds worth it, in guard/1."""
        return self._text is None and "states+encoder" in self.manifest.input and self.has_encoder

    def find_columns(self, principles: Collection[str]) -> list[int]:
        """Find the columns of principles; those without data have none."""
        return [self._columns[name] for name in principles if name in self._columns]

    # Both

    def needs_text(self, states: HarmScore | None, text: str) -> bool:
        """Whether a text's heads are asked besides the states: in guard/1 not where those are calm."""
        if states is None or self._text is not None:
            return True
        alone = self.manifest.input.get("states")
        if not self.looks_twice or alone is None:
            return False
        return alone.states * states.logit + alone.bias >= alone.low or len(list_views(text)) > 1

    def judge_input(
        self, states: HarmScore | None, text: TextScores | None, strictness: Strictness = "standard"
    ) -> InputJudgement | None:
        """Judge an input by what its heads say: the ensemble that is furthest above its threshold.

        ``states``: of the raw text, where they are read. They say nothing of other views, which are judged by text
        alone.
        """
        if self._text is None:
            return self._judge_first(states, text)
        assert text is not None
        found: list[InputJudgement] = []
        own = text.encoder or text.ngrams
        manipulation = self.manifest.manipulation.get(self._text.members)
        manipulated = (
            manipulation is not None
            and text.orders is not None
            and (text.orders.logit >= manipulation.at(strictness).high)
        )
        on_text = self.manifest.input[self._text.members].at(strictness, manipulated=manipulated)
        both = self.manifest.input.get(f"{STATES}+{self._text.members}")
        if states is not None and both is not None:
            weights = both.weights
            logit = weights[STATES] * states.logit + weights[TEXT] * own.logit + both.bias
            score = HarmScore(logit, own.log_shares, own.span)
            found.append(InputJudgement(score, both.at(strictness, manipulated=manipulated), "ensemble"))
        else:
            found.append(InputJudgement(own, on_text, "text"))
        if text.hidden is not None:
            found.append(InputJudgement(text.hidden, on_text, "text"))
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
        if self._text is None:
            logit, worst = pool_windows(means[:, MEAN])
        else:
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

    def score_text(self, text: str, *, encode: bool = True) -> TextScores:
        """Score a text by its heads, in all its views. ``encode``: in guard/1, by the encoder as well."""
        return self._reader.score(text, encode=encode)

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

    # guard/1

    def _judge_first(self, states: HarmScore | None, text: TextScores | None) -> InputJudgement | None:
        ensembles = self.manifest.input
        if states is None:
            assert text is not None
            parts = "encoder" if "encoder" in ensembles and text.encoder is not None else "grams"
            if (ensemble := ensembles.get(parts)) is None:
                return None
            logit = ensemble.grams * text.ngrams.logit + ensemble.bias
            score = HarmScore(logit, text.ngrams.log_shares, text.ngrams.span)
            if parts == "encoder" and text.encoder is not None:
                score = text.encoder._replace(logit=logit + ensemble.encoder * text.encoder.logit)
            return InputJudgement(score, ensemble, "text")
        if (alone := ensembles.get("states")) is None:
            return None
        if text is None or text.encoder is None:
            logit = alone.states * states.logit + alone.bias
            is_calm = self.looks_twice
            return InputJudgement(states._replace(logit=logit), alone, "states", is_calm, is_of_tokens=True)
        both = ensembles["states+encoder"]
        logit = (
            both.states * states.logit
            + both.encoder * text.encoder.logit
            + both.grams * text.ngrams.logit
            + both.bias
        )
        score = HarmScore(logit, text.encoder.log_shares, states.span)
        return InputJudgement(score, both, "ensemble", is_of_tokens=True)


def _log_softmax(logits: Floats) -> Floats:
    if not len(logits):
        return logits
    shares: Floats = logits - np.logaddexp.reduce(logits)
    return shares


def sigmoid(logit: float) -> float:
    """The logistic function."""
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
