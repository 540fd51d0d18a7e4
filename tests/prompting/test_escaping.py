"""Escaped text holds no special token, completes none, and is the same after unescaping."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.prompting.marks import extract_marks, make_cache_mark, strip_marks
from commonweight.prompting.tokens.escaping import BREAK, Escaper, unescape
from commonweight.prompting.tokens.special_tokens import SpecialTokens

# Few letters, so that tokens overlap, nest and repeat.
tokens = st.text("<|ab>", min_size=2, max_size=5)
vocabularies = st.sets(tokens, min_size=1, max_size=5)
texts = st.text("<|ab> \n\ufdd0", max_size=8)
edges = st.text("<|ab>", max_size=5)


def places(specials: set[str], text: str) -> list[tuple[int, int]]:
    """Every occurrence of every special token, found the plain way."""
    return [(m.start(1), m.end(1)) for s in specials for m in re.finditer(f"(?=({re.escape(s)}))", text)]


def reaches_into(specials: set[str], before: str, escaped: str, after: str) -> bool:
    """Whether a part of the escaped text is part of a special token in the whole."""
    start, end = len(before), len(before) + len(escaped)
    return any(max(s, start) < min(e, end) for s, e in places(specials, before + escaped + after))


@given(specials=vocabularies, text=texts)
def test_unescaping_gives_the_text_back(specials: set[str], text: str) -> None:
    escaper = Escaper(SpecialTokens(specials))
    assert unescape(escaper.escape(text)) == text


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


@given(torn() | st.tuples(vocabularies, edges, texts, texts, edges))
@settings(max_examples=300)
def test_no_special_token_has_a_part_of_escaped_text(case: tuple[set[str], str, str, str, str]) -> None:
    specials, before, text, other, after = case
    escaper = Escaper(SpecialTokens(specials))
    a, b = escaper.escape(text), escaper.escape(other)
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


@given(specials=vocabularies, text=texts)
def test_text_that_threatens_nothing_stays_as_it_is(specials: set[str], text: str) -> None:
    letters = set("".join(specials))
    if letters.isdisjoint(text):
        assert Escaper(SpecialTokens(specials)).escape(text) == text


def test_templates_can_still_compare_what_is_ordinary() -> None:
    escaper = Escaper(SpecialTokens(["<|im_start|>", "<|im_end|>"]))
    for text in ("<think>\na\n</think>", "<tool_response>x</tool_response>", "if a < b | c > d:", " x ", ""):
        assert escaper.escape(text) == text


@given(specials=vocabularies, text=st.text("<|ab>", max_size=12))
def test_beginnings_are_every_place_where_a_special_token_begins(specials: set[str], text: str) -> None:
    expected = sorted({start for start, _ in places(specials, text)})
    assert list(SpecialTokens(specials).find_starts(text)) == expected


@given(specials=vocabularies, text=st.text("<|ab>", max_size=12))
def test_pieces_are_the_whole_text_and_take_the_longest_special_token_first(specials: set[str], text: str) -> None:
    pieces = list(Escaper(SpecialTokens(specials)).split_special(text))
    assert "".join(piece for piece, _ in pieces) == text
    longest_first = "|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True))
    assert [piece for piece, is_special in pieces if is_special] == re.findall(longest_first, text)
    assert all(piece for piece, _ in pieces)
    assert all(a or b for (_, a), (_, b) in pairwise(pieces))  # no text follows a text


@given(specials=vocabularies, text=texts, other=texts)
def test_pieces_of_escaped_text_are_never_special(specials: set[str], text: str, other: str) -> None:
    escaper = Escaper(SpecialTokens(specials))
    for piece, is_special in escaper.split_special(escaper.escape(text) + escaper.escape(other)):
        assert not is_special
        assert unescape(piece) == text + other


def test_a_vocabulary_without_special_tokens_escapes_nothing() -> None:
    text = "<|im_start|>"
    escaper = Escaper(SpecialTokens([]))
    assert escaper.escape(text) == text
    assert list(escaper.split_special(text)) == [(text, False)]


def test_other_text_can_be_guarded_like_special_tokens() -> None:
    escaper = Escaper(SpecialTokens(["<a>"]), guarded=SpecialTokens(["<a>", "</think>"]))
    assert "</think>" not in escaper.escape("so</think>")
    assert list(escaper.split_special("</think><a>")) == [("</think>", False), ("<a>", True)]


@pytest.mark.parametrize("lone", ["\ud800", "\udbff", "\udc00", BREAK])
def test_text_with_a_lone_surrogate_is_refused(lone: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        Escaper(SpecialTokens(["<a>"])).escape(f"a{lone}")


# Marks


marked_texts = st.text("<|ab> \n" + make_cache_mark("5m") + make_cache_mark("1h"), max_size=10)


@given(specials=vocabularies, text=marked_texts)
@settings(max_examples=300)
def test_marks_change_nothing_about_escaping(specials: set[str], text: str) -> None:
    escaper = Escaper(SpecialTokens(specials))
    plain = strip_marks(text)
    assert strip_marks(escaper.escape(text)) == escaper.escape(plain)
    # A template's trim finds the same text, marks or not.
    assert strip_marks(escaper.escape(text).strip()) == escaper.escape(plain).strip()


@given(specials=vocabularies, text=marked_texts)
def test_marks_stay_where_they_are_unless_that_is_in_space_around_the_text(specials: set[str], text: str) -> None:
    plain, marks = extract_marks(text)
    _, found = extract_marks(unescape(Escaper(SpecialTokens(specials)).escape(text)))
    start = len(plain) - len(plain.lstrip())
    end = len(plain.rstrip())
    assert found == ([(min(max(place, start), end), mark) for place, mark in marks] if plain.strip() else [])


# JSON


SCHEMA = {
    "type": "object",
    "properties": {
        "repo_na": {"type": ["string", "null"], "enum": ["b", "<a>", 1]},
        "type": {"type": "string", "description": "name"},
    },
    "required": ["repo_na", "type"],
    "minimum": 1.5,
    "default": None,
}


def test_templates_still_find_their_way_in_escaped_schemas() -> None:
    """Even if special tokens hold ``type`` or ``description``, or a property's name."""
    escaper = Escaper(SpecialTokens(["<a>", "<repo_name>", "<|type|>", "<description>"]))
    escaped = escaper.escape_json(SCHEMA)
    assert escaped["type"] == "object"
    assert [fields["type"] for fields in escaped["properties"].values()] == [["string", "null"], "string"]
    assert list(escaped["properties"]) == escaped["required"]  # names are the same wherever they are
    assert escaped["properties"]["type"]["description"] == "name"
    assert (escaped["minimum"], escaped["default"]) == (1.5, None)
    assert escaped["properties"][escaped["required"][0]]["enum"] == ["b", f"{BREAK}<{BREAK}a>", 1]
    assert escaped["required"][0] == f"{BREAK}repo_na"  # what stands around it could make it special


keys = st.text("<|ab>", max_size=4) | st.sampled_from(["type", "name", "properties"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(specials=vocabularies, value=json_values)
def test_escaped_json_is_the_same_json(specials: set[str], value: object) -> None:
    escaped = Escaper(SpecialTokens(specials)).escape_json(value)
    assert json.loads(unescape(json.dumps(escaped, ensure_ascii=False))) == value
