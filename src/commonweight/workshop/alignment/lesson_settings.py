"""Settings of the stages that make rows of rows: recovery, tool loops and pairs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from commonweight.workshop.settings import Settings


class RecoverSettings(Settings):
    """How answers that were begun are turned away from."""

    min_tokens: int = Field(default=5, ge=1, le=10_000)
    """Shortest beginning that is given, in the model's tokens."""
    max_tokens: int = Field(default=60, ge=1, le=10_000)
    """Longest one; of a shorter answer all but its last token at most."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the lengths, and of the words that stop."""

    @model_validator(mode="after")
    def check_bounds(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is above max_tokens ({self.max_tokens})")
        return self


class ToolLoopSettings(Settings):
    """How conversations with tools are made."""

    harmless_share: float = Field(default=0.5, ge=0, le=0.9)
    """Share of the rows in which nothing harmful is asked: a model that learns refusals alone refuses tools."""
    max_tokens: int = Field(default=512, ge=32, le=131_072)
    """Tokens of a row, as the server counts them; longer ones are dropped, since training would cut the answer."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of all that is drawn: where the request stands, tasks, tools and values."""


class PairSettings(Settings):
    """How answers are ranked, and which pairs are worth learning from."""

    expected: Literal["by-principle", "refusal", "answer"] = "by-principle"
    """What a good answer to these prompts does; by default those under a principle are to be turned away, and
    all others answered. Prompts that only look harmful carry a principle, too, and are to be answered."""
    ranking: Literal["rules", "critic"] = "rules"
    """``rules`` go by the form of an answer; a ``critic`` reads it, and says how likely it violates the principle.
    Prompts that are to be answered are ranked by rules either way."""
    margin: float = Field(default=0.2, gt=0, le=1)
    """Least difference of scores, which go from 0 to 1; prompts whose answers are closer are dropped."""
    against: Literal["samples", "first"] = "samples"
    """``samples``: the best against the worst of a model's own answers to a prompt. ``first``: a revision against
    the first answer, which the model would not have written itself: off-policy, and soon learned."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides between answers with one score."""
