"""Token sampling with NumPy. llama.cpp's own samplers first make a list of the vocabulary, and sort all of it for
``top_p`` alone.
"""

import random
import secrets

import numpy as np
import numpy.typing as npt

from commonweight.engines.contract import Sampling
from commonweight.engines.grammars import TokenIds
from commonweight.engines.llama.model.native import LoadedModel

MIN_TEMPERATURE = 1e-4
"""Below this temperature a division of logits would leave what float32 can hold; it is as good as 0."""
SUM_STRIDE = 256
"""Probabilities are summed in two levels: what lies before a number is then found without a sum over all."""
BINS, DEPTH = 1024, 32.0
"""Bins of log-probabilities in which a nucleus (``top_p``) is sought, and how far below the highest they reach:
what is less likely than ``exp(-32)`` of the likeliest adds nothing that counts."""

Logits = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class Sampler:
    """Sampler of one job. The n-th draw uses the n-th random number of the job's seed, whatever else is in the
    batch, and however many draft tokens were accepted before.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._chance = random.Random(secrets.randbits(32) if sampling.seed is None else sampling.seed)

    def sample(self, model: LoadedModel, row: int, allowed: TokenIds | None = None) -> int:
        """Draw a token from the logits of ``row``; of those ``allowed``, if given. The logits stay as they are."""
        logits = model.get_logits(row)
        if allowed is not None:
            return int(allowed[self._choose(logits[allowed])])
        return self._choose(logits)

    def _choose(self, logits: Logits) -> int:
        """The index of one of these logits."""
        sampling = self._sampling
        if sampling.temperature < MIN_TEMPERATURE:
            return int(logits.argmax())
        chance = self._chance.random()
        if (candidates := _cut(logits, sampling)) is None:
            return _sample_index(logits, sampling.temperature, chance)
        return int(candidates[_sample_index(logits[candidates], sampling.temperature, chance)])


def _cut(logits: Logits, sampling: Sampling) -> Indices | None:
    """Candidates that ``top_k``, then ``top_p`` and then ``min_p`` leave, in any order; None if they leave all."""
    candidates: Indices | None = None
    if 0 < sampling.top_k < len(logits):
        candidates = np.argpartition(logits, -sampling.top_k)[-sampling.top_k :]
    if sampling.top_p < 1:
        if candidates is None:
            candidates = _find_nucleus(logits, sampling)
        else:
            candidates = candidates[_find_nucleus(logits[candidates], sampling)]
    if sampling.min_p > 0:
        least = logits.max() + sampling.temperature * np.log(sampling.min_p)
        if candidates is None:
            candidates = np.flatnonzero(logits >= least)
        else:
            candidates = candidates[logits[candidates] >= least]
    return candidates


def _find_nucleus(logits: Logits, sampling: Sampling) -> Indices:
    """The fewest likeliest whose probabilities add up to ``top_p``.

    Only the bin of log-probabilities in which the sum is passed is sorted.
    """
    highest = logits.max()
    near: Indices = np.flatnonzero(logits >= highest - DEPTH * sampling.temperature)
    below = (highest - logits[near]) * np.float32(1 / sampling.temperature)
    weights = np.exp(-below)
    bins = np.minimum(below * np.float32(BINS / DEPTH), BINS - 1).astype(np.intp)
    sums = np.cumsum(np.bincount(bins, weights, BINS))
    wanted = sampling.top_p * sums[-1]
    last = int(np.searchsorted(sums, wanted))
    within = np.flatnonzero(bins == last)
    within = within[np.argsort(below[within], kind="stable")]
    before = sums[last - 1] if last else 0.0
    count = 1 + int(np.searchsorted(before + np.cumsum(weights[within], dtype=np.float64), wanted))
    chosen = np.concatenate([np.flatnonzero(bins < last), within[:count]])
    return np.asarray(near[chosen])


def _sample_index(logits: Logits, temperature: float, chance: float) -> int:
    """The index at which the summed probabilities pass ``chance``, from 0 to less than 1."""
    weights = np.exp((logits - logits.max()) * np.float32(1 / temperature))
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), SUM_STRIDE), dtype=np.float64))
    wanted = chance * sums[-1]
    stride = int(np.searchsorted(sums, wanted, side="right"))
    start = stride * SUM_STRIDE
    before = sums[stride - 1] if stride else 0.0
    inside = np.cumsum(weights[start : start + SUM_STRIDE], dtype=np.float64)
    # Rounding may put the number a hair past the end of its stride.
    within = min(wanted - before, np.nextafter(inside[-1], 0))
    return start + int(np.searchsorted(inside, within, side="right"))
