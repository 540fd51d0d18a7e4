"""Limits of a key: requests and tokens a minute, and requests at once; shared by all servers of one database.

A request takes its place when it comes, and its prompt's tokens once they are known. What it really used is
settled before its last event is told, so that a client that has the answer may at once send the next request.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Literal

from commonweight.access.leases import Leases
from commonweight.access.principal import Principal
from commonweight.messages.errors import OverloadedError, RateLimitError, UnavailableError
from commonweight.messages.events import MessageStop, StreamEvent
from commonweight.messages.response import Usage
from commonweight.store import Database
from commonweight.store.failures import FAILURES, get_reason
from commonweight.store.limits import SECONDS_PER_MINUTE, release, settle, take
from commonweight.turn import TurnRecord

log = logging.getLogger(__name__)

LimitKind = Literal["requests", "counts"]
"""Messages; or counts of tokens, which take as many a minute, but from an allowance of their own, and no place."""


class Limiter:
    """Rate limiter of API keys. Without a database, keys must have no limits."""

    def __init__(self, database: Database | None = None, now: Callable[[], float] = time.time) -> None:
        self.database = database
        self.now = now
        self.leases = Leases(database, now)
        self.waiting: Counter[str | None] = Counter()
        """Requests that wait for the engine, by their keys."""
        self._admissions: dict[str, Admission] = {}

    @contextlib.asynccontextmanager
    async def admit(
        self, principal: Principal, request_id: str, headers: dict[str, str], kind: LimitKind = "requests"
    ) -> AsyncIterator["Admission"]:
        """Admit a request until the block ends. ``headers`` receives the rate-limit headers.

        Raises:
            RateLimitError: the key has had its share for now.
            UnavailableError: the database cannot be asked.
        """
        admission = Admission(self, principal, headers, kind)
        try:
            await admission.enter()
            self._admissions[request_id] = admission
            yield admission
        finally:
            self._admissions.pop(request_id, None)
            await admission.close()

    def on_turn(self, record: TurnRecord) -> None:
        """Note the usage of a finished turn, to be charged to its key; ignored for turns not admitted here."""
        admission = self._admissions.get(record.origin.request_id)
        if admission is not None:
            admission.used_tokens = _count_charged_tokens(record.usage)


class Admission:
    """Admitted request, with the amounts taken from its key's limits."""

    def __init__(self, limiter: Limiter, principal: Principal, headers: dict[str, str], kind: LimitKind) -> None:
        self.used_tokens = 0
        """Tokens charged for the finished turn."""
        self._limiter = limiter
        self._key = principal.key_id
        limits = principal.limits
        self._kind: LimitKind = kind
        self._requests = limits.requests_per_minute
        self._tokens = limits.tokens_per_minute if kind == "requests" else None
        self._concurrency = limits.concurrency if kind == "requests" else None
        self._headers = headers
        self._taken: dict[str, int] = {}
        self._lease: str | None = None
        self._is_turned_away = False

    async def enter(self) -> None:
        """Take a request, and a lease for the limit on concurrency.

        Raises:
            RateLimitError, UnavailableError: see :meth:`Limiter.admit`.
        """
        if self._requests is not None:
            await self._take(self._kind, "requests", self._requests, 1)
        if self._concurrency is not None and self._key is not None:
            with _translate_failures():
                self._lease = await self._limiter.leases.acquire(self._key, self._concurrency)
            if self._lease is None:
                self._is_turned_away = True
                raise RateLimitError(
                    f"This request would exceed your API key's limit of {self._concurrency} requests at once. "
                    "Please try again when one of them is done.",
                    retry_after=1,
                )

    async def charge(self, tokens: int) -> None:
        """Take the tokens of the prompt. A prompt that is longer than the limit needs all of it.

        Raises:
            RateLimitError, UnavailableError: see :meth:`Limiter.admit`.
        """
        if self._tokens is not None:
            await self._take("tokens", "tokens", self._tokens, tokens)

    async def answer(self, events: AsyncGenerator[StreamEvent]) -> AsyncGenerator[StreamEvent]:
        """The events of this request's turn. Close it to cancel.

        Raises:
            RateLimitError: the engine is full, and most of what waits is this key's.
            OverloadedError: it is full because of others.
        """
        last: StreamEvent | None = None
        async with contextlib.aclosing(events), self._count_waiting() as stop_waiting:
            async for event in events:
                stop_waiting()
                if isinstance(event, MessageStop):
                    last = event
                    break
                yield event
        await self.close()
        if last is not None:
            yield last

    async def close(self) -> None:
        """Settle what was taken with what was used, and give the place back. A second time does nothing."""
        taken, self._taken = self._taken, {}
        lease, self._lease = self._lease, None
        if taken or lease:
            # What was answered stays answered, also when the client has gone and this request with it.
            await asyncio.shield(asyncio.ensure_future(self._settle(taken, lease)))

    async def _take(self, kind: str, name: str, limit: int, amount: int) -> None:
        assert self._limiter.database is not None and self._key is not None
        with _translate_failures():
            async with self._limiter.database.write() as connection:
                is_taken, left = await take(connection, self._key, kind, limit, amount, self._limiter.now)
        full_at = datetime.fromtimestamp(
            math.ceil(self._limiter.now() + _compute_refill_seconds(limit - left, limit)), UTC
        )
        self._headers |= {
            f"anthropic-ratelimit-{name}-limit": str(limit),
            f"anthropic-ratelimit-{name}-remaining": str(max(0, math.floor(left))),
            f"anthropic-ratelimit-{name}-reset": f"{full_at:%Y-%m-%dT%H:%M:%SZ}",
        }
        if is_taken:
            self._taken[kind] = amount
            return
        self._is_turned_away = True
        raise RateLimitError(
            f"This request would exceed your API key's rate limit of {limit} {name} per minute.",
            retry_after=max(1, math.ceil(_compute_refill_seconds(min(amount, limit) - left, limit))),
        )

    @contextlib.asynccontextmanager
    async def _count_waiting(self) -> AsyncIterator[Callable[[], None]]:
        """Count the request as waiting until the yielded function is called, or the block ends."""
        waiting, key = self._limiter.waiting, self._key
        is_waiting = True

        def stop_waiting() -> None:
            nonlocal is_waiting
            if is_waiting:
                is_waiting = False
                waiting[key] -= 1
                if not waiting[key]:
                    del waiting[key]

        waiting[key] += 1
        try:
            yield stop_waiting
        except OverloadedError as error:
            self._is_turned_away = True
            if waiting[key] * len(waiting) > waiting.total():
                raise RateLimitError(
                    "Too many requests of your API key are waiting already.", retry_after=error.retry_after
                ) from error
            raise
        finally:
            stop_waiting()

    async def _settle(self, taken: dict[str, int], lease: str | None) -> None:
        database, key, now = self._limiter.database, self._key, self._limiter.now
        assert database is not None and key is not None
        used = {"tokens": self.used_tokens, self._kind: 0 if self._is_turned_away else 1}
        limits = {"tokens": self._tokens, self._kind: self._requests}
        if lease:
            self._limiter.leases.stop_renewing(lease)
        try:
            async with database.write() as connection:
                for kind, amount in taken.items():
                    limit = limits[kind]
                    if limit is not None and used[kind] != amount:
                        await settle(connection, key, kind, limit, used[kind] - amount, now)
                if lease:
                    await release(connection, lease)
        except FAILURES as error:
            # The request is answered. Its place becomes free by itself, and the key has had a little for nothing.
            log.warning("could not settle what key %s has used (%s)", key, get_reason(error))


@contextlib.contextmanager
def _translate_failures() -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise UnavailableError("The limits of API keys cannot be checked at the moment", retry_after=5) from error


def _compute_refill_seconds(amount: float, limit: int) -> float:
    """Seconds in which a bucket refills by an amount."""
    return amount * SECONDS_PER_MINUTE / limit


def _count_charged_tokens(usage: Usage) -> int:
    """Tokens charged for a turn: those of the prompt that came from the cache are free."""
    return usage.input_tokens + usage.cache_creation_input_tokens + usage.output_tokens
