"""Remote engine: sends jobs to one or several upstream servers with the same model."""

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import partial

from commonweight.engines.contract import (
    Admitted,
    EngineError,
    EngineEvent,
    EngineFullError,
    Finish,
    GrammarRefusedError,
    Job,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.engines.event_stream import EventStream
from commonweight.engines.grammars import GrammarCompileError, GrammarCompiler, GrammarError, TokenIds
from commonweight.engines.remote.backend import (
    Backend,
    Chunk,
    RequestRejectedError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamError,
)
from commonweight.engines.remote.constrained import constrain
from commonweight.engines.remote.discovery import (
    UpstreamInfo,
    UpstreamMismatchError,
    Vocabulary,
    discover,
)
from commonweight.engines.remote.routing import UpstreamPool
from commonweight.engines.remote.scoring import score_on
from commonweight.engines.remote.upstream import Upstream
from commonweight.engines.scoring import PromptScorer, check_scoring
from commonweight.engines.settings import RemoteSettings
from commonweight.signing import Purpose, compute_mac

log = logging.getLogger(__name__)

MAX_JOBS = 4096
"""Jobs at the same time; one more gets :class:`EngineFullError`."""
HEALTH_INTERVAL_SECONDS = 5.0
"""Seconds between two health checks of an upstream."""
USAGE_TIMEOUT_SECONDS = 1.0
"""Seconds to wait for usage figures after the last token."""
_AFFINITY_TOKENS = 256
"""Leading tokens that stand in for the session id of a job without one."""
_CLOSED = "The server is shutting down."
_BROKEN = "The server that computes failed in the middle of the answer; try again."
_REFUSED = "The server that computes refused the request; this server's log says why."
_NONE = "None of the servers that compute answers at the moment; try again."


class RemoteEngine(PromptScorer):
    """An :class:`~commonweight.engines.contract.Engine` that streams tokens from upstreams over HTTP.

    ``key`` derives the salts that isolate tenants' caches, and is not sent. ``read_timeout`` is in seconds without
    any bytes from an upstream.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        vocabulary: Vocabulary,
        grammars: GrammarCompiler,
        key: bytes,
        *,
        context: int | None = None,
        health_interval: float = HEALTH_INTERVAL_SECONDS,
    ) -> None:
        self.stats = Stats()
        """The latest figures."""
        self._settings = settings
        self._pool = UpstreamPool([Upstream(url, settings.key, settings.read_timeout) for url in settings.urls])
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._key = key
        self._context = context
        self._window: int | None = None
        self._health_interval = health_interval
        self._watching: list[asyncio.Task[None]] = []
        self._jobs: dict[asyncio.Task[None], EventStream] = {}
        self._is_closed = False

    @property
    def window(self) -> int:
        """Context length: maximum tokens of prompt and answer together; the smallest of all upstreams."""
        assert self._window is not None, "start() comes first"
        return self._window

    @property
    def is_ready(self) -> bool:
        """Whether a job would start now."""
        return self._pool.is_any_available and not self._is_closed

    async def start(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Discover the upstreams; ``tell`` gets a line on each.

        Raises:
            UpstreamMismatchError: one does not match, or none answers.
        """
        trials = await asyncio.gather(*map(self._discover, self._pool.upstreams), return_exceptions=True)
        windows: list[int] = []
        absent: list[str] = []
        for upstream, found in zip(self._pool.upstreams, trials, strict=True):
            if isinstance(found, UpstreamInfo):
                upstream.backend = found.backend
                windows.append(found.window)
                tell(found.text)
            elif isinstance(found, UpstreamError):
                upstream.is_alive = False
                absent.append(f"{upstream.url}: {found}")
            else:
                raise found
        if not windows:
            raise UpstreamMismatchError(
                f"no server answers ({'; '.join(absent)}); is it running, and is the URL right?"
            )
        for text in absent:
            log.warning("not there yet: %s", text)
        self._window = min([*windows, *([] if self._context is None else [self._context])])
        self._watching = [asyncio.create_task(self._watch(upstream)) for upstream in self._pool.upstreams]

    async def aclose(self) -> None:
        """Fail all jobs and close all connections."""
        self._is_closed = True
        for run in self._jobs.values():
            run.put(EngineError(_CLOSED))
        tasks = [*self._jobs, *self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(upstream.close() for upstream in self._pool.upstreams))

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[EventStream]:
        """Start a job; leaving the block cancels it."""
        if not 0 < len(job.token_ids) <= self.window - job.max_tokens:
            raise ValueError("a job needs at least one token, and must fit the window")
        check_scoring(job)
        if len(self._jobs) >= MAX_JOBS:
            raise EngineFullError(f"{MAX_JOBS} requests are running already; try again later.")
        if self._is_closed:
            raise EngineError(_CLOSED)
        run = EventStream()
        task = asyncio.create_task(self._pump(job, run))
        self._jobs[task] = run
        task.add_done_callback(self._jobs.pop)
        try:
            yield run
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pump(self, job: Job, run: EventStream) -> None:
        try:
            async with aclosing(self._run_on_upstreams(job)) as events:
                async for event in events:
                    run.put(event)
        except EngineError as error:
            run.put(error)
        except Exception:
            log.exception("a job failed")
            run.put(EngineError("The engine failed; the server's log says why."))

    async def _run_on_upstreams(self, job: Job) -> AsyncGenerator[EngineEvent]:
        """Events of a job: upstreams are tried in order until one begins to answer."""
        if job.max_tokens == 0 and len(job.token_ids) == self.window:
            # An upstream needs room for one generated token, and a prompt of the whole window leaves none.
            if job.scoring is not None:
                raise EngineError(f"A server that computes scores at most {self.window - 1} tokens.")
            yield Admitted(0)
            yield Prefilled()
            yield Finish("length", Timings(0, 0, 0))
            return
        session = self._make_session_id(job)
        is_full = False
        for upstream in self._pool.rank_upstreams(session):
            if (backend := upstream.backend) is None:
                continue  # unreachable since
            has_begun = False
            try:
                run_on = self._run_on if job.scoring is None else self._score_on
                async with aclosing(run_on(upstream, backend, job, session)) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                upstream.record_success()
                return
            except UpstreamError as error:
                _record_error(upstream, error)
                if has_begun:
                    raise EngineError(_BROKEN) from error
                if isinstance(error, RequestRejectedError):
                    raise EngineError(_REFUSED) from error
                is_full |= isinstance(error, UpstreamBusyError)
            except GrammarError as error:
                raise EngineError(f"The answer cannot be held to its form: {error}.") from error
        raise EngineFullError("All servers that compute are full; try again later." if is_full else _NONE)

    async def _run_on(
        self, upstream: Upstream, backend: Backend, job: Job, session: str
    ) -> AsyncGenerator[EngineEvent]:
        """Events of a job on one upstream."""
        begun = read = time.monotonic()
        cached: int | None = None
        ending: str | None = None
        drawn = seen = 0
        has_begun = False
        with self._count_running(upstream):
            async with aclosing(await self._stream_chunks(upstream, backend, job, session)) as chunks:
                async for chunk in chunks:
                    cached = cached if chunk.cached_tokens is None else chunk.cached_tokens
                    steps = _make_steps(chunk, job, self._grammars.size)
                    if not has_begun and (chunk.token_ids or chunk.finish_reason):
                        has_begun = True
                        read = time.monotonic()
                        yield Admitted(cached or 0)
                        yield Prefilled()
                    ending = chunk.finish_reason
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
                    cached = await _read_late_usage(chunks)
        self.stats.remote_tokens += cached or 0
        self.stats.prefilled_tokens += len(job.token_ids) - (cached or 0)
        yield Finish(
            "stop" if ending == "stop" and job.max_tokens else "length",
            Timings(0.0, read - begun, time.monotonic() - read),
            cached or 0,
        )

    async def _score_on(
        self, upstream: Upstream, backend: Backend, job: Job, session: str
    ) -> AsyncGenerator[EngineEvent]:
        """Events of a scoring job on one upstream."""
        salt, headers = self._compute_mac(Purpose.CACHE_SALT, job.tenant), {"x-session-id": session}
        with self._count_running(upstream):
            async with aclosing(score_on(upstream, backend, job, salt, headers, self._grammars.size)) as events:
                async for event in events:
                    yield event
        self.stats.prefilled_tokens += len(job.token_ids)

    @contextlib.contextmanager
    def _count_running(self, upstream: Upstream) -> Iterator[None]:
        """Count a job as running."""
        upstream.running += 1
        self.stats.running += 1
        try:
            yield
        finally:
            upstream.running -= 1
            self.stats.running -= 1

    async def _stream_chunks(
        self, upstream: Upstream, backend: Backend, job: Job, session: str
    ) -> AsyncGenerator[Chunk]:
        salt, headers = self._compute_mac(Purpose.CACHE_SALT, job.tenant), {"x-session-id": session}

        def ask(job: Job, only: TokenIds | None) -> AsyncGenerator[Chunk]:
            body = backend.make_body(job, salt, only, is_alone=upstream.has_single_tenant(salt))
            return upstream.stream_chunks(backend, body, headers)

        # Upstreams report log-probabilities after the grammar's mask, and we need those before it.
        is_kept_there = backend.supports_grammars and not job.want_logprobs
        if job.grammar is None or job.max_tokens == 0 or is_kept_there:
            return ask(job, None)
        guide = partial(self._grammars.create_matcher, job.grammar, frozenset(job.stop_ids), job.tenant)
        try:
            matcher = await asyncio.to_thread(guide)
        except GrammarCompileError as error:
            raise GrammarRefusedError(str(error)) from error
        return constrain(job, matcher, ask)

    def _make_session_id(self, job: Job) -> str:
        """Opaque session id of a job, for routing and the upstream's affinity header."""
        known = job.session or ",".join(map(str, job.token_ids[:_AFFINITY_TOKENS]))
        return self._compute_mac(Purpose.SESSION, f"{job.tenant}\0{known}")

    def _compute_mac(self, purpose: Purpose, text: str) -> str:
        mac = compute_mac(self._key, purpose, text.encode())
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")

    # Health

    async def _watch(self, upstream: Upstream) -> None:
        while True:
            await asyncio.sleep(self._health_interval)
            try:
                await self._check_health(upstream)
            except Exception:
                log.exception("%s could not be looked at", upstream.url)

    async def _check_health(self, upstream: Upstream) -> None:
        """Check an upstream's health, and rediscover it after an outage: it may serve another model now."""
        was_alive, upstream.is_alive = upstream.is_alive, await upstream.check_health()
        if was_alive and not upstream.is_alive:
            log.warning("%s is not well", upstream.url)
            upstream.mark_unreachable()
        elif upstream.is_alive and upstream.backend is None:
            try:
                found = await self._discover(upstream)
                if found.window < self.window:
                    raise UpstreamMismatchError(
                        f"{upstream.url} has a context of {found.window} tokens, not {self.window}"
                    )
                upstream.backend = found.backend
                log.warning("%s is well now", upstream.url)
            except (UpstreamError, UpstreamMismatchError) as error:
                upstream.is_alive = False
                if str(error) != upstream.last_error:
                    upstream.last_error = str(error)
                    log.warning("%s is not used: %s", upstream.url, error)

    async def _discover(self, upstream: Upstream) -> UpstreamInfo:
        return await discover(self._settings.kind, upstream, self._vocabulary, self._grammars)


def _record_error(upstream: Upstream, error: UpstreamError) -> None:
    """Update an upstream's circuit breaker. Busy and rejected requests do not count as failures."""
    if isinstance(error, UnreachableError):
        upstream.mark_unreachable()
    elif not isinstance(error, UpstreamBusyError | RequestRejectedError):
        upstream.record_failure()
    level = logging.INFO if isinstance(error, UpstreamBusyError) else logging.WARNING
    log.log(level, "%s: %s: %s", upstream.url, type(error).__name__.removesuffix("Error").lower(), error)


def _make_steps(chunk: Chunk, job: Job, size: int) -> list[Step]:
    """Steps for the tokens of a chunk.

    Raises:
        UpstreamError: a token is outside the vocabulary, or log-probabilities are missing.
    """
    if not all(0 <= token < size for token in chunk.token_ids):
        raise UpstreamError("it gives tokens that the model does not have")
    if not job.want_logprobs:
        return [Step(token) for token in chunk.token_ids]
    if len(chunk.logprobs or ()) != len(chunk.token_ids):
        raise UpstreamError("it does not say how likely its tokens were")
    return [Step(token, logprob) for token, logprob in zip(chunk.token_ids, chunk.logprobs or (), strict=True)]


def _has_stopped(chunk: Chunk, job: Job) -> bool:
    """Whether the chunk has a stop token, or the job has none."""
    return not job.stop_ids or any(token in job.stop_ids for token in chunk.token_ids)


async def _read_late_usage(chunks: AsyncGenerator[Chunk]) -> int | None:
    """Cached prompt tokens, if reported after the last token. The answer is complete without it."""
    with contextlib.suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(USAGE_TIMEOUT_SECONDS):
            async for chunk in chunks:
                if chunk.cached_tokens is not None:
                    return chunk.cached_tokens
    return None
