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


class Job(msgspec.Struct, frozen=True):
    """One generation."""

    token_ids: list[int]
    """The prompt; at least one token."""
    max_tokens: int
    """0 only fills the cache. ``len(token_ids) + max_tokens`` must fit the engine's window."""
    stop_ids: list[int] = []
    """Tokens that end the generation. The one that did is the last :class:`Step`."""
    sampling: Sampling = Sampling()
    want_logprobs: bool = False


class Admitted(msgspec.Struct, frozen=True, tag=True):
    """The job has left the queue. ``cached_tokens`` of its prompt need no computing."""

    cached_tokens: int


class Prefilled(msgspec.Struct, frozen=True, tag=True):
    """The whole prompt has been computed."""


class Step(msgspec.Struct, frozen=True, tag=True):
    """One token was drawn."""

    token_id: int
    logprob: float | None = None
    """Natural logarithm of its probability before sampling settings, if asked for."""


class Timings(msgspec.Struct, frozen=True):
    """Seconds spent waiting, computing the prompt and generating."""

    queued: float
    prefill: float
    decode: float


class Finish(msgspec.Struct, frozen=True, tag=True):
    """The last event: a stop token was drawn, or ``max_tokens`` were."""

    reason: Literal["stop", "length"]
    timings: Timings


EngineEvent = Admitted | Prefilled | Step | Finish


class EngineError(Exception):
    """The engine could not do a job. The message is fit for a client."""


class EngineFullError(EngineError):
    """Too many jobs are waiting; later may be better."""


class Engine(Protocol):
    """What the rooms above see of an engine."""

    @property
    def window(self) -> int:
        """Most tokens that a prompt and its answer may have together."""

    @property
    def is_ready(self) -> bool:
        """Whether a job would start now (false while weights load, also after a crash)."""

    def run(self, job: Job) -> AbstractAsyncContextManager[AsyncIterator[EngineEvent]]:
        """Start a job. Leaving the block cancels it; errors are :class:`EngineError`."""
