"""Scores of the texts of requests, each computed once for each tenant.

Clients send the whole conversation with every request, so nearly all of its texts were scored before. What is kept
are scores, in bounded memory and never on disk, under a keyed digest of tenant, place and text. Decisions are made
anew from them each time, so waivers and modes hold at once. A judge's probability is kept like a score; that it
failed is not.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast
from weakref import WeakValueDictionary

from commonweight.guard.phrase_screening import PlacedPhrase
from commonweight.guard.scorer import Scorer, TextScores
from commonweight.guard.segments import Segment
from commonweight.signing import Purpose, compute_mac

MAX_SCORES = 30_000
"""Scores that are kept: some 20 MB."""

T = TypeVar("T")


class ScoreCache:
    """Computes and keeps the scores of one guard's requests. For one event loop at a time.

    Args:
        identity: of what the scores depend on beside the text: charter, bundle and model.
        key: of the digests.
    """

    def __init__(self, scorer: Scorer, identity: tuple[str, ...], key: bytes, capacity: int = MAX_SCORES) -> None:
        self._scorer = scorer
        self._identity = identity
        self._key = key
        self._capacity = capacity
        self._scores: OrderedDict[bytes, object] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def compute_digest(self, tenant: str, text: str) -> str:
        """Compute the keyed digest of a tenant's text, for records."""
        return compute_mac(self._key, Purpose.GUARD_TEXT, _join("text", tenant, text)).hex()[:32]

    async def score_text(self, segment: Segment, tenant: str) -> tuple[TextScores, bool]:
        """Score a segment by the heads on text; also returns whether the score was known."""
        return await self._find(
            ("text", tenant, segment.place, segment.text),
            tenant,
            lambda: asyncio.to_thread(self._scorer.score_text, segment.text),
        )

    async def score_injection(self, segment: Segment, tenant: str) -> tuple[tuple[float, tuple[int, int]], bool]:
        """Score a segment for prompt injection; also returns whether the score was known."""
        return await self._find(
            ("injection", tenant, segment.place, segment.text),
            tenant,
            lambda: asyncio.to_thread(self._scorer.score_injection, segment.text),
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
        found, _ = await self._find(fields, tenant, lambda: asyncio.to_thread(find))
        return found

    async def judge(self, tenant: str, place: str, words: str, ask: Callable[[], Awaitable[float]]) -> float:
        """The judge's probability for a question in these words. What ``ask`` raises is raised, and not kept."""
        name = self._name("judge", tenant, place, words)
        known = self._get(name)
        if known is None:
            known = await ask()
            self._put(name, known)
        return cast("float", known)

    async def _find(
        self, fields: tuple[str, ...], tenant: str, compute: Callable[[], Awaitable[T]]
    ) -> tuple[T, bool]:
        name = self._name(*fields)
        known = self._get(name)
        if known is not None:
            return cast("T", known), True
        # One text of a tenant at a time, so that one with a long document takes no more turns than others.
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        async with lock:
            known = self._get(name)
            if known is not None:
                return cast("T", known), True
            computing = asyncio.ensure_future(compute())
            try:
                computed = await asyncio.shield(computing)
            except asyncio.CancelledError:
                # A thread cannot be canceled: the tenant's turn lasts until it is done.
                await asyncio.wait([computing])
                raise
            self._put(name, computed)
            return computed, False

    def _name(self, *fields: str) -> bytes:
        return compute_mac(self._key, Purpose.GUARD_TEXT, _join(*self._identity, *fields))

    def _get(self, name: bytes) -> object | None:
        known = self._scores.get(name)
        if known is not None:
            self._scores.move_to_end(name)
        return known

    def _put(self, name: bytes, score: object) -> None:
        self._scores[name] = score
        self._scores.move_to_end(name)
        if len(self._scores) > self._capacity:
            self._scores.popitem(last=False)


def _join(*fields: str) -> bytes:
    """Join fields so that different ones never make the same bytes."""
    encoded = [field.encode(errors="surrogatepass") for field in fields]
    return b"".join(len(one).to_bytes(8, "big") + one for one in encoded)
