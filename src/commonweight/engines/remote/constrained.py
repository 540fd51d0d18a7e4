"""Client-side constrained decoding, for upstreams that cannot enforce a grammar themselves.

A token is drawn freely there and checked here. At the first that the grammar does not allow, the request is
ended; one token is drawn from the allowed ones, and the answer goes on from there in a new request. That is
distributed as if all tokens had been masked (see ``engines.grammars``), and costs nothing while a model keeps to
the grammar by itself.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from commonweight.engines.contract import Job, Sampling
from commonweight.engines.grammars import GrammarMatcher, TokenIds
from commonweight.engines.remote.backend import Chunk, UpstreamError

Ask = Callable[[Job, TokenIds | None], AsyncGenerator[Chunk]]
"""Starts an upstream request for a job, optionally restricted to some tokens."""


async def constrain(job: Job, guide: GrammarMatcher, ask: Ask) -> AsyncGenerator[Chunk]:
    """Chunks of the answer to a job, constrained to a grammar. The stop token is always among its tokens.

    Raises:
        GrammarError: no token may follow.
        UpstreamError: the upstream failed.
    """
    drawn: list[int] = []
    is_first, is_refused = True, False
    while True:
        # No chunk before the first response. Log-probabilities are known only of tokens that were drawn.
        if guide.forced and not is_first and not job.want_logprobs:
            is_refused = False
            forced = guide.forced[: job.max_tokens - len(drawn)]
            for token in forced:
                guide.accept_token(token)
            drawn += forced
            yield Chunk(forced)
        if drawn and drawn[-1] in job.stop_ids:
            yield Chunk(finish_reason="stop")
            return
        left = job.max_tokens - len(drawn)
        if left <= 0:
            yield Chunk(finish_reason="length")
            return
        only = guide.compute_allowed_tokens() if is_refused else None
        rest = msgspec.structs.replace(
            job,
            grammar=None,
            token_ids=job.token_ids + drawn,
            max_tokens=left if only is None else 1,
            sampling=_continue_sampling(job, len(drawn)),
        )
        before = len(drawn)
        is_refused = is_cut = False
        async with aclosing(ask(rest, only)) as chunks:
            async for chunk in chunks:
                taken = _count_accepted(guide, chunk.token_ids)
                is_refused = taken < len(chunk.token_ids)
                drawn += chunk.token_ids[:taken]
                # Later requests hit the cache that the first one has filled.
                yield Chunk(
                    chunk.token_ids[:taken],
                    chunk.logprobs and chunk.logprobs[:taken],
                    cached_tokens=chunk.cached_tokens if is_first else None,
                )
                if (
                    chunk.finish_reason == "stop"
                    and not is_refused
                    and (not drawn or drawn[-1] not in job.stop_ids)
                ):
                    end = next((token for token in job.stop_ids if guide.accept_token(token)), None)
                    is_refused = end is None
                    if end is not None:
                        drawn.append(end)
                        yield Chunk([end], None if chunk.logprobs is None else [0.0])
                is_cut = chunk.finish_reason == "length" and only is None
                if is_refused or is_cut or (drawn and drawn[-1] in job.stop_ids):
                    break
        if is_cut and not is_refused:
            yield Chunk(finish_reason="length")
            return
        is_first = False
        if only is not None and len(drawn) == before:
            raise UpstreamError("it draws tokens that it was told not to")


def _count_accepted(guide: GrammarMatcher, token_ids: list[int]) -> int:
    """Number of leading tokens that the grammar allows."""
    for i, token in enumerate(token_ids):
        if not guide.accept_token(token):
            return i
    return len(token_ids)


def _continue_sampling(job: Job, drawn: int) -> Sampling:
    """Sampling settings of a follow-up request: the same seed would repeat its random numbers."""
    sampling = job.sampling
    if sampling.seed is None or not drawn:
        return sampling
    return msgspec.structs.replace(sampling, seed=(sampling.seed + drawn) % 2**32)
