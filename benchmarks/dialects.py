"""The two wire formats in which servers stream an answer, read into one form."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.prompts import Prompt

Event = tuple[float, dict[str, Any]]
"""When it arrived, and what it says."""
Clock = tuple[float, float]
"""When the request was sent, and when the last byte of the answer arrived."""


@dataclass(frozen=True)
class Answer:
    """Tokens as the server counts them; seconds on the client's clock."""

    text: str
    input_tokens: int | None
    """Of the whole prompt; None if the server does not tell."""
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
        return (self.input_tokens or 0) - self.cached_tokens


class Dialect(Protocol):
    """How to ask, and how to read what comes back."""

    path: str

    def body(self, model: str, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """The request, greedy and streamed."""

    def read(self, clock: Clock, events: Iterable[Event], max_tokens: int) -> Answer:
        """The answer."""


class Messages:
    """The Messages API, which llama-server speaks, too: both get the same bytes."""

    path = "/v1/messages"

    def body(self, model: str, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """The request, greedy and streamed."""
        return {"model": model, "max_tokens": max_tokens, "temperature": 0, "stream": True, **_plain(prompt)}

    def read(self, clock: Clock, events: Iterable[Event], max_tokens: int) -> Answer:
        """The answer, with all that ``usage`` tells."""
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
        cached = usage.get("cache_read_input_tokens") or 0
        return _answer(clock, texts, usage["output_tokens"], usage["input_tokens"] + cached, cached)


class ChatCompletions:
    """The chat completions API, as llama-cpp-python's server streams it: it tells no usage."""

    path = "/v1/chat/completions"

    def body(self, model: str, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """The request, greedy and streamed."""
        plain = _plain(prompt)
        messages = [{"role": "system", "content": plain["system"]}, *plain["messages"]]
        return {"model": model, "max_tokens": max_tokens, "temperature": 0, "stream": True, "messages": messages}

    def read(self, clock: Clock, events: Iterable[Event], max_tokens: int) -> Answer:
        """The answer. It ends for its length only after as many tokens as were asked for."""
        texts: list[tuple[float, str]] = []
        ended = None
        for seconds, event in events:
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            choice = event["choices"][0]
            ended = choice["finish_reason"] or ended
            if text := choice["delta"].get("content"):
                texts.append((seconds, text))
        return _answer(clock, texts, max_tokens if ended == "length" else len(texts))


def _plain(prompt: Prompt) -> dict[str, Any]:
    return {"system": prompt.system, "messages": [message._asdict() for message in prompt.messages]}


def _answer(
    clock: Clock, texts: list[tuple[float, str]], generated: int, total: int | None = None, cached: int = 0
) -> Answer:
    if not texts:
        raise RuntimeError("an answer without text")
    text = "".join(text for _, text in texts)
    return Answer(text, total, cached, generated, clock[0], texts[0][0], texts[-1][0], clock[1])
