"""Rules that select answers."""

import pytest

from commonweight.workshop.alignment.ngrams import list_words, measure_openings, measure_repetition
from commonweight.workshop.alignment.refusals import is_refusal
from commonweight.workshop.alignment.selection import judge_answer, rank_samples
from commonweight.workshop.alignment.settings import SelectSettings

GOOD = "Mix the flour with water, and let the dough rest for an hour. Then bake it until it is brown."


@pytest.mark.parametrize(
    ("answer", "ending", "settings", "reason"),
    [
        (GOOD, "end_turn", {}, ""),
        (GOOD, None, {}, ""),
        (GOOD, "max_tokens", {}, "cut"),
        (GOOD, "model_context_window_exceeded", {}, "cut"),
        (GOOD[:40], None, {}, "cut"),
        (GOOD[:40], "max_tokens", {"complete": False}, ""),
        ("Bake it.", "end_turn", {}, "too-short"),
        (GOOD, "end_turn", {"max_words": 10}, "too-long"),
        ("The oven is hot and the bread is good. " * 12, "end_turn", {}, "repetitive"),
        ("I can't help with that. Ask a baker instead, please.", "end_turn", {}, "refusal"),
        ("I can't help with that. Ask a baker instead, please.", "end_turn", {"expect": "refusal"}, ""),
        (GOOD, "end_turn", {"expect": "refusal"}, "no-refusal"),
    ],
)
def test_an_answer_is_dropped_for_a_reason(
    answer: str, ending: str | None, settings: dict[str, object], reason: str
) -> None:
    assert judge_answer(answer, ending, SelectSettings.model_validate(settings)) == reason


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I'm sorry, but I can\u2019t bake that.", True),
        ("Sorry, I am unable to do this.", True),
        ("As an AI, I have no oven.", True),
        ("I'd rather not say.", True),
        ("Helping with it isn't something I do.", True),
        ("You can't go wrong with rye. It won't rise much.", False),
        ("Sorry to hear that! Try a lower heat.", False),
        (f"{GOOD} {GOOD} {GOOD} I can't say more.", False),
    ],
)
def test_refusals_are_told_by_their_beginning(answer: str, expected: bool) -> None:
    assert is_refusal(answer) == expected


def test_the_best_sample_is_the_one_that_the_others_share_most_with() -> None:
    samples = ["Whales swim in the sea.", "Bread needs flour and water.", "Bread needs water, flour and time."]
    assert rank_samples(samples, "medoid")[-1] == 0
    assert rank_samples(samples, "first") == [0, 1, 2]
    assert rank_samples(samples[:2], "medoid") == [0, 1]
    assert rank_samples([GOOD] * 4, "medoid") == [0, 1, 2, 3]


def test_openings_and_repetition_are_measured() -> None:
    assert measure_openings([]) == (0, 0.0)
    counted = "One two three four five six seven eight"
    texts = [f"{counted} nine.", f"{counted.lower()}, ten!", "One."]
    assert measure_openings(texts) == (2, 2 / 3)
    assert measure_repetition(list_words("a b c")) == 0
    assert measure_repetition(list_words("a b c d e f g h")) == 0
    assert measure_repetition(["a"] * 13) == 0.9
    assert list_words("Don\u2019t, it's naïve_x 5.") == ["don't", "it's", "naïve", "x", "5"]


def test_bounds_are_in_order() -> None:
    with pytest.raises(ValueError, match="min_words is above max_words"):
        SelectSettings(min_words=9, max_words=8)
