"""Prompts that no cache can know: each starts, from its first words on, unlike all others."""

from dataclasses import dataclass

TASK = "Write a very long story about the keeper of a lighthouse, with many chapters. Do not stop early."
PARAGRAPH = (
    "The keeper climbed the stairs before dusk, counted the steps aloud as his father had done, and wrote the "
    "weather into the log: wind from the west, a swell that would not settle, two sails far out beyond the reef. "
)
PARAGRAPHS_FOR_2000_TOKENS = 42


@dataclass(frozen=True)
class Prompt:
    """What a client sends: the system prompt, then one message."""

    system: str
    user: str


def short(number: int) -> Prompt:
    """About 50 tokens, rendered."""
    return Prompt(_opening(number), TASK)


def long(number: int) -> Prompt:
    """About 2000 tokens, rendered."""
    return Prompt(_opening(number), PARAGRAPH * PARAGRAPHS_FOR_2000_TOKENS + TASK)


def _opening(number: int) -> str:
    # In the system prompt, since templates put one of their own there otherwise; always six digits, so that
    # every round has the same length; multiplied, so that the first of them differs as well.
    return f"{(number + 1) * 618_033 % 1_000_000:06d} is the number of this conversation. You write stories."
