"""The encoder and the n-grams."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from commonweight.guard.encoders.encoder import MAX_TOKENS, load_encoder
from commonweight.guard.encoders.ngrams import BUCKETS, hash_ngrams


def test_what_means_the_same_is_near() -> None:
    a, b, c = load_encoder().embed(
        ["How do I bake bread?", "What is the best recipe for bread?", "The court ruled on Friday."]
    )
    # As sentence-transformers computes them.
    assert abs(float(a @ b) - 0.7295) < 0.001
    assert abs(float(a @ c) + 0.0270) < 0.001
    assert abs(float(np.linalg.norm(a)) - 1) < 1e-5


def test_a_vector_does_not_depend_on_the_company() -> None:
    texts = ["Rain.", "A much longer sentence about the weather in the north of the country.", "word " * 300]
    together = load_encoder().embed(texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.abs(load_encoder().embed([text])[0] - vector).max() < 1e-4


def test_the_end_of_a_long_text_is_cut() -> None:
    long, longer = "word " * MAX_TOKENS, "word " * MAX_TOKENS + "umbrella"
    assert np.array_equal(*load_encoder().embed([long, longer]))


@given(st.text(max_size=200))
def test_grams_are_a_unit_vector_or_nothing(text: str) -> None:
    buckets, weights = hash_ngrams(text)
    assert len(buckets) == len(weights) == len(set(buckets.tolist()))
    assert all(0 <= bucket < BUCKETS for bucket in buckets)
    assert not len(weights) or abs(float(np.linalg.norm(weights)) - 1) < 1e-5


def test_case_and_space_do_not_count() -> None:
    a, b = hash_ngrams("Open  the\nUmbrella"), hash_ngrams("open the umbrella")
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])
