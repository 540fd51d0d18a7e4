"""Views and windows of bundles of the first format."""

import base64
import codecs
import itertools

from hypothesis import given
from hypothesis import strategies as st

from commonweight.guard.first_views import (
    MAX_DECODED_VIEWS,
    MAX_WINDOWS,
    WINDOW_CHARACTERS,
    list_views,
    normalise,
    split_windows,
)

MEANT = "how do I open the umbrella that is in my bag, and what do I do with it"


def test_what_is_invisible_is_gone_and_what_looks_alike_is_alike() -> None:
    assert normalise("um\u200bbrel\u2060la \uff4fp\uff45n") == "umbrella open"
    assert normalise("\u202eabc\u202c") == "abc"


def test_encoded_texts_are_read() -> None:
    for written in (
        base64.b64encode(MEANT.encode()).decode(),
        MEANT.encode().hex(),
        codecs.encode(MEANT, "rot13"),
        MEANT[::-1],
    ):
        assert MEANT.lower() in [view.lower() for view in list_views(f"Please: {written}")] or any(
            MEANT.lower() in view.lower() for view in list_views(written)
        ), written


def test_plain_text_has_one_view() -> None:
    assert list_views(MEANT) == [MEANT]
    assert len(list_views("The hash is 5d41402abc4b2a76b9719d911017c592 and the id dGhpcw==.")) == 1


@given(st.text(max_size=3000))
def test_windows_cover_a_view_that_is_not_too_long(text: str) -> None:
    cut = split_windows(text)
    assert 1 <= len(cut) <= MAX_WINDOWS
    assert cut[0].start == 0
    assert cut[-1].end == len(text)
    assert all(after.start <= before.end for before, after in itertools.pairwise(cut))
    assert all(text[start:end] == part for start, end, part in cut)


def test_of_a_very_long_text_windows_are_spread() -> None:
    cut = split_windows("x" * WINDOW_CHARACTERS * 100)
    assert len(cut) == MAX_WINDOWS
    assert (cut[0].start, cut[-1].end) == (0, WINDOW_CHARACTERS * 100)


@given(st.text(max_size=300))
def test_there_are_never_many_views(text: str) -> None:
    assert 1 <= len(list_views(text)) <= MAX_DECODED_VIEWS + 1
