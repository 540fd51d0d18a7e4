"""Token sampling: one llama.cpp sampler chain a job, with NumPy shortcuts for common settings."""

import ctypes
import random
import secrets

import llama_cpp.llama_cpp as llama
import numpy as np
import numpy.typing as npt

from commonweight.engines.contract import Sampling
from commonweight.engines.grammars import TokenIds
from commonweight.engines.llama.model.native import LoadedModel

MIN_TEMPERATURE = 1e-4
"""Below this temperature a division of logits would leave what float32 can hold; it is as good as 0."""
SUM_STRIDE = 256
"""Probabilities are summed in two levels: what lies before a number is then found without a sum over all."""
CANDIDATE_DTYPE = np.dtype([("id", "i4"), ("logit", "f4"), ("p", "f4")])
"""llama.cpp's ``llama_token_data``."""


class Sampler:
    """Sampler of one job. The n-th draw uses the n-th random number of the job's seed, whatever else is in the
    batch, and however many draft tokens were accepted before.

    Settings that sort or cut candidates go to llama.cpp. Greedy and plain temperature sampling are done here in a
    fraction of the time: llama.cpp first makes a list of the vocabulary.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._chain = None
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        self._chance = random.Random(seed)
        if sampling.temperature >= MIN_TEMPERATURE and (cuts := _make_filters(sampling)):
            self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
            temperature = llama.llama_sampler_init_temp(sampling.temperature)
            for link in (temperature, *cuts, llama.llama_sampler_init_dist(seed)):
                llama.llama_sampler_chain_add(self._chain, link)

    def sample(self, model: LoadedModel, row: int, allowed: TokenIds | None = None) -> int:
        """Draw a token from the logits of ``row``; of those ``allowed``, if given. The logits stay as they are."""
        if allowed is not None:
            return int(allowed[self._choose(model.get_logits(row)[allowed])])
        if self._chain is None:
            return self._choose(model.get_logits(row))
        token: int = llama.llama_sampler_sample(self._chain, model.context, row)
        return token

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            llama.llama_sampler_free(self._chain)

    def _choose(self, logits: npt.NDArray[np.float32]) -> int:
        """The index of one of these logits."""
        if self._temperature < MIN_TEMPERATURE:
            return int(logits.argmax())
        if self._chain is None:
            return _sample_index(logits, self._temperature, self._chance.random())
        candidates = np.zeros(len(logits), CANDIDATE_DTYPE)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        data = candidates.ctypes.data_as(llama.llama_token_data_p)
        array = llama.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
        llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        index: int = array.data[array.selected].id
        return index


def _make_filters(sampling: Sampling) -> list[int]:
    cuts = []
    if sampling.top_k > 0:
        cuts.append(llama.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        cuts.append(llama.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        cuts.append(llama.llama_sampler_init_min_p(sampling.min_p, 1))
    return cuts


def _sample_index(logits: npt.NDArray[np.float32], temperature: float, chance: float) -> int:
    """The token at which the summed probabilities pass ``chance``, from 0 to less than 1."""
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
