"""What the Messages API costs on top of an engine: everything but computing, in this process."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message

from benchmarks.bench import Bench
from benchmarks.table import Figure
from commonweight.access import Keyring, Limiter
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.engines.contract import (
    Admitted,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.engines.scoring import PromptScorer
from commonweight.prompting import Tokenizer
from commonweight.server import Metrics, create_app, make_turn_listeners
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant

TOKENS = 400
REQUESTS = 20
WORDS = "The road went on along the river, and nobody in the village could say where it came from. "
LONG = 12_000
"""Tokens of a prompt that is counted again and again."""


class Reciter(PromptScorer):
    """An engine that draws given tokens at once."""

    window = 1 << 20
    is_ready = True

    def __init__(self, token_ids: list[int]) -> None:
        self.stats = Stats()
        self._token_ids = token_ids

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator["Recital"]:
        """Begin to recite."""
        yield Recital([Admitted(0), Prefilled(), *map(Step, self._token_ids[: job.max_tokens])])

    async def aclose(self) -> None:
        """There is nothing to free."""


class Recital:
    """Tokens, one a turn of the event loop: as many frames as when each takes its time to compute."""

    def __init__(self, events: list[EngineEvent]) -> None:
        self._events = iter([*events, Finish("length", Timings(0, 0, 0))])

    def __aiter__(self) -> "Recital":
        return self

    async def __anext__(self) -> EngineEvent:
        await asyncio.sleep(0)
        for event in self._events:
            return event
        raise StopAsyncIteration

    def truncate(self, position: int) -> None:
        """Nothing is kept."""


def messages_layer(bench: Bench) -> list[Figure]:
    """The Messages layer on an engine that recites: a request, a streamed token, counting 12k tokens again."""
    with _app(bench) as app:
        asyncio.run(_streamed(app, 1))
        asyncio.run(_streamed(app, 1))
        requests, tokens, counts = [], [], []
        for turn in range(bench.rounds):
            begun = [asyncio.run(_streamed(app, 1)) for _ in range(REQUESTS)]
            requests.append(sorted(begun)[REQUESTS // 2] * 1000)
            tokens.append((asyncio.run(_streamed(app, TOKENS)) - requests[-1] / 1000) / (TOKENS - 1) * 1e6)
            text = WORDS * (LONG // 20)
            _ = asyncio.run(_counted(app, f"{turn} {text}"))
            counts.append(asyncio.run(_counted(app, f"{turn} {text}")) * 1000)
    return [
        Figure("Messages layer: a request of one token", "ms", requests, target=5),
        Figure("Messages layer: each further token of a stream", "us", tokens, target=150),
        Figure("count_tokens of 12k tokens, repeated", "ms", counts, target=15),
    ]


@contextlib.contextmanager
def _app(bench: Bench) -> Iterator[ASGIApp]:
    with contextlib.closing(Gguf(bench.model)) as gguf:
        tokenizer = Tokenizer(gguf)
        engine = Reciter(tokenizer.encode(WORDS * (TOKENS // 10)))
        signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
        metrics, limiter = Metrics(), Limiter()
        listeners = make_turn_listeners(metrics, limiter)
        assistant = Assistant(ModelCard.from_gguf(gguf), tokenizer, engine, signer, listeners=listeners)
        yield create_app(assistant, Keyring(None), limiter=limiter, metrics=metrics)


async def _streamed(app: ASGIApp, max_tokens: int) -> float:
    """Seconds of a streamed request."""
    body = {"model": "m", "max_tokens": max_tokens, "stream": True, "messages": _asked("Tell me of the road.")}
    return await _posted(app, "/v1/messages", body)


async def _counted(app: ASGIApp, text: str) -> float:
    return await _posted(app, "/v1/messages/count_tokens", {"model": "m", "messages": _asked(text)})


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def _posted(app: ASGIApp, path: str, body: dict[str, Any]) -> float:
    data = json.dumps(body).encode()
    is_sent = False
    status = 0

    async def receive() -> MutableMapping[str, Any]:
        nonlocal is_sent
        if is_sent:
            await asyncio.Event().wait()
        is_sent = True
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    started = time.perf_counter()
    await app({**scope, "http_version": "1.1", "scheme": "http", "client": None, "server": None}, receive, send)
    assert status == 200
    return time.perf_counter() - started
