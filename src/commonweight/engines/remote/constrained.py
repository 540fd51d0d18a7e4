"""Answers that are held to a grammar although the server knows none.

A token is drawn freely there and checked here. At the first that the grammar does not allow, the answer is broken
off; what may come instead, and nothing else, is drawn once, and the answer goes on from there. That is distributed
as if all tokens had been masked (see ``engines.grammars``), and costs nothing while a model keeps to the grammar
by itself.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from commonweight.engines.contract import Job, Sampling
from commonweight.engines.grammars import Guide, TokenIds
from commonweight.engines.remote.backend import Chunk, UpstreamError

Ask = Callable[[Job, TokenIds | None], AsyncGenerator[Chunk]]
"""Has a job answered; with tokens of which alone one may be drawn."""


async def constrain(job: Job, guide: Guide, ask: Ask) -> AsyncGenerator[Chunk]:
    """The answer to a job, held to a grammar. The token that ends it is always among its tokens.

    Raises:
        GrammarError: no token may follow.
        PlaceError: the server failed.
    """
    drawn: list[int] = []
    is_first, is_refused = True, False
    while True:
        # Nothing is said before a server has answered. How likely a token was is known only if it was drawn.
        if guide.forced and not is_first and not job.want_logprobs:
            is_refused = False
            forced = guide.forced[: job.max_tokens - len(drawn)]
            for token in forced:
                guide.try_accept(token)
            drawn += forced
            yield Chunk(forced)
        if drawn and drawn[-1] in job.stop_ids:
            yield Chunk(finish_reason="stop")
            return
        left = job.max_tokens - len(drawn)
        if left <= 0:
            yield Chunk(finish_reason="length")
            return
        only = guide.find_allowed() if is_refused else None
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
                # What later requests find in the cache, the first one has left there.
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
                    end = next((token for token in job.stop_ids if guide.try_accept(token)), None)
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


def _count_accepted(guide: Guide, token_ids: list[int]) -> int:
    """How many of the tokens the grammar allows, from the first on."""
    for i, token in enumerate(token_ids):
        if not guide.try_accept(token):
            return i
    return len(token_ids)


def _continue_sampling(job: Job, drawn: int) -> Sampling:
    """Settings to go on with: a seed would give the same numbers again."""
    sampling = job.sampling
    if sampling.seed is None or not drawn:
        return sampling
    return msgspec.structs.replace(sampling, seed=(sampling.seed + drawn) % 2**32)
