"""An application over an engine that reads from a script: for tests of what is told of requests."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.trace import TracerProvider

from commonweight.access import Keyring, Limiter
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.prompting import Tokenizer
from commonweight.server import Metrics, create_app, make_turn_listeners
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant
from replay import Replay, Script

KEY = "sk-observed-0123456789"
PROMPT = "Where is the hidden well?"
ANSWER = "Behind the crooked mill."


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


def application(
    gguf: Gguf,
    script: Script = lambda _: ANSWER,
    key: str | None = KEY,
    tracer_provider: TracerProvider | None = None,
    **more: Any,
) -> FastAPI:
    tokenizer = Tokenizer(gguf)
    metrics, limiter = Metrics(), Limiter()
    assistant = Assistant(
        ModelCard.from_gguf(gguf),
        tokenizer,
        Replay(tokenizer, script),
        Signer(bytes(32), Purpose.THINKING_SIGNATURE),
        listeners=make_turn_listeners(metrics, limiter, tracer_provider),
    )
    return create_app(
        assistant, Keyring(key), metrics=metrics, limiter=limiter, tracer_provider=tracer_provider, **more
    )


@contextlib.asynccontextmanager
async def client(app: FastAPI, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers={"x-api-key": KEY} | headers
    ) as asking:
        yield asking


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": PROMPT}]} | changes
