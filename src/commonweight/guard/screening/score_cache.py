"""Scores of the texts of requests, each computed once for each tenant.

Clients send the whole conversation with every request, so nearly all of its texts were scored before. What is kept
are scores, in bounded memory of which each tenant has its share, and never on disk. Their names are keyed digests
of tenant, place and text. Decisions are made anew from them each time, so waivers and modes hold at once. What a
judge or the served model says is kept like a score; that it failed is not.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np

from commonweight.guard.heads.scorer import Scorer, TextScores
from commonweight.guard.phrases.screening import PlacedPhrase
from commonweight.guard.screening.tenant_memory import TenantMemory
from commonweight.guard.text.segments import Segment
from commonweight.signing import Purpose, compute_mac
from commonweight.threads import run_in_thread

MAX_BYTES = 32 * 1024 * 1024
"""Of scores that are kept: with ten principles 8,000 (all of them in prose) to 27,000."""
ENTRY_BYTES = 300
"""Of a score's name and place in the memory."""

T = TypeVar("T")


class ScoreCache:
    """Computes and keeps the scores of one guard's requests. For one event loop at a time.

    Args:
        identity: of what the scores depend on beside the text: charter, bundle and model.
        key: of the digests.
        capacity: bytes that are kept, as they are measured.
    """

    def __init__(self, scorer: Scorer, identity: tuple[str, ...], key: bytes, capacity: int = MAX_BYTES) -> None:
        self._scorer = scorer
        self._identity = identity
        self._key = key
        self._scores = TenantMemory[object](capacity)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def compute_digest(self, tenant: str, text: str) -> str:
        """Compute the keyed digest of a tenant's text, for records."""
        return compute_mac(self._key, Purpose.GUARD_TEXT, _join("text", tenant, text)).hex()[:32]

    async def score_text(self, segment: Segment, tenant: str) -> tuple[TextScores, bool]:
        """Score a segment by the heads on text; also returns whether the score was known."""
        return await self._find(
            ("text", tenant, segment.place, segment.text),
            tenant,
            lambda: self._scorer.score_text(segment.text),
        )

    async def score_injection(self, segment: Segment, tenant: str) -> tuple[tuple[float, tuple[int, int]], bool]:
        """Score a segment for prompt injection; also returns whether the score was known."""
        return await self._find(
            ("injection", tenant, segment.place, segment.text),
            tenant,
            lambda: self._scorer.score_injection(segment.text),
        )

    async def find_phrases(
        self,
        texts: Sequence[str],
        place: str,
        principles: tuple[str, ...],
        tenant: str,
        find: Callable[[], list[PlacedPhrase]],
    ) -> list[PlacedPhrase]:
        """Find the phrases of principles in texts at a place, unless they were looked through before."""
        fields = ("phrases", tenant, place, *principles, "", *texts)
        found, _ = await self._find(fields, tenant, find)
        return found

    async def judge(self, tenant: str, place: str, words: str, ask: Callable[[], Awaitable[float]]) -> float:
        """The judge's probability for a question in these words. What ``ask`` raises is raised, and not kept."""
        found = await self._ask(("judge", tenant, place, words), tenant, ask)
        assert found is not None
        return found

    async def measure_noise(
        self, segment: Segment, tenant: str, measure: Callable[[], Awaitable[float | None]]
    ) -> float | None:
        """The surprise of the served model at the end of a segment; None, which is not kept: it cannot be told."""
        return await self._ask(("noise", tenant, segment.text), tenant, measure)

    async def _ask(
        self, fields: tuple[str, ...], tenant: str, ask: Callable[[], Awaitable[float | None]]
    ) -> float | None:
        name = self._name(*fields)
        known = cast("float | None", self._scores.get(tenant, name))
        if known is None:
            known = await ask()
            if known is not None:
                self._put(tenant, name, known)
        return known

    async def _find(self, fields: tuple[str, ...], tenant: str, compute: Callable[[], T]) -> tuple[T, bool]:
        name = self._name(*fields)
        known = self._scores.get(tenant, name)
        if known is not None:
            return cast("T", known), True
        # One text of a tenant at a time, so that one with a long document takes no more turns than others.
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        async with lock:
            known = self._scores.get(tenant, name)
            if known is not None:
                return cast("T", known), True
            # A thread cannot be canceled: the tenant's turn lasts until it is done.
            computed = await run_in_thread(compute)
            self._put(tenant, name, computed)
            return computed, False

    def _name(self, *fields: str) -> bytes:
        return compute_mac(self._key, Purpose.GUARD_TEXT, _join(*self._identity, *fields))

    def _put(self, tenant: str, name: bytes, score: object) -> None:
        self._scores.put(tenant, name, score, ENTRY_BYTES + measure_bytes(score))


def measure_bytes(score: object) -> int:
    """Measure what a score takes in memory, at most: what it shares with others counts each time."""
    size = sys.getsizeof(score)
    if isinstance(score, np.ndarray):
        return size + (score.base.nbytes if isinstance(score.base, np.ndarray) else 0)
    if isinstance(score, dict):
        return size + sum(measure_bytes(one) for one in score.values())
    if isinstance(score, tuple | list):
        return size + sum(measure_bytes(one) for one in score)
    return size


def _join(*fields: str) -> bytes:
    """Join fields so that different ones never make the same bytes."""
    encoded = [field.encode(errors="surrogatepass") for field in fields]
    return b"".join(len(one).to_bytes(8, "big") + one for one in encoded)
