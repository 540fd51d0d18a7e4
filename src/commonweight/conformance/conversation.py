"""Builders for the messages and blocks of requests, which any model can answer."""

from typing import Any

Json = dict[str, Any]

ENDS_SOON = ["a", "e", "i", "o", "u"]
"""Stop sequences that end any answer within a few tokens, however many were allowed."""

LETTER_PAIRS = [
    "th",
    "he",
    "in",
    "er",
    "an",
    "re",
    "on",
    "at",
    "en",
    "nd",
    "st",
    "es",
    "or",
    "te",
    "of",
    "ed",
    "is",
    "it",
]
"""Stop sequences that any English sentence meets, and whose first letter alone has to be held back."""


def user(content: str | list[Json]) -> Json:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: str | list[Json]) -> Json:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def system(content: str | list[Json]) -> Json:
    """A system message in the middle of a conversation."""
    return {"role": "system", "content": content}


def text(words: str, **more: object) -> Json:
    """A text block."""
    return {"type": "text", "text": words, **more}


def tool_use(tool: str = "get_weather", call: str = "toolu_01", **arguments: object) -> Json:
    """A ``tool_use`` block."""
    return {"type": "tool_use", "id": call, "name": tool, "input": arguments or {"city": "Paris", "days": 1}}


def result(content: str | list[Json] = "Rain.", call: str = "toolu_01", **more: object) -> Json:
    """A ``tool_result`` block."""
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


GREETING = [user("Say hello.")]
STORY = [user("Tell me a story about a garden.")]
COUNTING = [user("Count from 1 to 100, with commas.")]
ROUND_TRIP = [user("How is the weather in Paris?"), assistant([tool_use()]), user([result()])]


def reference(first_words: str) -> str:
    """About 270 tokens that no cache has seen, if the first words are new."""
    return f"Reference {first_words}. " + " ".join(f"Rule {i}: keep the answer short and kind." for i in range(24))
