"""The engine contract: what every engine takes and tells, embedded or remote.

::

    async with engine.run(job) as events:     # leaving the block cancels
        async for event in events:            # Admitted, Prefilled, Step ..., Finish
            ...

The types are plain data, so that a job can cross to another process or machine.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is drawn. Applied in this order: temperature, top_k, top_p, min_p."""

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
    """A wish to keep the first ``position`` tokens of a prompt for a time that every use renews.

    Soft: marked prefixes outlive unmarked ones, and never stand in the way of running work.
    """

    position: int
    ttl: Ttl = "5m"


class Probe(msgspec.Struct, frozen=True):
    """Linear heads on hidden states: ``sum over layers of state[layer] @ weights[layer]``, for every token."""

    version: str
    """Names the weights; scores are remembered under it."""
    layers: list[int]
    """Whose input is read, from 0; the input of layer n is the output of layer n - 1."""
    heads: int
    weights: bytes
    """float32, little-endian, of shape ``(len(layers), width of the model, heads)``."""


class Job(msgspec.Struct, frozen=True):
    """One generation."""

    token_ids: list[int]
    """The prompt; at least one token."""
    max_tokens: int
    """0 only fills the cache. ``len(token_ids) + max_tokens`` must fit the engine's window."""
    stop_ids: list[int] = []
    """Tokens that end the generation. The one that did is the last :class:`Step`."""
    sampling: Sampling = Sampling()
    grammar: str | None = None
    """What the answer is held to, in llguidance's dialect of Lark; data, so that it can cross to another machine.
    Stop tokens, of which there must be some, are drawn only where it lets the answer end or names them."""
    want_logprobs: bool = False
    cache_marks: list[CacheMark] = []
    """By rising position, within ``token_ids``."""
    tenant: str = ""
    """Nothing is shared between tenants: neither cached tokens nor, by how long things take, their existence."""
    session: str = ""
    """Names the conversation, as far as anybody knows: an engine in several places keeps its jobs in one."""
    priority: Priority = "interactive"
    probe: Probe | None = None


class Admitted(msgspec.Struct, frozen=True, tag=True):
    """The job has left the queue."""

    cached_tokens: int
    """Of its prompt, those that need no computing; 0 if that is known only in the end."""


class CacheWrites(msgspec.Struct, frozen=True):
    """Prompt tokens that were computed and are now kept because of a mark, by its time to live."""

    five_minutes: int = 0
    one_hour: int = 0


class Prefilled(msgspec.Struct, frozen=True, tag=True):
    """The whole prompt has been computed."""

    written: CacheWrites = CacheWrites()
    scores: bytes | None = None
    """With a probe: float32, little-endian, of shape ``(len(token_ids), heads)``."""


class Step(msgspec.Struct, frozen=True, tag=True):
    """One token was drawn."""

    token_id: int
    logprob: float | None = None
    """Natural logarithm of its probability before sampling settings, if asked for."""
    scores: bytes | None = None
    """With a probe: float32 of shape ``(heads,)``, at the token that this one was drawn after."""


class Timings(msgspec.Struct, frozen=True):
    """Seconds spent waiting, computing the prompt and generating."""

    queued: float
    prefill: float
    decode: float


class Finish(msgspec.Struct, frozen=True, tag=True):
    """The last event: a stop token was drawn, or ``max_tokens`` were."""

    reason: Literal["stop", "length"]
    timings: Timings
    cached_tokens: int | None = None
    """Where it was not known before: prompt tokens that needed no computing."""


EngineEvent = Admitted | Prefilled | Step | Finish


class Stats(msgspec.Struct):
    """What an engine holds now, and what it has done since it started. Jobs, tokens and bytes."""

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
    """Prompt tokens taken over from running jobs."""
    ram_tokens: int = 0
    disk_tokens: int = 0
    remote_tokens: int = 0
    """Prompt tokens that another server had kept."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0
    """Tokens that a grammar left no choice about; they cost no step of their own."""
    preemptions: int = 0
    queue_seconds: float = 0
    step_seconds: float = 0


class EngineError(Exception):
    """The engine could not do a job. The message is fit for a client."""


class EngineFullError(EngineError):
    """Too many jobs are waiting; later may be better."""


class Generation(Protocol):
    """A running job: an iterator of its events, and what its reader can tell the engine."""

    def __aiter__(self) -> AsyncIterator[EngineEvent]: ...

    async def __anext__(self) -> EngineEvent: ...

    def truncate(self, position: int) -> None:
        """Tokens from ``position`` (counted from the start of the prompt) on were not used; don't keep them.

        A wish, which engines elsewhere may have no way to fulfil.
        """


class Engine(Protocol):
    """What the rooms above see of an engine."""

    @property
    def window(self) -> int:
        """Most tokens that a prompt and its answer may have together."""

    @property
    def is_ready(self) -> bool:
        """Whether a job would start now (false while weights load, also after a crash)."""

    stats: Stats
    """The latest figures."""

    def run(self, job: Job) -> AbstractAsyncContextManager[Generation]:
        """Start a job. Leaving the block cancels it; errors are :class:`EngineError`."""

    async def aclose(self) -> None:
        """Fail the jobs that run, and free everything. A second call does nothing."""
