"""Scorer: the arithmetic of compiled heads, from hidden states and texts to logits. No policy.

A :class:`HarmScore` is the logit that a text violates the principles with training data, and its distribution
over them, ``log P(principle | violated)``. So setting a principle aside takes away its share, and no more.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Bundle, Ensemble, Manifest
from commonweight.guard.deobfuscation import list_views, normalise, split_windows
from commonweight.guard.encoder import TextEncoder
from commonweight.guard.ngrams import hash_ngrams

MEAN, LAST, OUTPUT, FIRST_PRINCIPLE = 0, 1, 2, 3
"""Columns of the probe: harm at the mean token, harm at the last one, harm in answers, and then the principles."""
ENCODED_FIRST_PRINCIPLE = 2
"""Columns of the encoder's heads: harm, injected orders, and then the principles."""
HARM, INJECTED, ANSWERED = 0, 1, 2
"""Columns of the heads on n-grams."""
STATES_WINDOW, STATES_STRIDE = 64, 32
"""Tokens."""

Parts = Literal["states+encoder", "states", "encoder", "grams"]


class ProbeWeights(NamedTuple):
    """Weights of the probe that an engine computes beside the tokens; see ``engines.contract.Probe``."""

    version: str
    layers: list[int]
    heads: int
    weights: bytes


class HarmScore(NamedTuple):
    """Score of one span of text."""

    logit: float
    log_shares: Floats
    """``log P(principle | violated)``, for the manifest's principles."""
    span: tuple[int, int]
    """Tokens, if it was read from states, or else characters."""

    def compute_logit(self, columns: Collection[int]) -> float:
        """Logit that any of these principles is violated."""
        return self.logit + float(np.logaddexp.reduce(self.log_shares[list(columns)])) if columns else -np.inf


class TextScores(NamedTuple):
    """Scores of a text by the heads that read text."""

    encoder: HarmScore | None
    ngrams: HarmScore
    prose: dict[str, tuple[float, tuple[int, int]]]
    """Logits of the principles without training data (refused from 0 on), and the spans that they come from."""


def pool_windows(logits: npt.NDArray[np.floating]) -> tuple[float, int]:
    """Pool the logits of a text's windows into one; also returns the window that contributes most.

    Half the worst and half the mean: the worst of many harmless windows alone would be alarming.
    """
    worst = int(logits.argmax())
    return float(logits[worst] + logits.mean()) / 2, worst


class Scorer:
    """Applies the heads of one bundle. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, encoder: TextEncoder | None) -> None:
        self.manifest: Manifest = bundle.manifest
        self._tensors = bundle.tensors
        self._encoder = encoder if bundle.manifest.encoder else None
        self._states_bias: Floats = bundle.tensors.get("states.bias", np.zeros(0, np.float32))
        self._columns = {name: i for i, name in enumerate(bundle.manifest.principles)}
        self._unknown = np.full(len(self._columns), -np.log(max(1, len(self._columns))), np.float32)
        self._grams: Floats = np.asarray(bundle.tensors.get("grams.weights", np.zeros((1 << 14, 3))), np.float32)
        self._grams_bias: Floats = bundle.tensors.get("grams.bias", np.zeros(3, np.float32))
        self.probe: ProbeWeights | None = None
        if bundle.manifest.model is not None:
            weights = np.ascontiguousarray(bundle.tensors["probe.weights"], "<f4")
            self.probe = ProbeWeights(
                bundle.digest, list(bundle.manifest.probe_layers), weights.shape[2], weights.tobytes()
            )

    @property
    def has_encoder(self) -> bool:
        """Whether texts are also scored by their embeddings."""
        return self._encoder is not None

    def find_columns(self, principles: Collection[str]) -> list[int]:
        """Find the columns of principles; those without data have none."""
        return [self._columns[name] for name in principles if name in self._columns]

    def select_input_ensemble(self, *, states: bool) -> tuple[Parts, Ensemble | None]:
        """Select the best ensemble for the representations that are available."""
        names: tuple[Parts, ...] = ("states+encoder", "states") if states else ("encoder", "grams")
        for name in names:
            if name in self.manifest.input and ("encoder" not in name or self.has_encoder):
                return name, self.manifest.input[name]
        return "grams", self.manifest.input.get("grams")

    # States

    def score_prompt(self, scores: Floats, start: int, end: int) -> HarmScore:
        """Score the tokens of a prompt from ``start`` to ``end`` by their states.

        ``scores``: of the probe, shape ``(tokens, heads)``.
        """
        rows = scores[start : max(end, start + 1)]
        starts = list(range(0, max(1, len(rows) - STATES_STRIDE), STATES_STRIDE))
        means = np.stack([rows[at : at + STATES_WINDOW].mean(0) for at in starts]) + self._states_bias
        # Each token's score is linear in its state, so the mean of scores is the score of the mean.
        logit, worst = pool_windows(means[:, MEAN])
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
        """Score a text by its heads: the highest of its views, each pooled over its windows.

        ``encode``: read it with the encoder as well, if there is one.
        """
        found = [self._score_view(view, encode) for view in list_views(text)]
        best = max(found, key=lambda one: (one.encoder or one.ngrams).logit)
        prose = {
            name: max((one.prose[name] for one in found), key=lambda pair: pair[0]) for name in found[0].prose
        }
        return TextScores(best.encoder, best.ngrams, prose)

    def score_injection(self, text: str) -> tuple[float, tuple[int, int]]:
        """Score a text for prompt injection: the logit less the threshold, and the span in characters."""
        ensemble = self.manifest.injection
        if ensemble is None:
            return -np.inf, (0, 0)
        cut = split_windows(normalise(text))
        logits = ensemble.bias + ensemble.grams * np.array([self._score_ngrams(one.text)[INJECTED] for one in cut])
        worst = int(logits.argmax())
        return float(logits[worst]) - ensemble.high, (cut[worst].start, cut[worst].end)

    def score_answer(self, text: str) -> float:
        """Score an answer's text by its n-grams, for engines that give no states."""
        return float(self._score_ngrams(text)[ANSWERED])

    def score_similarity(self, text: str, names: Collection[str]) -> dict[str, float]:
        """Score one span of text by the prose heads: logits of principles without data."""
        if self._encoder is None or not names:
            return {}
        vector = self._encoder.embed([text])
        return {name: float(self._score_prose(name, vector)[0]) for name in names}

    def _score_view(self, text: str, encode: bool) -> TextScores:
        cut = split_windows(text)
        harm = np.array([self._score_ngrams(one.text)[HARM] for one in cut])
        logit, worst = pool_windows(harm)
        read = HarmScore(logit, self._unknown, (cut[worst].start, cut[worst].end))
        if not encode or self._encoder is None:
            return TextScores(None, read, {})
        vectors = self._encoder.embed([one.text for one in cut])
        encoded = None
        if "encoder.weights" in self._tensors:
            rows = self._score_vectors(vectors)
            logit, worst = pool_windows(rows[:, HARM])
            encoded = HarmScore(
                logit, _log_softmax(rows[worst, ENCODED_FIRST_PRINCIPLE:]), (cut[worst].start, cut[worst].end)
            )
        prose = {}
        for name in self.manifest.prose:
            logits = self._score_prose(name, vectors)
            worst = int(logits.argmax())
            prose[name] = float(logits[worst]), (cut[worst].start, cut[worst].end)
        return TextScores(encoded, read, prose)

    def _score_vectors(self, vectors: Floats) -> Floats:
        rows: Floats = vectors @ self._tensors["encoder.weights"] + self._tensors["encoder.bias"]
        return rows

    def _score_ngrams(self, text: str) -> Floats:
        buckets, weights = hash_ngrams(text)
        row: Floats = weights @ self._grams[buckets] + self._grams_bias
        return row

    def _score_prose(self, name: str, vectors: Floats) -> Floats:
        prose = self.manifest.prose[name]
        similar = vectors @ np.asarray(self._tensors[f"prose.{name}"], np.float32).T
        if prose.restricts:
            score = similar[:, : prose.restricts].max(1) - similar[:, prose.restricts :].max(1)
        else:
            score = similar[:, 0]
        logits: Floats = (score - prose.high) / prose.scale
        return logits


def _log_softmax(logits: Floats) -> Floats:
    if not len(logits):
        return logits
    shares: Floats = logits - np.logaddexp.reduce(logits)
    return shares


def sigmoid(logit: float) -> float:
    """The logistic function."""
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
