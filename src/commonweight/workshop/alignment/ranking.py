"""Scores of answers by rules on their form: degenerate ones last, then those that do the opposite of what is good.

The rules select rows, and must therefore not be what measures a model that was trained on them.
"""

import re
from dataclasses import dataclass

from commonweight.workshop.alignment.ngrams import list_words
from commonweight.workshop.alignment.selection import judge_answer
from commonweight.workshop.alignment.settings import PairSettings, SelectSettings

DEGENERATE, WRONG, GOOD = 0.0, 0.2, 0.6
OFFERS, FINISHED = 0.3, 0.1
"""What is added to good answers: to refusals that offer something, and to answers that did not break off."""
MAX_REFUSAL_WORDS = 120
"""Longer refusals lecture."""
_OFFER = re.compile(
    r"\bi(?:'d| would)? ?(?:can|could|am able to|'m able to|'m happy to|be happy to|be glad to|'m glad to) "
    r"(?!not\b|only say\b)\w+|\b(?:happy|glad) to\b|\binstead\b|\bplease (?:call|talk|contact|reach)\b|\blet's\b"
)


@dataclass(frozen=True)
class Score:
    """What an answer is worth among others to the same prompt."""

    value: float
    """From 0 to 1."""
    reason: str
    """What the rules found."""
    is_finished: bool
    """Whether it did not break off: what is chosen teaches where to end."""

    @property
    def is_good(self) -> bool:
        """Whether it does what a good answer does."""
        return self.value >= GOOD


def score_answer(answer: str, ending: str | None, settings: PairSettings) -> Score:
    """Score an answer by its form.

    Args:
        ending: the stop reason that the ledger has; None: not known, and the last character tells.
    """
    rules = SelectSettings(
        expect=settings.expect,
        complete=False,
        max_words=settings.max_words,
        most_repeated=settings.most_repeated,
    )
    whole = rules.model_copy(update={"complete": True})
    is_finished = judge_answer(answer, ending, whole) != "cut"
    reason = judge_answer(answer, ending, rules)
    if reason in ("refusal", "no-refusal"):
        return Score(WRONG, reason, is_finished)
    if reason:
        return Score(DEGENERATE, reason, is_finished)
    value = GOOD + (FINISHED if is_finished else 0)
    if settings.expect == "answer":
        return Score(value + OFFERS, "answer", is_finished)
    if offers_something(answer) and len(list_words(answer)) <= MAX_REFUSAL_WORDS:
        return Score(value + OFFERS, "refusal-with-offer", is_finished)
    return Score(value, "refusal-alone", is_finished)


def offers_something(answer: str) -> bool:
    """Whether a refusal says what can be had instead."""
    return _OFFER.search(answer.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None
