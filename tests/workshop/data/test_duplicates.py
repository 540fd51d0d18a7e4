"""Duplicates: equal rows and rows that are much alike."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.workshop.data.duplicates import (
    MOST_NEAR_ROWS,
    SHINGLE_WORDS,
    ExactDuplicates,
    NearDuplicates,
    require_near_rows,
)
from commonweight.workshop.data.rows import Content, DataError, Message
from commonweight.workshop.data.words import WordHasher, hash_sequences


def text(value: str) -> Content:
    return Content("text", text=value)


def find_near(texts: list[str], similarity: float = 0.8) -> list[int]:
    near = NearDuplicates(similarity)
    for number, value in enumerate(texts):
        near.add(number, text(value))
    return near.find()


def make_words(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(5000)}" for _ in range(count)]


@given(st.lists(st.text(st.sampled_from("aAb \n\t"), max_size=6), max_size=20))
def test_a_row_is_an_exact_duplicate_if_it_equals_an_earlier_one_but_for_space_and_case(texts: list[str]) -> None:
    exact = ExactDuplicates()
    seen: set[str] = set()
    for value in texts:
        plain = " ".join(value.lower().split())
        assert exact.is_duplicate(text(value)) == (plain in seen)
        seen.add(plain)


def test_where_words_stand_matters() -> None:
    exact = ExactDuplicates()
    one, other = Message("user", "a"), Message("assistant", "b")
    rows = [
        Content("messages", messages=(one, other)),
        Content("messages", messages=(Message("user", "a b"), Message("assistant", ""))),
        Content("messages", messages=(Message("assistant", "a"), Message("user", "b"))),
        Content("preference", messages=(one,), chosen=(other,), rejected=(one,)),
        Content("preference", messages=(one,), chosen=(one,), rejected=(other,)),
        Content("prompt", messages=(one, other)),
        text("a b"),
    ]
    assert [exact.is_duplicate(row) for row in rows] == [False] * len(rows)
    assert [exact.is_duplicate(row) for row in rows] == [True] * len(rows)


def test_rows_that_are_much_alike_are_found_and_others_are_not() -> None:
    texts = [" ".join(make_words(seed, 200)) for seed in range(200)]
    changed = texts[7].split()
    changed[50] = changed[150] = "changed"  # 10 of 196 sequences differ
    half = make_words(7, 200)[:100] + make_words(1000, 100)
    found = find_near([*texts, " ".join(changed), " ".join(half), texts[9].upper()])
    assert found == [200, 202]


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.8, 0.9])
def test_rows_are_dropped_above_the_similarity_and_kept_below(similarity: float) -> None:
    """Sequences that a change touches are counted; the estimate is good to a few hundredths."""
    original = [f"w{number}" for number in range(1000)]
    sequences = len(original) - SHINGLE_WORDS + 1
    for wanted, dropped in ((similarity + 0.12, True), (similarity - 0.15, False)):
        # A share of `wanted` in all that either has is this many sequences in common.
        common = min(wanted, 1.0) * 2 * sequences / (1 + min(wanted, 1.0))
        changed = original.copy()
        for place in range(int((sequences - common) / SHINGLE_WORDS)):
            changed[2 + place * SHINGLE_WORDS] = "x"
        assert (find_near([" ".join(original), " ".join(changed)], similarity) == [1]) == dropped


def test_the_first_of_a_group_is_kept_whatever_stands_between() -> None:
    one, other = " ".join(make_words(1, 60)), " ".join(make_words(2, 60))
    assert find_near([one, other, one + ".", other + "!", one.title()]) == [2, 3, 4]


def test_short_rows_are_compared_whole_and_rows_without_words_are_not() -> None:
    assert find_near(["Yes.", "No.", "yes", "?", "!", ""]) == [2]
    assert find_near([]) == []


def test_the_same_rows_are_found_every_time() -> None:
    texts = [" ".join(make_words(seed % 40, 30 + seed % 3)) for seed in range(120)]
    assert find_near(texts) == find_near(texts) != []


def test_too_many_rows_for_near_duplicates_are_refused_with_the_number() -> None:
    require_near_rows(MOST_NEAR_ROWS)
    with pytest.raises(
        DataError, match=r"at most 200,000 rows, and here are 200,001: set near_duplicates to false"
    ):
        require_near_rows(MOST_NEAR_ROWS + 1)


def test_near_duplicates_hold_no_more_rows_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commonweight.workshop.data.duplicates.MOST_NEAR_ROWS", 2)
    with pytest.raises(DataError, match="here are 3"):
        find_near(["a", "b", "c"])


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 14))
def test_sequences_have_one_hash_exactly_where_their_words_are_equal(numbers: list[int], length: int) -> None:
    words = WordHasher().hash_words(" ".join(f"w{number}" for number in numbers))
    hashes = hash_sequences(words, length).tolist()
    sequences = [tuple(numbers[start : start + length]) for start in range(len(numbers) - length + 1)]
    assert len(hashes) == len(sequences)
    assert len(set(hashes)) == len(set(sequences)) == len(set(zip(hashes, sequences, strict=True)))


def test_words_are_the_same_whatever_was_hashed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = WordHasher().hash_words("One two, three")
    monkeypatch.setattr("commonweight.workshop.data.words._MOST_CACHED", 2)
    hasher = WordHasher()
    for _ in range(3):
        assert np.array_equal(hasher.hash_words("one TWO three"), fresh)
