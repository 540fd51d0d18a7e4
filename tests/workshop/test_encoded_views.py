"""Views of an evaluation against what undoes them."""

import base64
import codecs
import html
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.workshop.heads.encoded_views import DIGITS, LOOK_ALIKES, VIEWS, ZERO_WIDTH_SPACE

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
plain = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
BACK = {look: letter for letter, look in LOOK_ALIKES.items()}

UNDONE: dict[str, Callable[[str], str]] = {
    "full-width": lambda view: unicodedata.normalize("NFKC", view),
    "zero-width": lambda view: view.replace(ZERO_WIDTH_SPACE, ""),
    "homoglyphs": lambda view: "".join(BACK.get(char, char) for char in view),
    "base64": lambda view: base64.b64decode(view).decode(),
    "hex": lambda view: bytes.fromhex(view).decode(),
    "url": unquote,
    "rot13": lambda view: codecs.decode(view, "rot13"),
    "reversed": lambda view: view[::-1],
}


@pytest.mark.parametrize("name", UNDONE)
@given(text=plain)
def test_a_view_can_be_undone(name: str, text: str) -> None:
    assert UNDONE[name](VIEWS[name](text)) == text


@pytest.mark.parametrize("name", ["base64", "hex", "url", "rot13", "reversed"])
@given(text=texts)
def test_all_of_unicode_can_be_encoded(name: str, text: str) -> None:
    assert UNDONE[name](VIEWS[name](text)) == text


@given(plain)
def test_html_escapes_are_read_by_a_browser(text: str) -> None:
    view = VIEWS["html"](text)
    assert html.unescape(view) == text
    assert not any(char.isalpha() for char in view)


@given(texts)
def test_leet_changes_letters_to_digits_that_look_like_them(text: str) -> None:
    view = VIEWS["leet"](text)
    assert not set(view) & set(map(chr, DIGITS))
    assert len(view) == len(text.lower())
    assert all(
        one == other or chr(DIGITS.get(ord(other), 0)) == one
        for one, other in zip(view, text.lower(), strict=True)
    )


@given(texts)
def test_spaced_letters_keep_words_apart(text: str) -> None:
    words = [word.replace(" ", "") for word in VIEWS["spaced letters"](text).split("   ")]
    assert words == (text.split() or [""])


@given(texts)
def test_one_word_a_line(text: str) -> None:
    assert VIEWS["one word a line"](text).split("\n") == (text.split() or [""])


@given(plain)
def test_mixed_case_changes_case_alone(text: str) -> None:
    view = VIEWS["mixed case"](text)
    assert view.lower() == text.lower()
    assert view == VIEWS["mixed case"](text)


@given(plain)
def test_swapped_letters_stay_within_their_words(text: str) -> None:
    view = VIEWS["swapped letters"](text)
    for word, changed in zip(text.split(), view.split(), strict=True):
        assert sorted(word) == sorted(changed)
        assert sum(a != b for a, b in zip(word, changed, strict=True)) <= 2 * (len(word) // 4)


def test_views_of_a_sentence() -> None:
    text = "Which umbrella should I buy on Sunday?"
    views = {name: make(text) for name, make in VIEWS.items()}
    assert len({*views.values(), text}) == len(VIEWS) + 1, "each view changes the text, and in its own way"
    assert views["leet"] == "wh1ch umbr3ll4 5h0uld 1 buy 0n 5und4y?"
    assert views["spaced letters"].startswith("W h i c h   u m b")
    assert views["swapped letters"] != text
