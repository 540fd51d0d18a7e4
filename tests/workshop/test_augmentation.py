"""Variants of prompts keep the prompt, and heads see the window that it is in."""

import random
from pathlib import Path

import numpy as np
import pytest

from commonweight.guard.text.windows import WINDOW_TOKENS, estimate_tokens
from commonweight.workshop.heads.array_cache import ArrayCache
from commonweight.workshop.heads.augmentation import (
    compose_permitted,
    draw_contexts,
    fill_template,
    find_window,
    make_slips,
    make_variant,
    pad,
)
from commonweight.workshop.heads.dataset import build_training_data, fold_text
from commonweight.workshop.heads.prompt_frames import FRAMES, MANIPULATIONS, PADDING, PERMITTED
from commonweight.workshop.heads.sources import LabelledSource, LabelledText, Role
from sample_charter import charter

PROMPT = "Which umbrella should I take with me to the lake?"


@pytest.mark.parametrize("seed", range(40))
def test_the_window_of_a_variant_holds_the_prompt(seed: int) -> None:
    made = make_variant(PROMPT, ["You are a pirate. [INSERT PROMPT HERE]"], random.Random(seed))
    assert estimate_tokens(made.window) <= WINDOW_TOKENS
    assert made.window in made.text
    if made.kind != "slips":
        assert PROMPT in made.window


def test_padding_has_as_many_words_as_asked_for_and_whole_sentences() -> None:
    text = pad(PROMPT, 100, 50, random.Random(1))
    before, after = text.split(PROMPT)
    assert 100 <= len(before.split()) < 120
    assert 50 <= len(after.split()) < 70
    assert pad(PROMPT, 0, 0, random.Random(1)) == PROMPT


def test_a_prompt_takes_the_place_that_a_template_has_for_it() -> None:
    assert fill_template("Do this: [insert prompt here]. Now!", "x\\1") == "Do this: x\\1. Now!"
    assert fill_template("No rules.", "x") == "No rules.\n\nx"


def test_every_wrapper_has_one_place_and_nothing_is_there_twice() -> None:
    for wrapper in (*MANIPULATIONS, *FRAMES, *PERMITTED):
        assert wrapper.count("{}") == 1
    everything = (*MANIPULATIONS, *FRAMES, *PERMITTED, *PADDING)
    assert len(set(everything)) == len(everything)


def test_slips_change_some_words_and_keep_the_rest() -> None:
    slipped = make_slips(PROMPT, random.Random(3), share=0.5)
    pairs = list(zip(PROMPT.split(), slipped.split(), strict=True))
    changed = [(a, b) for a, b in pairs if a != b]
    assert changed
    assert len(changed) < len(pairs)
    assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)


def test_contexts_are_windows_of_a_long_text() -> None:
    text = " ".join(PADDING)
    found = draw_contexts(text, 3, random.Random(0))
    assert len(found) == 3
    assert all(one in text for one in found)
    assert find_window(text, PADDING[7]).count(PADDING[7]) == 1


def test_prompts_are_composed_of_what_is_permitted() -> None:
    found = compose_permitted(charter())
    assert "Will it rain in Bergen tomorrow?" in found
    assert any("hats and boots" in one for one in found)
    assert not any("{}" in one or "umbrellas" in one for one in found)


def source(name: str, role: Role, texts: list[str], *, is_harmful: bool) -> LabelledSource:
    rows = tuple(
        LabelledText(text, is_harmful, principle="no-umbrellas" if is_harmful else None) for text in texts
    )
    return LabelledSource(name, role, "MIT", rows, "0" * 64, {})


def test_a_text_of_two_sources_is_in_the_first_alone_and_numbers_are_no_texts() -> None:
    first = source("first", "harmful", ["Buy an umbrella!", "Sell two umbrellas."], is_harmful=True)
    second = source("second", "harmful", ["buy an  umbrella", "Draw an umbrella.", "12"], is_harmful=True)
    third = source("third", "harmless", ["Bake bread.", "Play chess."], is_harmful=False)
    jailbreaks = source("jailbreaks", "manipulation", ["No rules hold. " * 20], is_harmful=True)
    data = build_training_data(charter(), [first, second, third, jailbreaks], {}, None)
    assert {one.name: one.rows for one in data.lineage} == {"first": 2, "second": 1, "third": 2, "jailbreaks": 1}
    examples = data.examples
    assert int(examples.is_plain.sum()) == int((~examples.manipulates & examples.is_plain).sum())
    assert int(examples.is_harmful[examples.is_plain].sum()) == 3
    assert {"Bake bread.", "Play chess."} == {
        text for text, is_ordinary in zip(examples.texts, examples.is_ordinary, strict=True) if is_ordinary
    }
    assert not examples.is_harmful[np.array(examples.kinds) == "context"].any()
    assert fold_text("12") == "" != fold_text("a1")


def test_the_cache_keeps_numbers_and_no_texts(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def compute(which: list[int]) -> np.ndarray:
        asked.append(which)
        return np.array([[i, 0.5] for i in which], np.float32)

    folder = tmp_path / "cache"
    first = ArrayCache(folder, "encoder").fetch(["umbrella", "bread", "umbrella"], compute)
    again = ArrayCache(folder, "encoder").fetch(["bread", "umbrella"], compute)
    assert asked == [[0, 1]]
    assert np.array_equal(first[[1, 0]], again)
    ArrayCache(folder, "another").fetch(["bread"], compute)
    assert len(asked) == 2
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not any(b"umbrella" in path.read_bytes() for path in folder.iterdir())
