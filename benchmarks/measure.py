"""One streamed request, timed where a client feels it. Both servers get the same bytes from the same code."""

import contextlib
import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.prompts import Prompt

PATIENCE = 600.0
"""Seconds without a byte after which a server counts as stuck."""
MOST_CACHED = 16
"""Prompt tokens that a cold request may share with an earlier one: what a chat template opens with."""


class UnfairError(Exception):
    """The servers did not do the same work, so that comparing them would mean nothing."""


@dataclass(frozen=True)
class Answer:
    """Tokens as the server counts them; seconds as the client does."""

    input_tokens: int
    output_tokens: int
    first_token: float
    """From sending the request to the first text."""
    decode: float
    """From the first text to the last."""

    @property
    def tokens_per_second(self) -> float:
        """Decode speed: the first token is prefill's, so one less than were generated."""
        return (self.output_tokens - 1) / self.decode


def ask(port: int, prompt: Prompt, max_tokens: int) -> Answer:
    """Stream one answer of exactly ``max_tokens`` tokens to a prompt that the server has not seen.

    Raises:
        UnfairError: the answer is shorter, or part of the prompt came from a cache.
        RuntimeError: the server answered with an error.
    """
    headers = {"Content-Type": "application/json", "anthropic-version": "2023-06-01"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        # Clients keep their connections, so the clock starts on one that has been used.
        connection.request("GET", "/v1/models", headers=headers)
        body = {
            "model": json.load(connection.getresponse())["data"][0]["id"],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "system": prompt.system,
            "messages": [{"role": "user", "content": prompt.user}],
        }
        start = time.perf_counter()
        connection.request("POST", "/v1/messages", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {response.read().decode()}")
        # Parsed only afterwards: the cores that would do it are computing the next token.
        arrivals = [(time.perf_counter() - start, line) for line in response if line.startswith(b"data:")]
    return _read(arrivals, max_tokens)


def _read(arrivals: list[tuple[float, bytes]], max_tokens: int) -> Answer:
    usage: dict[str, int] = {}
    texts: list[float] = []
    for seconds, line in arrivals:
        event: dict[str, Any] = json.loads(line.removeprefix(b"data:"))
        match event["type"]:
            case "message_start":
                usage |= event["message"]["usage"]
            case "message_delta":
                usage |= event["usage"]
            case "content_block_delta":
                texts.append(seconds)
            case "error":
                raise RuntimeError(event["error"]["message"])
    if usage["output_tokens"] != max_tokens:
        raise UnfairError(f"the model stopped after {usage['output_tokens']} of {max_tokens} tokens")
    if (cached := usage.get("cache_read_input_tokens") or 0) > MOST_CACHED:
        raise UnfairError(f"{cached} tokens of a prompt that should be new came from a cache")
    return Answer(usage["input_tokens"] + cached, usage["output_tokens"], texts[0], texts[-1] - texts[0])
