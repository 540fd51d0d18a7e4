"""Quoted text holds no special token, completes none, and reads the same once unquoted."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.prompting.quoting import Quoter, Specials

# Few letters, so that tokens overlap, nest and repeat.
tokens = st.text("<|ab>", min_size=2, max_size=5)
vocabularies = st.sets(tokens, min_size=1, max_size=5)
texts = st.text("<|ab> \n\ufdd0", max_size=8)
edges = st.text("<|ab>", max_size=5)


def places(specials: set[str], text: str) -> list[tuple[int, int]]:
    """Every occurrence of every special token, found the plain way."""
    return [(m.start(1), m.end(1)) for s in specials for m in re.finditer(f"(?=({re.escape(s)}))", text)]


def reaches_into(specials: set[str], before: str, quoted: str, after: str) -> bool:
    """Whether a part of the quoted text is part of a special token in the whole."""
    start, end = len(before), len(before) + len(quoted)
    return any(max(s, start) < min(e, end) for s, e in places(specials, before + quoted + after))


@pytest.mark.parametrize("is_thorough", [False, True])
@given(specials=vocabularies, text=texts)
def test_unquoting_gives_the_text_back(is_thorough: bool, specials: set[str], text: str) -> None:
    quoter = Quoter(Specials(specials), [text], is_thorough=is_thorough)
    assert quoter.unquote(quoter.quote(text)) == text


@st.composite
def torn(draw: st.DrawFn) -> tuple[set[str], str, str, str, str]:
    """Special tokens, and one of them torn in four, with other letters within and space around its inner parts."""
    specials = draw(vocabularies)
    token = draw(st.sampled_from(sorted(specials)))
    i, j, k = sorted(draw(st.tuples(*[st.integers(0, len(token))] * 3)))
    space = st.sampled_from(["", " ", "\n "])
    text = draw(space) + token[i:j] + draw(texts | st.just("")) + draw(space)
    other = draw(space) + draw(texts | st.just("")) + token[j:k] + draw(space)
    return specials, draw(edges) + token[:i], text, other, token[k:] + draw(edges)


@pytest.mark.parametrize("is_thorough", [False, True])
@given(torn() | st.tuples(vocabularies, edges, texts, texts, edges))
@settings(max_examples=300)
def test_no_special_token_has_a_part_of_quoted_text(
    is_thorough: bool, case: tuple[set[str], str, str, str, str]
) -> None:
    specials, before, text, other, after = case
    quoter = Quoter(Specials(specials), [text, other], is_thorough=is_thorough)
    a, b = quoter.quote(text), quoter.quote(other)
    for shown in (
        a,
        b,
        a + b,
        (a + b).strip(),
        a.strip() + b.strip(),
        a.lstrip() + b.lstrip(),
        a.rstrip() + b.rstrip(),
    ):
        for left, right in ((before, after), (before, ""), ("", after)):
            assert not reaches_into(specials, left, shown, right)


@given(case=torn(), removed=texts.filter(bool))
@settings(max_examples=200)
def test_what_is_quoted_thoroughly_survives_removals(
    case: tuple[set[str], str, str, str, str], removed: str
) -> None:
    specials, before, text, other, after = case
    content = removed + text.strip() + removed + other.strip() + removed
    quoter = Quoter(Specials(specials), [content], is_thorough=True)
    assert not reaches_into(specials, before, quoter.quote(content).replace(removed, "").strip(), after)


@given(specials=vocabularies, text=texts)
def test_text_that_threatens_nothing_stays_as_it_is(specials: set[str], text: str) -> None:
    letters = set("".join(specials))
    if letters.isdisjoint(text):
        assert Quoter(Specials(specials), [text]).quote(text) == text


def test_templates_can_still_compare_what_is_ordinary() -> None:
    quoter = Quoter(Specials(["<|im_start|>", "<|im_end|>"]), [])
    for text in ("<think>\na\n</think>", "<tool_response>x</tool_response>", "if a < b | c > d:", " x ", ""):
        assert quoter.quote(text) == text


@given(specials=vocabularies, text=st.text("<|ab>", max_size=12))
def test_beginnings_are_every_place_where_a_special_token_begins(specials: set[str], text: str) -> None:
    expected = sorted({start for start, _ in places(specials, text)})
    assert list(Specials(specials).beginnings(text)) == expected


@given(specials=vocabularies, text=st.text("<|ab>", max_size=12))
def test_pieces_are_the_whole_text_and_take_the_longest_special_token_first(specials: set[str], text: str) -> None:
    pieces = list(Quoter(Specials(specials), [text]).pieces(text))
    assert "".join(piece for piece, _ in pieces) == text
    longest_first = "|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True))
    assert [piece for piece, is_special in pieces if is_special] == re.findall(longest_first, text)
    assert all(piece for piece, _ in pieces)
    assert all(a or b for (_, a), (_, b) in pairwise(pieces))  # no text follows a text


@given(specials=vocabularies, text=texts, other=texts)
def test_pieces_of_quoted_text_are_never_special(specials: set[str], text: str, other: str) -> None:
    quoter = Quoter(Specials(specials), [text, other])
    for piece, is_special in quoter.pieces(quoter.quote(text) + quoter.quote(other)):
        assert not is_special
        assert quoter.unquote(piece) == text + other


def test_a_vocabulary_without_special_tokens_quotes_nothing() -> None:
    specials = Specials([])
    text = "<|im_start|>"
    for is_thorough in (False, True):
        quoter = Quoter(specials, [text], is_thorough=is_thorough)
        assert quoter.unquote(quoter.quote(text)) == text
        assert list(quoter.pieces(text)) == [(text, False)]


@given(used=st.sets(st.sampled_from([chr(c) for c in range(0xFDD0, 0xFDF0)])))
def test_the_mark_is_in_no_text(used: set[str]) -> None:
    text = "<a>".join(["", *used, ""])
    quoter = Quoter(Specials(["<a>"]), ["plain", text])
    assert quoter.mark not in text
    assert quoter.unquote(quoter.quote(text)) == text


def test_there_must_be_a_mark_left() -> None:
    every = "".join(chr(c) for c in [*range(0xFDD0, 0xFDF0), *range(0x1FFFE, 0x110000, 0x10000)])
    with pytest.raises(ValueError, match="noncharacter"):
        Quoter(Specials(["<a>"]), [every[:20], every[20:]])
    assert Quoter(Specials(["<a>"]), [every[1:]]).mark == every[0]
