"""Clients that know what the answer has to be, and tell what was wrong with it.

Every request carries a marker that no other has, so an answer that is lost, cut, repeated, or another's is seen.
"""

import asyncio
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.load.memory import WARM
from commonweight.conformance.grammar import read_stream

Json = dict[str, Any]

PATIENCE = 300.0
"""Seconds without a byte after which an answer counts as lost; pings come every ten."""
LEAVING = 0.1
"""Of the streams, so many are left by their clients before they end."""
COLOURS = ("red", "green", "blue", "black", "white", "brown")
CHOSEN = 24
"""Of them, in an answer."""


@dataclass
class Tally:
    """What the clients of one tenant have seen."""

    tenant: str
    key: str
    clients: int
    done: Counter[str] = field(default_factory=Counter)
    """Requests that were answered as they had to be, by kind."""
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0
    """Generated, as answers say that came to their end."""
    in_time: int = 0
    """Of those, tokens of answers that ended while all clients were asking, and had been for a while."""
    first: list[float] = field(default_factory=list)
    """Seconds to the first text of each stream."""


@dataclass(frozen=True)
class Question:
    """A request, and whether an answer is the right one."""

    body: Json
    is_right: Callable[[Json], bool]


class Crowd:
    """The clients of a run."""

    def __init__(self, url: str, seed: int) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=None), trust_env=False
        )
        self._random = random.Random(seed)

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()

    async def ask_until(self, end: float, tally: Tally, ask: Callable[[Tally], Awaitable[int]]) -> None:
        """One client, which asks again as soon as it is answered."""
        steady = time.monotonic() + (end - time.monotonic()) * WARM
        while time.monotonic() < end:
            try:
                tokens = await ask(tally)
            except (AssertionError, httpx.HTTPError, KeyError, ValueError) as error:
                tally.wrong.append(f"{type(error).__name__}: {str(error)[:300]}")
                await asyncio.sleep(1)  # a server in trouble is not to be hammered
                continue
            tally.tokens += tokens
            if steady < time.monotonic() < end:
                tally.in_time += tokens

    async def replayed(self, tally: Tally) -> int:
        """A stream of what the player makes of a question, or a part of it."""
        return await self._stream(tally, echoed(self._random))

    async def held(self, tally: Tally) -> int:
        """A stream, or a whole answer, that the real model cannot but give."""
        question = forced(self._random)
        if self._random.random() < 0.5:
            return await self._stream(tally, question)
        response = await self._http.post("/v1/messages", json=question.body, headers=_headers(tally))
        assert response.status_code == 200, f"{response.status_code} {response.text}"
        return _checked(tally, "whole answers", question, response.json())

    async def batch(self, tally: Tally, items: int = 6) -> int:
        """A batch, from its creation to its results."""
        questions = {secrets.token_hex(8): forced(self._random) for _ in range(items)}
        requests = [{"custom_id": name, "params": question.body} for name, question in questions.items()]
        path, headers = "/v1/messages/batches", _headers(tally)
        made = (await self._http.post(path, json={"requests": requests}, headers=headers)).json()
        path = f"{path}/{made['id']}"
        while True:
            batch = (await self._http.get(path, headers=headers)).json()
            if batch["processing_status"] == "ended":
                break
            await asyncio.sleep(1)
        assert batch["request_counts"]["succeeded"] == items, f"a batch ended with {batch['request_counts']}"
        lines = (await self._http.get(f"{path}/results", headers=headers)).text.splitlines()
        results = [(line["custom_id"], line["result"]) for line in map(json.loads, lines)]
        assert sorted(name for name, _ in results) == sorted(questions), "a batch lost or repeated results"
        return sum(_checked(tally, "batch items", questions[name], result["message"]) for name, result in results)

    async def _stream(self, tally: Tally, question: Question) -> int:
        leaves = self._random.random() < LEAVING
        body = question.body | {"stream": True}
        parts: list[str] = []
        sent = time.monotonic()
        first: float | None = None
        async with self._http.stream("POST", "/v1/messages", json=body, headers=_headers(tally)) as response:
            if response.status_code != 200:
                raise AssertionError(f"{response.status_code} {(await response.aread()).decode()}")
            async for piece in response.aiter_text():
                parts.append(piece)
                if first is None and "content_block_delta" in piece:
                    first = time.monotonic() - sent
                    tally.first.append(first)
                    if leaves:
                        tally.done["streams left by their clients"] += 1
                        return 0
        return _checked(tally, "streams", question, read_stream("".join(parts)).message)


def echoed(draw: random.Random) -> Question:
    """A question that the player answers with its own words, numbered, so that none can be lost unseen."""
    marker = secrets.token_hex(8)
    text = " ".join(f"{marker}.{number}" for number in range(draw.randint(3, 10)))
    body = {"model": "any", "max_tokens": 4096, "messages": [{"role": "user", "content": text}]}
    # The template writes the role into the same run of text.
    return Question(body, lambda message: _text(message) == f"user\n{text}")


def forced(draw: random.Random) -> Question:
    """A question whose answer is held to a marker, and to a few words that the model may choose."""
    marker = secrets.token_hex(8)
    schema = {
        "type": "object",
        "properties": {
            "marker": {"const": marker},
            "colours": {"type": "array", "items": {"enum": list(COLOURS)}, "minItems": CHOSEN, "maxItems": CHOSEN},
        },
        "required": ["marker", "colours"],
        "additionalProperties": False,
    }
    topic = draw.choice(("a harbour", "a forest", "a street at night", "a kitchen"))
    body = {
        "model": "any",
        "max_tokens": 400,
        "messages": [{"role": "user", "content": f"Which colours are in {topic}? The marker is {marker}."}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }

    def is_right(message: Json) -> bool:
        answer = json.loads(_text(message))
        chosen: list[str] = answer["colours"]
        return bool(answer["marker"] == marker and len(chosen) == CHOSEN and set(chosen) <= set(COLOURS))

    return Question(body, is_right)


def _checked(tally: Tally, kind: str, question: Question, message: Json) -> int:
    assert message["stop_reason"] == "end_turn", f"an answer ended with {message['stop_reason']}"
    assert question.is_right(message), f"not the answer to this question: {_text(message)[:200]!r}"
    tally.done[kind] += 1
    tokens: int = message["usage"]["output_tokens"]
    return tokens


def _text(message: Json) -> str:
    return "".join(block["text"] for block in message["content"])


def _headers(tally: Tally) -> dict[str, str]:
    return {"x-api-key": tally.key}
