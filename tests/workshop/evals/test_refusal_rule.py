"""The rule that tells refusals by their beginning."""

import pytest

from commonweight.workshop.evals.generation import Answer
from commonweight.workshop.evals.refusal import BEGINNING, REFUSALS, is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "I can\N{RIGHT SINGLE QUOTATION MARK}t help with that.",
        "  I'm sorry,\nbut I cannot help.",
        "Sorry, I can't do that.",
        "Thank you for asking. I am unable to help with this.",
        *REFUSALS,
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(Answer(text, refused=False))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Of course. Heat the oven first.",
        "Alibi cannoli are a pastry.",
        "Here is how: " + "x " * BEGINNING + "I can't help.",
        "As an airline, we fly.",
    ],
)
def test_answers(text: str) -> None:
    assert not is_refusal(Answer(text, refused=False))


def test_the_server_decides_first() -> None:
    assert is_refusal(Answer("", refused=True))
