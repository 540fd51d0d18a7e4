"""An engine that says what a script says, behind the real renderer, parser and server.

For tests of what happens around a model's words: clients that run tools, prompts that must not change from turn to
turn. What the sampler or a grammar would do to the words is not part of it.
"""

import contextlib
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from commonweight.access import Keyring
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.engines.contract import (
    Admitted,
    EngineError,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.guard import Guard
from commonweight.prompting import Tokenizer
from commonweight.server import create_app, make_uvicorn_config
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant, TurnRecord
from fakes import FakeEngine

KEY = "sk-replay"
WINDOW = 200_000

Script = Iterable[str] | Callable[[str], str]
"""The model's own words, control tokens by name: one text after the other, or made from the prompt's text."""


class Replay(FakeEngine):
    """Draws the tokens of a script. A stop token follows each text unless it ends with one."""

    def __init__(self, tokenizer: Tokenizer, script: Script, window: int = WINDOW) -> None:
        self.window = window
        self.is_ready = True
        self.stats = Stats()
        self.jobs: list[Job] = []
        self.prompts: list[str] = []
        """What was read, job by job, with control tokens by name. Still there when the vocabulary is closed."""
        self._tokenizer = tokenizer
        self._names = {token_id: text for text, token_id in tokenizer.special_tokens.items()}
        self._script = script if callable(script) else iter(script)
        self._sequences: dict[str, list[list[int]]] = {}

    def text(self, token_ids: Iterable[int]) -> str:
        """Tokens as a script writes them."""
        pieces = (self._names[i].encode() if i in self._names else self._tokenizer.decode(i) for i in token_ids)
        return b"".join(pieces).decode(errors="replace")

    def tokens(self, text: str) -> list[int]:
        """What a model would have drawn to say ``text``."""
        names = sorted(self._tokenizer.special_tokens, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
        ids: list[int] = []
        for part in parts:
            special = self._tokenizer.special_tokens.get(part)
            ids += [special] if special is not None else self._tokenizer.encode(part, continues=True)
        return ids

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator["Replaying"]:
        """Begin the next text."""
        self.jobs.append(job)
        self.prompts.append(self.text(job.token_ids))
        words = self._script(self.prompts[-1]) if callable(self._script) else next(self._script, None)
        if words is None:
            raise EngineError(f"the script has no text for job {len(self.jobs)}")
        drawn = self.tokens(words)
        if not job.stop_ids:
            drawn.append(min(self._tokenizer.end_ids))
        elif not set(drawn[-1:]) & set(job.stop_ids):
            drawn.append(job.stop_ids[0])
        known = self._sequences.setdefault(job.tenant, [])
        cached = max((_shared(ids, job.token_ids[:-1]) for ids in known), default=0)
        generation = Replaying(job, cached, drawn)
        known.append(generation.sequence)
        yield generation


class Replaying:
    """A job that is being answered."""

    def __init__(self, job: Job, cached: int, drawn: list[int]) -> None:
        self.sequence = [*job.token_ids]
        """Prompt and answer, as a cache would keep them."""
        self._events = self._play(job, cached, drawn)

    def __aiter__(self) -> "Replaying":
        return self

    async def __anext__(self) -> EngineEvent:
        for event in self._events:
            return event
        raise StopAsyncIteration

    def truncate(self, position: int) -> None:
        """Forget what was not used."""
        del self.sequence[position:]

    def _play(self, job: Job, cached: int, drawn: list[int]) -> Iterator[EngineEvent]:
        yield Admitted(cached)
        yield Prefilled()
        no_time = Timings(queued=0, prefill=0, decode=0)
        for token_id in drawn[: job.max_tokens]:
            self.sequence.append(token_id)
            yield Step(token_id, logprob=0.0 if job.want_logprobs else None)
            if token_id in job.stop_ids:
                yield Finish("stop", no_time)
                return
        yield Finish("length" if len(drawn) > job.max_tokens else "stop", no_time)


def _shared(ids: list[int], others: list[int]) -> int:
    """How far both are the same."""
    both = min(len(ids), len(others))
    return next((i for i in range(both) if ids[i] != others[i]), both)


@dataclass(frozen=True)
class Served:
    """A server whose model reads from a script."""

    url: str
    key: str
    engine: Replay
    records: list[TurnRecord]
    """Of the turns that are over."""


@contextlib.contextmanager
def replaying(
    script: Script, model: Path | None = None, window: int = WINDOW, guard: Guard | None = None
) -> Iterator[Served]:
    """Serve a model's template and vocabulary, the starter's if none is given, with scripted words."""
    with contextlib.closing(Gguf(model or resolve(None))) as gguf:
        tokenizer = Tokenizer(gguf)
        engine = Replay(tokenizer, script, window)
        records: list[TurnRecord] = []
        assistant = Assistant(
            ModelCard.from_gguf(gguf),
            tokenizer,
            engine,
            Signer(bytes(32), Purpose.THINKING_SIGNATURE),
            guard=guard,
            listeners=[records.append],
        )
        app = create_app(assistant, Keyring(KEY))
        server = uvicorn.Server(make_uvicorn_config(app, timeout_graceful_shutdown=5))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                while not server.started:
                    assert thread.is_alive(), "the server did not start"
                    time.sleep(0.01)
                yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", KEY, engine, records)
            finally:
                server.should_exit = True
                thread.join()
