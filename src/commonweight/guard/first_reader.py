"""Reading of texts by heads of the format guard/1, as they were calibrated: one encoder, at most 8 windows."""

import numpy as np
import numpy.typing as npt

from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Bundle
from commonweight.guard.encoder import Embedder
from commonweight.guard.first_views import list_views, normalise, split_windows
from commonweight.guard.ngrams import hash_ngrams
from commonweight.guard.prose_head import score_vectors
from commonweight.guard.scores import HarmScore, TextScores

HARM, INJECTED, ANSWERED = 0, 1, 2
"""Columns of the heads on n-grams."""
ENCODED_FIRST_PRINCIPLE = 2
"""Columns of the encoder's heads: harm, one that is not used, and then the principles."""
NOWHERE = (0, 0)


def pool_windows(logits: npt.NDArray[np.floating]) -> tuple[float, int]:
    """Pool the logits of a text's windows into one; also returns the window that contributes most.

    Half the worst and half the mean: the worst of many harmless windows alone would be alarming.
    """
    worst = int(logits.argmax())
    return float(logits[worst] + logits.mean()) / 2, worst


class FirstReader:
    """Scores texts by the heads of one bundle of the first format."""

    def __init__(self, bundle: Bundle, encoder: Embedder | None) -> None:
        self._manifest = bundle.manifest
        self._tensors = bundle.tensors
        self._encoder = encoder
        count = len(bundle.manifest.principles)
        self._unknown = np.full(count, -np.log(max(1, count)), np.float32)
        self._grams: Floats = np.asarray(bundle.tensors.get("grams.weights", np.zeros((1 << 14, 3))), np.float32)
        self._grams_bias: Floats = bundle.tensors.get("grams.bias", np.zeros(3, np.float32))

    def score(self, text: str, *, encode: bool = True) -> TextScores:
        """Score a text: the highest of its views, each pooled over its windows."""
        views = list_views(text)
        found = [self._score_view(view, encode=encode) for view in views]
        best = max(found, key=lambda one: (one.encoder or one.ngrams).logit)
        prose = {
            name: max((one.prose[name] for one in found), key=lambda pair: pair[0]) for name in found[0].prose
        }
        if views == [text]:
            return TextScores(best.encoder, best.ngrams, prose)
        # Spans are of a view: in the text as it was given, none can be told.
        return TextScores(
            best.encoder and best.encoder._replace(span=NOWHERE),
            best.ngrams._replace(span=NOWHERE),
            {name: (logit, NOWHERE) for name, (logit, _) in prose.items()},
        )

    def score_injection(self, text: str) -> tuple[float, tuple[int, int]]:
        """Score a text for prompt injection: the logit less the threshold, and the span in characters."""
        ensemble = self._manifest.injection
        if ensemble is None:
            return -np.inf, (0, 0)
        cut = split_windows(normalise(text))
        logits = ensemble.bias + ensemble.grams * np.array([self._score_ngrams(one.text)[INJECTED] for one in cut])
        worst = int(logits.argmax())
        span = (cut[worst].start, cut[worst].end) if normalise(text) == text else NOWHERE
        return float(logits[worst]) - ensemble.high, span

    def score_prose(self, name: str, vectors: Floats) -> Floats:
        """Score vectors by the head of a principle in words: refused from 0 on."""
        return score_vectors(self._manifest.prose[name], self._tensors[f"prose.{name}"], vectors)

    def _score_view(self, text: str, *, encode: bool) -> TextScores:
        cut = split_windows(text)
        harm = np.array([self._score_ngrams(one.text)[HARM] for one in cut])
        logit, worst = pool_windows(harm)
        read = HarmScore(logit, self._unknown, (cut[worst].start, cut[worst].end))
        if self._encoder is None or not encode:
            return TextScores(None, read, {})
        vectors = self._encoder.embed([one.text for one in cut])
        encoded = None
        if "encoder.weights" in self._tensors:
            rows = vectors @ self._tensors["encoder.weights"] + self._tensors["encoder.bias"]
            logit, worst = pool_windows(rows[:, HARM])
            shares = rows[worst, ENCODED_FIRST_PRINCIPLE:]
            shares = shares - np.logaddexp.reduce(shares) if len(shares) else shares
            encoded = HarmScore(logit, shares, (cut[worst].start, cut[worst].end))
        prose = {}
        for name in self._manifest.prose:
            logits = self.score_prose(name, vectors)
            worst = int(logits.argmax())
            prose[name] = float(logits[worst]), (cut[worst].start, cut[worst].end)
        return TextScores(encoded, read, prose)

    def _score_ngrams(self, text: str) -> Floats:
        buckets, weights = hash_ngrams(text)
        row: Floats = weights @ self._grams[buckets] + self._grams_bias
        return row
