"""Normalisation: Unicode's own for all texts that people write, and in time for those that they do not."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.charter.normalisation import MAX_MARKS, normalise_unicode

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
TEXTS = st.text(max_size=MAX_MARKS - 1) | st.text("aé\u0301\u0316ﬁ가", max_size=MAX_MARKS - 1)


@given(st.sampled_from(FORMS), TEXTS)
def test_texts_are_normalised_as_unicode_has_it(form: str, text: str) -> None:
    assert normalise_unicode(form, text) == unicodedata.normalize(form, text)  # type: ignore[arg-type]


def test_every_mark_counts() -> None:
    # Marks of two classes by turns are sorted within what is normalised together, and not beyond.
    marks = [char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(char)]
    assert len(marks) > 900
    for mark in marks:
        if len(unicodedata.normalize("NFD", mark)) == 1 and unicodedata.combining(mark) > 1:
            many = "a" + mark * (3 * MAX_MARKS) + "\u0334"
            assert not normalise_unicode("NFD", many).startswith("a\u0334"), hex(ord(mark))


@pytest.mark.parametrize("form", FORMS)
def test_marks_without_an_end_take_no_longer_than_they_are_many(form: str) -> None:
    # By the square of their number it would be minutes.
    many = "a" + "\u0301\u0316" * 300_000
    assert len(normalise_unicode(form, many)) >= 600_000  # type: ignore[arg-type]
