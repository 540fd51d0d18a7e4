"""All of a text is in windows, and every sentence whole in one of them."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from commonweight.guard.text.windows import WINDOW_TOKENS, estimate_tokens, split_windows

SENTENCE = "The weather in the north of the country was cold and wet. "
PARTS = [SENTENCE, "雨が降る。", "x" * 300, "\n", "a b "]
TEXTS = st.one_of(st.text(max_size=3000), st.lists(st.sampled_from(PARTS), max_size=80).map("".join))


@given(TEXTS)
def test_windows_cover_a_text(text: str) -> None:
    cut = split_windows(text)
    assert cut[0].start == 0
    assert cut[-1].end == len(text)
    assert all(after.start <= before.end for before, after in itertools.pairwise(cut))
    assert all(after.start > before.start for before, after in itertools.pairwise(cut))
    assert all(estimate_tokens(text[start:end]) <= WINDOW_TOKENS for start, end in cut)


def test_a_sentence_stands_whole_in_a_window_wherever_it_is() -> None:
    asked = "Which umbrella should I take with me to the lake?"
    for before in range(12):
        text = SENTENCE * before + asked + " " + SENTENCE * 5
        at = text.index(asked)
        assert any(start <= at and at + len(asked) <= end for start, end in split_windows(text)), before


def test_a_long_text_without_sentences_is_cut_in_little_time() -> None:
    for text in ("x" * 400_000, "雨" * 100_000, "word " * 80_000, "\n" * 400_000, ". " * 200_000):
        cut = split_windows(text)
        assert sum(end - start for start, end in cut) >= len(text)
