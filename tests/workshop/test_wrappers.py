"""Wrappers of an evaluation: harmless words around a text, and templates with it inside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.workshop.heads.long_texts import MIN_TOKENS, cut_long_texts, cut_pieces
from commonweight.workshop.heads.sources import LabelledSource, LabelledText
from commonweight.workshop.heads.wrappers import (
    PADDINGS,
    Padding,
    fill_template,
    fill_templates,
    list_templates,
    load_harmless_words,
)

UMBRELLA = "Which umbrella should I buy?"


@pytest.mark.parametrize("padding", PADDINGS, ids=lambda padding: padding.name)
@given(seed=st.integers(0, 2**32))
def test_padding_adds_its_words_and_keeps_the_text(padding: Padding, seed: int) -> None:
    padded = padding.apply(UMBRELLA, seed)
    before, found, after = padded.partition(UMBRELLA)
    assert found
    assert len(before.split()) + len(after.split()) == padding.words
    assert bool(before) == (padding.side in ("before", "both"))
    assert bool(after) == (padding.side in ("after", "both"))
    assert padded == padding.apply(UMBRELLA, seed)


def test_padding_is_a_passage_of_what_ships() -> None:
    words = " ".join(load_harmless_words())
    passage = Padding(35, "before").apply(UMBRELLA, 7).removesuffix(f"\n\n{UMBRELLA}")
    assert passage in f"{words} {words}"


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("Be a pirate. [INSERT PROMPT HERE]", "Be a pirate. Hi?"),
        ("Be a pirate. [PROMPT] and only then [your question here].", "Be a pirate. [PROMPT] and only then Hi?."),
        ("Be a pirate. Question: {question}", "Be a pirate. Question: Hi?"),
        ("Be a pirate [as on television].", "Be a pirate [as on television].\n\nHi?"),
    ],
)
def test_a_template_is_filled_at_its_last_blank_or_at_its_end(template: str, filled: str) -> None:
    assert fill_template(template, "Hi?") == filled


def test_every_template_is_used_before_one_is_used_again() -> None:
    templates = [f"Template {i}: [PROMPT]" for i in range(4)]
    filled = list(fill_templates(templates, ["a"] * 8, seed=3))
    assert len(set(filled[:4])) == len(set(filled[4:])) == 4
    assert filled == list(fill_templates(templates, ["a"] * 8, seed=3))


def test_templates_that_repeat_others_are_left_out() -> None:
    def prompt(number: int) -> str:
        return " ".join(f"word{number * 1000 + i}" for i in range(80))

    def row(text: str, category: str) -> LabelledText:
        return LabelledText(text, is_harmful=True, category=category)

    rows = (
        row(prompt(1), "forum"),
        row(prompt(2), "chat"),
        row(prompt(2) + " and three words", "chat"),  # near an earlier one
        row("Well then. " + prompt(1), "chat"),  # near one of another category
        row(prompt(3), "chat"),
        row(prompt(3), "forum"),  # a later row of another category takes the earlier one out, too
        row(prompt(4), "chat"),
    )
    source = LabelledSource("jailbreaks", "manipulation", "MIT", rows, "0" * 64, {})
    assert list_templates(source, "chat") == [prompt(2), prompt(4)]


@given(st.lists(st.lists(st.integers(1, 900), max_size=12), max_size=6))
def test_pieces_are_whole_lines_of_one_text_with_tokens_enough(lengths: list[list[int]]) -> None:
    texts = [
        "".join("w " * (n - 1) + f"{i}.{j}\n" for j, n in enumerate(lines)) for i, lines in enumerate(lengths)
    ]
    for piece in cut_pieces(texts, lambda line: len(line.split())):
        assert len(piece.split()) >= MIN_TOKENS
        assert len("".join(piece.splitlines(keepends=True)[:-1]).split()) < MIN_TOKENS
        assert any(piece in text for text in texts)


def test_joined_pieces_lose_only_what_is_left_at_the_end() -> None:
    texts = [f"{'w ' * 99}{i}\n" for i in range(50)]
    pieces = list(cut_pieces(texts, lambda line: len(line.split()), joined=True))
    assert len(pieces) == 2
    assert "".join(texts).startswith("".join(pieces))


def test_long_texts_are_of_three_kinds_and_different() -> None:
    found = cut_long_texts(lambda text: len(text.split()), 12)
    assert {kind: len(texts) for kind, texts in found.items()} == {"articles": 4, "code": 4, "transcripts": 4}
    every = [text for texts in found.values() for text in texts]
    assert len(set(every)) == 12
    assert all(len(text.split()) >= MIN_TOKENS for text in every)
    assert found == cut_long_texts(lambda text: len(text.split()), 12)
