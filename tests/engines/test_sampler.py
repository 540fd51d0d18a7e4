"""Drawing tokens: the settings mean what they say, and a seed is all that chance depends on."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from commonweight.engines.contract import Sampling
from commonweight.engines.llama.model.logprobs import compute_logprob
from commonweight.engines.llama.model.native import LlamaBatch, LoadedModel
from commonweight.engines.llama.model.sampler import Sampler, _cut

DRAWS = 4000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    """A tiny model with the logits of one row."""
    path: Path = tiny.write(tmp_path_factory.mktemp("tiny"), "llama")
    model = LoadedModel(path, cells=64, sequences=2, batch_rows=16, outputs=8, threads=1)
    with closing(model):
        batch = LlamaBatch(16)
        batch.add(0, 0, [5, 9, 17, 33], outputs=1)
        model.decode(batch)
        yield model


def probabilities(model: LoadedModel, temperature: float = 1.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    logits = model.get_logits(3).astype(np.float64) / temperature
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def draws(model: LoadedModel, sampling: Sampling, count: int = DRAWS) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.sample(model, 3) for _ in range(count)]


def test_cold_takes_the_likeliest(model: LoadedModel) -> None:
    assert set(draws(model, Sampling(temperature=0), 20)) == {int(np.argmax(model.get_logits(3)))}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_follow_the_probabilities(model: LoadedModel, temperature: float) -> None:
    expected = probabilities(model, temperature)
    counted = Counter(draws(model, Sampling(temperature=temperature, seed=3)))
    # Five standard deviations of a count leave no room for luck among some hundred tokens.
    for token, probability in enumerate(expected):
        deviation = np.sqrt(DRAWS * probability * (1 - probability)) + 1
        assert abs(counted[token] - DRAWS * probability) < 5 * deviation


def test_limits_cut_the_tail(model: LoadedModel) -> None:
    order = np.argsort(-model.get_logits(3))
    shares = np.cumsum(probabilities(model)[order])
    assert set(draws(model, Sampling(top_k=3, seed=1))) == set(order[:3].tolist())
    nucleus = int(np.searchsorted(shares, 0.2)) + 1
    assert set(draws(model, Sampling(top_p=0.2, seed=1))) <= set(order[:nucleus].tolist())
    likeliest = probabilities(model).max()
    allowed = set(np.flatnonzero(probabilities(model) >= 0.5 * likeliest).tolist())
    assert set(draws(model, Sampling(min_p=0.5, seed=1))) <= allowed


@given(
    logits=arrays(np.float32, st.integers(1, 400), elements=st.floats(-60, 30, width=32)),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 2.5]),
    top_k=st.integers(0, 40),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_candidates_are_those_of_a_full_sort(
    logits: npt.NDArray[np.float32], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    found = _cut(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p))
    kept = np.sort(logits if found is None else logits[found])[::-1]
    expected = np.sort(logits)[::-1].astype(np.float64)
    if top_k:
        expected = expected[:top_k]
    weights = np.exp((expected - expected[0]) / temperature)
    if top_p < 1:
        shares = np.cumsum(weights) / weights.sum()
        # Where a sum lies within rounding of top_p, one candidate more or less is right.
        low, high = (1 + int(np.searchsorted(shares, top_p + slack)) for slack in (-1e-5, 1e-5))
    else:
        low = high = len(expected)
    if min_p:
        low, high = (
            min(count, int((weights >= min_p * (1 + slack)).sum()))
            for count, slack in ((low, 1e-3), (high, -1e-3))
        )
    assert low <= len(kept) <= high
    assert (kept == expected[: len(kept)]).all()


def test_a_seed_repeats_and_another_does_not(model: LoadedModel) -> None:
    assert draws(model, Sampling(seed=7), 50) == draws(model, Sampling(seed=7), 50)
    assert draws(model, Sampling(seed=7), 50) != draws(model, Sampling(seed=8), 50)
    assert draws(model, Sampling(), 50) != draws(model, Sampling(), 50)


def test_log_probabilities_are_the_models_own(model: LoadedModel) -> None:
    for token in (0, 40, 200):
        assert compute_logprob(model, 3, token) == pytest.approx(np.log(probabilities(model)[token]), abs=1e-6)


@pytest.mark.parametrize("cuts", [{}, {"top_k": 50}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_what_is_allowed_is_drawn(model: LoadedModel, temperature: float, cuts: dict[str, int]) -> None:
    before = model.get_logits(3).copy()
    allowed = np.array([20, 21, 200])
    sampler = Sampler(Sampling(temperature=temperature, seed=2, **cuts))
    drawn = {sampler.sample(model, 3, allowed) for _ in range(200)}
    best = int(allowed[before[allowed].argmax()])
    assert {best} <= drawn <= ({best} if temperature == 0 else {20, 21, 200})
    assert (model.get_logits(3) == before).all()
