"""Interface of all inference engines, embedded or remote: ``Job`` in, a stream of ``EngineEvent`` out.

::

    async with engine.run(job) as events:     # leaving the block cancels
        async for event in events:            # Admitted, Prefilled, Step ..., Finish
            ...

The types are plain data, so that a job can cross to another process or machine.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec


class Sampling(msgspec.Struct, frozen=True):
    """Sampling parameters of one job. Applied in this order: temperature, top_k, top_p, min_p."""

    temperature: float = 1.0
    """0 takes the most likely token."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    """From 0 to 2**32 - 2. The same seed draws the same numbers whatever else is in the batch."""


Ttl = Literal["5m", "1h"]
Priority = Literal["interactive", "batch"]


class CacheMark(msgspec.Struct, frozen=True):
    """Cache-control breakpoint: keep the first ``position`` tokens of a prompt for ``ttl``, renewed by every use.

    Soft: marked prefixes are evicted after unmarked ones, and never block running jobs.
    """

    position: int
    ttl: Ttl = "5m"


class Probe(msgspec.Struct, frozen=True):
    """Linear heads on hidden states: ``sum over layers of state[layer] @ weights[layer]``, for every token."""

    version: str
    """Names the weights; scores are cached under it."""
    layers: list[int]
    """Indices, from 0, of the layers whose input is read; the input of layer n is the output of layer n - 1."""
    heads: int
    weights: bytes
    """float32, little-endian, of shape ``(len(layers), width of the model, heads)``."""


ALL_TOKENS = -1
"""As ``top``: the whole vocabulary."""


class Scoring(msgspec.Struct, frozen=True):
    """Makes a job score its prompt: log-probabilities of the given tokens, and no answer."""

    start: int = 1
    """First position to score. The prefix cache may hold the tokens before; the first token of a prompt has no
    probability."""
    top: int = 0
    """Most likely tokens to report for each position, or :data:`ALL_TOKENS`."""


class Job(msgspec.Struct, frozen=True):
    """One request to an engine: a prompt, and how to continue it."""

    token_ids: list[int]
    """The prompt; at least one token."""
    max_tokens: int
    """0 only fills the cache. ``len(token_ids) + max_tokens`` must fit the engine's window."""
    stop_ids: list[int] = []
    """Tokens that end the generation. The one that ended it is the last :class:`Step`."""
    sampling: Sampling = Sampling()
    grammar: str | None = None
    """Grammar that constrains the answer, in llguidance's dialect of Lark; data, so that it can cross to another
    machine. Stop tokens, of which there must be some, are drawn only where it lets the answer end or names
    them."""
    want_logprobs: bool = False
    cache_marks: list[CacheMark] = []
    """By rising position, within ``token_ids``."""
    tenant: str = ""
    """Isolation key: tenants share no cached tokens, and cannot find out by timing that others have cached any."""
    session: str = ""
    """Conversation id, if known: an engine with several upstreams routes all jobs of a session to one of them."""
    priority: Priority = "interactive"
    is_urgent: bool = False
    """It is short, and running jobs are read no further until it is done: it starts before all others, at one of
    the places kept for such, or else at that of a running job, which goes on afterwards."""
    probe: Probe | None = None
    scoring: Scoring | None = None
    """With ``max_tokens`` 0 and without a grammar."""


class Admitted(msgspec.Struct, frozen=True, tag=True):
    """First event: the job has left the queue."""

    cached_tokens: int
    """Prompt tokens that need no prefill; 0 if the number is known only at the end (see :class:`Finish`)."""


class CacheWrites(msgspec.Struct, frozen=True):
    """Prompt tokens newly kept in the prefix cache because of a :class:`CacheMark`, by time to live."""

    five_minutes: int = 0
    one_hour: int = 0


class Scored(msgspec.Struct, frozen=True, tag=True):
    """Scores of consecutive prompt positions, in order and without gaps from one event to the next.

    The score of position i is the natural logarithm of the probability of token i after tokens 0 to i - 1, before
    sampling settings (temperature 1).
    """

    start: int
    """First position."""
    logprobs: list[float]
    """Scores of the given tokens, one a position."""
    top_ids: list[list[int]] = []
    """With ``top`` above 0: for each position its ``top`` most likely tokens, the likeliest first."""
    top_logprobs: list[list[float]] = []
    """Scores of ``top_ids``."""
    rows: bytes | None = None
    """With :data:`ALL_TOKENS`: float32, little-endian, of shape ``(positions, size of the vocabulary)``."""


class Prefilled(msgspec.Struct, frozen=True, tag=True):
    """Prefill is complete. Nothing but :class:`Scored` comes between :class:`Admitted` and this event."""

    written: CacheWrites = CacheWrites()
    scores: bytes | None = None
    """With a probe: float32, little-endian, of shape ``(len(token_ids), heads)``."""


class Step(msgspec.Struct, frozen=True, tag=True):
    """One generated token."""

    token_id: int
    logprob: float | None = None
    """Natural logarithm of its probability before sampling settings, if asked for."""
    scores: bytes | None = None
    """With a probe: float32 of shape ``(heads,)``, at the token before this one."""


class Timings(msgspec.Struct, frozen=True):
    """Seconds that a job spent in the queue, in prefill and in decode."""

    queued: float
    prefill: float
    decode: float


class Finish(msgspec.Struct, frozen=True, tag=True):
    """The last event: a stop token was drawn, or ``max_tokens`` were."""

    reason: Literal["stop", "length"]
    timings: Timings
    cached_tokens: int | None = None
    """Prompt tokens that needed no prefill, where :class:`Admitted` could not give the number yet."""


EngineEvent = Admitted | Scored | Prefilled | Step | Finish


class Stats(msgspec.Struct):
    """Gauges and counters of an engine since it started, in jobs, tokens and bytes."""

    running: int = 0
    waiting: int = 0
    cells: int = 0
    cells_used: int = 0
    ram_bytes: int = 0
    disk_bytes: int = 0

    steps: int = 0
    prefilled_tokens: int = 0
    generated_tokens: int = 0
    shared_tokens: int = 0
    """Prompt tokens whose KV cells are shared with running jobs."""
    ram_tokens: int = 0
    disk_tokens: int = 0
    remote_tokens: int = 0
    """Prompt tokens that an upstream found in its own prefix cache."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0
    """Tokens that a grammar leaves no alternative to; they cost no step of their own."""
    preemptions: int = 0
    queue_seconds: float = 0
    step_seconds: float = 0


class EngineError(Exception):
    """A job failed. The message is fit for a client."""


class EngineFullError(EngineError):
    """The queue is full; a retry later may succeed."""


class GrammarRefusedError(EngineError):
    """The job's grammar cannot be compiled: what it holds the answer to is too complex."""


class ScoringUnsupportedError(EngineError):
    """The upstream's API has no log-probabilities of prompt tokens."""


class Generation(Protocol):
    """Handle of a running job: async iterator of its events, and :meth:`truncate` for its reader."""

    def __aiter__(self) -> AsyncIterator[EngineEvent]: ...

    async def __anext__(self) -> EngineEvent: ...

    def truncate(self, position: int) -> None:
        """Keep no tokens from ``position`` (counted from the start of the prompt) on in the prefix cache.

        A hint, which remote engines cannot pass on.
        """


class Engine(Protocol):
    """Interface of an engine, as the layers above use it."""

    @property
    def window(self) -> int:
        """Context length: maximum tokens of prompt and answer together."""

    @property
    def is_ready(self) -> bool:
        """Whether a job would start now (false while weights load, also after a crash)."""

    stats: Stats
    """The latest figures."""

    def run(self, job: Job) -> AbstractAsyncContextManager[Generation]:
        """Start a job. Leaving the block cancels it; errors are :class:`EngineError`."""

    async def aclose(self) -> None:
        """Fail the jobs that run, and free everything. A second call does nothing."""

    def score(
        self,
        token_ids: Sequence[int],
        *,
        top: int = 0,
        start: int = 1,
        tenant: str = "",
        priority: Priority = "batch",
    ) -> AsyncGenerator[Scored]:
        """Log-probabilities of given tokens from position ``start`` on, and of the ``top`` most likely ones.

        Positions come once each, in order, in chunks as they are computed. Tokens before ``start`` may come from
        the prefix cache and are kept there; those behind are not. Closing the generator cancels the job. Whole
        rows (:data:`ALL_TOKENS`) take 4 bytes a token of the vocabulary and position, and wait in memory until
        read.

        Raises:
            ValueError: fewer than 2 tokens or more than the window, or ``start`` or ``top`` out of range.
            ScoringUnsupportedError: the upstream cannot score.
            EngineError: a token outside the vocabulary, too large a ``top``, or the engine failed.
        """
