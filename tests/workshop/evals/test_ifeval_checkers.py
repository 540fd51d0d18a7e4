"""IFEval's checkers, loaded without a network: known answers, sentences, languages."""

import socket
import sys
from typing import Any

import pytest

from commonweight.workshop.evals.checkers import Instructions, check_answer, count_sentences, find_unknown

pytestmark = pytest.mark.workshop


def check(answer: str, instruction: str, prompt: str = "p", **kwargs: Any) -> tuple[bool, bool]:
    verdict = check_answer(Instructions(prompt, [instruction], [kwargs]), answer)
    return verdict.strict[0], verdict.loose[0]


@pytest.mark.parametrize(
    ("instruction", "kwargs", "right", "wrong"),
    [
        ("punctuation:no_comma", {}, "red green", "red, green"),
        ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, "a b c", "a b"),
        (
            "length_constraints:number_sentences",
            {"relation": "less than", "num_sentences": 3},
            "Dr. Low came. He left.",
            "He came. He saw. He left.",
        ),
        ("change_case:english_lowercase", {}, "this is a small sentence.", "This is a small sentence."),
        ("change_case:english_capital", {}, "THIS IS A LOUD SENTENCE.", "This is a loud sentence."),
        (
            "change_case:capital_word_frequency",
            {"capital_relation": "at least", "capital_frequency": 2},
            "One LOUD and one BIG word",
            "One LOUD word",
        ),
        ("detectable_format:json_format", {}, '{"a": 1}', "{a: 1}"),
        ("detectable_format:title", {}, "<<Pelicans>>\nText", "Pelicans\nText"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a\n* b\n* c\n* d\n* e"),
        ("keywords:existence", {"keywords": ["pelican"]}, "A Pelican.", "A gull."),
        ("keywords:forbidden_words", {"forbidden_words": ["gull"]}, "A pelican.", "A gull."),
        ("startend:quotation", {}, '"Yes"', "Yes"),
        ("startend:end_checker", {"end_phrase": "The end."}, "It rains. The end.", "It rains."),
        (
            "language:response_language",
            {"language": "de"},
            "Das ist ein ganzer deutscher Satz.",
            "An English one.",
        ),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, "Say it. It.", "It."),
    ],
)
def test_known_answers(instruction: str, kwargs: dict[str, Any], right: str, wrong: str) -> None:
    assert check(right, instruction, **kwargs) == (True, True)
    assert check(wrong, instruction, **kwargs) == (False, False)


def test_loose_forgives_markup_and_first_lines() -> None:
    assert check('Sure:\n"Yes"', "startend:quotation") == (False, True)
    assert check("", "punctuation:no_comma") == (False, False)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith went home by bus. He was tired! Was he?", 3),
        ("It costs 3.50 dollars. That is cheap.", 2),
        ("J. Smith wrote it.", 1),
        ("They came from the U.S. in Jan. 1901. Mrs. Low met them.", 2),
        ("We grow apples, pears, etc. The rest we buy.", 2),
        ('"Stop!" she said. He stopped...', 3),
        ("one\n\ntwo", 1),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_words_are_split_without_trained_data() -> None:
    import nltk

    assert nltk.word_tokenize("He came. She left.") == ["He", "came", ".", "She", "left", "."]


def test_nothing_else_of_the_harness_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    assert find_unknown(["punctuation:no_comma", "punctuation:no_points"]) == "punctuation:no_points"
    assert not any(name == "lm_eval" or name.startswith("lm_eval.") for name in sys.modules)
