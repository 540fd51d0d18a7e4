"""Whether two servers did the same work. If not, comparing them would mean nothing."""

from collections.abc import Sequence

from benchmarks.wire import Answer

MOST_CACHED = 48
"""Prompt tokens that a new prompt may share with an earlier one: what a chat template opens with."""


class UnfairError(Exception):
    """The work was not the same, or not what the row is about; the message says how."""


def complete(answers: Sequence[Answer], max_tokens: int) -> None:
    """Every answer has all the tokens that were asked for."""
    for answer in answers:
        if answer.output_tokens != max_tokens:
            raise UnfairError(f"the model stopped after {answer.output_tokens} of {max_tokens} tokens")


def same_prompts(ours: Sequence[Answer], theirs: Sequence[Answer], slack: int = 0) -> None:
    """Both counted the same prompt tokens. ``slack`` is for prompts that quote what each server itself answered:
    the same number of tokens there may be another number once it is text that is tokenised again."""
    for one, other in zip(ours, theirs, strict=True):
        if one.input_tokens is None or other.input_tokens is None:
            continue
        if abs(one.input_tokens - other.input_tokens) > slack:
            raise UnfairError(f"the same prompt has {one.input_tokens} tokens here, {other.input_tokens} there")


def new(answers: Sequence[Answer]) -> None:
    """Nothing but the template's opening came from a cache."""
    if (cached := max(answer.cached_tokens for answer in answers)) > MOST_CACHED:
        raise UnfairError(f"{cached} tokens of a prompt that should be new came from a cache")


def computed_by_one(answers: Sequence[Answer]) -> None:
    """At least one of several requests with the same beginning had to compute it."""
    new([min(answers, key=lambda answer: answer.cached_tokens)])
