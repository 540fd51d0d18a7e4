"""Text that arrives in pieces is wrapped as it would be whole, by the cells that it takes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from commonweight.cli.word_wrap import WordWrapper


def wrap(text: str, width: int, column: int = 0) -> str:
    wrapper = WordWrapper(lambda: width, column)
    return wrapper.feed(text) + wrapper.flush()


@pytest.mark.parametrize(
    ("text", "width", "wrapped"),
    [
        ("The quick brown fox", 10, "The quick\nbrown fox"),
        ("The quick\n\nbrown  fox jumps", 10, "The quick\n\nbrown  fox\njumps"),
        ("    indented code", 40, "    indented code"),
        ("12345 12345", 11, "12345 12345"),
        ("see https://example.com/abc", 10, "see\nhttps://ex\nample.com/\nabc"),
        ("日本語の文章。", 6, "日本語\nの文\n章。"),
        ("うん、そう", 6, "うん、\nそう"),
        ("a 漢字 b", 4, "a 漢\n字 b"),
        ("family 👩‍👩‍👧‍👦👩‍👩‍👧‍👦", 9, "family 👩‍👩‍👧‍👦\n👩‍👩‍👧‍👦"),
        ("cafe\u0301s are open", 8, "cafe\u0301s\nare open"),
        ("\u0301 漢", 2, "\u0301\n漢"),
    ],
)
def test_lines_are_broken_between_words(text: str, width: int, wrapped: str) -> None:
    assert wrap(text, width) == wrapped


def test_the_first_line_may_have_begun() -> None:
    assert wrap("hello you there", 10, column=5) == "hello\nyou there"


def test_words_are_shown_as_soon_as_they_are_whole() -> None:
    wrapper = WordWrapper(lambda: 80)
    assert [wrapper.feed(piece) for piece in ("He", "llo wor", "ld\nand")] == ["", "Hello", " world\n"]
    assert wrapper.flush() == "and"


@given(
    text=st.text(st.sampled_from("ab \n\t漢、é-\u0301👩\u200d")),
    width=st.integers(2, 12),
    cuts=st.lists(st.integers(0, 40)),
)
def test_pieces_make_no_difference_and_no_line_is_too_wide(text: str, width: int, cuts: list[int]) -> None:
    wrapper = WordWrapper(lambda: width)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    whole = "".join(map(wrapper.feed, pieces)) + wrapper.flush()
    assert whole == wrap(text, width)
    assert "".join(whole.split()) == "".join(text.split())
    assert all(cell_len(line.strip(" ")) <= width for line in whole.split("\n"))
