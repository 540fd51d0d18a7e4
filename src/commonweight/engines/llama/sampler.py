"""Drawing the next token with llama.cpp's samplers, one chain a job."""

import secrets

import llama_cpp.llama_cpp as llama
import numpy as np
import numpy.typing as npt

from commonweight.engines.contract import Sampling
from commonweight.engines.llama.native import LoadedModel


class Sampler:
    """A job's sampler chain. The n-th token is drawn with the n-th random number of the job's seed, whoever is in
    the batch, and however many tokens were guessed right before."""

    def __init__(self, sampling: Sampling) -> None:
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for link in _links(sampling):
            llama.llama_sampler_chain_add(self._chain, link)

    def draw(self, model: LoadedModel, row: int, allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """Draw a token from the logits of ``row``; of those ``allowed`` (by token id), if given."""
        if allowed is not None:
            model.logits(row)[~allowed] = -np.inf
        token: int = llama.llama_sampler_sample(self._chain, model.context, row)
        return token

    def close(self) -> None:
        """Free the chain."""
        llama.llama_sampler_free(self._chain)


COLDEST = 1e-4
"""Below this temperature a division of logits would leave what float32 can hold; it is as good as 0."""


def _links(sampling: Sampling) -> list[int]:
    if sampling.temperature < COLDEST:
        return [llama.llama_sampler_init_greedy()]
    links = []
    if sampling.temperature != 1:
        links.append(llama.llama_sampler_init_temp(sampling.temperature))
    if sampling.top_k > 0:
        links.append(llama.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        links.append(llama.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        links.append(llama.llama_sampler_init_min_p(sampling.min_p, 1))
    seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
    links.append(llama.llama_sampler_init_dist(seed))
    return links


def logprob(model: LoadedModel, row: int, token_id: int) -> float:
    """Natural logarithm of the token's probability under the model's own distribution (temperature 1)."""
    logits = model.logits(row).astype(np.float64)
    peak = logits.max()
    return float(logits[token_id] - peak - np.log(np.exp(logits - peak).sum()))
