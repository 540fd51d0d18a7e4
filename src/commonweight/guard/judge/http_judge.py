"""Judges over HTTP: servers of chat completions or of the Messages API."""

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from commonweight.guard.judge.judge import JudgeError, JudgeQuestion

MAX_RESPONSE_BYTES = 1_000_000
"""Of an answer that has one word to say."""
CERTAIN_PROBABILITY = 0.99
"""What a word counts for that comes without its probability."""


class HttpJudge:
    """Judge on another server. The URL selects the protocol: ``.../messages`` or ``.../chat/completions``."""

    def __init__(self, url: str, model: str, key: str | None = None, seconds: float = 10.0) -> None:
        path = urlsplit(url).path.rstrip("/")
        if not url.startswith(("http://", "https://")) or not path.endswith(("/messages", "/chat/completions")):
            raise ValueError(f"{url}: a judge's address ends with /v1/messages or /v1/chat/completions")
        self._speaks_messages = path.endswith("/messages")
        self._url = url
        self._model = model
        headers = {"anthropic-version": "2023-06-01"} if self._speaks_messages else {}
        if key is not None:
            headers |= {"x-api-key": key} if self._speaks_messages else {"authorization": f"Bearer {key}"}
        self._client = httpx.AsyncClient(headers=headers, timeout=seconds, follow_redirects=False)

    async def __call__(self, question: JudgeQuestion) -> float:
        """The probability of yes.

        Raises:
            JudgeError: it cannot be reached, or does not say yes or no.
        """
        body = self._ask_messages(question) if self._speaks_messages else self._ask_completions(question)
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                response.raise_for_status()
                data = b""
                async for part in response.aiter_bytes():
                    data += part
                    if len(data) > MAX_RESPONSE_BYTES:
                        raise JudgeError("it does not stop talking")
            answer = httpx.Response(200, content=data).json()
            return _read_message(answer) if self._speaks_messages else _read_completion(answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise JudgeError(type(error).__name__) from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise JudgeError("what it says cannot be read") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _ask_messages(self, question: JudgeQuestion) -> dict[str, Any]:
        return {
            "model": self._model,
            "max_tokens": 1,
            "temperature": 0,
            # The principle is the same for every question about it, and is to be computed once.
            "system": [{"type": "text", "text": question.instructions, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": question.material}],
        }

    def _ask_completions(self, question: JudgeQuestion) -> dict[str, Any]:
        return {
            "model": self._model,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 20,
            "messages": [
                {"role": "system", "content": question.instructions},
                {"role": "user", "content": question.material},
            ],
        }


def _read_message(answer: Mapping[str, Any]) -> float:
    return _read_word(answer["content"][0]["text"])


def _read_completion(answer: Mapping[str, Any]) -> float:
    """Read the probability of yes among that of yes and no together."""
    choice = answer["choices"][0]
    listed = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs") or []
    yes = sum(math.exp(min(0.0, one["logprob"])) for one in listed if _is_word(one["token"], "yes"))
    no = sum(math.exp(min(0.0, one["logprob"])) for one in listed if _is_word(one["token"], "no"))
    if yes + no > 0:
        return float(yes / (yes + no))
    return _read_word(choice["message"]["content"])


def _read_word(text: str) -> float:
    if _is_word(text, "yes"):
        return CERTAIN_PROBABILITY
    if _is_word(text, "no"):
        return 1 - CERTAIN_PROBABILITY
    raise JudgeError("it says neither yes nor no")


def _is_word(text: str, word: str) -> bool:
    return text.strip().strip(".,!\"'*").lower() == word
