"""Phrases of a charter: normalisation, limits, and what lint says of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from writing import line_of, small, with_changes

from commonweight.charter import CharterError, lint, parse
from commonweight.charter.phrases import MAX_CHARTER_PHRASES, MAX_PHRASE_CHARACTERS, begins_unit, fold, is_ignored

PLACES = "applies_to: {input: log, output: refuse}"


def with_phrases(phrases: str) -> bytes:
    return with_changes((PLACES, f"{PLACES}\nphrases: {phrases}"))


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Project  Blue\n\tbird", "project blue bird"),
        ("Ｐｒｏｊｅｃｔ", "project"),
        ("p\u200br\u00ado\ufeffj\u2060e\x00c\u034ft", "project"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafe\u200b\u0301", "caf\u00e9"),
        ("\ufb01n", "fin"),
        ("\u00a0x\u3000", " x "),
        ("\u1fb3", "\u03b1"),
    ],
)
def test_normalisation(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text(), st.characters(exclude_categories=["Cs"]), st.text())
def test_a_text_is_normalised_in_parts(head: str, char: str, tail: str) -> None:
    tail = char + tail
    if begins_unit(char) and not is_ignored(char) and not fold(tail).startswith(" "):
        assert fold(head + tail) == fold(head) + fold(tail)
    assert fold(fold(head)) == fold(head)


def test_phrases_are_read() -> None:
    charter = parse(with_phrases('[Project Bluebird, "4711"]'))
    assert charter.principles[0].phrases == ("Project Bluebird", "4711")
    assert small().principles[0].phrases == ()


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        ('""', "it is empty"),
        ('" \\u200b "', "it is empty, or has only characters that are not compared"),
        ("x" * (MAX_PHRASE_CHARACTERS + 1), "at most 120 characters"),
        ('"\\u0301x"', "begins with a mark"),
        ("4711", "a valid string"),
        ("[x]", "a valid string"),
    ],
)
def test_a_phrase_that_cannot_be_held_is_named_by_its_line(phrase: str, words: str) -> None:
    with pytest.raises(CharterError) as raised:
        parse(with_phrases(f"\n  - Bluebird\n  - {phrase}"))
    [problem] = raised.value.problems
    assert words in problem.text
    assert problem.line == line_of(PLACES) + 3


def test_there_are_only_so_many() -> None:
    with pytest.raises(CharterError, match="at most 200 items") as raised:
        parse(with_phrases(str([f"phrase {i}" for i in range(201)])))
    assert raised.value.problems[0].line == line_of(PLACES) + 1
    principle = with_phrases(str([f"phrase {i}" for i in range(200)])).decode()
    front, first = principle.split("\n## No spoilers", 1)
    parts = [first.replace("id: spoilers", f"id: spoilers-{i}") for i in range(3)]
    with pytest.raises(CharterError, match=f"spoilers-2: a charter has at most {MAX_CHARTER_PHRASES} phrases"):
        parse("\n## No spoilers".join([front, *parts]).encode())


@pytest.mark.parametrize(
    ("phrases", "words"),
    [
        ("[x, Bluebird]", "phrase 1 is one character"),
        ("[Blue bird, Bluebird, BLUE  BIRD]", "phrase 3 is an earlier one"),
        ("[hamlet]", "phrase 1 stands in an example that complies"),
        ("[would SPOIL]", "its message holds a phrase of spoilers"),
    ],
)
def test_what_lint_says(phrases: str, words: str) -> None:
    [problem] = lint(with_phrases(phrases))
    assert words in problem.text
    assert problem.line == line_of("## No spoilers")
