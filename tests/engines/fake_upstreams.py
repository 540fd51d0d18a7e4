"""A server that speaks what vLLM speaks, and does to its requests whatever a test tells it to.

For faults that a real server cannot be made to have. What real ones do is seen in ``tests/elsewhere``.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from outcomes import Outcome, outcome, starter_tokenizer

from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import Job
from commonweight.engines.grammars import GrammarCompiler
from commonweight.engines.remote import RemoteEngine, Vocabulary
from commonweight.engines.settings import RemoteSettings
from commonweight.prompting import Tokenizer

GREETING = "Hello"
TEXTS = ("Hello, world!", "1 12 123", "for(int i=0;i<n;++i)", "你好")
END = 2
"""Ends the starter's answers."""

Body = dict[str, Any]


@dataclass
class Far:
    """What a server is, and what it has been asked."""

    window: int = 1024
    answers: list["Act"] = field(default_factory=list)
    """What it does to the next requests, in their order; then it answers."""
    words: Callable[[Body], list[int]] = lambda _: [19556, 30, END]
    has_generate: bool = True
    keeps_grammars: bool = True
    has_priorities: bool = True
    is_healthy: bool = True
    key: str | None = None
    cached: int | None = 3
    max_logprobs: int = 20
    wrong_text: str | None = None
    """One whose tokens it has otherwise."""
    template: str = "<|im_start|>user\n{}<|im_end|>\n"
    url: str = ""
    asked: list[Body] = field(default_factory=list)
    """Bodies of requests for tokens, trials excepted."""
    sessions: list[str | None] = field(default_factory=list)
    hung_up: int = 0
    """Clients that left before the end."""
    _clients: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def prompts(self) -> list[list[int]]:
        return [body.get("token_ids") or body["prompt"] for body in self.asked]

    # The server

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Far"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for writer in self._clients:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            (_, path, _), *lines = (line.split(" ", 2) for line in head.strip().split("\r\n"))
            headers = {name.rstrip(":").lower(): " ".join(value) for name, *value in lines}
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or "{}")
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                await _say(writer, 401, {"error": "Unauthorized"})
            elif path in ("/inference/v1/generate", "/v1/completions"):
                watching = asyncio.create_task(reader.read())
                await self._generate(path, headers, body, writer, watching)
                watching.cancel()
            else:
                await self._answer(path, body, writer)
        writer.close()

    async def _answer(self, path: str, body: Body, writer: asyncio.StreamWriter) -> None:
        tokenizer = starter_tokenizer()
        if path == "/health":
            await _say(writer, 200 if self.is_healthy else 503, {})
        elif path == "/v1/models":
            await _say(writer, 200, {"data": [{"id": "far", "parent": None, "max_model_len": self.window}]})
        elif path == "/tokenize" and "messages" in body:
            await _say(writer, 200, {"tokens": rendered(self.template.format(body["messages"][0]["content"]))})
        elif path == "/tokenize":
            ids = rendered(body["prompt"])
            await _say(writer, 200, {"tokens": ids[::-1] if body["prompt"] == self.wrong_text else ids})
        else:
            await _say(writer, 404, {"error": f"no {path}, {tokenizer.size}"})

    async def _generate(
        self,
        path: str,
        headers: dict[str, str],
        body: Body,
        writer: asyncio.StreamWriter,
        watching: "asyncio.Task[bytes]",
    ) -> None:
        sampling = body.get("sampling_params") or body
        if path == "/inference/v1/generate" and not self.has_generate:
            await _say(writer, 403, {"error": "scale-out is not enabled"})
        elif "structured_outputs" in sampling and not self.keeps_grammars:
            await _say(writer, 400, {"error": "Grammar error"})
        elif body.get("priority") and not self.has_priorities:
            await _say(writer, 400, {"error": "no priority scheduling"})
        elif body["cache_salt"] == "trial":
            is_held = "structured_outputs" in sampling
            ids = starter_tokenizer().encode("zq7") if is_held else [19556]
            await answering([*ids, END])(self, body, writer, watching)
        else:
            self.asked.append(body)
            self.sessions.append(headers.get("x-session-id"))
            usual = scoring if "prompt_logprobs" in sampling else answering(self.words(body))
            act = self.answers.pop(0) if self.answers else usual
            await act(self, body, writer, watching)


Act = Callable[[Far, Body, asyncio.StreamWriter, "asyncio.Task[bytes]"], Any]


def answering(token_ids: Sequence[int], *, ends: str | None = "stop", figures: bool = True) -> Act:
    """Draws these tokens. ``ends``: why it says that it stops; None: it closes the connection without a word."""

    async def act(far: Far, body: Body, writer: asyncio.StreamWriter, _: object) -> None:
        _begin(writer)
        limit = (body.get("sampling_params") or body)["max_tokens"]
        allowed = (body.get("sampling_params") or body).get("allowed_token_ids")
        drawn = [next(i for i in token_ids if i in allowed)] if allowed else list(token_ids)[:limit]
        for i, token in enumerate(drawn):
            is_last = i == len(drawn) - 1
            reason = (ends if token == END else "length") if is_last and ends else None
            _tell(writer, {"choices": [_choice([token], reason)]})
            await writer.drain()
            await asyncio.sleep(0)
        if ends and figures:
            details = None if far.cached is None else {"cached_tokens": far.cached}
            _tell(writer, {"choices": [], "usage": {"prompt_tokens_details": details}})
            writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    return act


def likely(position: int) -> npt.NDArray[np.float64]:
    """Log-probabilities that a scoring server gives for a position, shape ``(vocabulary,)``."""
    logits: npt.NDArray[np.float64] = np.random.default_rng(position).normal(0, 3, starter_tokenizer().size)
    logits -= np.log(np.exp(logits).sum())
    return logits


async def scoring(far: Far, body: Body, writer: asyncio.StreamWriter, _: object) -> None:
    """Tells how likely the prompt's tokens are, in one body, as vLLM does."""
    sampling = body.get("sampling_params") or body
    top = sampling["prompt_logprobs"]
    if body.get("stream") or "stream_options" in body:
        await _say(writer, 400, {"error": {"message": "`prompt_logprobs` are not available when `stream=True`."}})
        return
    if max(top, starter_tokenizer().size * (top == -1)) > far.max_logprobs:
        message = f"Requested prompt logprobs of {top}, which is greater than max allowed: {far.max_logprobs}"
        await _say(writer, 400, {"error": {"message": message, "type": "BadRequestError", "code": 400}})
        return
    told: list[dict[int, Any] | None] = [None]
    for position, token in enumerate((body.get("token_ids") or body["prompt"])[1:], 1):
        logprobs = likely(position)
        order = np.argsort(-logprobs)
        chosen = [token, *order[: len(order) if top == -1 else top].tolist()]
        told.append({i: {"logprob": logprobs[i], "rank": 1, "decoded_token": None} for i in chosen})
    choice = _choice([30], "length")
    if "token_ids" in body:
        await _say(writer, 200, {"choices": [choice], "prompt_logprobs": told})
    else:
        await _say(writer, 200, {"choices": [choice | {"prompt_logprobs": told}]})


def refusing(status: int) -> Act:
    """Says no."""

    async def act(far: Far, body: Body, writer: asyncio.StreamWriter, _: object) -> None:
        await _say(writer, status, {"error": "no"})

    return act


def saying(*parts: bytes) -> Act:
    """Says just this, as a stream."""

    async def act(far: Far, body: Body, writer: asyncio.StreamWriter, _: object) -> None:
        _begin(writer)
        for part in parts:
            writer.write(part)
            await writer.drain()

    return act


def dying(after: Sequence[int] = ()) -> Act:
    """Draws these tokens, and then its connection is reset."""

    async def act(far: Far, body: Body, writer: asyncio.StreamWriter, _: object) -> None:
        if after:
            _begin(writer)
            _tell(writer, {"choices": [_choice(list(after), None)]})
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.transport.abort()

    return act


def silent(after: Sequence[int] = ()) -> Act:
    """Draws these tokens, and then says nothing until the client has had enough."""

    async def act(far: Far, body: Body, writer: asyncio.StreamWriter, watching: "asyncio.Task[bytes]") -> None:
        _begin(writer)
        if after:
            _tell(writer, {"choices": [_choice(list(after), None)]})
        await writer.drain()
        await asyncio.wait([watching])
        far.hung_up += 1

    return act


def endless(token: int) -> Act:
    """Draws one token again and again, whatever was asked."""

    async def act(far: Far, body: Body, writer: asyncio.StreamWriter, watching: "asyncio.Task[bytes]") -> None:
        _begin(writer)
        while not watching.done():
            _tell(writer, {"choices": [_choice([token], None)]})
            await writer.drain()
            await asyncio.sleep(0)
        far.hung_up += 1

    return act


def rendered(text: str) -> list[int]:
    """Tokens of a text with control tokens in it."""
    tokenizer = starter_tokenizer()
    ids: list[int] = []
    while text:
        found = [(text.find(name), name) for name in tokenizer.special_tokens if name in text]
        place, name = min(found) if found else (len(text), "")
        ids += tokenizer.encode(text[:place]) if place else []
        ids += [tokenizer.special_tokens[name]] if name else []
        text = text[place + len(name) :]
    return ids


def vocabulary() -> Vocabulary:
    """The starter's, as ``serve`` would put it together."""
    tokenizer: Tokenizer = starter_tokenizer()
    return Vocabulary(
        texts=[(text, tokenizer.encode(text)) for text in TEXTS],
        specials=tokenizer.special_tokens,
        pieces=lambda: [tokenizer.decode(token) for token in range(tokenizer.size)],
        bos=tokenizer.bos_id,
        ends=[END, 0],
        greeting=(GREETING, rendered(f"<|im_start|>user\n{GREETING}<|im_end|>\n<|im_start|>assistant\n")),
    )


@contextlib.asynccontextmanager
async def engine_at(
    gguf: Gguf, *urls: str, server_key: str | None = None, read_timeout: float = 300.0, **options: Any
) -> AsyncIterator[RemoteEngine]:
    """An engine that has found out what is there."""
    settings = RemoteSettings(kind="vllm", urls=urls, key=server_key, read_timeout=read_timeout)
    engine = RemoteEngine(settings, vocabulary(), GrammarCompiler(gguf.vocab), b"key", **options)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.aclose()


def _begin(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")


def _tell(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def _choice(token_ids: list[int], reason: str | None) -> dict[str, Any]:
    logprobs = {"content": [{"token_id": token, "logprob": -token / 1e4} for token in token_ids]}
    return {"token_ids": token_ids, "finish_reason": reason, "logprobs": logprobs}


async def _say(writer: asyncio.StreamWriter, status: int, body: object) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} So\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    writer.write(head.encode() + b"connection: close\r\n\r\n" + data)
    await writer.drain()


# What tests do with it

PROMPT = [1, 4093, 198, 19556, 2, 198]


def job(**changes: Any) -> Job:
    """A small one."""
    wanted: dict[str, Any] = {"token_ids": PROMPT, "max_tokens": 16, "stop_ids": [0, END]}
    return Job(**wanted | changes)


async def ran(remote: RemoteEngine, wanted: Job | None = None) -> Outcome:
    """All that comes of a job."""
    return await outcome(remote, wanted or job())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for it, but not for ever."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)
