"""The Messages API on the wire. llama-server and vLLM speak it, too: all get the same bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.prompts import Prompt

Event = tuple[float, dict[str, Any]]
"""When it arrived, and what it says."""
Clock = tuple[float, float]
"""When the request was sent, and when the last byte of the answer arrived."""


@dataclass(frozen=True)
class Answer:
    """Tokens as the server counts them; seconds on the client's clock."""

    text: str
    input_tokens: int
    """Of the whole prompt."""
    cached_tokens: int
    """Of those, not computed for this request."""
    output_tokens: int
    sent: float
    first: float
    """When the first text arrived."""
    last: float
    """When the last text arrived."""
    done: float
    """When the last byte arrived."""

    @property
    def first_token(self) -> float:
        """Seconds from sending the request to the first text."""
        return self.first - self.sent

    @property
    def decode_rate(self) -> float:
        """Tokens per second: the first token is prefill's, so one less than were generated."""
        return (self.output_tokens - 1) / (self.last - self.first)

    @property
    def prefilled(self) -> int:
        """Prompt tokens that were computed for this request."""
        return self.input_tokens - self.cached_tokens


def make_body(model: str, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
    """The body of a request, greedy and streamed."""
    return {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "system": prompt.system,
        "messages": [message._asdict() for message in prompt.messages],
    }


def read_answer(clock: Clock, events: Iterable[Event]) -> Answer:
    """Read a streamed answer, with all that ``usage`` tells.

    Raises:
        RuntimeError: it is an error, or has no text.
    """
    usage: dict[str, int] = {}
    texts: list[tuple[float, str]] = []
    for seconds, event in events:
        match event["type"]:
            case "message_start":
                usage |= event["message"]["usage"]
            case "message_delta":
                usage |= event["usage"]
            case "content_block_delta":
                texts.append((seconds, event["delta"]["text"]))
            case "error":
                raise RuntimeError(event["error"]["message"])
    if not texts:
        raise RuntimeError("an answer without text")
    cached = usage.get("cache_read_input_tokens") or 0
    return Answer(
        text="".join(text for _, text in texts),
        input_tokens=usage["input_tokens"] + cached,
        cached_tokens=cached,
        output_tokens=usage["output_tokens"],
        sent=clock[0],
        first=texts[0][0],
        last=texts[-1][0],
        done=clock[1],
    )
