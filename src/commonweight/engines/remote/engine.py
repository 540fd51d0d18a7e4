"""An engine whose work is done elsewhere, by one server or several with the same model."""

import asyncio
import base64
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from commonweight.engines.contract import (
    Admitted,
    EngineError,
    EngineEvent,
    EngineFullError,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.engines.grammars import GrammarError, Grammars, Ids
from commonweight.engines.inbox import Inbox
from commonweight.engines.remote.backend import Backend, BusyError, Chunk, GoneError, PlaceError, RefusedError
from commonweight.engines.remote.held import held
from commonweight.engines.remote.place import Place
from commonweight.engines.remote.places import Places
from commonweight.engines.remote.trial import Facts, Kind, UnfitError, Vocabulary, examine

log = logging.getLogger(__name__)

MAX_JOBS = 4096
"""Jobs at the same time; one more is told that the engine is full."""
LOOK_EVERY = 5.0
"""Seconds between two looks at the servers' health."""
PATIENCE = 1.0
"""Seconds that figures may come after the last token."""
_SALT = b"commonweight/v1/cache-salt\0"
_SESSION = b"commonweight/v1/session\0"
_OPENING = 256
"""Tokens that a job of no known conversation is recognised by."""
_CLOSED = "The server is shutting down."
_BROKEN = "The server that computes failed in the middle of the answer; try again."
_REFUSED = "The server that computes refused the request; this server's log says why."
_NONE = "None of the servers that compute answers at the moment; try again."


class RemoteEngine:
    """An :class:`~commonweight.engines.contract.Engine`: tokens go out by HTTP and come in as streams.

    ``key`` makes the salts that keep tenants' caches apart, and is not sent. ``silence`` is how many seconds a
    server may say nothing at all.
    """

    def __init__(
        self,
        kind: Kind,
        urls: Sequence[str],
        vocabulary: Vocabulary,
        grammars: Grammars,
        key: bytes,
        *,
        server_key: str | None = None,
        silence: float = 300.0,
        context: int | None = None,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self.stats = Stats()
        """The latest figures."""
        self._kind = kind
        self._places = Places([Place(url, server_key, silence) for url in urls])
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._key = key
        self._context = context
        self._window: int | None = None
        self._look_every = look_every
        self._watching: list[asyncio.Task[None]] = []
        self._runs: dict[asyncio.Task[None], Inbox] = {}
        self._is_closed = False

    @property
    def window(self) -> int:
        """Most tokens that a prompt and its answer may have together: the least of what the servers have."""
        assert self._window is not None, "start() comes first"
        return self._window

    @property
    def is_ready(self) -> bool:
        """Whether a job would start now."""
        return self._places.is_any_well and not self._is_closed

    async def start(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Find out what the servers are; ``tell`` gets a line on each.

        Raises:
            UnfitError: one is not what it should be, or none answers.
        """
        trials = await asyncio.gather(*map(self._examine, self._places.all), return_exceptions=True)
        windows: list[int] = []
        absent: list[str] = []
        for place, found in zip(self._places.all, trials, strict=True):
            if isinstance(found, Facts):
                place.backend = found.backend
                windows.append(found.window)
                tell(found.text)
            elif isinstance(found, PlaceError):
                place.is_alive = False
                absent.append(f"{place.url}: {found}")
            else:
                raise found
        if not windows:
            raise UnfitError(f"no server answers ({'; '.join(absent)}); is it running, and is the URL right?")
        for text in absent:
            log.warning("not there yet: %s", text)
        self._window = min([*windows, *([] if self._context is None else [self._context])])
        self._watching = [asyncio.create_task(self._watch(place)) for place in self._places.all]

    async def close(self) -> None:
        """Fail what runs, and end all connections."""
        self._is_closed = True
        for run in self._runs.values():
            run.put(EngineError(_CLOSED))
        tasks = [*self._runs, *self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(place.close() for place in self._places.all))

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[Inbox]:
        """Start a job; leaving the block cancels it."""
        if not 0 < len(job.token_ids) <= self.window - job.max_tokens:
            raise ValueError("a job needs at least one token, and must fit the window")
        if len(self._runs) >= MAX_JOBS:
            raise EngineFullError(f"{MAX_JOBS} requests are running already; try again later.")
        if self._is_closed:
            raise EngineError(_CLOSED)
        run = Inbox()
        task = asyncio.create_task(self._pump(job, run))
        self._runs[task] = run
        task.add_done_callback(self._runs.pop)
        try:
            yield run
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pump(self, job: Job, run: Inbox) -> None:
        try:
            async with aclosing(self._events(job)) as events:
                async for event in events:
                    run.put(event)
        except EngineError as error:
            run.put(error)
        except Exception:
            log.exception("a job failed")
            run.put(EngineError("The engine failed; the server's log says why."))

    async def _events(self, job: Job) -> AsyncGenerator[EngineEvent]:
        """What becomes of a job: tried in one place after the other, until one has begun to answer."""
        if job.max_tokens == 0 and len(job.token_ids) == self.window:
            # A server would need room for a token to read so much, and after it there could be none.
            yield Admitted(0)
            yield Prefilled()
            yield Finish("length", Timings(0, 0, 0))
            return
        session = self._session(job)
        is_full = False
        for place in self._places.order(session):
            if (backend := place.backend) is None:
                continue  # gone since
            has_begun = False
            try:
                async with aclosing(self._at(place, backend, job, session)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                place.worked()
                return
            except PlaceError as error:
                _note(place, error)
                if has_begun:
                    raise EngineError(_BROKEN) from error
                if isinstance(error, RefusedError):
                    raise EngineError(_REFUSED) from error
                is_full |= isinstance(error, BusyError)
            except GrammarError as error:
                raise EngineError(f"The answer cannot be held to its form: {error}.") from error
        raise EngineFullError("All servers that compute are full; try again later." if is_full else _NONE)

    async def _at(self, place: Place, backend: Backend, job: Job, session: str) -> AsyncGenerator[EngineEvent]:
        """What one server makes of a job."""
        begun = read = time.monotonic()
        cached: int | None = None
        ending: str | None = None
        drawn = seen = 0
        has_begun = False
        place.running += 1
        self.stats.running += 1
        try:
            async with aclosing(await self._chunks(place, backend, job, session)) as chunks:
                async for chunk in chunks:
                    cached = cached if chunk.cached_tokens is None else chunk.cached_tokens
                    steps = _steps(chunk, job, self._grammars.size)
                    if not has_begun and (chunk.token_ids or chunk.ending):
                        has_begun = True
                        read = time.monotonic()
                        yield Admitted(cached or 0)
                        yield Prefilled()
                    ending = chunk.ending
                    for step in steps:
                        if drawn < job.max_tokens:
                            drawn += 1
                            self.stats.generated_tokens += 1
                            yield step
                        if step.token_id in job.stop_ids:
                            ending = "stop"
                            break
                    if ending == "stop" and drawn < job.max_tokens and not _has_stopped(chunk, job):
                        yield Step(job.stop_ids[0])
                    seen += len(chunk.token_ids)
                    if seen >= max(job.max_tokens, 1):
                        ending = ending or "length"
                    if ending is not None:
                        break
                if cached is None:
                    cached = await _late_figures(chunks)
        finally:
            place.running -= 1
            self.stats.running -= 1
        self.stats.remote_tokens += cached or 0
        self.stats.prefilled_tokens += len(job.token_ids) - (cached or 0)
        yield Finish(
            "stop" if ending == "stop" and job.max_tokens else "length",
            Timings(0.0, read - begun, time.monotonic() - read),
            cached or 0,
        )

    async def _chunks(self, place: Place, backend: Backend, job: Job, session: str) -> AsyncGenerator[Chunk]:
        salt, headers = self._code(_SALT, job.tenant), {"x-session-id": session}

        def ask(job: Job, only: Ids | None) -> AsyncGenerator[Chunk]:
            body = backend.body(job, salt, only, is_alone=place.is_alone(salt))
            return place.chunks(backend, body, headers)

        # How likely a token was is told after the server's grammar has had its say, and asked for without it.
        is_kept_there = backend.keeps_grammars and not job.want_logprobs
        if job.grammar is None or job.max_tokens == 0 or is_kept_there:
            return ask(job, None)
        guide = partial(self._grammars.guide, job.grammar, frozenset(job.stop_ids), job.tenant)
        return held(job, await asyncio.to_thread(guide), ask)

    def _session(self, job: Job) -> str:
        """A name for a job's conversation that says nothing about it."""
        known = job.session or ",".join(map(str, job.token_ids[:_OPENING]))
        return self._code(_SESSION, f"{job.tenant}\0{known}")

    def _code(self, purpose: bytes, text: str) -> str:
        code = hmac.digest(self._key, purpose + text.encode(), "sha256")
        return base64.urlsafe_b64encode(code).decode().rstrip("=")

    # Health

    async def _watch(self, place: Place) -> None:
        while True:
            await asyncio.sleep(self._look_every)
            try:
                await self._look(place)
            except Exception:
                log.exception("%s could not be looked at", place.url)

    async def _look(self, place: Place) -> None:
        """See how a server is. One that was away may have come back as another one."""
        was_alive, place.is_alive = place.is_alive, await place.is_healthy()
        if was_alive and not place.is_alive:
            log.warning("%s is not well", place.url)
            place.gone()
        elif place.is_alive and place.backend is None:
            try:
                found = await self._examine(place)
                if found.window < self.window:
                    raise UnfitError(f"{place.url} has a context of {found.window} tokens, not {self.window}")
                place.backend = found.backend
                log.warning("%s is well now", place.url)
            except (PlaceError, UnfitError) as error:
                place.is_alive = False
                if str(error) != place.complaint:
                    place.complaint = str(error)
                    log.warning("%s is not used: %s", place.url, error)

    async def _examine(self, place: Place) -> Facts:
        return await examine(self._kind, place, self._vocabulary, self._grammars)


def _note(place: Place, error: PlaceError) -> None:
    """Remember what a server did. To be full is no fault of its, and what it refused is none either."""
    if isinstance(error, GoneError):
        place.gone()
    elif not isinstance(error, BusyError | RefusedError):
        place.failed()
    level = logging.INFO if isinstance(error, BusyError) else logging.WARNING
    log.log(level, "%s: %s: %s", place.url, type(error).__name__.removesuffix("Error").lower(), error)


def _steps(chunk: Chunk, job: Job, size: int) -> list[Step]:
    """A line's tokens.

    Raises:
        PlaceError: they are none of this vocabulary, or lack what was asked for.
    """
    if not all(0 <= token < size for token in chunk.token_ids):
        raise PlaceError("it gives tokens that the model does not have")
    if not job.want_logprobs:
        return [Step(token) for token in chunk.token_ids]
    if len(chunk.logprobs or ()) != len(chunk.token_ids):
        raise PlaceError("it does not say how likely its tokens were")
    return [Step(token, logprob) for token, logprob in zip(chunk.token_ids, chunk.logprobs or (), strict=True)]


def _has_stopped(chunk: Chunk, job: Job) -> bool:
    """Whether the token that ends the answer is there, or there is none."""
    return not job.stop_ids or any(token in job.stop_ids for token in chunk.token_ids)


async def _late_figures(chunks: AsyncGenerator[Chunk]) -> int | None:
    """What is told of the cache after the last token. The answer is complete without it."""
    with contextlib.suppress(PlaceError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            async for chunk in chunks:
                if chunk.cached_tokens is not None:
                    return chunk.cached_tokens
    return None
