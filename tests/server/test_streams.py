"""Streams when things go wrong: silence, failures, clients and engines that vanish."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
from starlette.types import ASGIApp, Message

from commonweight.access import Keyring
from commonweight.engines.contract import (
    Admitted,
    EngineError,
    EngineFullError,
    Finish,
    GrammarRefusedError,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.engines.llama import LlamaEngine
from commonweight.engines.settings import EngineSettings
from commonweight.runtime.assistant import open_assistant
from commonweight.runtime.settings import AssistantSettings
from commonweight.server import create_app, sse
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant
from conftest import running
from fakes import FakeEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def assistant() -> AsyncIterator[Assistant]:
    """The real thing, in this process but for the engine's own."""
    settings = AssistantSettings(engine=EngineSettings(context=2048, parallel=2))
    async with open_assistant(settings) as assistant:
        yield assistant


@pytest.fixture
def app(assistant: Assistant) -> ASGIApp:
    return create_app(assistant, Keyring(None))


class Exchange:
    """One request at the ASGI boundary, where a client can vanish at any moment."""

    def __init__(self, app: ASGIApp, body: dict[str, Any]) -> None:
        self._requests: asyncio.Queue[Message] = asyncio.Queue()
        self._requests.put_nowait({"type": "http.request", "body": json.dumps(body).encode(), "more_body": False})
        self.sent: list[Message] = []
        self.progress = asyncio.Condition()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
        }
        self.task = asyncio.ensure_future(app(scope, self._requests.get, self._send))

    async def _send(self, message: Message) -> None:
        async with self.progress:
            self.sent.append(message)
            self.progress.notify_all()

    def vanish(self) -> None:
        """The client closes the connection."""
        self._requests.put_nowait({"type": "http.disconnect"})

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def until(self, text: bytes) -> None:
        """Wait until the text has been sent."""
        async with self.progress:
            await self.progress.wait_for(lambda: text in self.body)


def request(**changes: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "max_tokens": 1500,
        "messages": [{"role": "user", "content": "Tell me a very long story."}],
        "stop_sequences": ["never said by anyone"],
    } | changes


def engine_process(server: int) -> psutil.Process:
    [engine] = [child for child in psutil.Process(server).children() if LlamaEngine.worker in child.cmdline()]
    return engine


def runs(assistant: Assistant) -> int:
    assert isinstance(assistant.engine, LlamaEngine)
    return len(assistant.engine._jobs)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_vanishes_frees_its_work(app: ASGIApp, assistant: Assistant, stream: bool) -> None:
    exchange = Exchange(app, request(stream=stream))
    if stream:
        await exchange.until(b"content_block_delta")
    else:
        while not runs(assistant):
            await asyncio.sleep(0.01)
    exchange.vanish()
    await exchange.task
    assert runs(assistant) == 0
    # And a cancelled server task (uvicorn at its end) leaves nothing either.
    exchange = Exchange(app, request(stream=stream))
    while not runs(assistant):
        await asyncio.sleep(0.01)
    exchange.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await exchange.task
    assert runs(assistant) == 0


async def test_a_silent_stream_is_pinged(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "FIRST_PING_SECONDS", 0.02)
    monkeypatch.setattr(sse, "PING_INTERVAL_SECONDS", 0.02)
    exchange = Exchange(
        app, request(stream=True, max_tokens=0, messages=[{"role": "user", "content": "word " * 1500}])
    )
    await exchange.task
    kinds = [frame.split(b"\n")[0].removeprefix(b"event: ") for frame in exchange.body.split(b"\n\n")]
    # While the prompt is read: what message_start says of the cache is known only then.
    assert b"ping" in kinds[: kinds.index(b"message_start")]
    assert kinds[-2:] == [b"message_stop", b""]
    assert b'event: ping\ndata: {"type":"ping"}\n\n' in exchange.body


async def test_the_first_byte_does_not_wait_for_the_engine(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sse.FIRST_PING_SECONDS < 1
    monkeypatch.setattr(sse, "PING_INTERVAL_SECONDS", 3600.0)
    reads = asyncio.Event()
    outcome = (Admitted(0), reads, Prefilled(), Step(400), Finish("stop", Timings(0, 0, 0)))
    exchange = Exchange(broken(assistant, *outcome), request(stream=True))
    await exchange.until(b"event: ping")
    assert exchange.sent[0]["status"] == 200
    assert exchange.body == b'event: ping\ndata: {"type":"ping"}\n\n'
    reads.set()
    await exchange.task
    assert exchange.body.endswith(b'data: {"type":"message_stop"}\n\n')


class Told:
    """A generation that brings what it was told to."""

    def __init__(self, events: tuple[Any, ...]) -> None:
        self._events = iter(events)
        self.truncated: int | None = None

    def __aiter__(self) -> "Told":
        return self

    async def __anext__(self) -> Any:
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            if isinstance(event, asyncio.Event):
                await event.wait()
                continue
            return event
        raise StopAsyncIteration

    def truncate(self, position: int) -> None:
        self.truncated = position


class BrokenEngine(FakeEngine):
    """Fails where it is told to; everything above it is real."""

    window = 2048
    is_ready = True

    def __init__(self, *outcome: Any) -> None:
        self._outcome = outcome

        self.stats = Stats()

    @contextlib.asynccontextmanager
    async def run(self, job: Any) -> AsyncIterator[Told]:
        if isinstance(self._outcome[0], EngineFullError):
            raise self._outcome[0]
        yield Told(self._outcome)


def broken(assistant: Assistant, *outcome: Any) -> ASGIApp:
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    replaced = Assistant(assistant.card, assistant._tokenizer, BrokenEngine(*outcome), signer)
    return create_app(replaced, Keyring(None))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EngineFullError("full"), 529, "overloaded_error"),
        (GrammarRefusedError("too complex"), 400, "invalid_request_error"),
        (EngineError("broke"), 500, "api_error"),
        (RuntimeError("secret internals"), 500, "api_error"),
    ],
)
async def test_a_failure_before_the_stream_is_an_ordinary_error(
    assistant: Assistant, stream: bool, error: Exception, status: int, kind: str
) -> None:
    exchange = Exchange(broken(assistant, error), request(stream=stream))
    await exchange.task
    assert exchange.sent[0]["status"] == status
    headers = dict(exchange.sent[0]["headers"])
    body = json.loads(exchange.body)
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"].encode() == headers[b"request-id"]
    assert ("retry-after" in {name.decode() for name in headers}) == (status == 529)
    assert b"secret" not in exchange.body


@pytest.mark.parametrize("error", [EngineError("broke"), RuntimeError("secret internals")])
async def test_a_failure_in_the_stream_is_its_last_event(assistant: Assistant, error: Exception) -> None:
    exchange = Exchange(broken(assistant, Admitted(0), Step(400), error), request(stream=True))
    await exchange.task
    assert exchange.sent[0]["status"] == 200
    *_, name, data = exchange.body.strip().split(b"\n")
    assert name == b"event: error"
    body = json.loads(data.removeprefix(b"data: "))
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    assert body["request_id"].startswith("req_")
    assert b"secret" not in exchange.body
    assert not exchange.sent[-1]["more_body"]


async def test_reused_prompt_tokens_are_counted_apart(assistant: Assistant) -> None:
    finish = Finish("stop", Timings(0, 0, 0))
    exchange = Exchange(broken(assistant, Admitted(5), Prefilled(), Step(400), finish), request())
    await exchange.task
    usage = json.loads(exchange.body)["usage"]
    assert usage["cache_read_input_tokens"] == 5
    plain = Exchange(broken(assistant, Admitted(0), Prefilled(), Step(400), finish), request())
    await plain.task
    assert usage["input_tokens"] == json.loads(plain.body)["usage"]["input_tokens"] - 5


async def test_a_killed_engine_is_an_error_and_the_server_lives_on(tmp_path: Path) -> None:
    with running(tmp_path / "output.txt") as (server, _):
        engine = engine_process(server.pid)
        headers = {"x-api-key": server.key}
        url = f"{server.url}/v1/messages"
        with httpx.stream("POST", url, json=request(stream=True), headers=headers, timeout=60) as response:
            lines = response.iter_lines()
            while "content_block_delta" not in next(lines):
                pass
            os.kill(engine.pid, signal.SIGKILL)
            rest = list(lines)
        assert "event: error" in rest
        assert '"type":"api_error"' in rest[rest.index("event: error") + 1].replace(" ", "")
        again = httpx.post(url, json=request(max_tokens=3), headers=headers, timeout=60)
        assert again.status_code == 200
        assert again.json()["usage"]["output_tokens"] == 3
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert engine_process(server.pid).pid != engine.pid
