"""Rules that tell good answers from others, and the best of a prompt's samples."""

import re
from collections import Counter
from collections.abc import Sequence

from commonweight.workshop.alignment.ngrams import list_words, measure_repetition
from commonweight.workshop.alignment.refusals import is_refusal
from commonweight.workshop.alignment.settings import SelectSettings

_FINISHED = re.compile(r"[.!?\u2026:;)\]}\"'\u201d\u2019`*_|>]\s*$|[\u3002\uff01\uff1f]\s*$|```\s*$")


def judge_answer(answer: str, ending: str | None, settings: SelectSettings) -> str:
    """Why an answer is dropped; empty: it is not.

    Args:
        ending: the stop reason of the ledger; None: not known, and the last character tells.
    """
    words = list_words(answer)
    if len(words) < settings.min_words:
        return "too-short"
    if len(words) > settings.max_words:
        return "too-long"
    is_cut = ending != "end_turn" if ending is not None else _FINISHED.search(answer) is None
    if settings.complete and is_cut:
        return "cut"
    if measure_repetition(words) > settings.most_repeated:
        return "repetitive"
    if is_refusal(answer) != (settings.expect == "refusal"):
        return "refusal" if settings.expect == "answer" else "no-refusal"
    return ""


def rank_samples(answers: Sequence[str], best: str) -> list[int]:
    """Positions of a prompt's answers, the best first.

    ``medoid``: by the mean share of words that an answer has in common with the others (minimum Bayes risk with a
    unigram F1), ties by order. ``first``: as they are.
    """
    if best == "first" or len(answers) < 3:  # of two, each is as near to the other
        return list(range(len(answers)))
    bags = [Counter(list_words(answer)) for answer in answers]
    nearness = [
        sum(_compare(bag, other) for at, other in enumerate(bags) if at != number)
        for number, bag in enumerate(bags)
    ]
    return sorted(range(len(answers)), key=lambda number: (-nearness[number], number))


def _compare(one: Counter[str], other: Counter[str]) -> float:
    return 2 * (one & other).total() / max(1, one.total() + other.total())
